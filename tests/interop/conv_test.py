"""Convolutions against PyTorch."""

import jax.numpy as jnp
import pytest

from helpers import normal
from interop.parity import (
    SPREAD,
    assert_same,
    copy,
    first,
    made,
    plain,
    same,
    transposed,
)
from linnet import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")


CONVOLUTIONS = [
    ((2, 9, 4), (3,), {}, {}),
    ((2, 9, 4), (3,), {"strides": 2, "padding": 1}, {"stride": 2, "padding": 1}),
    ((2, 9, 4), (4,), {"kernel_dilation": 2}, {"dilation": 2}),
    ((2, 8, 7, 4), (3, 2), {"strides": (2, 1)}, {"stride": (2, 1)}),
    ((2, 8, 7, 4), (3, 3), {"feature_group_count": 2}, {"groups": 2}),
    ((2, 8, 7, 4), (3, 3), {"feature_group_count": 4}, {"groups": 4}),
    ((2, 8, 7, 4), (3, 4), {"padding": "SAME"}, {"padding": "same"}),
    (
        (2, 8, 7, 4),
        (3, 3),
        {"padding": "CIRCULAR"},
        {"padding": "same", "padding_mode": "circular"},
    ),
    (
        (2, 8, 7, 4),
        (3, 3),
        {"padding": "REFLECT"},
        {"padding": "same", "padding_mode": "reflect"},
    ),
    ((2, 5, 6, 5, 4), (2, 3, 2), {"padding": [0, 1, 1]}, {"padding": (0, 1, 1)}),
]


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # it pads in a copy
@pytest.mark.parametrize(("shape", "window", "ours", "theirs"), CONVOLUTIONS, ids=str)
def test_conv(shape, window, ours, theirs):
    x = normal(shape)
    options = {"padding": "VALID"} | ours
    model = made(nn.Conv(8, window, bias_init=SPREAD, **options), x)
    kind = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)[len(window) - 1]
    layer = kind(4, 8, window, **theirs)
    copy(layer.weight, transposed(model.kernel))
    copy(layer.bias, model.bias)
    pairs = [("kernel", layer.weight, transposed), ("bias", layer.bias, same)]
    assert_same(
        ("Conv", f"torch.nn.{kind.__name__}"),
        plain,
        layer,
        model,
        x,
        pairs,
        to_torch=first,
    )


TRANSPOSED = [
    ((2, 5, 4), (3,), {"padding": 0}, {}),
    ((2, 5, 4), (4,), {"strides": 2, "padding": 1}, {"stride": 2, "padding": 1}),
    (
        (2, 5, 4),
        (3,),
        {"strides": 3, "padding": 0, "output_padding": 2},
        {"stride": 3, "output_padding": 2},
    ),
    (
        (2, 4, 5, 4),
        (3, 2),
        {"strides": (2, 1), "padding": [1, 0], "output_padding": (1, 0)},
        {"stride": (2, 1), "padding": (1, 0), "output_padding": (1, 0)},
    ),
    (
        (2, 4, 5, 4),
        (3, 3),
        {"kernel_dilation": 2, "padding": 0, "feature_group_count": 2},
        {"dilation": 2, "groups": 2},
    ),
    (
        (2, 4, 5, 4),
        (3, 3),
        {"strides": 2, "padding": 1, "feature_group_count": 4},
        {"stride": 2, "padding": 1, "groups": 4},
    ),
    ((2, 3, 2, 3, 4), (2, 3, 2), {"strides": 2, "padding": 0}, {"stride": 2}),
]


@pytest.mark.parametrize("transpose_kernel", [True, False])
@pytest.mark.parametrize(("shape", "window", "ours", "theirs"), TRANSPOSED, ids=str)
def test_conv_transpose(shape, window, ours, theirs, transpose_kernel):
    x = normal(shape)
    options = ours | {"transpose_kernel": transpose_kernel}
    groups = ours.get("feature_group_count", 1)
    model = made(nn.ConvTranspose(8, window, bias_init=SPREAD, **options), x)
    name = f"ConvTranspose{len(window)}d"
    layer = getattr(torch.nn, name)(4, 8, window, **theirs)

    def layout(kernel):
        """As [in, out / groups, *window], as PyTorch has it."""
        if transpose_kernel:
            return jnp.moveaxis(kernel, (-1, -2), (0, 1))
        kernel = jnp.flip(kernel, range(len(window)))
        groupwise = jnp.stack(jnp.split(kernel, groups, -1))  # [G, *K, I / G, O / G]
        return jnp.concatenate(jnp.moveaxis(groupwise, (-2, -1), (1, 2)))

    copy(layer.weight, layout(model.kernel))
    copy(layer.bias, model.bias)
    pairs = [("kernel", layer.weight, layout), ("bias", layer.bias, same)]
    names = ("ConvTranspose", f"torch.nn.{name}")
    assert_same(names, plain, layer, model, x, pairs, to_torch=first)


@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise_conv(multiplier):
    x = normal((2, 6, 5, 4))
    options = {"channel_multiplier": multiplier, "strides": 2, "padding": 1}
    model = made(nn.DepthwiseConv((3, 2), bias_init=SPREAD, **options), x)
    layer = torch.nn.Conv2d(4, 4 * multiplier, (3, 2), 2, 1, groups=4)
    copy(layer.weight, transposed(model.kernel))
    copy(layer.bias, model.bias)
    pairs = [("kernel", layer.weight, transposed), ("bias", layer.bias, same)]
    names = ("DepthwiseConv", "torch.nn.Conv2d")
    assert_same(names, plain, layer, model, x, pairs, to_torch=first)


def test_separable_conv():
    x = normal((2, 6, 5, 4))
    layer = nn.SeparableConv(
        3, (3, 3), channel_multiplier=2, padding="VALID", bias_init=SPREAD
    )
    model = made(layer, x)
    depthwise = torch.nn.Conv2d(4, 8, 3, groups=4, bias=False)
    pointwise = torch.nn.Conv2d(8, 3, 1)
    copy(depthwise.weight, transposed(model.depthwise.kernel))

    def layout(kernel):
        return kernel.T[:, :, None, None]

    copy(pointwise.weight, layout(model.pointwise.kernel))
    copy(pointwise.bias, model.pointwise.bias)
    pairs = [
        ("depthwise/kernel", depthwise.weight, transposed),
        ("pointwise/kernel", pointwise.weight, layout),
        ("pointwise/bias", pointwise.bias, same),
    ]
    theirs = torch.nn.Sequential(depthwise, pointwise)
    names = ("SeparableConv", "torch.nn.Conv2d")
    assert_same(names, plain, theirs, model, x, pairs, to_torch=first)
