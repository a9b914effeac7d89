"""Axis names in a collection of their own, as older code keeps them.

A parameter `kernel` has its names in the collection `params_axes`, as `kernel_axes`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

from linnet.compat.flax import struct
from linnet.compat.flax.core import lift
from linnet.compat.flax.core._filter import CollectionFilter, PRNGSequenceFilter
from linnet.compat.flax.core.frozen_dict import freeze, unfreeze
from linnet.compat.flax.core.scope import Variable
from linnet.compat.flax.core.spmd import (
    get_logical_axis_rules as get_axis_rules,
)
from linnet.compat.flax.core.spmd import (
    logical_axis_rules as axis_rules,
)
from linnet.compat.flax.core.spmd import (
    set_logical_axis_rules as set_axis_rules,
)
from linnet.compat.flax.linen import transforms
from linnet.compat.flax.linen._context import context
from linnet.compat.flax.linen.spmd import (
    LogicalRules,
    RulesFallback,
    logical_to_mesh,
    logical_to_mesh_axes,
)
from linnet.compat.flax.linen.spmd import (
    with_logical_constraint as with_sharding_constraint,
)
from linnet.compat.flax.traverse_util import flatten_dict, unflatten_dict
from linnet.compat.flax.typing import (
    Array,
    ArrayPytree,
    InOutAxis,
    InOutScanAxis,
    LogicalPartitionSpec,
    LogicalPartitionSpecPytree,
    PartitionSpecPytree,
)
from linnet.compat.flax.typing import In as ScanIn
from linnet.compat.flax.typing import Out as ScanOut

__all__ = [
    "Array",
    "ArrayPytree",
    "AxisMetadata",
    "LogicalPartitionSpec",
    "LogicalPartitionSpecPytree",
    "LogicalRules",
    "PartitionSpecPytree",
    "PartitionedVariable",
    "RulesFallback",
    "ScanIn",
    "ScanOut",
    "axis_rules",
    "core_remat_static",
    "freeze",
    "get_axis_names",
    "get_axis_rules",
    "logical_to_mesh",
    "logical_to_mesh_axes",
    "param_with_axes",
    "remat",
    "scan_with_axes",
    "set_axis_rules",
    "unfreeze",
    "variable_with_axes",
    "vmap_with_axes",
    "with_sharding_constraint",
]


@struct.dataclass
class AxisMetadata:
    """The names of the axes of an array.

    Args:
        names: A name, or None, for each; or a tree of those, for a tree of arrays.
    """

    names: Any = struct.field(pytree_node=False)


def _is_names(x: Any) -> bool:
    """Whether these are the names of one array's axes."""
    return isinstance(x, tuple) and all(n is None or isinstance(n, str) for n in x)


def _map_names(fn: Callable[[Any], Any], names: Any) -> Any:
    """A function of the names of each array in a tree of those."""
    return jax.tree.map(
        lambda x: fn(x) if _is_names(x) else x, names, is_leaf=_is_names
    )


def _join(old: Any, new: Any) -> Any:
    """The names, which have to be the same each time.

    Raises:
        ValueError: They are not.
    """
    if old is not None and old != new:
        raise ValueError(
            f"The axis names of a shared parameter differ: {old} and {new}. Give the "
            f"same ones at each place."
        )
    return new


def _module(module: Any) -> Any:
    module = module or context.module_stack[-1]
    assert module is not None, "axes are given inside of a module, or with module=..."
    return module


def param_with_axes(
    name: str,
    init_fn: Callable[..., Any],
    *init_args: Any,
    axes: Sequence[str | None] | None = None,
    module: Any = None,
    **init_kwargs: Any,
) -> Any:
    """A parameter whose axes have logical names.

    Args:
        name: Its name.
        init_fn: Makes it.
        *init_args: Of the initialiser.
        axes: A name, or None, for each axis.
        module: By default the one at work.
        **init_kwargs: Of the initialiser.
    """
    module = _module(module)
    value = module.param(name, init_fn, *init_args, **init_kwargs)
    if axes is not None:
        value = with_sharding_constraint(value, PartitionSpec(*axes))
        module.sow(
            "params_axes",
            f"{name}_axes",
            AxisMetadata(axes),
            reduce_fn=_join,
            init_fn=lambda: None,
        )
    return value


class PartitionedVariable(Variable[Any]):
    """A variable that is constrained to how its names say that it lies.

    Args:
        scope: Where it lives.
        collection: Its collection.
        name: Its name.
        axes: The names of its axes.
        fallback: What happens to a name without a rule.
    """

    def __init__(
        self,
        scope: Any,
        collection: str,
        name: str,
        axes: Any = None,
        fallback: RulesFallback = RulesFallback.AXIS_IS_UNSHARDED,
    ):
        super().__init__(scope, collection, name, unbox=True)
        self.axes = axes
        self.fallback = fallback

    @property
    def value(self) -> Any:
        """The value, which can be set where the collection is mutable."""
        return self._placed(self.scope.get_variable(self.collection, self.name))

    @value.setter
    def value(self, value: Any) -> None:
        self.scope.put_variable(self.collection, self.name, self._placed(value))

    def _placed(self, value: Any) -> Any:
        if self.axes is None:
            return value
        return with_sharding_constraint(
            value, PartitionSpec(*self.axes), fallback=self.fallback
        )


def variable_with_axes(
    collection: str,
    name: str,
    init_fn: Callable[..., Any],
    *init_args: Any,
    axes: Sequence[str | None] | None = None,
    module: Any = None,
    fallback: RulesFallback = RulesFallback.AXIS_IS_UNSHARDED,
    **init_kwargs: Any,
) -> PartitionedVariable:
    """A variable whose axes have logical names; arguments as `param_with_axes`."""
    module = _module(module)
    module.variable(collection, name, init_fn, *init_args, **init_kwargs)
    if axes is not None:
        module.sow(
            f"{collection}_axes",
            f"{name}_axes",
            AxisMetadata(axes),
            reduce_fn=_join,
            init_fn=lambda: None,
        )
    return PartitionedVariable(module.scope, collection, name, axes, fallback)


def get_axis_names(axes_metadata: Any) -> Any:
    """The names in a collection of axes, as partition specs by variable."""

    def is_names(path: Any, x: Any) -> bool:
        return isinstance(x, AxisMetadata)

    flat = flatten_dict(unfreeze(axes_metadata), is_leaf=is_names)
    found = {
        (*path[:-1], path[-1].removesuffix("_axes")): _map_names(
            lambda names: PartitionSpec(*names), x.names
        )
        for path, x in flat.items()
    }
    return freeze(unflatten_dict(found))


# ---- transforms, which name the axis that they add


def _with_axis(name: str | None, place: int) -> tuple[Any, Any]:
    """(inside from outside, outside from inside), for collections of names."""

    def change(tree: Any, edit: Callable[[list[Any]], None]) -> Any:
        def edited(names: Any) -> Any:
            names = list(names)
            edit(names)
            return tuple(names)

        def of(x: Any) -> Any:
            return AxisMetadata(_map_names(edited, x.names))

        return jax.tree.map(of, tree, is_leaf=lambda x: isinstance(x, AxisMetadata))

    def inside(tree: Any) -> Any:
        return change(tree, lambda names: names.remove(name) if name in names else None)

    def outside(tree: Any) -> Any:
        return change(tree, lambda names: names.insert(place, name))

    return inside, outside


def scan_with_axes(
    target: Any,
    variable_axes: Mapping[CollectionFilter, InOutScanAxis] = {},
    variable_broadcast: CollectionFilter = False,
    variable_carry: CollectionFilter = False,
    split_rngs: Mapping[PRNGSequenceFilter, bool] = {},
    in_axes: Any = 0,
    out_axes: Any = 0,
    length: int | None = None,
    reverse: bool = False,
    unroll: int = 1,
    axis_name: str = "layers",
    axes_collections: Sequence[str] = ("params",),
    data_transform: Callable[..., Any] | None = None,
    methods: Any = None,
) -> Any:
    """`nn.scan` that puts the name of the new axis among those of variables.

    Args:
        axis_name: The name.
        axes_collections: The collections whose names change.
    """
    named = {f"{col}_axes": variable_axes.get(col, 0) for col in axes_collections}
    scanned = transforms.scan(
        target,
        variable_axes=variable_axes,
        variable_broadcast=lift.union_filters(variable_broadcast, tuple(named)),
        variable_carry=variable_carry,
        split_rngs=split_rngs,
        in_axes=in_axes,
        out_axes=out_axes,
        length=length,
        reverse=reverse,
        unroll=unroll,
        data_transform=data_transform,
        methods=methods,
    )
    for collection, axis in named.items():
        inside, outside = _with_axis(axis_name, axis if isinstance(axis, int) else 0)
        scanned = transforms.map_variables(
            scanned, collection, inside, outside, mutable=True, methods=methods
        )
    return scanned


def vmap_with_axes(
    target: Any,
    variable_axes: Mapping[CollectionFilter, InOutAxis],
    split_rngs: Mapping[PRNGSequenceFilter, bool] = {},
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_size: int | None = None,
    axis_name: str | None = None,
    partitioning_axis_names: Mapping[Any, str] = {},
    spmd_axis_name: str | None = None,
    methods: Any = None,
) -> Any:
    """`nn.vmap` that puts the name of the new axis among those of variables.

    Args:
        partitioning_axis_names: For collections the name.
    """
    named = {f"{col}_axes": name for col, name in partitioning_axis_names.items()}
    mapped = transforms.vmap(
        target,
        variable_axes={**variable_axes, **dict.fromkeys(named, None)},
        split_rngs=split_rngs,
        in_axes=in_axes,
        out_axes=out_axes,
        axis_size=axis_size,
        axis_name=axis_name,
        spmd_axis_name=spmd_axis_name,
        methods=methods,
    )
    for collection, name in named.items():
        axis = variable_axes.get(collection.removesuffix("_axes"), 0)
        inside, outside = _with_axis(name, axis if isinstance(axis, int) else 0)
        mapped = transforms.map_variables(
            mapped, collection, inside, outside, mutable=True, methods=methods
        )
    return mapped


def core_remat_static(
    fn: Callable[..., Any],
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
    concrete: bool = False,
    prevent_cse: bool = True,
    static_argnums: int | tuple[int, ...] = (),
    policy: Callable[..., bool] | None = None,
) -> Callable[..., Any]:
    """`linnet.compat.flax.core.lift.checkpoint`, under its older name."""
    return lift.checkpoint(
        fn, variables, rngs, concrete, prevent_cse, static_argnums, policy
    )


def remat(
    target: Any,
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
    concrete: bool = False,
    prevent_cse: bool = True,
    static_argnums: int | tuple[int, ...] = (),
    policy: Callable[..., bool] | None = None,
    methods: Any = None,
) -> Any:
    """`nn.remat`, under its older name."""
    return transforms.remat(
        target,
        variables=variables,
        rngs=rngs,
        concrete=concrete,
        prevent_cse=prevent_cse,
        static_argnums=static_argnums,
        policy=policy,
        methods=methods,
    )
