"""Which of JAX's transforms is at work: a scope may not be used inside another one."""

from typing import Any

from jax.extend import core

from linnet.compat.flax import errors

__all__ = ["check_trace_level", "current_trace"]


def current_trace() -> Any:
    """A value that is equal at two places within the same transforms."""
    return core.get_opaque_trace_state(convention="flax")


def check_trace_level(base_level: Any) -> None:
    """Raises a `JaxTransformError` within another transform than `base_level`."""
    if current_trace() != base_level:
        raise errors.JaxTransformError()
