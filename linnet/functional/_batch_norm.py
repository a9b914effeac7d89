"""Batch normalisation, as arrays.

D features  ... batch and positions

Statistics are taken in float32 or wider. What follows the checks is compiled as one
function each, so that a model of many such layers is traced quickly.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from linnet._typing import Array, ArrayLike, DType
from linnet.functional._compile import compiled
from linnet.functional._dtype import inexact, widened
from linnet.functional._moments import (
    AxisName,
    Moments,
    admitted_by,
    affine,
    check_vectors,
    moments,
    normalised,
)
from linnet.functional._shape import align, axes_of


def batch_statistics(
    x: ArrayLike,
    *,
    axis: int = -1,
    mask: ArrayLike | None = None,
    axis_name: AxisName | None = None,
    default: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    r"""Mean and variance of each feature over all other axes.

    $\mu = \frac{1}{N} \sum_n x_n$ and $\sigma^2 = \frac{1}{N} \sum_n |x_n - \mu|^2$
    (biased), where $n$ runs over what the mask admits, on all devices that
    `axis_name` joins: every device subtracts the same global mean.

    Args:
        x: `[..., D]`, floating or complex.
        axis: Where the features are.
        mask: Booleans with as many axes as `x`, each of its size or 1; `False` is
            left out. Devices may admit different numbers of entries.
        axis_name: Mapped axis, or axes, over which the batch is spread (of
            `jax.vmap`, `jax.shard_map` or `jax.pmap`).
        default: The mean and variance to give a feature of which nothing was
            admitted; without it they are 0.

    Returns:
        Two arrays `[D]` in float32 or wider; the variance is real.

    Raises:
        ConfigError: No axis `axis_name` is in force.
        DTypeError: `x` holds integers, or `mask` anything but booleans.
        ShapeError: The mask does not fit.

    Example:
        >>> from linnet import functional as F
        >>> mean, var = F.batch_statistics(jnp.array([[1.0, 5.0], [3.0, 5.0]]))
        >>> mean, var
        (Array([2., 5.], dtype=float32), Array([1., 0.], dtype=float32))

    Source: Ioffe and Szegedy, "Batch Normalization", 2015, algorithm 1,
    arXiv:1502.03167.
    """
    x = inexact(x, "x")
    axes = axes_of(x.ndim, axis)
    names = _axis_names(axis_name)
    return _statistics(x, admitted_by(mask, x), default, axes, names)


@compiled(3, 4)
def _statistics(
    x: Array,
    admitted: Array | None,
    default: tuple[Array, Array] | None,
    axes: tuple[int, ...],
    axis_name: AxisName | None,
) -> tuple[Array, Array]:
    found = _found(x, admitted, default, axes, axis_name)
    return found.mean, found.var


def _found(
    x: Array,
    admitted: Array | None,
    default: tuple[Array, Array] | None,
    axes: tuple[int, ...],
    axis_name: AxisName | None,
) -> Moments:
    """The moments over all axes but `axes`, or the default where nothing counts."""
    x = x.astype(widened(x.dtype))
    others = tuple(a for a in range(x.ndim) if a not in axes)
    found = moments(x, others, admitted, axis_name)  # [D], [D], [..., D]
    if default is None or (isinstance(found.size, int) and found.size > 0):
        return found
    unseen = jnp.broadcast_to(jnp.asarray(found.size) == 0, found.mean.shape)
    mean, var = (
        jnp.where(unseen, given.astype(zero.dtype), jnp.zeros_like(zero))
        for given, zero in zip(default, (found.mean, found.var), strict=True)
    )
    centred = found.centred - align(mean, x.ndim, axes)
    return Moments(found.mean + mean, found.var + var, centred, 1)


def _axis_names(axis_name: AxisName | None) -> AxisName | None:
    """Hashable, as what is compiled needs it."""
    return tuple(axis_name) if isinstance(axis_name, list) else axis_name


def batch_norm_and_statistics(
    x: ArrayLike,
    scale: Array | None,
    bias: Array | None,
    *,
    axis: int,
    mask: ArrayLike | None,
    axis_name: AxisName | None,
    default: tuple[Array, Array],
    epsilon: float,
    dtype: DType | None,
) -> tuple[Array, Array, Array]:
    """`batch_norm` by the statistics of `x` itself, and these.

    A mean that is handed over is rounded, which is seen in the result where it is
    large. Here what is left of `x` after a first mean is used, which is exact.
    """
    x = inexact(x, "x")
    axes = axes_of(x.ndim, axis)
    check_vectors(x, axes, scale=scale, bias=bias)
    dtype = x.dtype if dtype is None else dtype
    admitted = admitted_by(mask, x)
    return _both(x, scale, bias, admitted, default, axes, axis_name, epsilon, dtype)


@compiled(5, 6, 8)
def _both(
    x: Array,
    scale: Array | None,
    bias: Array | None,
    admitted: Array | None,
    default: tuple[Array, Array],
    axes: tuple[int, ...],
    axis_name: AxisName | None,
    epsilon: float,
    dtype: DType,
) -> tuple[Array, Array, Array]:
    found = _found(x, admitted, default, axes, axis_name)
    others = tuple(a for a in range(x.ndim) if a not in axes)
    y = affine(normalised(found, others, epsilon), scale, bias, axes)
    return y.astype(dtype), found.mean, found.var


def moving_average(old: Array, new: Array, momentum: float) -> Array:
    r"""Moves `old` towards `new`: $m\,\mathrm{old} + (1 - m)\,\mathrm{new}$.

    Where the two are equal the result is exactly `old`.

    Args:
        old: Any shape, floating.
        new: The same shape.
        momentum: The share m of `old` that stays, `0 <= momentum <= 1`.

    Returns:
        An array like `old`.

    Example:
        >>> from linnet import functional as F
        >>> F.moving_average(jnp.array([0.0]), jnp.array([1.0]), 0.75)
        Array([0.25], dtype=float32)
    """
    return _moved(old, new, 1.0 - momentum)


@compiled()
def _moved(old: Array, new: Array, share: float) -> Array:
    wide = widened(old.dtype)
    start = old.astype(wide)
    return (start + share * (new.astype(wide) - start)).astype(old.dtype)


def batch_norm(
    x: ArrayLike,
    mean: Array,
    var: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    dtype: DType | None = None,
) -> Array:
    r"""Normalises each feature by a given mean and variance.

    $y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \mathrm{scale} +
    \mathrm{bias}$

    Args:
        x: `[..., D]`, floating or complex.
        mean: `[D]`.
        var: `[D]`, real.
        scale: `[D]`, or `None` for ones.
        bias: `[D]`, or `None` for zeros.
        axis: Where the features are.
        epsilon: Added to the variance (unit: that of `x` squared).
        dtype: Of the result; `None` takes that of `x`. The computation is in
            float32 or wider.

    Returns:
        `[..., D]`.

    Raises:
        DTypeError: `x` holds integers or booleans.
        ShapeError: A vector has not the size of the feature axis.

    Example:
        >>> from linnet import functional as F
        >>> x = jnp.array([[1.0], [3.0]])
        >>> F.batch_norm(x, *F.batch_statistics(x), epsilon=0.0)
        Array([[-1.],
               [ 1.]], dtype=float32)
    """
    x = inexact(x, "x")
    axes = axes_of(x.ndim, axis)
    check_vectors(x, axes, mean=mean, var=var, scale=scale, bias=bias)
    dtype = x.dtype if dtype is None else dtype
    return _batch_norm(x, mean, var, scale, bias, axes, epsilon, dtype)


@compiled(5, 7)
def _batch_norm(
    x: Array,
    mean: Array,
    var: Array,
    scale: Array | None,
    bias: Array | None,
    axes: tuple[int, ...],
    epsilon: float,
    dtype: DType,
) -> Array:
    wide = widened(x.dtype)
    centred = x.astype(wide) - align(mean, x.ndim, axes).astype(wide)
    factor = lax.rsqrt(align(var, x.ndim, axes) + epsilon).astype(wide)
    return affine(centred * factor, scale, bias, axes).astype(dtype)
