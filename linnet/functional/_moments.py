"""Mean and variance in float32 or wider, for every normalisation.

A variance as E[x^2] - E[x]^2 loses every digit where the mean is large, and the mean
itself loses some where many large numbers are summed. Here a first mean c is subtracted
and both are taken of the rest, which is small:

    mean = c + E[x - c]    var = E[|x - c|^2] - |E[x - c]|^2

This holds for any c, so that no gradient goes through it. (Chan, Golub and LeVeque,
"Algorithms for Computing the Sample Variance", 1983, eq. 1.7.)
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from linnet._errors import ConfigError, DTypeError, ShapeError, describe
from linnet._typing import Array, ArrayLike, DType
from linnet.functional._dtype import as_array
from linnet.functional._shape import align, require_shape

AxisName = str | tuple[str, ...]


class Moments(NamedTuple):
    """What was found over some axes of an array `x`.

    Attributes:
        mean: The shape of `x` without those axes.
        var: The same shape, real and not negative.
        centred: `x - mean`, to the last digit also where the mean is large.
        size: How many entries there were, for each mean or for all alike.
    """

    mean: Array
    var: Array
    centred: Array
    size: int | Array


def moments(
    x: Array,
    axes: tuple[int, ...],
    admitted: Array | None = None,
    axis_name: AxisName | None = None,
) -> Moments:
    """Mean and biased variance over `axes`, of what is admitted, on all devices.

    Where nothing is admitted both are 0. `x` has 32 bits or more per real number.
    """
    kept = tuple(a for a in range(x.ndim) if a not in axes)
    count = _count(x, axes, admitted, axis_name)
    divisor = _at_least_one(count, x.real.dtype)

    def mean_of(values: Array) -> Array:
        return joined(values.sum(axes), axis_name) / divisor  # type: ignore[no-any-return]

    seen = _only(admitted, x)
    shift = lax.stop_gradient(mean_of(seen))
    rest = _only(admitted, seen - align(shift, x.ndim, kept))
    offset = mean_of(rest)
    var = jnp.maximum(mean_of(squared(rest)) - squared(offset), 0)
    whole = rest if admitted is None else x - align(shift, x.ndim, kept)
    centred = whole - align(offset, x.ndim, kept)
    return Moments(shift + offset, var, centred, count)


def around_zero(
    x: Array, axes: tuple[int, ...], admitted: Array | None = None
) -> Moments:
    """As `moments`, for a mean that is taken to be 0."""
    count = _count(x, axes, admitted, None)
    total = squared(_only(admitted, x)).sum(axes)
    square = total / _at_least_one(count, total.dtype)
    return Moments(jnp.zeros_like(square), square, x, count)


def normalised(found: Moments, axes: tuple[int, ...], epsilon: float) -> Array:
    """`centred` over the standard deviation, and zero where nothing was admitted."""
    x, count = found.centred, found.size
    kept = tuple(a for a in range(x.ndim) if a not in axes)
    factor = lax.rsqrt(found.var + epsilon)
    if not isinstance(count, int):
        factor = jnp.where(count > 0, factor, jnp.zeros_like(factor))
    return x * align(factor, x.ndim, kept).astype(x.dtype)


def affine(
    y: Array, scale: Array | None, bias: Array | None, axes: tuple[int, ...]
) -> Array:
    """`y * scale + bias`, which lie at `axes` and may be absent."""
    if scale is not None:
        y = y * align(scale, y.ndim, axes).astype(y.dtype)
    if bias is not None:
        y = y + align(bias, y.ndim, axes).astype(y.dtype)
    return y


def squared(x: Array) -> Array:
    """`|x|^2`, real."""
    return (x * x.conj()).real if jnp.iscomplexobj(x) else x * x


def _count(
    x: Array,
    axes: tuple[int, ...],
    admitted: Array | None,
    axis_name: AxisName | None,
) -> int | Array:
    if admitted is None:
        return joined(math.prod(x.shape[a] for a in axes), axis_name)  # type: ignore[no-any-return]
    return joined(admitted.sum(axes, dtype=jnp.int32), axis_name)  # type: ignore[no-any-return]


def _only(admitted: Array | None, x: Array) -> Array:
    """Zeros where nothing is admitted, so that neither values nor gradients get in."""
    return x if admitted is None else jnp.where(admitted, x, jnp.zeros_like(x))


def _at_least_one(count: int | Array, dtype: DType) -> int | Array:
    if isinstance(count, int):
        return max(count, 1)
    return jnp.maximum(count, 1).astype(dtype)


def joined(value: Any, axis_name: AxisName | None) -> Any:
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


def admitted_by(mask: ArrayLike | None, x: Array) -> Array | None:
    """The mask in the shape of `x`, or `None` if there is none.

    Raises:
        DTypeError: It holds anything but booleans.
        ShapeError: It does not fit.
    """
    if mask is None:
        return None
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


def check_vectors(x: Array, axes: tuple[int, ...], **vectors: Array | None) -> None:
    """Refuses a vector that is present and has not the sizes of `x` along `axes`."""
    shape = tuple(x.shape[axis] for axis in axes)
    for name, vector in vectors.items():
        require_shape(vector, shape, name, f"`x` is {describe(x)}.")
