"""(i) An LSTM over 128 steps, batch 32, width 256.

Libraries differ in the number of biases; here each has the four gates' biases once, or
the others have zeros in their second, which are not counted.
"""

import jax
import jax.numpy as jnp
from _layers import Layer, jax_layers, measure_layer, torch_layers
from _measure import OURS, RAW

BATCH, TIME, WIDTH = 32, 128, 256
KEY = jax.random.key(0)
X = jax.random.normal(KEY, (BATCH, TIME, WIDTH))
ZERO = jnp.zeros((BATCH, WIDTH))


def raw():
    """A scan over gates whose inputs are multiplied before it."""

    def apply(params, x):
        inputs = x @ params["input"] + params["bias"]

        def step(carry, inputs):
            h, c = carry
            i, f, g, o = jnp.split(inputs + h @ params["recurrent"], 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        _, y = jax.lax.scan(step, (ZERO, ZERO), jnp.moveaxis(inputs, 1, 0))
        return jnp.moveaxis(y, 0, 1)

    params = {
        "input": jnp.ones((WIDTH, 4 * WIDTH)),
        "recurrent": jnp.ones((WIDTH, 4 * WIDTH)),
        "bias": jnp.zeros(4 * WIDTH),
    }
    return Layer(params, apply)


def linnet():
    """Linnet."""
    from linnet import nn

    model = nn.init(nn.RNN(nn.LSTMCell(WIDTH)), KEY, X)
    return Layer(model, lambda model, x: model(x))


def equinox():
    """Equinox: its cell in a scan, for one sequence, under `vmap`."""
    import equinox as eqx

    cell = eqx.nn.LSTMCell(WIDTH, WIDTH, key=KEY)
    params, static = eqx.partition(cell, eqx.is_array)

    def apply(params, x):
        cell = eqx.combine(params, static)

        def step(carry, x):
            carry = cell(x, carry)
            return carry, carry[0]

        zero = jnp.zeros(WIDTH)
        return jax.vmap(lambda x: jax.lax.scan(step, (zero, zero), x)[1])(x)

    return Layer(params, apply)


def nnx():
    """Flax NNX."""
    from flax import nnx

    layer = nnx.RNN(nnx.OptimizedLSTMCell(WIDTH, WIDTH, rngs=nnx.Rngs(0)))
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    return Layer(params, lambda params, x: nnx.merge(graph, params, rest, copy=True)(x))


def linen():
    """Flax Linen."""
    from flax import linen

    layer = linen.RNN(linen.OptimizedLSTMCell(WIDTH))
    return Layer(layer.init(KEY, X), layer.apply)


def torch():
    """PyTorch, whose second bias is kept at zero and is no parameter here."""
    import torch as pt

    class Net(pt.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = pt.nn.LSTM(WIDTH, WIDTH, batch_first=True)
            second = self.lstm.bias_hh_l0
            second.data.zero_()
            second.requires_grad_(False)

        def parameters(self, recurse=True):
            return (p for p in super().parameters(recurse) if p.requires_grad)

        def forward(self, x):
            return self.lstm(x)[0]

    return Net()


def measure(quick):
    """Two races."""
    builders = {
        RAW: raw,
        OURS: linnet,
        "Equinox": equinox,
        "Flax NNX": nnx,
        "Flax Linen": linen,
    }
    layers = jax_layers(builders, X) | torch_layers(torch, X)
    yield from measure_layer("i", "an LSTM over 128 steps", layers, quick)
