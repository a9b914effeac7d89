"""Where in a model numbers begin that are not finite."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linnet import nn
from linnet._typing import PyTree


def is_finite(x: Any) -> bool:
    """Whether there is no infinity and no NaN in an array or a number.

    Args:
        x: Of any dtype.
    """
    return not _where_wrong(x, 0)


def first_non_finite(model: PyTree, *args: Any) -> tuple[str | None, Any]:
    """The first module whose output is not finite, in words, and the output.

    A call is over after those that it makes, so that the innermost module comes first.
    All of a layer of a stack comes before the next layer.

    Args:
        model: A model.
        *args: What it is called with.
    """
    calls: list[str] = []  # paths, in the order in which the calls were over
    stacks: dict[str, str] = {}  # what paths inside begin with, and what they repeat

    def note(path: str, module: Any) -> bool:
        calls.append(path)
        if isinstance(module, nn.Stack | nn.Ensemble):
            kind = "layer" if isinstance(module, nn.Stack) else "member"
            stacks[f"{path}/" if path else ""] = kind
        return True

    _, seen = nn.capture(model, note)(*args)
    outputs = [_of_call(calls, number, seen) for number in range(len(calls))]
    around = [_stacks_around(path, stacks) for path in calls]
    wrong = {
        number: _any_wrong(output, len(around[number]))
        for number, output in enumerate(outputs)
    }
    place: list[int] = []  # in the stacks around, the outermost first
    while wrong := {number: where for number, where in wrong.items() if where.any()}:
        first = min(wrong)
        if len(place) == len(around[first]):
            pairs = zip(around[first], place, strict=True)
            text = ", ".join(f"{stacks[stack]} {i}" for stack, i in pairs)
            path = calls[first] or type(model).__name__
            output = [x[tuple(place)] for x in jax.tree.leaves(outputs[first])]
            return (
                f"`{path}`" + (f" in {text}" if text else ""),
                next(x for x in output if not is_finite(x)),
            )
        stack = around[first][len(place)]
        inside = {n: where for n, where in wrong.items() if stack in around[n]}
        rows = [where.reshape(len(where), -1).any(1) for where in inside.values()]
        place.append(min(int(row.argmax()) for row in rows if row.any()))
        wrong = {n: where[place[-1]] for n, where in inside.items()}
    return None, None


def _of_call(calls: list[str], number: int, seen: dict[str, Any]) -> Any:
    """The output of a call; of several calls of one module there is a tuple of them."""
    path = calls[number]
    output, count = seen.get(path), calls.count(path)
    if count > 1 and isinstance(output, tuple) and len(output) == count:
        return output[calls[:number].count(path)]
    return output


def _stacks_around(path: str, stacks: dict[str, str]) -> list[str]:
    """From the outermost to the innermost: each begins with the one before."""
    return sorted(s for s in stacks if path.startswith(s) and path != s.rstrip("/"))


def _any_wrong(tree: PyTree, depth: int) -> np.ndarray:
    """By place on the first axes: whether there is a number that is not finite."""
    found = [_where_wrong(x, depth) for x in jax.tree.leaves(tree)]
    return np.any([where for where in found if where.ndim == depth], axis=0)


def _where_wrong(x: Any, depth: int) -> np.ndarray:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return np.zeros(x.shape[:depth], bool)
    return np.asarray(~jnp.isfinite(x).all(tuple(range(depth, x.ndim))))
