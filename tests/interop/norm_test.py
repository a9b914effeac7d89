"""Normalisation against PyTorch."""

import pytest

from helpers import assert_close, normal
from interop.parity import SPREAD, assert_same, copy, first, made, plain, same, trained
from linnet import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")


@pytest.mark.parametrize("shape", [(6, 3), (6, 5, 3), (4, 5, 4, 3)])
def test_batch_norm(shape):
    x = 2 + 3 * normal(shape)
    model = made(nn.BatchNorm(momentum=0.9, scale_init=SPREAD, bias_init=SPREAD), x)
    kind = torch.nn.BatchNorm2d if len(shape) == 4 else torch.nn.BatchNorm1d
    layer = kind(3, momentum=0.1, eps=1e-5)
    copy(layer.weight, model.scale)
    copy(layer.bias, model.bias)
    pairs = [("scale", layer.weight, same), ("bias", layer.bias, same)]
    names = ("BatchNorm", f"torch.nn.{kind.__name__}")
    assert_same(names, trained, layer, model, x, pairs, to_torch=first)

    _, after = nn.training(model)(x)
    count = x.size // 3
    biased = (layer.running_var.numpy() - 0.9) * (count - 1) / count + 0.9
    assert_close(after.mean, layer.running_mean.numpy())
    assert_close(after.var, biased)

    layer.eval()
    copy(layer.running_var, after.var)
    layer.zero_grad()
    assert_same(names, plain, layer, after, x, pairs, to_torch=first)


@pytest.mark.parametrize(("shape", "axis"), [((4, 6), -1), ((2, 3, 5), (1, 2))])
def test_layer_norm(shape, axis):
    x = 2 + normal(shape)
    norm = nn.LayerNorm(axis=axis, epsilon=1e-5, scale_init=SPREAD, bias_init=SPREAD)
    model = made(norm, x)
    layer = torch.nn.LayerNorm(model.scale.shape)
    copy(layer.weight, model.scale)
    copy(layer.bias, model.bias)
    pairs = [("scale", layer.weight, same), ("bias", layer.bias, same)]
    names = ("LayerNorm", "torch.nn.LayerNorm")
    assert_same(names, plain, layer, model, x, pairs)
