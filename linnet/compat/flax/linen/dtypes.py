"""One type for all arrays of a layer."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from linnet.compat.flax.typing import Dtype

__all__ = ["Dtype", "T", "canonicalize_dtype", "promote_dtype"]

T = TypeVar("T", bound=tuple)
_ARRAYS = (jax.core.Tracer, jax.Array)  # In this order, which is faster.


def canonicalize_dtype(*args: Any, dtype: Any = None, inexact: bool = True) -> Any:
    """The type given, or the one to which all arrays are promoted.

    Args:
        *args: Arrays; None is left out.
        dtype: The type, if it is fixed.
        inexact: Whether integers become floats.

    Raises:
        ValueError: A type is given that is not inexact.
    """
    if dtype is None:
        dtype = jnp.result_type(*[jnp.asarray(x) for x in args if x is not None])
        if inexact and not jnp.issubdtype(dtype, jnp.inexact):
            dtype = jnp.promote_types(jnp.float32, dtype)
    if inexact and not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(f"Dtype must be inexact: {dtype}")
    return dtype


def promote_dtype(*args: Any, dtype: Any = None, inexact: bool = True) -> list[Any]:
    """The arrays in the type given, or in the one to which all are promoted."""
    if inexact and _are_alike(args, dtype):
        return list(args)
    dtype = canonicalize_dtype(*args, dtype=dtype, inexact=inexact)
    return [None if x is None else jnp.asarray(x, dtype) for x in args]


def _are_alike(args: Any, dtype: Any) -> bool:
    """Whether all arrays have one inexact type already, and that is the one given."""
    given = [x for x in args if x is not None]
    types = [jax.typeof(x) for x in given if isinstance(x, _ARRAYS)]
    if not types or len(types) < len(given):
        return False
    of = types[0].dtype if dtype is None else dtype
    alike = all([x.dtype == of and not getattr(x, "weak_type", True) for x in types])
    return alike and jnp.issubdtype(types[0].dtype, jnp.inexact)
