"""Normalisation against PyTorch."""

import jax.numpy as jnp
import numpy as np
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


@pytest.mark.parametrize(("shape", "axis"), [((4, 6), -1), ((2, 3, 5), (1, 2))])
def test_rms_norm(shape, axis):
    x = 2 + normal(shape)
    model = made(nn.RMSNorm(axis=axis, epsilon=1e-5, scale_init=SPREAD), x)
    layer = torch.nn.RMSNorm(model.scale.shape, eps=1e-5)
    copy(layer.weight, model.scale)
    pairs = [("scale", layer.weight, same)]
    assert_same(("RMSNorm", "torch.nn.RMSNorm"), plain, layer, model, x, pairs)


@pytest.mark.parametrize("shape", [(4, 12), (2, 5, 12), (2, 3, 4, 12)])
@pytest.mark.parametrize("groups", [1, 3])
def test_group_norm(shape, groups):
    x = 2 + normal(shape)
    options = {"epsilon": 1e-5, "scale_init": SPREAD, "bias_init": SPREAD}
    model = made(nn.GroupNorm(groups, **options), x)
    layer = torch.nn.GroupNorm(groups, 12, eps=1e-5)
    copy(layer.weight, model.scale)
    copy(layer.bias, model.bias)
    pairs = [("scale", layer.weight, same), ("bias", layer.bias, same)]
    names = ("GroupNorm", "torch.nn.GroupNorm")
    assert_same(names, plain, layer, model, x, pairs, to_torch=first)


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 6, 4, 3)])
def test_instance_norm(shape):
    x = 2 + normal(shape)
    options = {"epsilon": 1e-5, "scale_init": SPREAD, "bias_init": SPREAD}
    model = made(nn.InstanceNorm(**options), x)
    kind = torch.nn.InstanceNorm2d if len(shape) == 4 else torch.nn.InstanceNorm1d
    layer = kind(3, affine=True)
    copy(layer.weight, model.scale)
    copy(layer.bias, model.bias)
    pairs = [("scale", layer.weight, same), ("bias", layer.bias, same)]
    names = ("InstanceNorm", f"torch.nn.{kind.__name__}")
    assert_same(names, plain, layer, model, x, pairs, to_torch=first)


def test_weight_norm():
    x = normal((5, 3))
    norm = nn.WeightNorm(nn.Dense(4, bias_init=SPREAD), scale_init=SPREAD)
    model = made(norm, x)
    scale = model.magnitudes["kernel"].scale
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 4))
    weight = layer.parametrizations.weight
    copy(weight.original0, scale[:, None])
    copy(weight.original1, model.layer.kernel.T)
    copy(layer.bias, model.layer.bias)
    pairs = [
        ("magnitudes/kernel/scale", weight.original0, lambda g: g[:, None]),
        ("layer/kernel", weight.original1, jnp.transpose),
        ("layer/bias", layer.bias, same),
    ]
    names = ("WeightNorm", "torch.nn.utils.parametrizations.weight_norm")
    assert_same(names, plain, layer, model, x, pairs)


def test_spectral_norm():
    # Both have converged: PyTorch keeps v as well, and steps in another order.
    x = normal((5, 3))
    model = made(nn.SpectralNorm(nn.Dense(4, bias_init=SPREAD), n_steps=50), x)
    _, model = nn.training(model)(x)
    linear = torch.nn.Linear(3, 4)
    copy(linear.weight, model.layer.kernel.T)
    copy(linear.bias, model.layer.bias)
    layer = torch.nn.utils.parametrizations.spectral_norm(linear, n_power_iterations=50)
    pairs = [
        ("layer/kernel", layer.parametrizations.weight.original, jnp.transpose),
        ("layer/bias", layer.bias, same),
    ]
    names = ("SpectralNorm", "torch.nn.utils.parametrizations.spectral_norm")
    assert_same(names, trained, layer, model, x, pairs)
    u = layer.parametrizations.weight[0]._u.numpy()
    assert_close(jnp.abs(model.estimates["kernel"].u), np.abs(u), rtol=1e-4)
