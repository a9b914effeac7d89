"""What of a function's results can be known before its inputs are."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.interpreters import partial_eval as pe

from linnet.compat.flax import errors

__all__ = ["lazy_init"]

UNKNOWN = object()


def known_results(fn: Callable[..., Any], *unknown: Any) -> Any:
    """The tree of `fn(*unknown)`, with `UNKNOWN` for leaves that depend on an input.

    Args:
        fn: A function that JAX can trace. What it closes over counts as known.
        *unknown: Trees of arrays or `jax.ShapeDtypeStruct`.
    """
    closed, out = jax.make_jaxpr(fn, return_shape=True)(*unknown)
    tree = jax.tree.structure(out)
    if tree.num_leaves == 0:
        return out
    known = [_is_known(closed.jaxpr, i) for i in range(tree.num_leaves)]
    jaxpr, used_consts, _ = pe.dce_jaxpr_consts(closed.jaxpr, known)
    consts = [c for c, used in zip(closed.consts, used_consts, strict=True) if used]
    values = iter(jax.core.eval_jaxpr(jaxpr, consts))
    return tree.unflatten([next(values) if is_known else UNKNOWN for is_known in known])


def _is_known(jaxpr: Any, index: int) -> bool:
    wanted = [i == index for i in range(len(jaxpr.outvars))]
    return not any(pe.dce_jaxpr(jaxpr, wanted)[1])


def lazy_init(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` that may be given shapes (`jax.ShapeDtypeStruct`) in place of arrays.

    Nothing is computed but what the results need.

    Raises:
        LazyInitError: A result depends on an argument of which only the shape is known.
    """

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, kwargs))
        shapes = [x for x in leaves if isinstance(x, jax.ShapeDtypeStruct)]

        def run(*unknown: Any) -> Any:
            given = iter(unknown)
            filled = [
                next(given) if isinstance(x, jax.ShapeDtypeStruct) else x
                for x in leaves
            ]
            some_args, some_kwargs = tree.unflatten(filled)
            return fn(*some_args, **some_kwargs)

        results = known_results(run, *shapes)
        for leaf in jax.tree.leaves(results):
            if leaf is UNKNOWN:
                raise errors.LazyInitError(leaf)
        return results

    return wrapper
