"""Pooling, as arrays.

W spatial axes  D features
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from linnet._errors import ConfigError
from linnet._typing import Array, ArrayLike
from linnet.functional._dtype import as_array, is_inexact, widened
from linnet.functional._window import (
    Padding,
    Pads,
    canonical_padding,
    canonical_window,
    pads,
    per_axis,
    refuse_too_small,
    split_batch,
)


def max_pool(
    x: ArrayLike,
    window_shape: Sequence[int],
    strides: int | Sequence[int] | None = None,
    *,
    padding: Padding = "VALID",
) -> Array:
    """Takes the largest entry of each window, for each feature.

    Args:
        x: `[..., *W, D]`, of any dtype that is ordered, integers included.
        window_shape: Size of the window, one number per spatial axis.
        strides: Step of the window; `None` takes `window_shape`, so that windows
            do not overlap.
        padding: "VALID", "SAME", an integer, or an integer or pair per axis; each
            less than the window. What is added is never the largest.

    Returns:
        `[..., *W', D]`, same dtype as `x`.

    Raises:
        ConfigError: An option has a value that cannot be used.
        ShapeError: `x` has too few axes, or no room for a window.

    Example:
        >>> from linnet import functional as F
        >>> F.max_pool(jnp.array([[1], [3], [2], [0]]), (2,))[:, 0]
        Array([3, 2], dtype=int32)

    Differs from: Flax Linen, whose default strides are 1.
    """
    x = as_array(x)
    low, _ = _extremes(x.dtype)
    return _pooled(x, window_shape, strides, padding, low, lax.max)[0]


def min_pool(
    x: ArrayLike,
    window_shape: Sequence[int],
    strides: int | Sequence[int] | None = None,
    *,
    padding: Padding = "VALID",
) -> Array:
    """Takes the smallest entry of each window, for each feature.

    Args:
        x: `[..., *W, D]`, of any dtype that is ordered, integers included.
        window_shape: Size of the window, one number per spatial axis.
        strides: Step of the window; `None` takes `window_shape`, so that windows
            do not overlap.
        padding: "VALID", "SAME", an integer, or an integer or pair per axis; each
            less than the window. What is added is never the smallest.

    Returns:
        `[..., *W', D]`, same dtype as `x`.

    Raises:
        ConfigError: An option has a value that cannot be used.
        ShapeError: `x` has too few axes, or no room for a window.

    Example:
        >>> from linnet import functional as F
        >>> F.min_pool(jnp.array([[1], [3], [2], [0]]), (2,))[:, 0]
        Array([1, 0], dtype=int32)

    Differs from: Flax Linen, whose default strides are 1.
    """
    x = as_array(x)
    _, high = _extremes(x.dtype)
    return _pooled(x, window_shape, strides, padding, high, lax.min)[0]


def avg_pool(
    x: ArrayLike,
    window_shape: Sequence[int],
    strides: int | Sequence[int] | None = None,
    *,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
) -> Array:
    """Takes the mean of each window, for each feature.

    Args:
        x: `[..., *W, D]`. The mean of integers is float32.
        window_shape: Size of the window, one number per spatial axis.
        strides: Step of the window; `None` takes `window_shape`, so that windows
            do not overlap.
        padding: "VALID", "SAME", an integer, or an integer or pair per axis; each
            less than the window.
        count_include_pad: Whether the zeros of the padding count in the mean.

    Returns:
        `[..., *W', D]`, same dtype as `x`. Sums are taken in float32 or wider.

    Raises:
        ConfigError: An option has a value that cannot be used.
        ShapeError: `x` has too few axes, or no room for a window.

    Example:
        >>> from linnet import functional as F
        >>> x = jnp.array([[1.0], [3.0], [2.0]])
        >>> F.avg_pool(x, (2,), padding="SAME", count_include_pad=False)[:, 0]
        Array([2., 2.], dtype=float32)

    Differs from: Flax Linen, whose default strides are 1.
    """
    x = as_array(x)
    dtype = x.dtype if is_inexact(x.dtype) else jnp.dtype(jnp.float32)
    x = x.astype(widened(dtype))
    total, widths = _pooled(x, window_shape, strides, padding, 0, lax.add)
    if count_include_pad or not any(map(any, widths)):
        return (total / int(np.prod(window_shape))).astype(dtype)
    spatial = len(widths)
    ones = jnp.ones((*x.shape[x.ndim - spatial - 1 : -1], 1), x.real.dtype)
    count, _ = _pooled(ones, window_shape, strides, widths, 0, lax.add)  # [*W', 1]
    lead = (1,) * (total.ndim - count.ndim)
    return (total / count.reshape(lead + count.shape)).astype(dtype)


def _pooled(
    x: Array,
    window_shape: Sequence[int],
    strides: int | Sequence[int] | None,
    padding: Padding,
    start: Any,
    reduce: Callable[[Any, Any], Any],
) -> tuple[Array, Pads]:
    """The windows of `x`, each reduced from `start`, and the padding that was added."""
    window = canonical_window(window_shape, "window_shape")
    spatial = len(window)
    batch, x = split_batch(x, spatial)
    strides = window if strides is None else per_axis(strides, spatial, "strides")
    padding = canonical_padding(padding, spatial, ("SAME", "VALID"))
    widths = pads(padding, x.shape[1:-1], window, strides)
    ends = zip(widths, window, strict=True)
    if any(not 0 <= p < w for pair, w in ends for p in pair):
        raise ConfigError(
            f"`padding` adds {list(widths)} to windows of {list(window)}, but it must "
            "be less than the window.",
            code="LN-VALUE-06",
            why="A window could lie in the padding altogether and hold nothing.",
            fixes=[("the size should stay, but for strides", "padding = 'SAME'")],
        )
    refuse_too_small(x, x.shape[1:-1], window, widths)
    y = lax.reduce_window(
        x,
        np.asarray(start, x.dtype),
        reduce,
        window_dimensions=(1, *window, 1),
        window_strides=(1, *strides, 1),
        padding=((0, 0), *widths, (0, 0)),
    )
    return (y if len(batch) == 1 else y.reshape(batch + y.shape[1:])), widths


def _extremes(dtype: Any) -> tuple[Any, Any]:
    """The least and the greatest value of `dtype`."""
    if is_inexact(dtype):
        return -np.inf, np.inf
    if dtype == jnp.bool_:
        return False, True
    info = jnp.iinfo(dtype)  # type: ignore[no-untyped-call]
    return info.min, info.max
