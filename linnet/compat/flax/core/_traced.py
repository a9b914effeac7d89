"""Mathematics that is traced once for each shape and configuration.

Inside of a larger trace, the equations of an earlier call are copied. Outside, the
function runs as it is written: each operation by itself, as in Flax.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import numpy as np

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


def initial(init_fn: Callable[..., Any], key: Any, *args: Any, **kwargs: Any) -> Any:
    """What an initialiser makes of a key, and of what is configuration otherwise.

    Those of JAX are known to depend on nothing else, and so are traced once.
    """
    is_jaxs = str(getattr(init_fn, "__module__", "")).endswith(".nn.initializers")
    if is_jaxs and not kwargs and isinstance(key, jax.core.Tracer):
        if all(isinstance(arg, tuple | type | np.dtype) for arg in args):
            return _copied(init_fn, len(args))(key, *args)
    return init_fn(key, *args, **kwargs)


@functools.lru_cache(maxsize=512)
def _copied(init_fn: Callable[..., Any], count: int) -> Callable[..., Any]:
    return jax.jit(init_fn, static_argnums=range(1, 1 + count), inline=True)
