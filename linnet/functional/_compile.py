"""Functions that are traced once, however often a model calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax

F = TypeVar("F", bound=Callable[..., Any])


def compiled(*static: int) -> Callable[[F], F]:
    """`jax.jit` as a decorator that keeps the type.

    Within a larger `jax.jit` each call adds one equation, made once per shape and
    configuration: tracing a hundred layers costs little more than tracing one. XLA
    sees through it. Checks that raise errors belong before the call.

    Args:
        *static: Positions of the arguments that are configuration.
    """

    def decorate(f: F) -> F:
        return cast(F, jax.jit(f, static_argnums=static))

    return decorate
