"""(g) Attention: the layer of each library, eight heads of 64, by length.

B batch  T time  D width  N heads
"""

import jax
import jax.numpy as jnp
from _layers import Layer, jax_layers, measure_layer, torch_layers
from _measure import OURS, RAW

WIDTH, HEADS = 512, 8
LENGTHS = (128, 512, 1024, 4096)
KEY = jax.random.key(0)
NAMES = ("query", "key", "value", "out")


def raw():
    """Nested dicts, and JAX's own attention."""

    def apply(params, x):
        def linear(name, x):
            return x @ params[name]["kernel"] + params[name]["bias"]

        split = (*x.shape[:-1], HEADS, WIDTH // HEADS)
        query, key, value = (linear(name, x).reshape(split) for name in NAMES[:3])
        y = jax.nn.dot_product_attention(query, key, value)
        return linear("out", y.reshape(x.shape))

    one = {"kernel": jnp.ones((WIDTH, WIDTH)), "bias": jnp.zeros(WIDTH)}
    return Layer(dict.fromkeys(NAMES, one), apply)


def linnet(x):
    """Linnet."""
    from linnet import nn

    model = nn.init(nn.Attention(HEADS), KEY, x)
    return Layer(model, lambda model, x: model(x))


def equinox(x):
    """Equinox, whose layer takes one sequence."""
    import equinox as eqx

    layer = eqx.nn.MultiheadAttention(
        HEADS,
        WIDTH,
        use_query_bias=True,
        use_key_bias=True,
        use_value_bias=True,
        use_output_bias=True,
        key=KEY,
    )
    params, static = eqx.partition(layer, eqx.is_array)

    def apply(params, x):
        layer = eqx.combine(params, static)
        return jax.vmap(lambda x: layer(x, x, x))(x)

    return Layer(params, apply)


def nnx(x):
    """Flax NNX."""
    from flax import nnx

    layer = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    return Layer(params, lambda params, x: nnx.merge(graph, params, rest)(x))


def linen(x):
    """Flax Linen."""
    from flax import linen

    layer = linen.MultiHeadDotProductAttention(HEADS)
    return Layer(layer.init(KEY, x), layer.apply)


def torch():
    """PyTorch, by its own fused attention."""
    import torch as pt

    class Attention(pt.nn.Module):
        def __init__(self):
            super().__init__()
            for name in NAMES:
                setattr(self, name, pt.nn.Linear(WIDTH, WIDTH))

        def forward(self, x):
            split = (*x.shape[:-1], HEADS, WIDTH // HEADS)
            query, key, value = (
                getattr(self, name)(x).reshape(split).transpose(1, 2)
                for name in NAMES[:3]
            )
            y = pt.nn.functional.scaled_dot_product_attention(query, key, value)
            return self.out(y.transpose(1, 2).reshape(x.shape))

    return Attention()


def measure(quick):
    """Two races for each length."""
    for length in LENGTHS[:2] if quick else LENGTHS:
        x = jax.random.normal(KEY, (1, length, WIDTH))
        builders = {
            RAW: raw,
            OURS: lambda x=x: linnet(x),
            "Equinox": lambda x=x: equinox(x),
            "Flax NNX": lambda x=x: nnx(x),
            "Flax Linen": lambda x=x: linen(x),
        }
        layers = jax_layers(builders, x) | torch_layers(torch, x)
        title = f"attention over {length} positions"
        rounds = 41 if length < 4096 else 15
        yield from measure_layer("g", title, layers, quick, rounds)
