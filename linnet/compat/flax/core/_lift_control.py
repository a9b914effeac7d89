"""`while_loop`, `cond` and `switch` for functions of scopes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax

from linnet.compat.flax.core._filter import (
    CollectionFilter,
    PRNGSequenceFilter,
)
from linnet.compat.flax.core._pack import pack

C = TypeVar("C")


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
                jax.tree.map(lambda key: jax.random.fold_in(key, i), group)
                if split
                else group
                for group, split in zip(rng_groups, splits, strict=True)
            )

        def condition(state: Any) -> Any:
            i, carry_vars, carry = state
            scope = scope_fn((carry_vars, broadcast_vars), streams(-i))
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
