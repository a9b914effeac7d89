"""Perceptrons against PyTorch."""

import jax
import jax.numpy as jnp
import pytest

from helpers import normal
from interop.parity import SPREAD, assert_same, copy, made, plain, same
from linnet import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")


def linear(dense):
    """A PyTorch layer with the weights of a `Dense`, and how gradients pair up."""
    layer = torch.nn.Linear(*dense.kernel.shape, bias=dense.bias is not None)
    copy(layer.weight, dense.kernel.T)
    if dense.bias is not None:
        copy(layer.bias, dense.bias)
    return layer


def pairs(path, layer):
    found = [(f"{path}/kernel", layer.weight, jnp.transpose)]
    if layer.bias is not None:
        found.append((f"{path}/bias", layer.bias, same))
    return found


@pytest.mark.parametrize("hidden", [5, (5, 4)])
def test_mlp(hidden):
    x = normal((2, 4, 3))
    model = made(nn.MLP(hidden, bias_init=SPREAD), x)
    layers = [linear(dense) for dense in (*model.hidden, model.out)]
    paths = [*(f"hidden/{i}" for i in range(len(layers) - 1)), "out"]
    steps = [layers[0]]
    for layer in layers[1:]:
        steps += [torch.nn.GELU("tanh"), layer]
    named = zip(paths, layers, strict=True)
    compared = [p for item in named for p in pairs(*item)]
    names = ("MLP", "torch.nn.Sequential")
    assert_same(names, plain, torch.nn.Sequential(*steps), model, x, compared)


def test_swiglu():
    x = normal((2, 4, 3))
    layer = nn.MLP(5, activation=jax.nn.silu, gated=True, use_bias=False)
    model = made(layer, x)
    hidden, gate, out = map(linear, (model.hidden[0], model.gate[0], model.out))

    def theirs(x):
        return out(torch.nn.functional.silu(gate(x)) * hidden(x))

    named = {"hidden/0": hidden, "gate/0": gate, "out": out}
    compared = [p for item in named.items() for p in pairs(*item)]
    names = ("MLP, gated", "torch.nn.functional.silu")
    assert_same(names, plain, theirs, model, x, compared)
