"""Pooling to a given size, as arrays.

W spatial axes  D features
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax

from linnet._errors import ShapeError, describe
from linnet._typing import Array, ArrayLike
from linnet.functional._compile import compiled
from linnet.functional._dtype import as_array, is_inexact, widened
from linnet.functional._window import canonical_window, split_batch

Ranges = tuple[tuple[int, int], ...]


def adaptive_avg_pool(x: ArrayLike, shape: Sequence[int | None]) -> Array:
    r"""Takes the means of windows that cover an input of any size.

    Along each axis output $i$ of $m$ is the mean over $\lfloor i n / m \rfloor \le j <
    \lceil (i + 1) n / m \rceil$ of the n inputs. With `(1, 1)` it is global pooling.

    Args:
        x: `[..., *W, D]`. The mean of integers is float32.
        shape: Size of the result, one number per spatial axis; `None` keeps it.

    Returns:
        `[..., *shape, D]`, same dtype as `x`. Sums are taken in float32 or wider.

    Raises:
        ConfigError: `shape` is not one number per spatial axis.
        ShapeError: `x` has too few axes, or a spatial axis of size zero.

    Example:
        >>> from linnet import functional as F
        >>> x = jnp.arange(5.0)[:, None]
        >>> F.adaptive_avg_pool(x, (1,))[:, 0], F.adaptive_avg_pool(x, (2,))[:, 0]
        (Array([2.], dtype=float32), Array([1., 3.], dtype=float32))
    """
    x, batch, ranges = _prepared(x, shape)
    dtype = x.dtype if is_inexact(x.dtype) else jnp.dtype(jnp.float32)
    y = _averaged(x.astype(widened(dtype)), ranges).astype(dtype)
    return y.reshape(batch + y.shape[1:])


def adaptive_max_pool(x: ArrayLike, shape: Sequence[int | None]) -> Array:
    r"""Takes the largest entries of windows that cover an input of any size.

    The windows are those of `adaptive_avg_pool`. With `(1, 1)` it is global pooling.

    Args:
        x: `[..., *W, D]`, of any dtype that is ordered, integers included.
        shape: Size of the result, one number per spatial axis; `None` keeps it.

    Returns:
        `[..., *shape, D]`, same dtype as `x`.

    Raises:
        ConfigError: `shape` is not one number per spatial axis.
        ShapeError: `x` has too few axes, or a spatial axis of size zero.

    Example:
        >>> from linnet import functional as F
        >>> F.adaptive_max_pool(jnp.array([[1], [3], [2], [0], [1]]), (2,))[:, 0]
        Array([3, 2], dtype=int32)
    """
    x, batch, ranges = _prepared(x, shape)
    y = _largest(x, ranges)
    return y.reshape(batch + y.shape[1:])


@compiled(1)
def _averaged(x: Array, ranges: tuple[Ranges, ...]) -> Array:
    for axis, windows in enumerate(ranges, start=1):
        size, count = x.shape[axis], len(windows)
        if count == size:
            continue
        if size % count == 0:
            parts = (*x.shape[:axis], count, size // count, *x.shape[axis + 1 :])
            x = x.reshape(parts).mean(axis + 1)
            continue
        weights = np.zeros((size, count))
        for i, (start, end) in enumerate(windows):
            weights[start:end, i] = 1 / (end - start)
        kernel = jnp.asarray(weights, x.dtype)
        x = jnp.tensordot(x, kernel, (axis, 0), precision=lax.Precision.HIGHEST)
        x = jnp.moveaxis(x, -1, axis)
    return x


@compiled(1)
def _largest(x: Array, ranges: tuple[Ranges, ...]) -> Array:
    for axis, windows in enumerate(ranges, start=1):
        if len(windows) == x.shape[axis]:
            continue
        width = max(end - start for start, end in windows)
        # A window that is shorter than the others has its last entry repeated.
        inside = [
            [min(start + k, end - 1) for k in range(width)] for start, end in windows
        ]
        x = jnp.take(x, np.array(inside), axis).max(axis + 1)
    return x


def _prepared(
    x: ArrayLike, shape: Sequence[int | None]
) -> tuple[Array, tuple[int, ...], tuple[Ranges, ...]]:
    """The input with one batch axis, its batch shape, and the windows of each axis."""
    wanted = tuple(shape) if isinstance(shape, Sequence) else ()
    if wanted:
        shape = [1 if size is None else size for size in wanted]
    sizes = canonical_window(shape, "shape")  # type: ignore[arg-type]
    given = as_array(x)
    batch, x = split_batch(given, len(sizes))
    ranges = []
    for size, own, asked in zip(x.shape[1:-1], sizes, wanted, strict=True):
        count = size if asked is None else own
        if size == 0 != count:
            raise _empty(given, len(sizes))
        ends = ((i * size // count, -(-(i + 1) * size // count)) for i in range(count))
        ranges.append(tuple(ends))
    return x, batch, tuple(ranges)


def _empty(x: Array, count: int) -> ShapeError:
    return ShapeError(
        f"`x` is {describe(x)}, and a spatial axis is empty.",
        code="LN-SHAPE-04",
        why="A window over nothing has neither a mean nor a largest entry.",
        fixes=[("nothing stays nothing", f"shape = {(None,) * count}")],
    )
