"""Choices between functions: `nn.cond` and `nn.switch`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from linnet._errors import ScopeError
from linnet.core._lift import Bundle, Effects


def cond(
    pred: Any,
    true_fun: Callable[..., Any],
    false_fun: Callable[..., Any],
    *operands: Any,
) -> Any:
    """`jax.lax.cond` for modules. Only the branch that runs writes state.

    Args:
        pred: A boolean scalar.
        true_fun: Called with the operands where `pred` holds.
        false_fun: Called with them where it does not.
        *operands: Arrays and modules.

    Raises:
        ScopeError: The branches would capture different values.

    Example:
        >>> nn.cond(True, lambda x: x + 1, lambda x: x, jnp.array(1.0))
        Array(2., dtype=float32, weak_type=True)
    """
    __tracebackhide__ = True
    return switch(jnp.asarray(pred, jnp.int32), (false_fun, true_fun), *operands)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """`jax.lax.switch` for modules. Only the branch that runs writes state.

    Args:
        index: Which branch, an integer scalar; clamped to the branches there are.
        branches: Functions of the operands.
        *operands: Arrays and modules.

    Raises:
        ScopeError: The branches would capture different values.

    Example:
        >>> nn.switch(1, [jnp.sin, jnp.cos], jnp.array(0.0))
        Array(1., dtype=float32, weak_type=True)
    """
    __tracebackhide__ = True
    bundle = Bundle(tuple(branches), operands, {})
    if not bundle.modules:
        return jax.lax.switch(index, list(branches), *operands)
    if bundle.initializing:
        inside = bundle.as_it_is()

        def bare(i: int) -> Callable[..., Any]:
            return lambda *args: inside.f()[i](*inside.arguments(args, {})[0])

        return jax.lax.switch(
            index, [bare(i) for i in range(len(branches))], *bundle.args
        )
    entered, keys = bundle.enter(), bundle.keys()
    done: list[Effects] = []

    def branch(i: int) -> Callable[..., Any]:
        def run(states: Any, *args: Any) -> Any:
            inner = bundle.reopen(entered, keys)
            inner.put_states(states)
            out = inner.f()[i](*inner.arguments(args, {})[0])
            done.append(uncaptured(inner.effects(written=False), "a branch"))
            return out, inner.states()

        return run

    runs = [branch(i) for i in range(len(branches))]
    out, states = jax.lax.switch(index, runs, bundle.states(), *bundle.args)
    for effects in done:
        bundle.absorb(effects)
    bundle.put_states(states)
    return out


def uncaptured(effects: Effects, place: str) -> Effects:
    """The effects, which are known before the program runs if none is a value."""
    __tracebackhide__ = True
    if jax.tree.leaves(effects[2]):
        raise _tap_in(place, effects[2])
    return effects


def _tap_in(place: str, records: list[Any]) -> ScopeError:
    names = sorted({name for scope in records for own, _ in scope for name in own})
    shown = ", ".join(map(repr, names[:3]))
    return ScopeError(
        f"{shown} inside {place} cannot be captured.",
        code="LN-TAP-02",
        why="It may be computed never or many times, so it has no one value to return.",
        fixes=[
            (
                "values outside of it are enough",
                f"where = lambda path, module: path not in ({shown},)",
            )
        ],
    )
