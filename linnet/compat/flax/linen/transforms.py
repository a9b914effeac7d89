"""JAX's transforms for modules: their classes, their methods, and functions of them.

A transformed class is a subclass whose methods run inside the transform; a transformed
function takes a module as its first argument.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax

from linnet.compat.flax.core import lift, meta
from linnet.compat.flax.core._filter import CollectionFilter, PRNGSequenceFilter
from linnet.compat.flax.core._rng import LazyRng
from linnet.compat.flax.core.frozen_dict import FrozenDict
from linnet.compat.flax.core.scope import Scope, Variable
from linnet.compat.flax.ids import FlaxId
from linnet.compat.flax.linen._lifting import (
    InstancePlaceholder,
    VariablePlaceholder,
    call_lifted,
    clean_clone,
    decorator_lift_transform,
    decorator_lift_transform_cached,
    fork_rngs,
    get_module_scopes,
    lift_direct_transform,
    lift_transform,
    lift_transform_cached,
    module_class_lift_transform,
    module_class_lift_transform_cached,
    set_module_scopes,
)
from linnet.compat.flax.linen._method import (
    method_name,
    profiling_name,
    wrap_method_once,
)
from linnet.compat.flax.linen._module_job import ModuleJob
from linnet.compat.flax.linen.module import Module
from linnet.compat.flax.typing import InOutAxis, InOutScanAxis

C = TypeVar("C")
ModuleT = TypeVar("ModuleT", bound=Module)
_HashableProxy = ModuleJob
Target = TypeVar("Target")
TransformTarget = type[Module] | Callable[..., Any]

__all__ = [
    "CollectionFilter",
    "FlaxId",
    "FrozenDict",
    "InOutAxis",
    "InOutScanAxis",
    "InstancePlaceholder",
    "LazyRng",
    "Module",
    "ModuleT",
    "PRNGSequenceFilter",
    "Scope",
    "Target",
    "TransformTarget",
    "Variable",
    "VariablePlaceholder",
    "add_metadata_axis",
    "checkpoint",
    "clean_clone",
    "cond",
    "custom_vjp",
    "decorator_lift_transform",
    "decorator_lift_transform_cached",
    "fold_rngs",
    "fork_rngs",
    "get_module_scopes",
    "grad",
    "jit",
    "jvp",
    "lift_direct_transform",
    "lift_transform",
    "lift_transform_cached",
    "map_variables",
    "module_class_lift_transform",
    "module_class_lift_transform_cached",
    "named_call",
    "remat",
    "remat_scan",
    "scan",
    "set_module_scopes",
    "switch",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
    "wrap_method_once",
]

_EMPTY: FrozenDict[Any, Any] = FrozenDict({})


# ---- on classes and methods


def vmap(
    target: Any,
    variable_axes: Mapping[CollectionFilter, InOutAxis] = _EMPTY,
    split_rngs: Mapping[PRNGSequenceFilter, bool] = _EMPTY,
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_size: int | None = None,
    axis_name: str | None = None,
    spmd_axis_name: str | None = None,
    metadata_params: Mapping[Any, Any] = {},
    methods: Any = None,
) -> Any:
    """`jax.vmap` for modules.

    Args:
        target: A class of modules, or a function of a module.
        variable_axes: For collections the axis that is mapped; `None` to share.
        split_rngs: For random streams whether each entry gets a key of its own.
        in_axes: As in `jax.vmap`, for the arguments after the module.
        out_axes: As in `jax.vmap`.
        axis_size: The size of the mapped axis, where no argument tells.
        axis_name: As in `jax.vmap`.
        spmd_axis_name: As in `jax.vmap`.
        metadata_params: What boxes are told about the axis.
        methods: The methods of the class; by default `__call__`.
    """
    return lift_transform(
        lift.vmap,
        target,
        variable_axes,
        split_rngs,
        methods=methods,
        in_axes=in_axes,
        out_axes=out_axes,
        axis_size=axis_size,
        axis_name=axis_name,
        spmd_axis_name=spmd_axis_name,
        metadata_params=metadata_params,
    )


def scan(
    target: Any,
    variable_axes: Mapping[CollectionFilter, InOutScanAxis] = _EMPTY,
    variable_broadcast: CollectionFilter = False,
    variable_carry: CollectionFilter = False,
    split_rngs: Mapping[PRNGSequenceFilter, bool] = _EMPTY,
    in_axes: Any = 0,
    out_axes: Any = 0,
    length: int | None = None,
    reverse: bool = False,
    unroll: int = 1,
    data_transform: Callable[..., Any] | None = None,
    metadata_params: Mapping[Any, Any] = {},
    methods: Any = None,
    _split_transpose: bool = False,
    check_constancy_invariants: bool = True,
) -> Any:
    """`jax.lax.scan` for modules: over `(carry, *args) -> (carry, outputs)`.

    Args:
        target: A class of modules, or a function of a module.
        variable_axes: For collections the axis along which each step has its slice.
        variable_broadcast: Collections that are the same in each step.
        variable_carry: Collections that are handed from step to step.
        split_rngs: For random streams whether each step gets a key of its own.
        in_axes: For each argument after the carry its axis, or `nn.broadcast`.
        out_axes: The axis along which outputs are stacked.
        length: The number of steps, where no argument tells.
        reverse: Whether the last slice comes first.
        unroll: As in `jax.lax.scan`.
        data_transform: Applied in each step to the groups of variables and streams.
        metadata_params: What boxes are told about the axis.
        methods: The methods of the class; by default `__call__`.
        check_constancy_invariants: Whether broadcast variables that a step makes
            must be shown to depend on nothing in the loop.
    """
    return lift_transform(
        lift.scan,
        target,
        variable_axes=variable_axes,
        variable_broadcast=variable_broadcast,
        variable_carry=variable_carry,
        split_rngs=split_rngs,
        in_axes=in_axes,
        out_axes=out_axes,
        length=length,
        reverse=reverse,
        unroll=unroll,
        _split_transpose=_split_transpose,
        data_transform=data_transform,
        metadata_params=metadata_params,
        methods=methods,
        check_constancy_invariants=check_constancy_invariants,
    )


def jit(
    target: Any,
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
    static_argnums: int | Iterable[int] = (),
    static_argnames: str | Iterable[str] = (),
    donate_argnums: int | Iterable[int] = (),
    device: Any = None,
    backend: str | None = None,
    methods: Any = None,
) -> Any:
    """`jax.jit` for modules; `static_argnums` counts the module as 0.

    Modules of the same class and fields share a program, wherever in a model they are.
    """
    return lift_transform_cached(
        lift.jit,
        target,
        variables=variables,
        rngs=rngs,
        static_argnums=static_argnums,
        static_argnames=static_argnames,
        donate_argnums=donate_argnums,
        device=device,
        backend=backend,
        methods=methods,
    )


def checkpoint(
    target: Any,
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
    concrete: bool = False,
    prevent_cse: bool = True,
    static_argnums: int | tuple[int, ...] = (),
    policy: Callable[..., bool] | None = None,
    methods: Any = None,
) -> Any:
    """`jax.checkpoint` for modules: the backward pass computes them again."""
    return lift_transform(
        lift.checkpoint,
        target,
        variables=variables,
        rngs=rngs,
        concrete=concrete,
        static_argnums=static_argnums,
        prevent_cse=prevent_cse,
        policy=policy,
        methods=methods,
    )


remat = checkpoint


def remat_scan(
    target: Any,
    lengths: Sequence[int] = (),
    policy: Callable[..., bool] | None = None,
    variable_broadcast: CollectionFilter = False,
    variable_carry: CollectionFilter = False,
    variable_axes: Mapping[CollectionFilter, InOutScanAxis] = FrozenDict({True: 0}),
    split_rngs: Mapping[PRNGSequenceFilter, bool] = FrozenDict({True: True}),
) -> Any:
    """Nested scans over layers, each recomputed in the backward pass."""
    return lift_transform(
        lift.remat_scan,
        target,
        lengths=lengths,
        variable_broadcast=variable_broadcast,
        variable_carry=variable_carry,
        variable_axes=variable_axes,
        split_rngs=split_rngs,
        policy=policy,
    )


def map_variables(
    target: Any,
    mapped_collections: CollectionFilter = True,
    trans_in_fn: Callable[..., Any] = lift.id_fn,
    trans_out_fn: Callable[..., Any] = lift.id_fn,
    init: bool = False,
    mutable: bool = False,
    rngs: PRNGSequenceFilter = True,
    variables: CollectionFilter = True,
    methods: Any = None,
) -> Any:
    """A module that sees some collections through a function.

    Args:
        target: A class of modules, or a function of a module.
        mapped_collections: The collections that it sees changed.
        trans_in_fn: From the collections outside to those inside.
        trans_out_fn: From the collections inside to those outside.
        init: Whether variables may be made inside when initialising.
        mutable: Whether variables may be changed inside.
        rngs: The random streams that go in.
        variables: The other collections that go in.
        methods: The methods of the class; by default `__call__`.
    """
    return lift_transform(
        lift.map_variables,
        target,
        mapped_collections,
        trans_in_fn,
        trans_out_fn,
        init,
        mutable,
        rngs,
        variables,
        methods=methods,
    )


# ---- of functions, at once


def vjp(
    fn: Callable[..., Any],
    mdl: Any,
    *primals: Any,
    has_aux: bool = False,
    reduce_axes: Sequence[str] = (),
    vjp_variables: CollectionFilter = "params",
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
    multi_scope: bool = False,
) -> Any:
    """`jax.vjp` of `fn(module, *primals)`, by variables and arguments.

    Returns:
        (result, backward function[, aux]). The backward function takes a cotangent of
        the result to (cotangents of the variables, *those of the arguments).
    """
    return lift_direct_transform(
        lift.vjp,
        (fn,),
        mdl,
        *primals,
        multi_scope=multi_scope,
        has_aux=has_aux,
        reduce_axes=reduce_axes,
        vjp_variables=vjp_variables,
        variables=variables,
        rngs=rngs,
    )


def value_and_grad(
    fn: Callable[..., Any],
    mdl: Any,
    *primals: Any,
    has_aux: bool = False,
    reduce_axes: Sequence[str] = (),
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> Any:
    """The value of `fn(module, *primals)`, and its gradients by the arguments."""
    return lift_direct_transform(
        lift.value_and_grad,
        (fn,),
        mdl,
        *primals,
        has_aux=has_aux,
        reduce_axes=reduce_axes,
        variables=variables,
        rngs=rngs,
    )


def grad(
    fn: Callable[..., Any],
    mdl: Any,
    *primals: Any,
    has_aux: bool = False,
    reduce_axes: Sequence[str] = (),
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> Any:
    """The gradients of `fn(module, *primals)` by the arguments; with aux, a pair."""
    out, grads = value_and_grad(
        fn,
        mdl,
        *primals,
        has_aux=has_aux,
        reduce_axes=reduce_axes,
        variables=variables,
        rngs=rngs,
    )
    return (grads, out[1]) if has_aux else grads


def jvp(
    fn: Callable[..., Any],
    mdl: Any,
    primals: Any,
    tangents: Any,
    variable_tangents: Any,
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> Any:
    """`jax.jvp` of `fn(module, *primals)`, by variables and arguments."""
    return lift_direct_transform(
        lift.jvp,
        (fn,),
        mdl,
        primals,
        tangents,
        variable_tangents,
        multi_scope=False,
        variables=variables,
        rngs=rngs,
    )


def while_loop(
    cond_fn: Callable[..., Any],
    body_fn: Callable[..., Any],
    mdl: Any,
    init: Any,
    carry_variables: CollectionFilter = False,
    broadcast_variables: CollectionFilter = True,
    split_rngs: Mapping[PRNGSequenceFilter, bool] = _EMPTY,
) -> Any:
    """`jax.lax.while_loop` of `cond_fn(module, carry)` and `body_fn(module, carry)`."""
    return lift_direct_transform(
        lift.while_loop,
        (cond_fn, body_fn),
        mdl,
        init,
        carry_variables=carry_variables,
        broadcast_variables=broadcast_variables,
        split_rngs=split_rngs,
    )


def cond(
    pred: Any,
    true_fun: Callable[..., C],
    false_fun: Callable[..., C],
    mdl: Any,
    *operands: Any,
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> C:
    """`jax.lax.cond` of functions of a module; both must make the same variables."""
    return lift_direct_transform(
        functools.partial(lift.cond, pred),
        (true_fun, false_fun),
        mdl,
        *operands,
        variables=variables,
        rngs=rngs,
    )


def switch(
    index: Any,
    branches: Sequence[Callable[..., C]],
    mdl: Any,
    *operands: Any,
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> C:
    """`jax.lax.switch` of functions of a module; all must make the same variables."""

    def of_scopes(*args: Any, **kwargs: Any) -> Any:
        fns, rest = args[: len(branches)], args[len(branches) :]
        return lift.switch(index, fns, *rest, **kwargs)

    return lift_direct_transform(
        of_scopes, tuple(branches), mdl, *operands, variables=variables, rngs=rngs
    )


def custom_vjp(
    fn: Callable[..., Any],
    forward_fn: Callable[..., Any],
    backward_fn: Callable[..., Any],
    grad_vars: CollectionFilter = "params",
    nondiff_argnums: Sequence[int] = (),
) -> Callable[..., Any]:
    """`fn(module, *args)` with a derivative of one's own.

    Args:
        fn: The function.
        forward_fn: `fn` with residuals for the backward pass: `(result, residuals)`.
        backward_fn: `(*nondiff args, residuals, cotangent)` to cotangents of the
            variables and of the arguments.
        grad_vars: The collections that have a gradient.
        nondiff_argnums: Arguments without one, counted with the module as 0.
    """
    fns = [wrap_method_once(fn), wrap_method_once(forward_fn)]

    @functools.wraps(fn)
    def wrapped(module: Any, *args: Any, **kwargs: Any) -> Any:
        def use(run: Any, run_forward: Any, scopes: Any, *rest: Any, **kws: Any) -> Any:
            return lift.custom_vjp(
                run, run_forward, backward_fn, grad_vars, nondiff_argnums
            )(scopes, *rest, **kws)

        return call_lifted(use, fns, module, args, kwargs)

    return wrapped


# ---- of names and keys


def named_call(class_fn: Any, force: bool = True) -> Any:
    """A method whose operations carry the name of the module in profiles."""
    inner_fn = wrap_method_once(class_fn)

    @functools.wraps(inner_fn)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not force or (hasattr(self, "_state") and self._state.in_setup):
            return inner_fn(self, *args, **kwargs)
        with jax.named_scope(profiling_name(self, method_name(class_fn))):
            return inner_fn(self, *args, **kwargs)

    return wrapped


def add_metadata_axis(
    target: Any,
    variable_axes: Mapping[CollectionFilter, InOutAxis] = _EMPTY,
    metadata_params: Mapping[Any, Any] = {},
) -> Any:
    """A module whose boxes name one more axis than its arrays have inside.

    Args:
        target: A class of modules, or a function of a module.
        variable_axes: For collections the place of the axis.
        metadata_params: What boxes are told about the axis.
    """
    for collections, axis in variable_axes.items():
        target = lift_transform(
            functools.partial(_add_axis, collections, axis, metadata_params), target
        )
    return target


def _add_axis(
    collections: CollectionFilter, axis: Any, params: Any, fn: Callable[..., Any]
) -> Callable[..., Any]:
    return lift.map_variables(
        fn,
        collections,
        lambda xs: meta.remove_axis(xs, axis, params),
        lambda xs: meta.add_axis(xs, axis, params),
        mutable=True,
    )


_add_axis.__name__ = "map_variables"  # By which transformed classes are named.


def fold_rngs(
    target: Any,
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> Any:
    """A module in which the path is folded into the keys where it begins."""
    return lift_transform(lift.fold_rngs, target, variables=variables, rngs=rngs)
