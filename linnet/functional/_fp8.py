"""Products of numbers of eight bits, for training, as arrays.

I features in  O features out  H calls that are remembered
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linnet._errors import ShapeError, describe
from linnet._typing import Array, ArrayLike, DType
from linnet.functional._dtype import as_array, inexact, promoted
from linnet.functional._quantize import floating, rounded, scale_for
from linnet.functional._shape import features_elsewhere, require_shape

# Micikevicius et al. 2022, section 3: weights and activations need precision, gradients
# need range.
FORWARD, BACKWARD = "float8_e4m3fn", "float8_e5m2"


def fp8_dense(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    x_scale: ArrayLike,
    kernel_scale: ArrayLike,
    dtype: DType | None = None,
    precision: lax.PrecisionLike = None,
) -> Array:
    r"""Multiplies the last axis of `x` by `kernel` in fp8 and adds `bias`.

    Both factors are divided by their scales, rounded to float8_e4m3fn (what is larger
    than 448 becomes 448), multiplied with sums in float32, and scaled back. In the
    backward pass the gradient of the result is rounded to float8_e5m2 likewise, and
    multiplied by the rounded factors, which are what is kept for it: a quarter of the
    memory of float32. Gradients pass rounding as if it were not there.

    The gradient's scale is that of its own largest entry, found when it is there. A
    scale from earlier calls would have to be written by the backward pass, which
    returns gradients and no state.

    The product is a dot of fp8 arrays in the program. Devices with fp8 units (NVIDIA
    from Hopper on) run it on them where XLA's compiler does so; elsewhere it is
    emulated: the same numbers, and no faster. It has been run on CPUs only. It has no
    forward-mode derivative.

    Args:
        x: `[..., I]`, floating.
        kernel: `[I, O]`.
        bias: `[O]`, or `None` for none.
        x_scale: Of `x`, a number; see `fp8_scale`.
        kernel_scale: Of `kernel`.
        dtype: Of the result. `None` takes the one to which the arrays promote together.
        precision: Of the products, as in `jax.lax.dot_general`.

    Returns:
        `[..., O]`.

    Raises:
        DTypeError: An array is not floating.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> x, kernel = jnp.array([1.0, 300.0]), jnp.array([[1.0], [0.3]])
        >>> F.fp8_dense(x, kernel, x_scale=1.0, kernel_scale=1.0)
        Array([91.], dtype=float32)

    Source: Micikevicius et al., "FP8 Formats for Deep Learning", 2022,
    arXiv:2209.05433, sections 3 and 4.
    """
    given, weights = floating(x), floating(kernel, "kernel")
    x, _, bias = promoted(dtype, given, weights, bias)
    if weights.ndim != 2 or x.ndim < 1 or x.shape[-1] != weights.shape[0]:
        raise ShapeError(
            f"`x` of shape {list(x.shape)} cannot be multiplied in fp8 by `kernel` of "
            f"shape {list(weights.shape)}.",
            code="LN-SHAPE-01",
            facts={"x": describe(x), "kernel": describe(weights)},
            why="The last axis of `x` is contracted with the first of a two-axis "
            "`kernel`.",
            fixes=[]
            if weights.ndim < 1
            else features_elsewhere("x", x, weights.shape[0]),
        )
    require_shape(bias, weights.shape[1:], "bias", "Each output feature has one bias.")
    scales = [_scale(x_scale, "x_scale"), _scale(kernel_scale, "kernel_scale")]
    y = _dot(precision, x.dtype, given, weights, *scales)  # [..., O]
    if bias is None:
        return y
    return lax.add(y, lax.broadcast_in_dim(bias, y.shape, (y.ndim - 1,)))


def fp8_scale(amax_history: ArrayLike) -> Array:
    r"""The scale for the next call, from the largest magnitudes of earlier ones.

    $s = \max_h a_h / 448$, so that the largest magnitude that is remembered becomes the
    largest number of float8_e4m3fn; one where there is none yet.

    Args:
        amax_history: `[H]`, as `fp8_remember` writes it.

    Returns:
        A float32 number.

    Example:
        >>> from linnet import functional as F
        >>> F.fp8_scale(jnp.array([0.0, 896.0, 4.0]))
        Array(2., dtype=float32)

    Source: Micikevicius et al., "FP8 Formats for Deep Learning", 2022,
    arXiv:2209.05433, section 3.
    """
    history = inexact(amax_history, "amax_history").astype(jnp.float32)
    return scale_for(history, FORWARD, None)


def fp8_remember(amax_history: ArrayLike, x: ArrayLike) -> Array:
    """The history with the largest magnitude of `x` in front, and the oldest gone.

    A magnitude that is not finite is remembered as zero: one bad batch must not decide
    the scale of the next ones.

    Args:
        amax_history: `[H]`.
        x: Any shape, floating.

    Returns:
        `[H]`.

    Raises:
        DTypeError: `x` is not floating.

    Example:
        >>> from linnet import functional as F
        >>> F.fp8_remember(jnp.array([3.0, 2.0, 1.0]), jnp.array([-4.0, 0.0]))
        Array([4., 3., 2.], dtype=float32)
    """
    history = as_array(amax_history)
    largest = jnp.max(jnp.abs(lax.stop_gradient(floating(x))), initial=0.0)
    largest = jnp.where(jnp.isfinite(largest), largest, 0.0).astype(history.dtype)
    return jnp.concatenate([largest[None], history[:-1]])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _dot(
    precision: Any, dtype: Any, x: Array, kernel: Array, x_scale: Array, k_scale: Array
) -> Array:
    y, _ = _dot_forward(precision, dtype, x, kernel, x_scale, k_scale)
    return y


def _dot_forward(
    precision: Any, dtype: Any, x: Array, kernel: Array, x_scale: Array, k_scale: Array
) -> tuple[Array, Any]:
    xq = _in_fp8(x, x_scale, FORWARD)  # [..., I]
    kq = _in_fp8(kernel, k_scale, FORWARD)  # [I, O]
    y = _contract(xq, kq, (xq.ndim - 1,), (0,), precision)  # [..., O]
    # Empty arrays of the two dtypes: a dtype alone is no value that JAX can carry.
    like = jnp.zeros(0, x.dtype), jnp.zeros(0, kernel.dtype)
    return (y * (x_scale * k_scale)).astype(dtype), (xq, kq, x_scale, k_scale, like)


def _dot_backward(precision: Any, dtype: Any, kept: Any, grad: Array) -> Any:
    xq, kq, x_scale, k_scale, (like_x, like_kernel) = kept
    scale = scale_for(jnp.abs(grad.astype(jnp.float32)), BACKWARD, None)
    gq = _in_fp8(grad, scale, BACKWARD)  # [..., O]
    batch = tuple(range(gq.ndim - 1))
    grad_x = _contract(gq, kq, (gq.ndim - 1,), (1,), precision)  # [..., I]
    grad_kernel = _contract(xq, gq, batch, batch, precision)  # [I, O]
    return (
        (grad_x * (scale * k_scale)).astype(like_x.dtype),
        (grad_kernel * (scale * x_scale)).astype(like_kernel.dtype),
        jnp.zeros_like(x_scale),
        jnp.zeros_like(k_scale),
    )


_dot.defvjp(_dot_forward, _dot_backward)


def _in_fp8(x: Array, scale: Array, name: str) -> Array:
    return rounded(x.astype(jnp.float32) / scale, name)


def _contract(
    a: Array, b: Array, axes: tuple[int, ...], others: tuple[int, ...], precision: Any
) -> Array:
    return lax.dot_general(
        a,
        b,
        ((axes, others), ((), ())),
        precision=precision,
        preferred_element_type=jnp.float32,
    )


def _scale(scale: ArrayLike, name: str) -> Array:
    scale = lax.stop_gradient(jnp.asarray(scale, jnp.float32))
    require_shape(scale, (), name, "All entries of an array share one scale.")
    return scale
