"""Derivatives of functions of scopes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from linnet.compat.flax.core._filter import (
    CollectionFilter,
    PRNGSequenceFilter,
)
from linnet.compat.flax.core._pack import pack


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
