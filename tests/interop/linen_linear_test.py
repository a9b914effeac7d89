"""Linear maps against Flax Linen, where PyTorch has none."""

import flax.linen
import jax
import pytest

from helpers import normal
from interop.parity import SPREAD, assert_agrees, made
from linnet import nn


def assert_same(names, model, theirs, x):
    """Values, and gradients with respect to parameters and input."""
    arrays = nn.to_paths(model)
    weight = normal(model(x).shape, 1)

    def their_loss(params, x):
        return (theirs.apply({"params": params}, x) * weight).sum()

    grads, grad_x = (
        nn.grad(lambda m: (m(x) * weight).sum())(model),
        jax.grad(lambda x: (model(x) * weight).sum())(x),
    )
    expected, expected_x = jax.grad(their_loss, (0, 1))(arrays, x)
    assert_agrees(*names, "values", model(x), theirs.apply({"params": arrays}, x))
    assert_agrees(*names, "gradients", grad_x, expected_x)
    assert_agrees(*names, "gradients", nn.to_paths(grads), expected)


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
