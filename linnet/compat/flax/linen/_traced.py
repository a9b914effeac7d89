"""Mathematics that is traced once for each shape and configuration.

Inside of a larger trace, the equations of an earlier call are copied. Outside, the
function runs as it is written: each operation by itself, as in Flax.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax

F = TypeVar("F", bound=Callable[..., Any])


def traced_once(*static: int) -> Callable[[F], F]:
    """A decorator for a function of arrays and of configuration.

    Args:
        *static: Positions of the arguments that are configuration.
    """

    def decorate(f: F) -> F:
        copied = jax.jit(f, static_argnums=static, inline=True)

        @functools.wraps(f)
        def call(*args: Any) -> Any:
            if not any(isinstance(x, jax.core.Tracer) for x in args):
                return f(*args)
            if any(isinstance(args[i], jax.Array) for i in static):
                return f(*args)  # As a traced epsilon, which is no configuration.
            return copied(*args)

        return cast(F, call)

    return decorate
