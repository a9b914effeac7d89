"""Dense layers, as arrays.

I features in  O features out
"""

from __future__ import annotations

from jax import lax

from linnet._errors import ShapeError, describe
from linnet._typing import Array, ArrayLike, DType
from linnet.functional._dtype import promoted
from linnet.functional._shape import features_elsewhere, require_shape


def dense(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    dtype: DType | None = None,
    precision: lax.PrecisionLike = None,
) -> Array:
    """Multiplies the last axis of `x` by `kernel` and adds `bias`.

    Args:
        x: `[..., I]`, floating or complex.
        kernel: `[I, O]`.
        bias: `[O]`, or `None` for none.
        dtype: Of the computation and the result. `None` takes the one to which
            the arrays promote together.
        precision: Of the product, as in `jax.lax.dot_general`.

    Returns:
        `[..., O]`.

    Raises:
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> F.dense(jnp.array([1.0, 2.0]), jnp.eye(2), jnp.array([0.0, 1.0]))
        Array([1., 3.], dtype=float32)
    """
    x, kernel, bias = promoted(dtype, x, kernel, bias)
    if kernel.ndim != 2 or x.ndim < 1 or x.shape[-1] != kernel.shape[0]:
        _refuse(x, kernel)
    require_shape(bias, kernel.shape[1:], "bias", "Each output feature has one bias.")
    contract = (((x.ndim - 1,), (0,)), ((), ()))
    y = lax.dot_general(x, kernel, contract, precision=precision)  # [..., O]
    if bias is None:
        return y
    return lax.add(y, lax.broadcast_in_dim(bias, y.shape, (y.ndim - 1,)))


def _refuse(x: Array, kernel: Array) -> None:
    raise ShapeError(
        f"`x` of shape {list(x.shape)} cannot be multiplied by `kernel` of shape "
        f"{list(kernel.shape)}.",
        code="LN-SHAPE-01",
        facts={"x": describe(x), "kernel": describe(kernel)},
        why="The last axis of `x` is contracted with the first of a two-axis `kernel`.",
        fixes=[] if kernel.ndim < 1 else features_elsewhere("x", x, kernel.shape[0]),
    )
