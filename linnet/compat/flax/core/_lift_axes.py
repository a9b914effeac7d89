"""`vmap` and `scan` for functions of scopes."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, Union

import jax

from linnet.compat.flax.core import axes_scan, meta
from linnet.compat.flax.core._filter import (
    CollectionFilter,
    PRNGSequenceFilter,
    intersect_filters,
    is_filter_empty,
)
from linnet.compat.flax.core._pack import pack

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class In(Generic[T]):
    """An axis of inputs only.

    Args:
        axis: The axis.
    """

    axis: T


@dataclasses.dataclass(frozen=True)
class Out(Generic[T]):
    """An axis of outputs only.

    Args:
        axis: The axis.
    """

    axis: T


InOutAxis = Union[int | None, In[int | None], Out[int | None]]  # noqa: UP007
InOutScanAxis = Union[int, In[int], Out[int]]  # noqa: UP007


def _split(groups: Any, size: int) -> Any:
    """Streams with a key for each entry; what is still to be folded in stays."""
    return jax.tree.map(lambda key: jax.random.split(key, size), groups)


def _is_axis(x: Any) -> bool:
    return x is None or isinstance(x, In | Out) or x is axes_scan.broadcast


def _in_axis(axis: Any) -> Any:
    if isinstance(axis, In):
        return axis.axis
    return None if isinstance(axis, Out) else axis


def _out_axis(axis: Any) -> Any:
    if isinstance(axis, Out):
        return axis.axis
    return None if isinstance(axis, In) else axis


def _lost_axes(groups: Any, axes: Sequence[Any], params: dict[Any, Any]) -> Any:
    """The boxes of mapped collections as they are inside."""
    return tuple(
        group if axis is None else meta.remove_axis(group, axis, params)
        for group, axis in zip(groups, axes, strict=True)
    )


def _gained_axes(groups: Any, axes: Sequence[Any], params: dict[Any, Any]) -> Any:
    """The boxes of mapped collections as they are outside."""
    return tuple(
        group if axis is None else meta.add_axis(group, axis, params)
        for group, axis in zip(groups, axes, strict=True)
    )


def _one_each(in_axes: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The axes of the arguments; one that is given alone holds for all."""
    if isinstance(in_axes, tuple | list):
        return tuple(in_axes)
    return (in_axes,) * len(args)


def _sizes(axes: Any, tree: Any) -> set[int]:
    """The sizes of mapped axes, from a prefix of axes."""
    sizes: set[int] = set()

    def of(axis: Any, part: Any) -> None:
        if axis is not None and axis is not axes_scan.broadcast:
            sizes.update(x.shape[axis] for x in jax.tree.leaves(part))

    jax.tree.map(of, axes, tree, is_leaf=_is_axis)
    return sizes


def _only_size(sizes: set[int], name: str, option: str) -> int:
    if len(sizes) != 1:
        raise ValueError(
            f"{option} should be specified manually: {name} finds "
            f"{'no mapped axis' if not sizes else f'axes of sizes {sorted(sizes)}'} in "
            f"its arguments and variables."
        )
    return sizes.pop()


def vmap(
    fn: Callable[..., Any],
    variable_axes: Mapping[CollectionFilter, InOutAxis],
    split_rngs: Mapping[PRNGSequenceFilter, bool],
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_size: int | None = None,
    axis_name: str | None = None,
    spmd_axis_name: str | None = None,
    metadata_params: dict[Any, Any] = {},  # noqa: B006
) -> Callable[..., Any]:
    """`jax.vmap` of `fn(scope, *args)`.

    Args:
        fn: The function for one entry.
        variable_axes: For collections the axis that is mapped; `None` to share.
        split_rngs: For random streams whether each entry gets a key of its own.
        in_axes: As in `jax.vmap`, for the arguments after the scope.
        out_axes: As in `jax.vmap`.
        axis_size: The size of the mapped axis, where no argument tells.
        axis_name: As in `jax.vmap`.
        spmd_axis_name: As in `jax.vmap`.
        metadata_params: What boxes are told about the axis.
    """
    in_variable_axes = [_in_axis(axis) for axis in variable_axes.values()]
    out_variable_axes = [_out_axis(axis) for axis in variable_axes.values()]
    splits = list(split_rngs.values())

    def inner(scope_fn: Any, repack: Any, variables: Any, rngs: Any, *args: Any) -> Any:
        arg_axes = _one_each(in_axes, args)
        if len(arg_axes) != len(args):
            raise ValueError(
                f"vmap in_axes must have one entry for each argument: {len(args)} "
                f"arguments, in_axes={in_axes}."
            )
        variables = _lost_axes(variables, in_variable_axes, metadata_params)
        size = axis_size
        if size is None:
            sizes = _sizes(arg_axes, args) | _sizes(tuple(in_variable_axes), variables)
            size = _only_size(sizes, "vmap", "axis_size")
        rngs = tuple(
            _split(group, size) if split else group
            for group, split in zip(rngs, splits, strict=True)
        )

        def mapped(variables: Any, rngs: Any, args: Any) -> Any:
            scope = scope_fn(variables, rngs)
            y = fn(scope, *args)
            return y, repack(scope)

        run = jax.vmap(
            mapped,
            in_axes=(
                tuple(in_variable_axes),
                tuple(0 if split else None for split in splits),
                arg_axes,
            ),
            out_axes=(out_axes, tuple(out_variable_axes)),
            axis_size=size,
            axis_name=axis_name,
            spmd_axis_name=spmd_axis_name,
        )
        y, out = run(variables, rngs, args)
        return y, _gained_axes(out, out_variable_axes, metadata_params)

    return pack(
        inner, tuple(variable_axes), tuple(variable_axes), tuple(split_rngs), "vmap"
    )


def scan(
    fn: Callable[..., Any],
    variable_axes: Mapping[CollectionFilter, InOutScanAxis] = {},
    variable_broadcast: CollectionFilter = False,
    variable_carry: CollectionFilter = False,
    split_rngs: Mapping[PRNGSequenceFilter, bool] = {},
    in_axes: Any = 0,
    out_axes: Any = 0,
    length: int | None = None,
    reverse: bool = False,
    unroll: int = 1,
    _split_transpose: bool = False,
    data_transform: Callable[..., Any] | None = None,
    metadata_params: dict[Any, Any] = {},  # noqa: B006
    check_constancy_invariants: bool = True,
) -> Callable[..., Any]:
    """`jax.lax.scan` of `fn(scope, carry, *args) -> (carry, outputs)`.

    Args:
        fn: One step.
        variable_axes: For collections the axis along which each step has its slice.
        variable_broadcast: Collections that are the same in each step.
        variable_carry: Collections that are handed from step to step.
        split_rngs: For random streams whether each step gets a key of its own.
        in_axes: For each argument after the carry its axis, or `broadcast`.
        out_axes: The axis along which outputs are stacked.
        length: The number of steps, where no argument tells.
        reverse: Whether the last slice comes first.
        unroll: As in `jax.lax.scan`.
        data_transform: Applied in each step to the groups of variables and streams.
        metadata_params: What boxes are told about the axis.
        check_constancy_invariants: Whether broadcast variables that a step makes
            must be shown to depend on nothing in the loop.
    """
    in_variable_axes = [_in_axis(axis) for axis in variable_axes.values()]
    out_variable_axes = [_out_axis(axis) for axis in variable_axes.values()]
    splits = list(split_rngs.values())

    def inner(
        scope_fn: Any, repack: Any, variables: Any, rngs: Any, init: Any, *args: Any
    ) -> Any:
        broadcast_vars, carry_vars, *sliced = variables
        arg_axes = _one_each(in_axes, args)
        sliced = _lost_axes(sliced, in_variable_axes, metadata_params)
        steps = length
        if steps is None:
            sizes = _sizes(arg_axes, args) | _sizes(tuple(in_variable_axes), sliced)
            steps = _only_size(sizes, "scan", "length")
        rngs = tuple(
            _split(group, steps) if split else group
            for group, split in zip(rngs, splits, strict=True)
        )
        rng_axes = tuple(0 if split else axes_scan.broadcast for split in splits)

        def body(made: Any, carry: Any, sliced: Any, rngs: Any, args: Any) -> Any:
            # Steps see what one of them has made, and all that may not be changed.
            broadcast = tuple(
                {**given, **new}
                for given, new in zip(broadcast_vars, made, strict=True)
            )
            carry_vars, carry = carry
            groups = (broadcast, carry_vars, *sliced)
            if data_transform is not None:
                groups, rngs = data_transform(groups, rngs)
            scope = scope_fn(groups, rngs)
            carry, y = fn(scope, carry, *args)
            broadcast_out, carry_out, *sliced_out = repack(scope)
            return broadcast_out, (carry_out, carry), (y, tuple(sliced_out))

        has_constants = makes_constants or bool(jax.tree.leaves(rngs))
        run = axes_scan.scan_of(
            body,
            in_axes=(tuple(in_variable_axes), rng_axes, arg_axes),
            out_axes=(out_axes, tuple(out_variable_axes)),
            finds_constants=check_constancy_invariants and has_constants,
            options={
                "length": steps,
                "reverse": reverse,
                "unroll": unroll,
                "_split_transpose": _split_transpose,
            },
        )
        broadcast_out, (carry_out, carry), (ys, sliced_out) = run(
            broadcast_vars, (carry_vars, init), sliced, rngs, args
        )
        sliced_out = _gained_axes(sliced_out, out_variable_axes, metadata_params)
        return (carry, ys), (broadcast_out, carry_out, *sliced_out)

    filters = (variable_broadcast, variable_carry, *variable_axes)
    packed = pack(inner, filters, filters, tuple(split_rngs), "scan")
    makes_constants = True

    def scanned(scopes: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal makes_constants
        makes_constants = axes_scan.broadcast in jax.tree.leaves(out_axes) or any(
            not is_filter_empty(intersect_filters(scope.mutable, variable_broadcast))
            for scope in jax.tree.leaves(scopes)
        )
        return packed(scopes, *args, **kwargs)

    return scanned
