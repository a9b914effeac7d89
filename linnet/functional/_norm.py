"""Layer normalisation, as arrays.

D features  ... batch and positions

Statistics are taken in float32 or wider.
"""

from __future__ import annotations

from linnet._typing import Array, ArrayLike, DType
from linnet.functional._compile import compiled
from linnet.functional._dtype import inexact, widened
from linnet.functional._moments import (
    admitted_by,
    affine,
    around_zero,
    check_vectors,
    moments,
    normalised,
)
from linnet.functional._shape import axes_of


def layer_norm(
    x: ArrayLike,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    axis: int | tuple[int, ...] = -1,
    mask: ArrayLike | None = None,
    epsilon: float = 1e-6,
    dtype: DType | None = None,
) -> Array:
    r"""Normalises each example by the mean and variance of its own features.

    $y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \mathrm{scale} +
    \mathrm{bias}$, with $\mu$ and $\sigma^2$ taken over `axis`.

    Args:
        x: `[..., D]`, floating or complex.
        scale: The shape of `x` over `axis`, in ascending order; or `None` for ones.
        bias: Likewise, or `None` for zeros.
        axis: Axis or axes that are normalised together.
        mask: Booleans with as many axes as `x`, each of its size or 1; `False` does
            not count in the statistics. Where nothing counts the result is `bias`.
        epsilon: Added to the variance (unit: that of `x` squared).
        dtype: Of the result; `None` takes that of `x`. The computation is in
            float32 or wider.

    Returns:
        `[..., D]`.

    Raises:
        DTypeError: `x` holds integers or booleans, or `mask` anything but booleans.
        ShapeError: `scale`, `bias` or `mask` does not fit.

    Example:
        >>> from linnet import functional as F
        >>> F.layer_norm(jnp.array([1.0, 3.0, 1.0, 3.0]), epsilon=0.0)
        Array([-1.,  1., -1.,  1.], dtype=float32)

    Source: Ba, Kiros and Hinton, "Layer Normalization", 2016, eq. 3,
    arXiv:1607.06450.
    """
    x = inexact(x, "x")
    axes = axes_of(x.ndim, axis)
    check_vectors(x, axes, scale=scale, bias=bias)
    dtype = x.dtype if dtype is None else dtype
    return _layer_norm(x, scale, bias, admitted_by(mask, x), axes, epsilon, dtype)


@compiled(4, 6)
def _layer_norm(
    x: Array,
    scale: Array | None,
    bias: Array | None,
    admitted: Array | None,
    axes: tuple[int, ...],
    epsilon: float,
    dtype: DType,
) -> Array:
    x = x.astype(widened(x.dtype))
    y = normalised(moments(x, axes, admitted), axes, epsilon)
    return affine(y, scale, bias, axes).astype(dtype)


def rms_norm(
    x: ArrayLike,
    scale: Array | None = None,
    *,
    axis: int | tuple[int, ...] = -1,
    mask: ArrayLike | None = None,
    epsilon: float = 1e-6,
    dtype: DType | None = None,
) -> Array:
    r"""Divides each example by the root mean square of its own features.

    $y = x / \sqrt{\mathrm{mean}(|x|^2) + \epsilon} \cdot \mathrm{scale}$, with the
    mean taken over `axis`.

    Args:
        x: `[..., D]`, floating or complex.
        scale: The shape of `x` over `axis`, in ascending order; or `None` for ones.
        axis: Axis or axes that are normalised together.
        mask: Booleans with as many axes as `x`, each of its size or 1; `False` does
            not count in the mean. Where nothing counts the result is zero.
        epsilon: Added to the mean square (unit: that of `x` squared).
        dtype: Of the result; `None` takes that of `x`. The computation is in
            float32 or wider.

    Returns:
        `[..., D]`.

    Raises:
        DTypeError: `x` holds integers or booleans, or `mask` anything but booleans.
        ShapeError: `scale` or `mask` does not fit.

    Example:
        >>> from linnet import functional as F
        >>> F.rms_norm(jnp.array([3.0, 4.0, 0.0, 0.0]), epsilon=0.0)
        Array([1.2, 1.6, 0. , 0. ], dtype=float32)

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, eq. 4,
    arXiv:1910.07467.
    """
    x = inexact(x, "x")
    axes = axes_of(x.ndim, axis)
    check_vectors(x, axes, scale=scale)
    dtype = x.dtype if dtype is None else dtype
    return _rms_norm(x, scale, admitted_by(mask, x), axes, epsilon, dtype)


@compiled(3, 5)
def _rms_norm(
    x: Array,
    scale: Array | None,
    admitted: Array | None,
    axes: tuple[int, ...],
    epsilon: float,
    dtype: DType,
) -> Array:
    x = x.astype(widened(x.dtype))
    y = normalised(around_zero(x, axes, admitted), axes, epsilon)
    return affine(y, scale, None, axes).astype(dtype)
