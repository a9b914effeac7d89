"""Linear maps against Flax Linen, where PyTorch has none."""

import flax.linen
import pytest

from helpers import normal
from interop.linen import assert_same
from interop.parity import SPREAD, made
from linnet import nn


@pytest.mark.parametrize(
    ("shape", "features", "ours", "theirs"),
    [
        ((4, 3), (2, 5), {}, {}),
        ((2, 4, 3, 5), 6, {"axis": (-2, -1)}, {"axis": (-2, -1)}),
        ((2, 4, 3), (2, 2), {"axis": 1}, {"axis": 1}),
        ((2, 4, 3), 5, {"batch_axis": 0}, {"batch_dims": (0,)}),
        ((2, 4, 3), 5, {"use_bias": False}, {"use_bias": False}),
    ],
)
def test_dense_general(shape, features, ours, theirs):
    x = normal(shape)
    model = made(nn.DenseGeneral(features, bias_init=SPREAD, **ours), x)
    linen = flax.linen.DenseGeneral(features, **theirs)
    assert_same(("DenseGeneral", "flax.linen.DenseGeneral"), model, linen, x)


@pytest.mark.parametrize(
    ("equation", "shape", "kernel"),
    [
        ("abc,cde->abde", (2, 4, 3), (3, 2, 5)),
        ("abc,acd->abd", (2, 4, 3), (2, 3, 5)),
        ("...i,io->...o", (2, 4, 3), (3, 5)),
    ],
)
def test_einsum(equation, shape, kernel):
    x = normal(shape)
    model = made(nn.Einsum(equation, kernel, bias_init=SPREAD), x)
    linen = flax.linen.Einsum(kernel, equation)
    assert_same(("Einsum", "flax.linen.Einsum"), model, linen, x)
