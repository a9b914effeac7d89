"""Transposed convolutions, as arrays.

W spatial axes  K window  I features in  O features out  G groups
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from linnet._errors import ConfigError, ShapeError, describe
from linnet._typing import Array, ArrayLike, DType
from linnet.functional._conv import (
    Convolution,
    channels_last,
    check_causal,
    check_conv_kernel,
    convolved,
)
from linnet.functional._dtype import promoted
from linnet.functional._shape import require_shape
from linnet.functional._window import (
    Padding,
    Pads,
    canonical_padding,
    per_axis,
    spanned,
    split_batch,
)

CONV_TRANSPOSE_PADDINGS = ("SAME", "VALID", "CAUSAL", "CIRCULAR")


def conv_transpose(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    output_padding: int | Sequence[int] = 0,
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    transpose_kernel: bool = False,
    dtype: DType | None = None,
    precision: lax.PrecisionLike = None,
) -> Array:
    """Lets each entry of `x` add a multiple of `kernel` to the result, and a bias.

    Neighbours in `x` are `strides` apart in the result.

    Args:
        x: `[..., *W, I]`, floating or complex; any number of batch axes, or none.
        kernel: `[*K, I / G, O]`, which is added flipped, so that with strides of 1
            this is `conv`; or `[*K, O / G, I]`, if `transpose_kernel`.
        bias: `[O]`, or `None` for none.
        strides: Distance, in all or in each spatial axis of the result, of what
            neighbours in `x` add.
        padding: What is cut off the result, which without is as large as what the
            window reaches. "SAME" leaves `size * stride` entries, cutting both ends;
            "CAUSAL" (one spatial axis) as many, cutting the end, so that no entry
            depends on later ones; "CIRCULAR" as many as "SAME", where what was cut
            is added at the other end. "VALID" cuts nothing, and fills up to
            `size * stride` entries. An integer, or one per axis, cuts so many on
            both sides; a pair per axis says how many before and after.
        output_padding: Entries that only the bias fills, after each axis. It goes
            with a padding in numbers, and is less than the stride or the dilation.
        kernel_dilation: Distance between the kernel's entries.
        feature_group_count: Number G of groups of features that do not mix.
        transpose_kernel: Whether `kernel` is that of a convolution from O to I
            features, of which this is then the transpose: its gradient with respect
            to the input.
        dtype: Of the computation and the result. `None` takes the one to which
            the arrays promote together.
        precision: Of the products, as in `jax.lax.conv_general_dilated`.

    Returns:
        `[..., *W', O]`.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together, or nothing would be left.

    Example:
        >>> from linnet import functional as F
        >>> x, kernel = jnp.array([[1.0], [2.0]]), jnp.ones((3, 1, 1))
        >>> F.conv_transpose(x, kernel, strides=2, padding=0)[:, 0]
        Array([1., 1., 3., 2., 2.], dtype=float32)

    Differs from: `jax.lax.conv_transpose`, whose padding in numbers surrounds `x`
    instead of cutting the result.
    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep
    learning", 2016, chapter 4, arXiv:1603.07285.
    """
    x, kernel, bias = promoted(dtype, x, kernel, bias)
    spatial = kernel.ndim - 2
    groups = feature_group_count
    check_conv_kernel(x, kernel, groups, transposed=transpose_kernel)
    features = kernel.shape[-2] * groups if transpose_kernel else kernel.shape[-1]
    require_shape(bias, (features,), "bias", "Each output feature has one bias.")
    batch, flat = split_batch(x, spatial)
    strides = per_axis(strides, spatial, "strides")
    kernel_dilation = per_axis(kernel_dilation, spatial, "kernel_dilation")
    output_padding = per_axis(output_padding, spatial, "output_padding", least=0)
    padding = canonical_padding(padding, spatial, CONV_TRANSPOSE_PADDINGS)
    check_transpose_padding(padding, output_padding, strides, kernel_dilation)

    extents = spanned(kernel.shape[:-2], kernel_dilation)
    cuts = _cuts(padding, output_padding, extents, strides)
    _refuse_empty(x, cuts, extents, strides)
    if padding == "CIRCULAR":
        flat, cuts = _wrapped(flat, cuts, extents, strides)
    reach = zip(cuts, extents, strict=True)
    if transpose_kernel:
        kernel = lax.rev(_regrouped(kernel, groups), tuple(range(spatial)))
    options = Convolution(
        (1,) * spatial,
        tuple((e - 1 - before, e - 1 - after) for (before, after), e in reach),
        strides,
        kernel_dilation,
        channels_last(spatial, transpose_kernel and groups == 1),
        groups,
        precision,
    )
    return convolved(flat, kernel, bias, batch, options)


def check_transpose_padding(
    padding: str | Pads,
    output_padding: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
) -> None:
    """Refuses the combinations that have no one meaning."""
    check_causal(padding, len(strides), "(0, window - 1)")
    if not any(output_padding):
        return
    if isinstance(padding, str):
        raise ConfigError(
            f"`output_padding` cannot be combined with `padding={padding!r}`.",
            code="LN-VALUE-06",
            why="Such a padding says by itself how large the result is.",
            fixes=[("that size is right", "output_padding = 0")],
        )
    bounds = [max(s, d) for s, d in zip(strides, dilation, strict=True)]
    if any(n >= b for n, b in zip(output_padding, bounds, strict=True)):
        least = [min(n, b - 1) for n, b in zip(output_padding, bounds, strict=True)]
        raise ConfigError(
            f"`output_padding` is {list(output_padding)}, but it must be less than "
            f"{bounds}, the strides or dilations.",
            code="LN-VALUE-06",
            why="It tells apart the sizes that a convolution with these strides takes "
            "to the same size.",
            fixes=[("the largest such size is meant", f"output_padding = {least}")],
        )


def _cuts(
    padding: str | Pads,
    output_padding: Sequence[int],
    extents: Sequence[int],
    strides: Sequence[int],
) -> Pads:
    """Entries to cut before and after each axis; a negative number adds zeros."""
    if not isinstance(padding, str):
        pairs = zip(padding, output_padding, strict=True)
        return tuple((before, after - extra) for (before, after), extra in pairs)
    spare = [e - s for e, s in zip(extents, strides, strict=True)]
    if padding == "VALID":
        return tuple((0, min(n, 0)) for n in spare)
    if padding == "CAUSAL":
        return tuple((0, n) for n in spare)
    return tuple((max(n, 0) // 2, n - max(n, 0) // 2) for n in spare)


def _refuse_empty(
    x: Array, cuts: Pads, extents: Sequence[int], strides: Sequence[int]
) -> None:
    sizes = x.shape[-1 - len(strides) : -1]
    steps = zip(sizes, strides, extents, strict=True)
    whole = [(n - 1) * s + e for n, s, e in steps]
    left = [n - before - after for n, (before, after) in zip(whole, cuts, strict=True)]
    if 0 not in sizes and min(left) < 1:
        raise ShapeError(
            f"`padding` cuts {list(cuts)} off a result of {whole} entries.",
            code="LN-SHAPE-04",
            facts={"x": describe(x)},
            why="The result would be empty, and so would be all that follows.",
            fixes=[("the size should grow by the strides", "padding = 'SAME'")],
        )


def _wrapped(
    x: Array, cuts: Pads, extents: Sequence[int], strides: Sequence[int]
) -> tuple[Array, Pads]:
    """`x`, continued as far as the windows reach, and what is to be cut off then."""
    around, wider = [], []
    for (before, after), e, s in zip(cuts, extents, strides, strict=True):
        lead = (e - 1 - before) // s
        tail = (s - 1 + before) // s
        around.append((lead, tail))
        wider.append((before + lead * s, after + tail * s))
    return jnp.pad(x, ((0, 0), *around, (0, 0)), mode="wrap"), tuple(wider)


def _regrouped(kernel: Array, groups: int) -> Array:
    """`[*K, O / G, I]` as `[*K, I / G, O]`; with one group the axes stay."""
    if groups == 1:
        return kernel
    *window, size_out, size_in = kernel.shape
    split = kernel.reshape(*window, size_out, groups, size_in // groups)
    turned = jnp.moveaxis(split, (-1, -2, -3), (-3, -2, -1))  # [*K, I / G, G, O / G]
    return turned.reshape(*window, size_in // groups, groups * size_out)
