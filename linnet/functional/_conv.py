"""Convolutions, as arrays.

W spatial axes  K window  I features in  O features out  G groups
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jax import lax

from linnet._errors import ConfigError, ShapeError, describe
from linnet._typing import Array, ArrayLike, DType
from linnet.functional._compile import compiled
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

CONV_PADDINGS = ("SAME", "VALID", "CAUSAL", "CIRCULAR", "REFLECT")


def conv(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    input_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    dtype: DType | None = None,
    precision: lax.PrecisionLike = None,
) -> Array:
    """Slides `kernel` over the spatial axes of `x` and adds `bias`.

    As everywhere in deep learning the kernel is not flipped (cross-correlation).
    The number of spatial axes is that of the kernel's window.

    Args:
        x: `[..., *W, I]`, floating or complex; any number of batch axes, or none.
        kernel: `[*K, I / G, O]`.
        bias: `[O]`, or `None` for none.
        strides: Step of the window, in all or in each spatial axis.
        padding: "VALID" adds nothing. "SAME" adds zeros so that there are
            `ceil(size / stride)` outputs; "CAUSAL" (one spatial axis) adds them
            all before. "CIRCULAR" and "REFLECT" continue the input. An integer,
            or one per axis, adds so many zeros on both sides; a pair per axis
            says how many before and after.
        kernel_dilation: Distance between the kernel's entries.
        input_dilation: Distance to which the input's entries are drawn apart, with
            zeros between them, before padding.
        feature_group_count: Number G of groups of features that do not mix.
        dtype: Of the computation and the result. `None` takes the one to which
            the arrays promote together.
        precision: Of the products, as in `jax.lax.conv_general_dilated`.

    Returns:
        `[..., *W', O]`.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> x = jnp.arange(5.0)[:, None]
        >>> F.conv(x, jnp.ones((3, 1, 1)), padding="CAUSAL")[:, 0]
        Array([0., 1., 3., 6., 9.], dtype=float32)
    """
    x, kernel, bias = promoted(dtype, x, kernel, bias)
    spatial = kernel.ndim - 2
    groups = feature_group_count
    check_conv_kernel(x, kernel, groups)
    require_shape(bias, kernel.shape[-1:], "bias", "Each output feature has one bias.")
    batch, flat = split_batch(x, spatial)
    strides = per_axis(strides, spatial, "strides")
    kernel_dilation = per_axis(kernel_dilation, spatial, "kernel_dilation")
    input_dilation = per_axis(input_dilation, spatial, "input_dilation")
    padding = canonical_padding(padding, spatial, CONV_PADDINGS)
    check_conv_padding(padding, spatial, input_dilation)

    extents = spanned(kernel.shape[:-2], kernel_dilation)
    sizes = spanned(flat.shape[1:-1], input_dilation)
    widths = pads(padding, sizes, extents, strides)
    refuse_too_small(x, sizes, extents, widths)
    flat, widths = continued(flat, padding, widths)
    options = Convolution(
        strides,
        widths,
        input_dilation,
        kernel_dilation,
        channels_last(spatial),
        groups,
        precision,
    )
    return convolved(flat, kernel, bias, batch, options)


class Convolution(NamedTuple):
    """The options of `lax.conv_general_dilated`, under its names."""

    window_strides: tuple[int, ...]
    padding: Pads
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    dimension_numbers: lax.ConvDimensionNumbers
    feature_group_count: int
    precision: lax.PrecisionLike


@compiled(3, 4)
def convolved(
    x: Array,
    kernel: Array,
    bias: Array | None,
    batch: tuple[int, ...],
    options: Convolution,
) -> Array:
    """The convolution of `[B, *W, I]`, with a bias and the input's batch axes."""
    y = lax.conv_general_dilated(x, kernel, **options._asdict())  # [B, *W', O]
    return finished(y, bias, batch)


def finished(y: Array, bias: Array | None, batch: tuple[int, ...]) -> Array:
    """`[B, *W, O]` with its bias, of the last axes, and the input's batch axes."""
    if bias is not None:
        last = range(y.ndim - bias.ndim, y.ndim)
        y = lax.add(y, lax.broadcast_in_dim(bias, y.shape, last))
    return y if len(batch) == 1 else y.reshape(batch + y.shape[1:])  # [..., *W, O]


def check_causal(padding: object, spatial: int, instead: str) -> None:
    """Refuses "CAUSAL" where it is not clear which axis is time."""
    if padding == "CAUSAL" and spatial != 1:
        raise ConfigError(
            f"`padding='CAUSAL'` is for one spatial axis, but there are {spatial}.",
            code="LN-VALUE-06",
            why="It would have to be said which of the axes is time.",
            fixes=[("time comes first", f"padding = [{instead}, (0, 0)]")],
        )


def check_conv_padding(
    padding: object, spatial: int, input_dilation: Sequence[int]
) -> None:
    """Refuses the combinations that have no one meaning."""
    check_causal(padding, spatial, "(window - 1, 0)")
    if padding in ("CIRCULAR", "REFLECT") and any(d != 1 for d in input_dilation):
        raise ConfigError(
            f"`padding={padding!r}` cannot be combined with `input_dilation`.",
            code="LN-VALUE-06",
            why="It is not defined whether the zeros between entries continue too.",
            fixes=[("zeros around `x` will do", "padding = 'SAME'")],
        )


def channels_last(spatial: int, swapped: bool = False) -> lax.ConvDimensionNumbers:
    """`[B, *W, D]` for data, and `[*K, in, out]` for kernels, or these swapped."""
    inner = tuple(range(1, spatial + 1))
    data = (0, spatial + 1, *inner)
    last = (spatial, spatial + 1) if swapped else (spatial + 1, spatial)
    weights = (*last, *range(spatial))
    return lax.ConvDimensionNumbers(data, weights, data)


def check_conv_kernel(
    x: Array, kernel: Array, groups: int, *, transposed: bool = False
) -> None:
    """Refuses a kernel `[*K, I / G, O]`, or `[*K, O / G, I]`, that does not fit."""
    if kernel.ndim < 3:
        raise ShapeError(
            f"`kernel` has {kernel.ndim} axes, but a convolution needs at least 3.",
            code="LN-SHAPE-02",
            facts={"kernel": describe(kernel)},
            why="Its axes are the window (one or more), features in, features out.",
            fixes=[("the window is one entry", "kernel = kernel[None]")]
            if kernel.ndim == 2
            else [],
        )
    *_, inner, last = kernel.shape
    if groups < 1 or last % groups:
        side = "input" if transposed else "output"
        raise ConfigError(
            f"`feature_group_count` is {groups}, which does not divide the "
            f"{last} {side} features of `kernel`.",
            code="LN-VALUE-06",
            facts={"kernel": describe(kernel)},
            fixes=[("all features may mix", "feature_group_count = 1")],
        )
    size_in = last if transposed else inner * groups
    if x.ndim and x.shape[-1] != size_in:
        where = "" if transposed else " but one"
        divided = "" if transposed else " divided by `feature_group_count`"
        raise ShapeError(
            f"`x` has {x.shape[-1]} features, but `kernel` takes {size_in}.",
            code="LN-SHAPE-01",
            facts={"x": describe(x), "kernel": describe(kernel)},
            why="The last axis of `x` holds the features; the kernel's last axis"
            f"{where} has them{divided}.",
            fixes=features_elsewhere("x", x, size_in),
        )
