"""Normalisation, as arrays.

D features  ... batch and positions

All statistics are taken in float32 or wider, and a variance is the mean of squared
deviations: E[x^2] - E[x]^2 loses every digit where the mean is large.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jax import lax

from linnet._errors import ConfigError, DTypeError, ShapeError, describe
from linnet._typing import Array, ArrayLike, DType
from linnet.functional._dtype import as_array, inexact, widened
from linnet.functional._shape import align, axes_of, require_shape

AxisName = str | tuple[str, ...]


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
    x = x.astype(widened(x.dtype))
    kept = axes_of(x.ndim, axis)
    others = tuple(a for a in range(x.ndim) if a not in kept)
    admitted = None if mask is None else _admitted(mask, x)

    if admitted is None:
        count = _joined(math.prod(x.shape[a] for a in others), axis_name)
    else:
        count = _joined(admitted.sum(others, dtype=jnp.int32), axis_name)  # [D]
    divisor = _at_least_one(count, x.real.dtype)
    x = _only(admitted, x)
    mean: Array = _joined(x.sum(others), axis_name) / divisor  # [D]
    deviation = _only(admitted, x - align(mean, x.ndim, kept))
    var: Array = _joined(_squared(deviation).sum(others), axis_name) / divisor  # [D]
    if default is None or (isinstance(count, int) and count > 0):
        return mean, var
    seen = jnp.broadcast_to(jnp.asarray(count) > 0, mean.shape)
    return (
        jnp.where(seen, mean, default[0].astype(mean.dtype)),
        jnp.where(seen, var, default[1].astype(var.dtype)),
    )


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
    wide = widened(old.dtype)
    start = old.astype(wide)
    step = (1.0 - momentum) * (new.astype(wide) - start)
    return (start + step).astype(old.dtype)


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
    _check_vectors(x, axes, mean=mean, var=var, scale=scale, bias=bias)
    wide = widened(x.dtype)
    centred = x.astype(wide) - align(mean, x.ndim, axes).astype(wide)
    factor = lax.rsqrt(align(var, x.ndim, axes) + epsilon).astype(wide)
    y = _affine(centred * factor, scale, bias, axes)
    return y.astype(x.dtype if dtype is None else dtype)


def layer_norm(
    x: ArrayLike,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    axis: int | tuple[int, ...] = -1,
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
        epsilon: Added to the variance (unit: that of `x` squared).
        dtype: Of the result; `None` takes that of `x`. The computation is in
            float32 or wider.

    Returns:
        `[..., D]`.

    Raises:
        DTypeError: `x` holds integers or booleans.
        ShapeError: `scale` or `bias` does not fit.

    Example:
        >>> from linnet import functional as F
        >>> F.layer_norm(jnp.array([1.0, 3.0, 1.0, 3.0]), epsilon=0.0)
        Array([-1.,  1., -1.,  1.], dtype=float32)

    Source: Ba, Kiros and Hinton, "Layer Normalization", 2016, eq. 3,
    arXiv:1607.06450.
    """
    x = inexact(x, "x")
    axes = axes_of(x.ndim, axis)
    _check_vectors(x, axes, scale=scale, bias=bias)
    wide = x.astype(widened(x.dtype))
    centred = wide - wide.mean(axes, keepdims=True)
    var = _squared(centred).mean(axes, keepdims=True)
    factor = lax.rsqrt(var + epsilon).astype(wide.dtype)
    y = _affine(centred * factor, scale, bias, axes)
    return y.astype(x.dtype if dtype is None else dtype)


def _affine(
    y: Array, scale: Array | None, bias: Array | None, axes: tuple[int, ...]
) -> Array:
    if scale is not None:
        y = y * align(scale, y.ndim, axes).astype(y.dtype)
    if bias is not None:
        y = y + align(bias, y.ndim, axes).astype(y.dtype)
    return y


def _squared(x: Array) -> Array:
    return (x * x.conj()).real if jnp.iscomplexobj(x) else x * x


def _only(admitted: Array | None, x: Array) -> Array:
    """Zeros where nothing is admitted, so that neither values nor gradients get in."""
    return x if admitted is None else jnp.where(admitted, x, jnp.zeros_like(x))


def _at_least_one(count: int | Array, dtype: DType) -> int | Array:
    if isinstance(count, int):
        return max(count, 1)
    return jnp.maximum(count, 1).astype(dtype)


def _joined(value: Any, axis_name: AxisName | None) -> Any:
    """The sum of `value` over the devices; an int stays one, as all are alike."""
    if axis_name is None:
        return value
    try:
        return lax.psum(value, axis_name)
    except NameError as error:
        raise ConfigError(
            f"`axis_name={axis_name!r}` does not name a mapped axis in force here.",
            code="LN-VALUE-07",
            why="The batch statistics are summed over that axis, which only "
            "`jax.vmap`, `jax.shard_map` or `jax.pmap` can put in force.",
            fixes=[("the batch is in one piece", "axis_name = None")],
        ) from error


def _admitted(mask: ArrayLike, x: Array) -> Array:
    mask = as_array(mask)
    if mask.dtype != jnp.bool_:
        raise DTypeError(
            f"`mask` has dtype {mask.dtype}, but it must hold booleans.",
            code="LN-DTYPE-01",
            facts={"mask": describe(mask)},
            why="Numbers could be meant as weights, which are not supported.",
            fixes=[("entries other than 0 count", "mask = mask != 0")],
        )
    fits = mask.ndim == x.ndim and all(
        m in (1, n) for m, n in zip(mask.shape, x.shape, strict=True)
    )
    if not fits:
        raise ShapeError(
            f"`mask` of shape {list(mask.shape)} does not fit `x` of shape "
            f"{list(x.shape)}.",
            code="LN-SHAPE-01",
            facts={"x": describe(x), "mask": describe(mask)},
            why="It must have as many axes as `x`, each of the same size or 1.",
            fixes=[("it lacks the feature axis", "mask = mask[..., None]")],
        )
    return jnp.broadcast_to(mask, x.shape)


def _check_vectors(x: Array, axes: tuple[int, ...], **vectors: Array | None) -> None:
    shape = tuple(x.shape[axis] for axis in axes)
    for name, vector in vectors.items():
        require_shape(vector, shape, name, f"`x` is {describe(x)}.")
