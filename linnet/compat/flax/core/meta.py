"""Boxes: metadata around an array of a variable, such as names of its axes.

A box is a pytree. Lifted transforms tell it when its array gains or loses an axis, and
whoever asks for a value gets the array without the box.
"""

import abc
import functools
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from linnet.compat.flax import errors, struct
from linnet.compat.flax.core import spmd
from linnet.compat.flax.core._initial import called

A = TypeVar("A")
B = TypeVar("B")
TAxisMetadata = TypeVar("TAxisMetadata", bound="AxisMetadata[Any]")
LogicalNames = tuple[str | None, ...]

PARTITION_NAME = "partition_name"

__all__ = [
    "PARTITION_NAME",
    "AxisMetadata",
    "Partitioned",
    "add_axis",
    "get_global_mesh",
    "get_partition_spec",
    "get_sharding",
    "global_mesh_defined",
    "is_axis_metadata",
    "map_axis_meta",
    "remove_axis",
    "replace_boxed",
    "unbox",
    "with_partitioning",
]


class AxisMetadata(Generic[A], metaclass=abc.ABCMeta):
    """What a box around a value has to offer. Subclass it, and register a pytree."""

    @abc.abstractmethod
    def unbox(self) -> A:
        """The value inside."""

    @abc.abstractmethod
    def replace_boxed(self, val: B) -> "AxisMetadata[B]":
        """The same box around another value."""

    @abc.abstractmethod
    def add_axis(
        self: TAxisMetadata, index: int, params: dict[Any, Any]
    ) -> TAxisMetadata:
        """The box once the array has a new axis at `index`."""

    @abc.abstractmethod
    def remove_axis(
        self: TAxisMetadata, index: int, params: dict[Any, Any]
    ) -> TAxisMetadata:
        """The box once the array has lost the axis at `index`."""


def is_axis_metadata(val: Any) -> bool:
    """Whether the value is a box."""
    return _is_box(type(val))


_is_box: Callable[[Any], bool] = functools.lru_cache(maxsize=1024)(
    lambda cls: issubclass(cls, AxisMetadata)
)


def map_axis_meta(fn: Callable[[AxisMetadata[Any]], Any], tree: Any) -> Any:
    """The tree with `fn` of each box in it, and other leaves as they are."""
    leaves, structure = jax.tree.flatten(tree, is_leaf=is_axis_metadata)
    if not any(map(is_axis_metadata, leaves)):
        return tree
    return structure.unflatten(fn(x) if is_axis_metadata(x) else x for x in leaves)


def add_axis(tree: Any, index: int, params: dict[Any, Any]) -> Any:
    """The tree once its arrays have a new axis."""
    return map_axis_meta(lambda box: box.add_axis(index, params), tree)


def remove_axis(tree: Any, index: int, params: dict[Any, Any]) -> Any:
    """The tree once its arrays have lost an axis."""
    return map_axis_meta(lambda box: box.remove_axis(index, params), tree)


def unbox(tree: Any) -> Any:
    """The tree with the values out of their boxes."""
    if isinstance(tree, jax.Array):
        return tree
    return map_axis_meta(lambda box: unbox(box.unbox()), tree)


def replace_boxed(tree: Any, updates: Any) -> Any:
    """The boxes of `tree` around the values of `updates`."""

    def replaced(box: Any, value: Any) -> Any:
        if not is_axis_metadata(box):
            return value
        return box.replace_boxed(replace_boxed(box.unbox(), value))

    return jax.tree.map(replaced, tree, updates, is_leaf=is_axis_metadata)


def global_mesh_defined() -> bool:
    """Whether a mesh is in force."""
    return get_global_mesh() is not None


def get_global_mesh() -> Any:
    """The mesh in force, concrete or abstract, or None."""
    return spmd.mesh_in_force()


class Partitioned(struct.PyTreeNode, AxisMetadata[A]):
    """An array with a name, or None, for each of its axes.

    Args:
        value: The array.
        names: An axis of the mesh (or None) for each axis of the array.
        mesh: The mesh, if not the one in force.
    """

    value: Any
    names: LogicalNames = struct.field(pytree_node=False)
    mesh: Mesh | None = struct.field(default=None, pytree_node=False)

    def unbox(self, apply_constraint: bool = True) -> Any:
        """The array, constrained to its sharding where a mesh is in force."""
        if not apply_constraint or not (global_mesh_defined() or self.mesh is not None):
            return self.value
        spec = self.get_partition_spec()
        if self.mesh is None:
            return spmd.constrain(self.value, spec)
        return jax.lax.with_sharding_constraint(
            self.value, NamedSharding(self.mesh, spec)
        )

    def replace_boxed(self, val: B) -> "Partitioned[B]":
        """The same names around another array."""
        replaced: Any = self.replace(value=val)
        return replaced

    def _axis_name(self, params: dict[Any, Any]) -> str | None:
        if PARTITION_NAME not in params:
            raise errors.PartitioningUnspecifiedError(self)
        return params[PARTITION_NAME]

    def add_axis(self, index: int, params: dict[Any, Any]) -> "Partitioned[Any]":
        """The names with that of a new axis among them."""
        name = self._axis_name(params)
        names = list(self.names)
        names.extend([None] * (index - len(names)))
        names.insert(index, name)
        return self.replace(names=tuple(names))

    def remove_axis(self, index: int, params: dict[Any, Any]) -> "Partitioned[Any]":
        """The names without that of the axis that was lost."""
        name = self._axis_name(params)
        names = list(self.names)
        removed = names.pop(index)
        assert removed == name, (
            f"The axis at {index} is named {removed!r}, and {name!r} was to be removed."
        )
        return self.replace(names=tuple(names))

    def get_partition_spec(self) -> PartitionSpec:
        """The names as a partition spec."""
        return PartitionSpec(*self.names)

    def get_sharding(self, mesh: Mesh) -> jax.sharding.Sharding:
        """The names as a sharding over a mesh."""
        return NamedSharding(mesh, self.get_partition_spec())

    def to_nnx_metadata(self) -> dict[str, Any]:
        """The metadata as a dict, in the keys that NNX uses."""
        metadata = dict(vars(self))
        metadata["out_sharding"] = metadata.pop("names")
        metadata.pop("value")
        return metadata

    @classmethod
    def from_nnx_metadata(cls, metadata: dict[str, Any]) -> "Partitioned[Any]":
        """A box from a dict in the keys that NNX uses."""
        names: Any = metadata.get("out_sharding", metadata.get("sharding_names"))
        known = {"value": metadata.get("value"), "mesh": metadata.get("mesh")}
        return cls(names=names, **known)


def with_partitioning(
    fn: Callable[..., Any], names: LogicalNames, mesh: Mesh | None = None
) -> Callable[..., Partitioned[Any]]:
    """An initialiser whose array comes in a `Partitioned` box with these names."""

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Partitioned[Any]:
        return Partitioned(called(fn, *args, **kwargs), names, mesh=mesh)

    return wrapper


def _is_box_or_leaf(x: Any) -> bool:
    return isinstance(x, Partitioned)


def get_partition_spec(tree: Any) -> Any:
    """The tree of partition specs: of boxes by name, of other arrays replicated."""

    def spec(x: Any) -> PartitionSpec | None:
        if isinstance(x, Partitioned):
            return x.get_partition_spec()
        return PartitionSpec() if hasattr(x, "shape") else None

    return jax.tree.map(spec, tree, is_leaf=_is_box_or_leaf)


def get_sharding(tree: Any, mesh: Mesh) -> Any:
    """The tree of shardings: of boxes by name, of other arrays replicated."""

    def sharding(x: Any) -> jax.sharding.Sharding | None:
        if isinstance(x, Partitioned):
            return x.get_sharding(mesh)
        return NamedSharding(mesh, PartitionSpec()) if hasattr(x, "shape") else None

    return jax.tree.map(sharding, tree, is_leaf=_is_box_or_leaf)
