"""Convolutions against PyTorch."""

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
