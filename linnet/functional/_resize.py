"""Changing the size of images, sequences and volumes, as arrays.

W spatial axes  D features
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from linnet._errors import ConfigError, ShapeError, describe
from linnet._typing import Array, ArrayLike
from linnet.functional._compile import compiled
from linnet.functional._dtype import as_array, is_inexact, widened
from linnet.functional._window import canonical_window, split_batch

Method = Literal["nearest", "linear", "cubic", "lanczos3", "lanczos5"]
METHODS = ("nearest", "linear", "cubic", "lanczos3", "lanczos5")


def resize(
    x: ArrayLike,
    shape: Sequence[int] | None = None,
    *,
    scale: Sequence[float] | None = None,
    method: Method = "linear",
    antialias: bool = True,
) -> Array:
    """Interpolates to another size.

    The centre of the first pixel is half a pixel from the edge, before and after.

    Args:
        x: `[..., *W, D]`. Integers give float32, but for "nearest".
        shape: Size of the result, one number per spatial axis.
        scale: In the place of `shape`, how many times as large it is along each
            spatial axis, rounded down to whole pixels.
        method: How to interpolate. "nearest" takes over values as they are.
        antialias: Whether to average when the result is smaller. Without, pixels
            are left out.

    Returns:
        `[..., *shape, D]`, same dtype as `x`. Interpolated in float32 or wider.

    Raises:
        ConfigError: Not one of `shape` and `scale` is given, or an option has a
            value that cannot be used.
        ShapeError: `x` has too few axes, or a spatial axis of size zero.

    Example:
        >>> from linnet import functional as F
        >>> x = jnp.array([[0.0], [4.0]])
        >>> F.resize(x, (4,))[:, 0], F.resize(x, scale=(2,), method="nearest")[:, 0]
        (Array([0., 1., 3., 4.], dtype=float32), Array([0., 0., 4., 4.], dtype=float32))

    Differs from: PyTorch's `interpolate`, which does not antialias by default; its
    "nearest-exact" is "nearest", and its "bicubic" has another kernel unless it
    antialiases. `jax.image.resize`: it takes the whole shape.
    Source: Keys, "Cubic Convolution Interpolation for Digital Image Processing",
    1981, eq. 15, for "cubic".
    """
    if (shape is None) == (scale is None):
        raise _one_of_both(shape)
    if method not in METHODS:
        raise ConfigError(
            f"`method` is {method!r}, but it must be one of "
            f"{', '.join(map(repr, METHODS))}.",
            code="LN-VALUE-04",
            fixes=[("the usual one will do", "method = 'linear'")],
        )
    given = x = as_array(x)
    if shape is not None:
        sizes = canonical_window(shape, "shape")
        batch, x = split_batch(x, len(sizes))
    else:
        factors = _factors(scale)
        batch, x = split_batch(x, len(factors))
        spatial = zip(x.shape[1:-1], factors, strict=True)
        sizes = tuple(math.floor(n * factor) for n, factor in spatial)
    if 0 in (*x.shape[1:-1], *sizes):
        raise _empty(given, sizes)
    if method == "nearest":
        y = _nearest(x, sizes)
    else:
        y = _resized(x, sizes, method, antialias)
    return y.reshape(batch + y.shape[1:])


def pixel_shuffle(x: ArrayLike, factor: Sequence[int]) -> Array:
    r"""Spreads features over pixels: the image grows, the features become fewer.

    With factors $r_1, r_2$, feature $(c \, r_1 + i) \, r_2 + j$ of a pixel becomes
    feature c of the pixel $(i, j)$ inside of it.

    Args:
        x: `[..., *W, D]`, of any dtype.
        factor: How many times as large each spatial axis becomes; their product
            divides D.

    Returns:
        `[..., *(factor * W), D / prod(factor)]`.

    Raises:
        ConfigError: `factor` is not one number per spatial axis.
        ShapeError: `x` has too few axes, or the product does not divide D.

    Example:
        >>> from linnet import functional as F
        >>> F.pixel_shuffle(jnp.array([[1, 2], [3, 4]]), (2,))[:, 0]
        Array([1, 2, 3, 4], dtype=int32)

    Source: Shi et al., "Real-Time Single Image and Video Super-Resolution", 2016,
    eq. 4, arXiv:1609.05158.
    """
    factors = canonical_window(factor, "factor")
    count = len(factors)
    given = as_array(x)
    batch, x = split_batch(given, count)
    volume = math.prod(factors)
    if x.shape[-1] % volume:
        raise ShapeError(
            f"the {x.shape[-1]} features of `x` cannot be spread over {volume} pixels.",
            code="LN-SHAPE-01",
            facts={"x": describe(given)},
            why="Each pixel gets the same number of them.",
            fixes=[("they stay features", f"factor = {(1,) * count}")],
        )
    window, features = x.shape[1:-1], x.shape[-1] // volume
    x = x.reshape(x.shape[0], *window, features, *factors)
    # [B, W1, W2, C, r1, r2] to [B, W1, r1, W2, r2, C]
    order = [axis for i in range(count) for axis in (1 + i, 2 + count + i)]
    x = x.transpose(0, *order, 1 + count)
    grown = (n * r for n, r in zip(window, factors, strict=True))
    return x.reshape(*batch, *grown, features)


def pixel_unshuffle(x: ArrayLike, factor: Sequence[int]) -> Array:
    """Gathers pixels into features: undoes `pixel_shuffle`.

    Args:
        x: `[..., *W, D]`, of any dtype.
        factor: How many times as small each spatial axis becomes; each divides it.

    Returns:
        `[..., *(W / factor), D * prod(factor)]`.

    Raises:
        ConfigError: `factor` is not one number per spatial axis.
        ShapeError: `x` has too few axes, or a factor does not divide its axis.

    Example:
        >>> from linnet import functional as F
        >>> F.pixel_unshuffle(jnp.array([[1], [2], [3], [4]]), (2,))
        Array([[1, 2],
               [3, 4]], dtype=int32)

    Source: Shi et al., "Real-Time Single Image and Video Super-Resolution", 2016,
    eq. 4, arXiv:1609.05158.
    """
    factors = canonical_window(factor, "factor")
    count = len(factors)
    given = as_array(x)
    batch, x = split_batch(given, count)
    window = x.shape[1:-1]
    if any(n % r for n, r in zip(window, factors, strict=True)):
        raise ShapeError(
            f"the spatial axes {list(window)} of `x` are no multiples of "
            f"{list(factors)}.",
            code="LN-SHAPE-01",
            facts={"x": describe(given)},
            why="Each pixel of the result gathers as many.",
            fixes=[("the pixels stay pixels", f"factor = {(1,) * count}")],
        )
    features = x.shape[-1] * math.prod(factors)
    shrunk = [n // r for n, r in zip(window, factors, strict=True)]
    pairs = [size for pair in zip(shrunk, factors, strict=True) for size in pair]
    x = x.reshape(x.shape[0], *pairs, x.shape[-1])
    # [B, W1, r1, W2, r2, C] to [B, W1, W2, C, r1, r2]
    pixels, inside = range(1, 2 * count, 2), range(2, 2 * count + 1, 2)
    x = x.transpose(0, *pixels, 1 + 2 * count, *inside)
    return x.reshape(*batch, *shrunk, features)


def _nearest(x: Array, sizes: tuple[int, ...]) -> Array:
    for axis, size in enumerate(sizes, start=1):
        place = (np.arange(size) + 0.5) * (x.shape[axis] / size)
        x = jnp.take(x, np.minimum(place.astype(int), x.shape[axis] - 1), axis)
    return x


@compiled(1, 2, 3)
def _resized(
    x: Array, sizes: tuple[int, ...], method: Method, antialias: bool
) -> Array:
    dtype = x.dtype if is_inexact(x.dtype) else jnp.dtype(jnp.float32)
    shape = (x.shape[0], *sizes, x.shape[-1])
    wide = x.astype(widened(dtype))
    y: Array = jax.image.resize(wide, shape, method, antialias=antialias)
    return y.astype(dtype)


def _factors(scale: Sequence[float] | None) -> tuple[float, ...]:
    """The scale as one finite number above zero per spatial axis."""
    usable = isinstance(scale, Sequence) and not isinstance(scale, str) and scale
    if not usable or any(
        isinstance(n, bool) or not isinstance(n, int | float) or not 0 < n < math.inf
        for n in scale or ()
    ):
        raise ConfigError(
            f"`scale` is {scale!r}, but it must have one number above zero per "
            "spatial axis.",
            code="LN-VALUE-03",
            why="Their count tells the spatial axes of `x` from its batch axes.",
            fixes=[
                ("`x` holds images", "scale = (2, 2)"),
                ("`x` holds sequences", "scale = (2,)"),
            ],
        )
    return tuple(scale or ())


def _one_of_both(shape: Sequence[int] | None) -> ConfigError:
    given = "neither `shape` nor `scale` is" if shape is None else "both are"
    return ConfigError(
        f"one of `shape` and `scale` must be given, and {given}.",
        code="LN-VALUE-06",
        fixes=[
            ("the size is known", "y = F.resize(x, (32, 32))"),
            ("it depends on that of `x`", "y = F.resize(x, scale=(2, 2))"),
        ],
    )


def _empty(given: ArrayLike, sizes: tuple[int, ...]) -> ShapeError:
    least = tuple(max(n, 1) for n in sizes)
    return ShapeError(
        f"`x` is {describe(given)}, which cannot be resized to {list(sizes)}.",
        code="LN-SHAPE-04",
        why="No axis may be empty, before or after.",
        fixes=[("nothing stays nothing", "y = x")]
        if 0 in given.shape[-1 - len(sizes) : -1]
        else [("one pixel is enough", f"shape = {least}")],
    )
