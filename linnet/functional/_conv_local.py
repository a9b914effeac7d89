"""Convolutions with a kernel for each position, as arrays.

W spatial axes  K window  I features in  O features out
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from linnet._errors import ShapeError, describe
from linnet._typing import Array, ArrayLike, DType
from linnet.functional._conv import CONV_PADDINGS, check_conv_padding, finished
from linnet.functional._dtype import promoted
from linnet.functional._shape import features_elsewhere, require_shape
from linnet.functional._window import (
    Padding,
    Pads,
    canonical_padding,
    continued,
    pads,
    per_axis,
    refuse_too_small,
    spanned,
    split_batch,
)


def conv_local(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    input_dilation: int | Sequence[int] = 1,
    dtype: DType | None = None,
    precision: lax.PrecisionLike = None,
) -> Array:
    """Multiplies the window around each position by that position's own kernel.

    Like `conv`, but the weights are not shared between positions.

    Args:
        x: `[..., *W, I]`, floating or complex; any number of batch axes, or none.
        kernel: `[*W', *K, I, O]`, where W' are the positions of the window.
        bias: `[*W', O]`, or `None` for none.
        strides: Step of the window, in all or in each spatial axis.
        padding: As in `conv`.
        kernel_dilation: Distance between the kernel's entries.
        input_dilation: Distance to which the input's entries are drawn apart, with
            zeros between them, before padding.
        dtype: Of the computation and the result. `None` takes the one to which
            the arrays promote together.
        precision: Of the products, as in `jax.lax.dot_general`.

    Returns:
        `[..., *W', O]`.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> x, kernel = jnp.arange(4.0)[:, None], jnp.arange(3.0).reshape(3, 1, 1, 1)
        >>> F.conv_local(x, kernel.repeat(2, 1), padding="VALID")[:, 0]
        Array([ 0.,  3., 10.], dtype=float32)

    Source: LeCun, "Generalization and network design strategies", 1989, section 4.
    """
    x, kernel, bias = promoted(dtype, x, kernel, bias)
    spatial = (kernel.ndim - 2) // 2
    _check_kernel(x, kernel)
    window = kernel.shape[spatial : 2 * spatial]
    batch, flat = split_batch(x, spatial)
    strides = per_axis(strides, spatial, "strides")
    kernel_dilation = per_axis(kernel_dilation, spatial, "kernel_dilation")
    input_dilation = per_axis(input_dilation, spatial, "input_dilation")
    padding = canonical_padding(padding, spatial, CONV_PADDINGS)
    check_conv_padding(padding, spatial, input_dilation)

    options = (window, strides, padding, kernel_dilation, input_dilation)
    widths, positions = local_positions(x, *options)
    _check_positions(x, kernel, positions)
    shape = (*positions, kernel.shape[-1])
    require_shape(bias, shape, "bias", "Each position has its own.")
    flat, widths = continued(flat, padding, widths)
    flat = _drawn_apart(flat, widths, input_dilation)
    for axis in range(spatial, 0, -1):
        steps = (o[axis - 1] for o in (positions, window, strides, kernel_dilation))
        flat = _unfolded(flat, axis, *steps)  # [B, ..., W', K, ..., I]
    places = tuple(range(1, 2 * spatial, 2))
    inner = (*range(2, 2 * spatial + 1, 2), 2 * spatial + 1)
    contracted = (inner, tuple(range(spatial, 2 * spatial + 1)))
    shared = (places, tuple(range(spatial)))
    y = lax.dot_general(flat, kernel, (contracted, shared), precision=precision)
    return finished(jnp.moveaxis(y, spatial, 0), bias, batch)  # [..., *W', O]


def local_positions(
    x: ArrayLike,
    window: Sequence[int],
    strides: Sequence[int],
    padding: str | Pads,
    kernel_dilation: Sequence[int],
    input_dilation: Sequence[int],
) -> tuple[Pads, tuple[int, ...]]:
    """What is added around `[..., *W, I]`, and how many positions a window then has."""
    spatial = len(window)
    extents = spanned(window, kernel_dilation)
    sizes = spanned(x.shape[-1 - spatial : -1], input_dilation)
    widths = pads(padding, sizes, extents, strides)
    refuse_too_small(x, sizes, extents, widths)
    room = [n + sum(w) for n, w in zip(sizes, widths, strict=True)]
    steps = zip(room, extents, strides, strict=True)
    return widths, tuple(max((n - e) // s + 1, 0) for n, e, s in steps)


def _drawn_apart(x: Array, widths: Pads, dilation: Sequence[int]) -> Array:
    """`[B, *W, I]` with zeros around it and between its entries."""
    if all(d == 1 for d in dilation) and not any(map(any, widths)):
        return x
    inner = [(*w, d - 1) for w, d in zip(widths, dilation, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *inner, (0, 0, 0)))


def _unfolded(
    x: Array, axis: int, positions: int, count: int, stride: int, dilation: int
) -> Array:
    """A new axis after `axis`, for the entries of the window at each position."""
    last = (positions - 1) * stride + 1
    starts = range(0, count * dilation, dilation)
    entries = [lax.slice_in_dim(x, i, i + last, stride, axis) for i in starts]
    return jnp.stack(entries, axis + 1)


def _check_kernel(x: Array, kernel: Array) -> None:
    if kernel.ndim < 4 or kernel.ndim % 2:
        raise ShapeError(
            f"`kernel` has {kernel.ndim} axes, but 4, 6 or more are needed.",
            code="LN-SHAPE-02",
            facts={"kernel": describe(kernel)},
            why="Its axes are the positions, the window (as many), features in, and "
            "features out.",
            fixes=[("the window is one entry", "kernel = kernel[:, None]")]
            if kernel.ndim == 3
            else [],
        )
    if x.ndim and x.shape[-1] != kernel.shape[-2]:
        raise ShapeError(
            f"`x` has {x.shape[-1]} features, but `kernel` takes {kernel.shape[-2]}.",
            code="LN-SHAPE-01",
            facts={"x": describe(x), "kernel": describe(kernel)},
            why="The last axis of `x` and the kernel's last axis but one hold them.",
            fixes=features_elsewhere("x", x, kernel.shape[-2]),
        )


def _check_positions(x: Array, kernel: Array, positions: tuple[int, ...]) -> None:
    known = kernel.shape[: len(positions)]
    if known != positions:
        raise ShapeError(
            f"a window has {list(positions)} positions in `x`, but `kernel` is for "
            f"{list(known)}.",
            code="LN-SHAPE-01",
            facts={"x": describe(x), "kernel": describe(kernel)},
            why="Each position has its own kernel, so the size of `x` is fixed.",
            fixes=[
                (
                    "all positions may share the first kernel",
                    f"kernel = jnp.broadcast_to(kernel{[0] * len(positions)}, "
                    f"({', '.join(map(str, positions))}, "
                    f"*kernel.shape[{len(positions)}:]))",
                )
            ],
        )
