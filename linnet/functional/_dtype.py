"""Which dtype to compute in, and the refusal of dtypes that cannot be meant."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from linnet._errors import DTypeError, describe
from linnet._typing import Array, ArrayLike, DType


def as_array(x: ArrayLike) -> Array:
    """`x` as a JAX array; an array or tracer passes through untouched."""
    return x if isinstance(x, jax.Array) else jnp.asarray(x)


@functools.cache
def is_inexact(dtype: DType) -> bool:
    """Whether `dtype` is floating or complex."""
    return bool(jnp.issubdtype(dtype, jnp.inexact))


@functools.cache
def is_integer(dtype: DType) -> bool:
    """Whether `dtype` is an integer; booleans are not."""
    return bool(jnp.issubdtype(dtype, jnp.integer))


@functools.cache
def widened(dtype: DType) -> DType:
    """`dtype` if it has 32 bits or more per real number, else float32."""
    bits = jnp.finfo(dtype).bits  # type: ignore[no-untyped-call]
    return dtype if bits >= 32 else jnp.dtype(jnp.float32)


def inexact(x: ArrayLike, name: str) -> Array:
    """`x` as an array of floating or complex numbers, or a `DTypeError`."""
    x = as_array(x)
    if not is_inexact(x.dtype):
        raise DTypeError(
            f"`{name}` has dtype {x.dtype}, but it must be floating or complex.",
            code="LN-DTYPE-01",
            facts={name: describe(x)},
            why="Converting silently would hide class numbers or raw bytes passed "
            "where features were meant.",
            fixes=[
                ("the numbers are quantities", f"{name} = {name}.astype(jnp.float32)")
            ],
        )
    return x


def integer(x: ArrayLike, name: str) -> Array:
    """`x` as an array of integers, or a `DTypeError`."""
    x = as_array(x)
    if not is_integer(x.dtype):
        raise DTypeError(
            f"`{name}` has dtype {x.dtype}, but it must be an integer dtype.",
            code="LN-DTYPE-01",
            facts={name: describe(x)},
            why="Each entry picks one row of a table.",
            fixes=[("the numbers are whole", f"{name} = {name}.astype(jnp.int32)")],
        )
    return x


def promoted(
    dtype: DType | None,
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    names: tuple[str, str] = ("x", "kernel"),
) -> tuple[Array, Array, Array | None]:
    """The arrays in one dtype: `dtype`, or else the one they promote to.

    `bias` may be absent; `names` are what the other two are called in errors.
    """
    if dtype is None and _alike(x, kernel, x if bias is None else bias):
        return x, kernel, bias  # type: ignore[return-value]
    x, kernel = inexact(x, names[0]), inexact(kernel, names[1])
    if bias is not None:
        bias = inexact(bias, "bias")
    present = (x, kernel) if bias is None else (x, kernel, bias)
    if dtype is not None:
        common = jnp.dtype(inexact_dtype(dtype))
    else:
        common = jnp.result_type(*present)
    return (
        x.astype(common),
        kernel.astype(common),
        None if bias is None else bias.astype(common),
    )


def _alike(x: ArrayLike, kernel: ArrayLike, bias: ArrayLike) -> bool:
    """Whether nothing has to be converted, as usual: tracing must not pay for it."""
    dtype = getattr(x, "dtype", None)
    return (
        dtype is not None
        and getattr(kernel, "dtype", None) == dtype
        and getattr(bias, "dtype", None) == dtype
        and is_inexact(dtype)
    )


def inexact_dtype(dtype: DType) -> DType:
    """`dtype` itself, or a `DTypeError` where it is not floating or complex."""
    if not is_inexact(dtype):
        raise DTypeError(
            f"`dtype` is {jnp.dtype(dtype)}, but it must be floating or complex.",
            code="LN-DTYPE-01",
            fixes=[("the usual precision will do", "dtype = jnp.float32")],
        )
    return dtype
