"""JAX's transforms for functions of scopes.

Each takes a function whose first argument is a scope (or a tree of scopes) and hands
collections and random streams through the transform of JAX of the same name.
"""

import collections
import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import jax

from linnet.compat.flax.core import axes_scan, meta
from linnet.compat.flax.core._filter import (
    CollectionFilter,
    DenyList,
    Filter,
    PRNGSequenceFilter,
    group_collections,
    in_filter,
    intersect_filters,
    is_filter_empty,
    subtract_filters,
    union_filters,
)
from linnet.compat.flax.core._job import Job
from linnet.compat.flax.core._pack import pack
from linnet.compat.flax.core._rng import LazyRng
from linnet.compat.flax.core.frozen_dict import freeze, unfreeze
from linnet.compat.flax.core.scope import Scope
from linnet.compat.flax.typing import In, InOutAxis, InOutScanAxis, Out

A = TypeVar("A")
C = TypeVar("C")

__all__ = [
    "CollectionFilter",
    "CountsHolder",
    "DenyList",
    "Filter",
    "In",
    "InOutAxis",
    "InOutScanAxis",
    "LazyRng",
    "Out",
    "PRNGSequenceFilter",
    "Scope",
    "TransformContext",
    "checkpoint",
    "cond",
    "custom_vjp",
    "fold_rngs",
    "freeze",
    "group_collections",
    "id_fn",
    "in_filter",
    "intersect_filters",
    "is_filter_empty",
    "jit",
    "jvp",
    "map_variables",
    "pack",
    "remat",
    "remat_scan",
    "scan",
    "set_from_dict",
    "subtract_filters",
    "swap_collection",
    "switch",
    "tree_map_rngs",
    "unfreeze",
    "union_filters",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
]


def id_fn(x: Any) -> Any:
    """Its argument."""
    return x


def tree_map_rngs(fn: Callable[..., Any], tree: Any) -> Any:
    """The tree with `fn` of each key or stream."""
    return jax.tree.map(fn, tree, is_leaf=lambda x: isinstance(x, LazyRng))


def _key(rng: Any) -> jax.Array:
    return rng.as_jax_rng() if isinstance(rng, LazyRng) else rng


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


def _sizes(axes: Any, tree: Any) -> set[int]:
    """The sizes of mapped axes, from a prefix of axes."""
    sizes: set[int] = set()

    def of(axis: Any, part: Any) -> None:
        if axis is not None and axis is not axes_scan.broadcast:
            sizes.update(x.shape[axis] for x in jax.tree.leaves(part))

    jax.tree.map(of, axes, tree, is_leaf=_is_axis)
    return sizes


def _only_size(sizes: set[int], given: int | None, name: str, option: str) -> int:
    if given is not None:
        return given
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
        arg_axes = (
            tuple(in_axes)
            if isinstance(in_axes, tuple | list)
            else (in_axes,) * len(args)
        )
        if len(arg_axes) != len(args):
            raise ValueError(
                f"vmap in_axes must have one entry for each argument: {len(args)} "
                f"arguments, in_axes={in_axes}."
            )
        sizes = _sizes(arg_axes, args)
        for axis, group in zip(in_variable_axes, variables, strict=True):
            sizes |= _sizes(axis, group)
        size = _only_size(sizes, axis_size, "vmap", "axis_size")
        rngs = tuple(
            _split(group, size) if split else group
            for group, split in zip(rngs, splits, strict=True)
        )

        variables = _lost_axes(variables, in_variable_axes, metadata_params)

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
        arg_axes = (
            in_axes if isinstance(in_axes, tuple | list) else (in_axes,) * len(args)
        )
        arg_axes = tuple(arg_axes)
        sizes = _sizes(arg_axes, args)
        for axis, group in zip(in_variable_axes, sliced, strict=True):
            sizes |= _sizes(axis, group)
        steps = _only_size(sizes, length, "scan", "length")
        rngs = tuple(
            _split(group, steps) if split else group
            for group, split in zip(rngs, splits, strict=True)
        )
        rng_axes = tuple(0 if split else axes_scan.broadcast for split in splits)
        sliced = _lost_axes(sliced, in_variable_axes, metadata_params)

        def body(
            broadcast_vars: Any, carry: Any, sliced: Any, rngs: Any, args: Any
        ) -> Any:
            carry_vars, carry = carry
            groups = (broadcast_vars, carry_vars, *sliced)
            if data_transform is not None:
                groups, rngs = data_transform(groups, rngs)
            scope = scope_fn(groups, rngs)
            carry, y = fn(scope, carry, *args)
            broadcast_out, carry_out, *sliced_out = repack(scope)
            return broadcast_out, (carry_out, carry), (y, tuple(sliced_out))

        run = axes_scan.scan(
            body,
            in_axes=(tuple(in_variable_axes), rng_axes, arg_axes),
            out_axes=(out_axes, tuple(out_variable_axes)),
            length=steps,
            reverse=reverse,
            unroll=unroll,
            _split_transpose=_split_transpose,
            check_constancy_invariants=check_constancy_invariants,
            _has_constants=makes_constants or bool(jax.tree.leaves(rngs)),
        )
        broadcast_out, (carry_out, carry), (ys, sliced_out) = run(
            broadcast_vars, (carry_vars, init), tuple(sliced), rngs, args
        )
        sliced_out = _gained_axes(sliced_out, out_variable_axes, metadata_params)
        return (carry, ys), (broadcast_out, carry_out, *sliced_out)

    filters = (variable_broadcast, variable_carry, *variable_axes)
    packed = pack(inner, filters, filters, tuple(split_rngs), "scan")
    makes_constants = True

    def scanned(scopes: Any, *args: Any) -> Any:
        nonlocal makes_constants
        makes_constants = axes_scan.broadcast in jax.tree.leaves(out_axes) or any(
            not is_filter_empty(intersect_filters(scope.mutable, variable_broadcast))
            for scope in jax.tree.leaves(scopes)
        )
        return packed(scopes, *args)

    return functools.wraps(fn)(scanned)


def jit(
    fn: Callable[..., Any],
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
    donate_argnums: int | Sequence[int] = (),
    device: Any = None,
    backend: str | None = None,
) -> Callable[..., Any]:
    """`jax.jit` of `fn(scope, *args)`; `static_argnums` counts the scope as 0.

    A compiled program is kept as long as what is returned here, for scopes which agree
    in their paths, mutable collections, flags and counts of random keys drawn.
    """
    shifted = {
        "static_argnums": (0, *_after(static_argnums, 2)),
        "donate_argnums": _after(donate_argnums, 2),
        "static_argnames": static_argnames,
        "device": device,
        "backend": backend,
    }
    options = {key: value for key, value in shifted.items() if value not in (None, ())}
    if static_argnames:
        options["static_argnames"] = static_argnames

    @functools.partial(jax.jit, **options)
    def run(
        job: Job, variable_groups: Any, rng_groups: Any, *args: Any, **kwargs: Any
    ) -> Any:
        scope = job.scope_fn(variable_groups, rng_groups)
        y = fn(scope, *args, **kwargs)
        return y, job.repack(scope), job.counts()

    def inner(
        scope_fn: Any, repack: Any, variable_groups: Any, rng_groups: Any, *args: Any
    ) -> Any:
        *given, kwargs = args
        with Job.of(scope_fn, repack) as job:
            y, out, counts = run(job, variable_groups, rng_groups, *given, **kwargs)
            job.restore(counts)
        return y, out

    return pack(inner, (variables,), (variables,), (rngs,), "jit", True, fold_rngs=True)


def _after(positions: int | Sequence[int], shift: int) -> tuple[int, ...]:
    positions = (positions,) if isinstance(positions, int) else tuple(positions)
    return tuple(i + shift if i >= 0 else i for i in positions)


def checkpoint(
    fn: Callable[..., Any],
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
    concrete: bool = False,
    prevent_cse: bool = True,
    static_argnums: int | Sequence[int] = (),
    policy: Callable[..., bool] | None = None,
) -> Callable[..., Any]:
    """`jax.checkpoint` of `fn(scope, *args)`: its backward pass computes it again."""
    del concrete  # Of no effect in JAX any more.

    def inner(
        scope_fn: Any, repack: Any, variable_groups: Any, rng_groups: Any, *args: Any
    ) -> Any:
        *given, kwargs = args

        @functools.partial(
            jax.checkpoint,
            policy=policy,
            prevent_cse=prevent_cse,
            static_argnums=_after(static_argnums, 1),
        )
        def run(
            variable_groups: Any, rng_groups: Any, *args: Any, **kwargs: Any
        ) -> Any:
            scope = scope_fn(variable_groups, rng_groups)
            y = fn(scope, *args, **kwargs)
            return y, repack(scope)

        return run(variable_groups, rng_groups, *given, **kwargs)

    return pack(inner, (variables,), (variables,), (rngs,), "remat", enable_kwargs=True)


remat = checkpoint


def remat_scan(
    body_fn: Callable[..., Any],
    lengths: Sequence[int],
    policy: Callable[..., bool] | None = None,
    variable_broadcast: CollectionFilter = False,
    variable_carry: CollectionFilter = False,
    variable_axes: Mapping[CollectionFilter, InOutScanAxis] = {True: 0},
    split_rngs: Mapping[PRNGSequenceFilter, bool] = {True: True},
) -> Callable[..., Any]:
    """Nested scans of `body_fn(scope, x) -> x`, each recomputed in the backward pass.

    Args:
        body_fn: One layer.
        lengths: The number of steps on each level; their product is the depth.
    """
    scan_fn = functools.partial(
        scan,
        variable_broadcast=variable_broadcast,
        variable_carry=variable_carry,
        variable_axes=variable_axes,
        split_rngs=split_rngs,
    )
    first, *rest = lengths
    if not rest:

        def layer(scope: Any, carry: Any) -> Any:
            return body_fn(scope, carry), ()

        def run(scope: Any, carry: Any) -> Any:
            return scan_fn(layer, length=first)(scope, carry)[0]

        return run

    @functools.partial(remat, policy=policy, prevent_cse=False)
    def level(scope: Any, carry: Any) -> Any:
        deeper = remat_scan(
            body_fn,
            rest,
            policy,
            variable_broadcast,
            variable_carry,
            variable_axes,
            split_rngs,
        )
        return deeper(scope, carry), ()

    return lambda scope, carry: scan_fn(level, length=first)(scope, carry)[0]


def vjp(
    fn: Callable[..., Any],
    scope: Any,
    *primals: Any,
    has_aux: bool = False,
    reduce_axes: Sequence[str] = (),
    vjp_variables: CollectionFilter = "params",
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> Any:
    """`jax.vjp` of `fn(scope, *primals)`, with respect to variables and arguments.

    Returns:
        (result, backward function[, aux]). The backward function takes a cotangent of
        the result to (cotangents of the variables, *those of the arguments).
    """
    _no_reduce_axes(reduce_axes)

    def inner(
        scope_fn: Any, repack: Any, variable_groups: Any, rng_groups: Any, *args: Any
    ) -> Any:
        vjp_vars, others = variable_groups

        def wrapped(vjp_vars: Any, *args: Any) -> Any:
            scope = scope_fn((vjp_vars, others), rng_groups)
            y = fn(scope, *args)
            y, aux = y if has_aux else (y, None)
            return y, (aux, repack(scope))

        y, backward, (aux, out) = jax.vjp(wrapped, vjp_vars, *args, has_aux=True)
        backward = _of_variables(backward, _is_single(scope))
        return ((y, backward, aux) if has_aux else (y, backward)), out

    return pack(
        inner,
        (vjp_variables, variables),
        (variables,),
        (rngs,),
        "vjp",
    )(scope, *primals)


def _of_variables(backward: Callable[..., Any], single: bool) -> Callable[..., Any]:
    """The backward function whose first result is for one scope, not a tuple."""

    def of_variables(cotangent: Any) -> Any:
        of_scopes, *of_args = backward(cotangent)
        return (of_scopes[0] if single else of_scopes, *of_args)

    return jax.tree_util.Partial(of_variables)


def _is_single(scope: Any) -> bool:
    """Whether there is one scope, alone or in a list."""
    return len(jax.tree.leaves(scope)) == 1


def _no_reduce_axes(reduce_axes: Sequence[str]) -> None:
    if reduce_axes:
        raise NotImplementedError("reduce_axes argument to vjp is deprecated in JAX")


def value_and_grad(
    fn: Callable[..., Any],
    scope: Any,
    *primals: Any,
    has_aux: bool = False,
    reduce_axes: Sequence[str] = (),
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> Any:
    """The value of `fn(scope, *primals)` and its gradient by the arguments.

    Returns:
        (value[, aux], gradients): a gradient for each argument.
    """
    _no_reduce_axes(reduce_axes)

    def inner(
        scope_fn: Any, repack: Any, variable_groups: Any, rng_groups: Any, *args: Any
    ) -> Any:
        def wrapped(*args: Any) -> Any:
            scope = scope_fn(variable_groups, rng_groups)
            y = fn(scope, *args)
            y, aux = y if has_aux else (y, None)
            return y, (aux, repack(scope))

        y, backward, (aux, out) = jax.vjp(wrapped, *args, has_aux=True)
        grads = backward(jax.numpy.ones_like(y))
        return (((y, aux) if has_aux else y), grads), out

    return pack(inner, (variables,), (variables,), (rngs,), "value_and_grad")(
        scope, *primals
    )


def jvp(
    fn: Callable[..., Any],
    scope: Any,
    primals: Any,
    tangents: Any,
    variable_tangents: Any,
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> Any:
    """`jax.jvp` of `fn(scope, *primals)`, along tangents of variables and arguments.

    Args:
        variable_tangents: Collections of tangents; those left out do not change.

    Returns:
        (result, its tangent).
    """

    def inner(
        scope_fn: Any, repack: Any, variable_groups: Any, rng_groups: Any, *args: Any
    ) -> Any:
        jvp_vars, others = variable_groups

        def wrapped(jvp_vars: Any, args: Any) -> Any:
            scope = scope_fn((jvp_vars, others), rng_groups)
            y = fn(scope, *args)
            return y, repack(scope)

        (y, out), (y_t, out_t) = jax.jvp(
            wrapped, (jvp_vars, args), (treat(variable_tangents), tangents)
        )
        del out_t
        return (y, y_t), out

    def treat(tangent: Any) -> Any:
        each = (tangent,) if _is_single(scope) else tuple(tangent)
        return tuple({col: xs for col, xs in of.items() if xs} for of in each)

    target = {col for group in treat(variable_tangents) for col in group}
    return pack(
        inner,
        (target, variables),
        (variables,),
        (rngs,),
        "jvp",
    )(scope, *primals)


def while_loop(
    cond_fn: Callable[..., Any],
    body_fn: Callable[..., Any],
    scope: Any,
    init: Any,
    carry_variables: CollectionFilter = False,
    broadcast_variables: CollectionFilter = True,
    split_rngs: Mapping[PRNGSequenceFilter, bool] = {},
) -> Any:
    """`jax.lax.while_loop` of `cond_fn(scope, carry)` and `body_fn(scope, carry)`.

    Args:
        carry_variables: Collections that steps may change; they have to exist.
        broadcast_variables: Collections that are the same in each step.
        split_rngs: For random streams whether each step gets a key of its own.
    """
    splits = list(split_rngs.values())

    def inner(scope_fn: Any, repack: Any, variable_groups: Any, rng_groups: Any) -> Any:
        carry_vars, broadcast_vars = variable_groups

        def streams(i: Any) -> Any:
            return tuple(
                tree_map_rngs(
                    lambda rng: LazyRng.create(jax.random.fold_in(_key(rng), i)), group
                )
                if split
                else group
                for group, split in zip(rng_groups, splits, strict=True)
            )

        def condition(state: Any) -> Any:
            i, carry_vars, carry = state
            scope = scope_fn((carry_vars, broadcast_vars), streams(-i - 1))
            return cond_fn(scope, carry)

        def body(state: Any) -> Any:
            i, carry_vars, carry = state
            scope = scope_fn((carry_vars, broadcast_vars), streams(i))
            carry = body_fn(scope, carry)
            return i + 1, repack(scope)[0], carry

        zero = jax.numpy.zeros((), jax.numpy.int32)
        _, carry_vars, carry = jax.lax.while_loop(
            condition, body, (zero, carry_vars, init)
        )
        return carry, (carry_vars,)

    return pack(
        inner,
        (carry_variables, broadcast_variables),
        (carry_variables,),
        tuple(split_rngs),
        "while_loop",
    )(scope)


def cond(
    pred: Any,
    true_fun: Callable[..., C],
    false_fun: Callable[..., C],
    scope: Any,
    *operands: Any,
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> C:
    """`jax.lax.cond` of functions of a scope, which change the same variables."""
    return _branches(
        lambda branches, *args: jax.lax.cond(pred, *branches, *args),
        (true_fun, false_fun),
        scope,
        operands,
        variables,
        rngs,
        "cond",
    )


def switch(
    index: Any,
    branches: Sequence[Callable[..., C]],
    scope: Any,
    *operands: Any,
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> C:
    """`jax.lax.switch` of functions of a scope, which change the same variables."""
    return _branches(
        lambda branches, *args: jax.lax.switch(index, branches, *args),
        branches,
        scope,
        operands,
        variables,
        rngs,
        "switch",
    )


def _branches(
    choose: Callable[..., Any],
    branches: Sequence[Callable[..., Any]],
    scope: Any,
    operands: tuple[Any, ...],
    variables: CollectionFilter,
    rngs: PRNGSequenceFilter,
    name: str,
) -> Any:
    def inner(scope_fn: Any, repack: Any, variable_groups: Any, rng_groups: Any) -> Any:
        def branch(fn: Callable[..., Any]) -> Callable[..., Any]:
            def run(variable_groups: Any, rng_groups: Any, *operands: Any) -> Any:
                scope = scope_fn(variable_groups, rng_groups)
                y = fn(scope, *operands)
                return y, repack(scope)

            return run

        return choose(
            [branch(fn) for fn in branches], variable_groups, rng_groups, *operands
        )

    return pack(inner, (variables,), (variables,), (rngs,), name)(scope)


def custom_vjp(
    fn: Callable[..., Any],
    forward_fn: Callable[..., Any],
    backward_fn: Callable[..., Any],
    grad_vars: CollectionFilter = "params",
    nondiff_argnums: Sequence[int] = (),
) -> Callable[..., Any]:
    """`fn(scope, *args)` with a derivative of one's own.

    Args:
        fn: The function.
        forward_fn: `fn` with residuals for the backward pass: `(result, residuals)`.
        backward_fn: `(*nondiff args, residuals, cotangent)` to cotangents of the
            variables and of the arguments.
        grad_vars: The collections that have a gradient.
        nondiff_argnums: Arguments without one, counted from after the scope.
    """

    def inner(
        scope_fn: Any, repack: Any, variable_groups: Any, rng_groups: Any, *args: Any
    ) -> Any:
        grad_variables, others = variable_groups

        def plain(grad_variables: Any, *args: Any) -> Any:
            scope = scope_fn((grad_variables, others), rng_groups)
            y = fn(scope, *args)
            return y, repack(scope)

        def forward(grad_variables: Any, *args: Any) -> Any:
            scope = scope_fn((grad_variables, others), rng_groups)
            y, residuals = forward_fn(scope, *args)
            return (y, repack(scope)), residuals

        def backward(*args: Any) -> Any:
            *fixed, residuals, (y_t, _) = args
            grads, *input_grads = backward_fn(*fixed, residuals, y_t)
            grads = (grads,) if len(grad_variables) == 1 else tuple(grads)
            return (grads, *input_grads)

        run = jax.custom_vjp(plain, nondiff_argnums=tuple(nondiff_argnums))
        run.defvjp(forward, backward)
        return run(grad_variables, *args)

    return pack(inner, (grad_vars, True), (True,), (True,), "custom_vjp")


def map_variables(
    fn: Callable[..., Any],
    mapped_collections: CollectionFilter,
    map_in_fn: Callable[[Any], Any] = id_fn,
    map_out_fn: Callable[[Any], Any] = id_fn,
    init: bool = False,
    mutable: bool = False,
    rngs: PRNGSequenceFilter = True,
    variables: CollectionFilter = True,
) -> Callable[..., Any]:
    """`fn(scope, *args)` that sees some collections through a function.

    Args:
        fn: The function.
        mapped_collections: The collections that it sees changed.
        map_in_fn: From the collections outside to those inside.
        map_out_fn: From the collections inside to those outside.
        init: Whether variables may be made inside when initialising.
        mutable: Whether variables may be changed inside.
        rngs: The random streams that go in.
        variables: The other collections that go in.
    """
    writes = mutable or init

    def inner(
        scope_fn: Any,
        repack: Any,
        variable_groups: Any,
        rng_groups: Any,
        *args: Any,
    ) -> Any:
        *given, kwargs = args
        target, others = variable_groups
        if init:
            scopes = scope_fn((target, others), rng_groups)
            if any(
                scope.get_flag("initializing", False)
                for scope in jax.tree.leaves(scopes)
            ) or any(map(_makes_mapped, jax.tree.leaves(scopes))):
                counts = [(s, dict(s.rng_counters)) for s in jax.tree.leaves(scopes)]
                fn(scopes, *given, **kwargs)
                target = tuple(map(map_out_fn, repack(scopes)[0]))
                for scope, before in counts:
                    scope.rng_counters.clear()
                    scope.rng_counters.update(before)
        inside = tuple(map(map_in_fn, target))
        scopes = scope_fn((inside, others), rng_groups)
        y = fn(scopes, *given, **kwargs)
        out_target, out_others = repack(scopes)
        if writes:
            out_target = tuple(map(map_out_fn, out_target))
        return y, (out_target, out_others)

    def _makes_mapped(scope: Scope) -> bool:
        mutable_ones = intersect_filters(scope.mutable, mapped_collections)
        if is_filter_empty(mutable_ones):
            return False
        return not any(
            scope._variables.get(col)
            for col in scope._variables
            if in_filter(mutable_ones, col)
        )

    return pack(
        inner,
        (mapped_collections, variables),
        (
            mapped_collections if writes else False,
            subtract_filters(variables, mapped_collections),
        ),
        (rngs,),
        "transform",
        enable_kwargs=True,
    )


def swap_collection(
    fn: Callable[..., Any], col_a: str, col_b: str
) -> Callable[..., Any]:
    """`fn(scope, ...)` to which two collections appear under each other's name."""

    def swap(target: dict[str, Any]) -> dict[str, Any]:
        a, b = target.get(col_a, {}), target.get(col_b, {})
        return {col_b: a, col_a: b}

    return map_variables(fn, (col_a, col_b), swap, swap, mutable=True)


def fold_rngs(
    fn: Callable[..., Any],
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> Callable[..., Any]:
    """`fn(scope, ...)` in which the path of the scope is folded into its keys."""

    def inner(
        scope_fn: Any, repack: Any, variable_groups: Any, rng_groups: Any, *args: Any
    ) -> Any:
        *given, kwargs = args
        scope = scope_fn(variable_groups, rng_groups)
        y = fn(scope, *given, **kwargs)
        return y, repack(scope)

    return pack(
        inner, (variables,), (variables,), (rngs,), "fold_rngs", True, fold_rngs=True
    )


def named_call(fn: Callable[..., Any], name: str) -> Callable[..., Any]:
    """`fn` whose operations carry the name in profiles."""
    return jax.named_scope(name)(fn)


# ---- kept for the code that imports them


def set_from_dict(original: dict[Any, Any], updates: Mapping[Any, Any]) -> None:
    """Changes a dict, in place, to hold the entries of another."""
    for key in list(original):
        if key not in updates:
            del original[key]
    for key, value in updates.items():
        if isinstance(value, Mapping) and isinstance(original.get(key), dict):
            set_from_dict(original[key], value)
        else:
            original[key] = value


class CountsHolder:
    """Counts of random streams, one for each scope.

    Args:
        flat_d: The counts by place and stream.
    """

    def __init__(self, flat_d: Mapping[Any, int]):
        self.flat_d = collections.OrderedDict(flat_d)

    @classmethod
    def make(cls, d: Mapping[Any, Any]) -> "CountsHolder":
        """Counts from a nested dict."""
        from linnet.compat.flax.traverse_util import flatten_dict

        return cls(flatten_dict(unfreeze(dict(d))))

    def sub(self, other: "CountsHolder") -> "CountsHolder":
        """What has been counted since `other`."""
        return CountsHolder(
            {key: n - other.flat_d.get(key, 0) for key, n in self.flat_d.items()}
        )

    def add(self, other: "CountsHolder") -> "CountsHolder":
        """The sum of both."""
        keys = {**self.flat_d, **other.flat_d}
        return CountsHolder(
            {k: self.flat_d.get(k, 0) + other.flat_d.get(k, 0) for k in keys}
        )

    def unflat(self) -> dict[Any, Any]:
        """The counts as a nested dict."""
        from linnet.compat.flax.traverse_util import unflatten_dict

        return unflatten_dict(dict(self.flat_d))


@dataclasses.dataclass
class TransformContext(Generic[A], threading.local):
    """A stack of values, one for each transform at work in this thread.

    Args:
        stack: The values, the innermost last.
    """

    stack: list[A] = dataclasses.field(default_factory=list)

    def push(self, a: A) -> Any:
        """A context in which the value is the innermost."""
        import contextlib

        @contextlib.contextmanager
        def pushed() -> Any:
            self.stack.append(a)
            try:
                yield
            finally:
                self.stack.pop()

        return pushed()

    def get(self) -> A:
        """The innermost value."""
        return self.stack[-1]
