"""Logical names of axes, and what they mean for a mesh."""

import dataclasses
import enum
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from linnet.compat.flax import struct
from linnet.compat.flax.core import meta
from linnet.compat.flax.core._initial import called
from linnet.compat.flax.core.spmd import (
    constrain,
    get_logical_axis_rules,
    logical_axis_rules,
    mesh_in_force,
    set_logical_axis_rules,
)
from linnet.compat.flax.typing import (
    Array,
    ArrayPytree,
    LogicalNames,
    LogicalPartitionSpec,
    LogicalPartitionSpecPytree,
    LogicalRules,
)

__all__ = [
    "Array",
    "ArrayPytree",
    "LogicalNames",
    "LogicalPartitionSpec",
    "LogicalPartitionSpecPytree",
    "LogicalRules",
    "LogicallyPartitioned",
    "RulesFallback",
    "get_logical_axis_rules",
    "logical_axis_rules",
    "logical_to_mesh",
    "logical_to_mesh_axes",
    "logical_to_mesh_sharding",
    "set_logical_axis_rules",
    "with_logical_constraint",
    "with_logical_partitioning",
]


class _UnassignedAxis:
    """Marks a name for which no rule could be used."""

    def __repr__(self) -> str:
        return "UnassignedAxis"

    def __bool__(self) -> bool:
        return False


_unassigned = _UnassignedAxis()


class RulesFallback(enum.Enum):
    """What happens to a name without a rule."""

    AXIS_IS_UNSHARDED = "axis_is_unsharded"
    RAISE_ERROR = "raise_error"
    NO_CONSTRAINT = "no_constraint"


def _assigned(names: Sequence[Any], rules: LogicalRules) -> list[Any]:
    """The mesh axes for each name: the first rules come first, and no axis twice."""
    free = PartitionSpec.UNCONSTRAINED
    named = [name for name in names if name is not None and name is not free]
    if len(set(named)) < len(named):
        twice = tuple(name for name in dict.fromkeys(named) if named.count(name) > 1)
        raise ValueError(
            f"Unsupported: Dimensions {twice} occur more than once in array names."
        )
    result: list[Any] = [
        _unassigned if isinstance(name, str) else name for name in names
    ]
    for rule_name, mesh_names in rules:
        if rule_name not in names:
            continue
        at = names.index(rule_name)
        parts: tuple[str, ...] = ()
        if mesh_names is not None and mesh_names is not free:
            parts = (mesh_names,) if isinstance(mesh_names, str) else tuple(mesh_names)
        used = {
            axis
            for entry in result
            if isinstance(entry, str | tuple)
            for axis in ((entry,) if isinstance(entry, str) else entry)
        }
        if result[at] is _unassigned and not used.intersection(parts):
            result[at] = mesh_names
    return result


def logical_to_mesh_axes(
    array_dim_names: Sequence[str | None] | None, rules: LogicalRules | None = None
) -> PartitionSpec | None:
    """The partition spec for logical names.

    Args:
        array_dim_names: A name, or None, for each axis.
        rules: (logical name, mesh axes) pairs, of which the first that fits is used;
            by default those in force.
    """
    if array_dim_names is None:
        return None
    rules = get_logical_axis_rules() if rules is None else rules
    found = _assigned(array_dim_names, rules)
    return PartitionSpec(*(None if part is _unassigned else part for part in found))


def logical_to_mesh(tree: Any, rules: LogicalRules | None = None) -> Any:
    """A tree of logical partition specs as one of partition specs."""
    return jax.tree.map(
        lambda names: logical_to_mesh_axes(names, rules),
        tree,
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )


def logical_to_mesh_sharding(
    tree: Any, mesh: Mesh, rules: LogicalRules | None = None
) -> Any:
    """A tree of logical partition specs as one of shardings over a mesh."""
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        logical_to_mesh(tree, rules),
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )


def _with_sharding_constraint(
    x: Array, axis_resources: PartitionSpec | None, mesh: Mesh | None = None
) -> Array:
    """The array constrained over `mesh`, or the one in force; without either, as is."""
    if axis_resources is None or (mesh is None and mesh_in_force() is None):
        return x
    if mesh is not None:
        sharding = NamedSharding(mesh, axis_resources)
        return jax.lax.with_sharding_constraint(x, sharding)
    return constrain(x, axis_resources)


def _constrained(
    x: Array,
    names: Any,
    fallback: RulesFallback,
    rules: LogicalRules | None = None,
    mesh: Mesh | None = None,
) -> Array:
    rules = get_logical_axis_rules() if rules is None else rules
    found = _assigned(names, rules)
    if any(part is _unassigned for part in found):
        if fallback is RulesFallback.RAISE_ERROR:
            raise ValueError(f"Axis names {names} did not match a rule")
        if fallback is RulesFallback.NO_CONSTRAINT:
            return x
        found = [None if part is _unassigned else part for part in found]
    return _with_sharding_constraint(x, PartitionSpec(*found), mesh=mesh)


def with_logical_constraint(
    x: ArrayPytree,
    logical_axis_resources: LogicalPartitionSpecPytree,
    rules: LogicalRules | None = None,
    mesh: Mesh | None = None,
    fallback: RulesFallback = RulesFallback.AXIS_IS_UNSHARDED,
) -> Any:
    """Arrays constrained to how logical names say that they lie on the mesh.

    Args:
        x: Arrays.
        logical_axis_resources: Names for their axes; None to leave an array as it is.
        rules: By default those in force.
        mesh: By default the one in force.
        fallback: What happens to a name without a rule.
    """
    rules = get_logical_axis_rules() if rules is None else rules
    if not rules or logical_axis_resources is None:
        return x
    return jax.tree.map(
        lambda names, leaf: (
            leaf if names is None else _constrained(leaf, names, fallback, rules, mesh)
        ),
        logical_axis_resources,
        x,
        is_leaf=_is_logical_spec,
    )


def _is_logical_spec(x: Any) -> bool:
    if x is None:
        return True
    return isinstance(x, tuple) and all(
        isinstance(n, str) or n in (None, PartitionSpec.UNCONSTRAINED) for n in x
    )


class LogicallyPartitioned(meta.Partitioned[Any]):
    """An array with a logical name, or None, for each of its axes.

    Args:
        value: The array.
        names: The names.
        mesh: The mesh, if not the one in force.
        rules: The rules, if not those in force.
    """

    rules: LogicalRules | None = struct.field(default=None, pytree_node=False)

    def unbox(self, apply_constraint: bool = True) -> Any:
        """The array, constrained to its sharding where a mesh is in force."""
        if apply_constraint and (mesh_in_force() is not None or self.mesh is not None):
            return with_logical_constraint(
                self.value, self.get_partition_spec(), rules=self.rules, mesh=self.mesh
            )
        return self.value

    def to_nnx_metadata(self) -> dict[str, Any]:
        """The metadata as a dict, in the keys that NNX uses."""
        metadata = super().to_nnx_metadata()
        if "rules" in metadata:
            metadata["sharding_rules"] = metadata.pop("rules")
        return metadata

    @classmethod
    def from_nnx_metadata(cls, metadata: dict[str, Any]) -> "LogicallyPartitioned":
        """A box from a dict in the keys that NNX uses."""
        fields = {field.name for field in dataclasses.fields(cls)}
        known = {key: value for key, value in metadata.items() if key in fields}
        known["names"] = metadata.get("out_sharding", metadata.get("sharding_names"))
        known["rules"] = metadata.get("sharding_rules")
        known.setdefault("value", None)
        return cls(**known)


def with_logical_partitioning(
    fn: Callable[..., Any],
    names: LogicalNames,
    mesh: Mesh | None = None,
    rules: LogicalRules | None = None,
) -> Callable[..., LogicallyPartitioned]:
    """An initialiser whose array comes with logical names."""

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> LogicallyPartitioned:
        value = called(fn, *args, **kwargs)
        return LogicallyPartitioned(value, names, mesh=mesh, rules=rules)

    return wrapper
