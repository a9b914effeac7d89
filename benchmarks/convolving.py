"""(h) A stack of convolutions: four of 3 x 3, channels 64, images of 32 x 32."""

import itertools

import jax
import jax.numpy as jnp
from _layers import Layer, jax_layers, measure_layer, torch_layers
from _measure import OURS, RAW

BATCH, SIZE, CHANNELS = 8, 32, (3, 64, 64, 64, 64)
PAIRS = list(itertools.pairwise(CHANNELS))
KEY = jax.random.key(0)
X = jax.random.normal(KEY, (BATCH, SIZE, SIZE, CHANNELS[0]))


def chained(layers, x):
    """The layers one after another, with a ReLU after each."""
    for layer in layers:
        x = jax.nn.relu(layer(x))
    return x


def raw():
    """Nested dicts."""

    def conv(params, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(
            x, params["kernel"], (1, 1), "SAME", dimension_numbers=numbers
        )
        return y + params["bias"]

    def apply(params, x):
        return chained([lambda x, p=p: conv(p, x) for p in params], x)

    params = [
        {"kernel": jnp.ones((3, 3, i, o)), "bias": jnp.zeros(o)} for i, o in PAIRS
    ]
    return Layer(params, apply)


def linnet():
    """Linnet."""
    from linnet import nn

    class Net(nn.Module):
        def __init__(self):
            self.convs = [nn.Conv(features, (3, 3)) for _, features in PAIRS]

        def __call__(self, x):
            return chained(self.convs, x)

    return Layer(nn.init(Net(), KEY, X), lambda model, x: model(x))


def equinox():
    """Equinox, where channels come first and layers take one image."""
    import equinox as eqx

    net = [eqx.nn.Conv2d(i, o, 3, padding="SAME", key=KEY) for i, o in PAIRS]
    params, static = eqx.partition(net, eqx.is_array)

    def apply(params, x):
        layers = eqx.combine(params, static)
        y = jax.vmap(lambda x: chained(layers, x))(jnp.moveaxis(x, -1, 1))
        return jnp.moveaxis(y, 1, -1)

    return Layer(params, apply)


def nnx():
    """Flax NNX."""
    from flax import nnx

    net = nnx.List([nnx.Conv(i, o, (3, 3), rngs=nnx.Rngs(0)) for i, o in PAIRS])
    graph, params = nnx.split(net)
    return Layer(params, lambda params, x: chained(nnx.merge(graph, params), x))


def linen():
    """Flax Linen."""
    from flax import linen

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            return chained([linen.Conv(o, (3, 3)) for _, o in PAIRS], x)

    return Layer(Net().init(KEY, X), Net().apply)


def torch():
    """PyTorch, on images that come with channels last in memory."""
    import torch as pt

    class Net(pt.nn.Module):
        def __init__(self):
            super().__init__()
            convs = [pt.nn.Conv2d(i, o, 3, padding="same") for i, o in PAIRS]
            self.convs = pt.nn.ModuleList(convs)

        def forward(self, x):
            x = x.permute(0, 3, 1, 2)
            for conv in self.convs:
                x = pt.relu(conv(x))
            return x.permute(0, 2, 3, 1)

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
    yield from measure_layer("h", "four convolutions", layers, quick)
