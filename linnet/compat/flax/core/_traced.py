"""Mathematics that is traced once for each shape and configuration.

Inside of a program that is being traced, the equations of an earlier call are copied.
Outside, also in a `grad` or `vmap` there, the function runs as it is written: each
operation by itself, as in Flax.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax

F = TypeVar("F", bound=Callable[..., Any])

# Where the tracers of transforms keep the value that they stand for.
_WRAPPED = {"JVPTracer": "primal", "LinearizeTracer": "primal", "BatchTracer": "val"}


def is_staged(x: Any) -> bool:
    """Whether a value is one of a program that is being traced."""
    while isinstance(x, jax.core.Tracer):
        attribute = _WRAPPED.get(type(x).__name__)
        if attribute is None:
            return True
        x = getattr(x, attribute)
    return False


def traced_once(*static: int) -> Callable[[F], F]:
    """A decorator for a function of arrays and of configuration.

    Args:
        *static: Positions of the arguments that are configuration.
    """

    def decorate(f: F) -> F:
        copied = jax.jit(f, static_argnums=static, inline=True)

        @functools.wraps(f)
        def call(*args: Any) -> Any:
            if not any(map(is_staged, args)):
                return f(*args)
            if any(isinstance(args[i], jax.Array | list) for i in static):
                return f(*args)  # As a traced epsilon, which is no configuration.
            return copied(*args)

        return cast(F, call)

    return decorate
