"""A network of the shape of GPT-2 small, and one of its blocks, by library.

Each function returns two that make a `Layer`, or classes of modules: a block, which
maps `[B, T, D]` to the same, and the whole, which maps tokens `[B, T]` to logits.

B batch  T time  D width  N heads  V vocabulary
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from _layers import Layer, is_floating

WIDTH, HEADS, DEPTH, VOCAB, POSITIONS, EPSILON = 768, 12, 12, 50257, 1024, 1e-5
KEY = jax.random.key(0)
NAMES = ("query", "key", "value", "merge")
SMALL = {"width": WIDTH, "heads": HEADS, "depth": DEPTH, "vocab": VOCAB}
NANO = {
    "width": 256,
    "heads": 4,
    "depth": 4,
    "vocab": 4096,
}  # those of the example's nano


def resize(width, heads, depth, vocab):
    """Makes the networks that are built from now on of other sizes."""
    globals().update(WIDTH=width, HEADS=heads, DEPTH=depth, VOCAB=vocab)


def sample(batch, length):
    """What a block takes."""
    return jax.random.normal(KEY, (batch, length, WIDTH))


def tokens(batch, length):
    """What the whole takes."""
    return jax.random.randint(KEY, (batch, length), 0, VOCAB)


def numbers(shape):
    """The same for as many numbers in C order: kernels may split an axis into heads."""
    random = np.random.default_rng(np.prod(shape)).standard_normal(np.prod(shape))
    return np.asarray(0.02 * random, np.float32).reshape(shape)


def filled(params):
    """Kernels and tables of random numbers; vectors keep their ones and zeros.

    Kernels of Equinox have outputs first. Biases of attention in Flax have two axes.
    """

    def fill(path, a):
        name = jax.tree_util.keystr(path)
        if not is_floating(a):
            return a
        if "blocks.block" in name:  # of a stack: all layers start alike everywhere
            return jnp.stack([fill(path[-1:], a[0])] * len(a))
        if "scale" in name or ("norm" in name and "weight" in name):
            return jnp.ones_like(a)
        if "bias" in name or "shift" in name:
            return jnp.zeros_like(a)
        if ".weight" in name and "embed" not in name and "position" not in name:
            return jnp.asarray(numbers(a.shape[::-1]).T)
        return jnp.asarray(numbers(a.shape))

    return jax.tree_util.tree_map_with_path(fill, params)


def raw():
    """Nested dicts."""

    def dense(inputs, outputs):
        return {"kernel": jnp.ones((inputs, outputs)), "bias": jnp.zeros(outputs)}

    def norm():
        return {"scale": jnp.ones(WIDTH), "shift": jnp.zeros(WIDTH)}

    def make_block():
        return {
            **{name: dense(WIDTH, WIDTH) for name in NAMES},
            "up": dense(WIDTH, 4 * WIDTH),
            "down": dense(4 * WIDTH, WIDTH),
            "norm1": norm(),
            "norm2": norm(),
        }

    def normed(p, x):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(var + EPSILON) * p["scale"] + p["shift"]

    def linear(p, x):
        return x @ p["kernel"] + p["bias"]

    def block(p, x):
        y = normed(p["norm1"], x)
        split = (*x.shape[:-1], HEADS, WIDTH // HEADS)
        query, key, value = (linear(p[name], y).reshape(split) for name in NAMES[:3])
        y = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        x = x + linear(p["merge"], y.reshape(x.shape))
        y = jax.nn.gelu(linear(p["up"], normed(p["norm2"], x)))
        return x + linear(p["down"], y)

    def logits(params, tokens):
        x = params["embed"][tokens] + params["position"][: tokens.shape[1]]
        for p in params["blocks"]:
            x = block(p, x)
        return normed(params["norm"], x) @ params["embed"].T

    def make():
        return {
            "embed": jnp.ones((VOCAB, WIDTH)),
            "position": jnp.ones((POSITIONS, WIDTH)),
            "blocks": [make_block() for _ in range(DEPTH)],
            "norm": norm(),
        }

    return (
        lambda x: Layer(make_block(), block),
        lambda tokens: Layer(make(), logits),
    )


def linnet(stacked=False, fused_qkv=False):
    """Linnet."""
    from linnet import nn

    def block():
        return nn.TransformerBlock(
            nn.Attention(HEADS, causal=True, fused_qkv=fused_qkv),
            nn.MLP(4 * WIDTH),
            norm=functools.partial(nn.LayerNorm, epsilon=EPSILON),
        )

    class GPT2(nn.Module):
        def __init__(self):
            self.embed = nn.Embed(VOCAB, WIDTH)
            self.position = nn.LearnedPosition(POSITIONS)
            self.norm = nn.LayerNorm(epsilon=EPSILON)
            self.blocks = (
                nn.Stack(block(), DEPTH)
                if stacked
                else nn.Sequential([block() for _ in range(DEPTH)])
            )

        def __call__(self, tokens):
            x = self.blocks(self.position(self.embed(tokens)))
            return self.embed.attend(self.norm(x))

    def layer(model, sample):
        return Layer(nn.init(model, KEY, sample), lambda model, x: model(x))

    return lambda x: layer(block(), x), lambda tokens: layer(GPT2(), tokens)


def equinox():
    """Equinox, whose layers take one example, and often one position."""
    import equinox as eqx

    class Block(eqx.Module):
        attention: eqx.nn.MultiheadAttention
        up: eqx.nn.Linear
        down: eqx.nn.Linear
        norm1: eqx.nn.LayerNorm
        norm2: eqx.nn.LayerNorm

        def __init__(self):
            names = ("query", "key", "value", "output")
            biases = {f"use_{name}_bias": True for name in names}
            self.attention = eqx.nn.MultiheadAttention(HEADS, WIDTH, key=KEY, **biases)
            self.up = eqx.nn.Linear(WIDTH, 4 * WIDTH, key=KEY)
            self.down = eqx.nn.Linear(4 * WIDTH, WIDTH, key=KEY)
            self.norm1 = eqx.nn.LayerNorm(WIDTH, EPSILON)
            self.norm2 = eqx.nn.LayerNorm(WIDTH, EPSILON)

        def __call__(self, x):
            y = jax.vmap(self.norm1)(x)
            mask = jnp.tril(jnp.ones((len(x), len(x)), bool))
            x = x + self.attention(y, y, y, mask)
            y = jax.nn.gelu(jax.vmap(self.up)(jax.vmap(self.norm2)(x)))
            return x + jax.vmap(self.down)(y)

    class GPT2(eqx.Module):
        embed: eqx.nn.Embedding
        position: eqx.nn.Embedding
        blocks: list
        norm: eqx.nn.LayerNorm

        def __init__(self):
            self.embed = eqx.nn.Embedding(VOCAB, WIDTH, key=KEY)
            self.position = eqx.nn.Embedding(POSITIONS, WIDTH, key=KEY)
            self.blocks = [Block() for _ in range(DEPTH)]
            self.norm = eqx.nn.LayerNorm(WIDTH, EPSILON)

        def __call__(self, tokens):
            positions = jnp.arange(len(tokens))
            x = jax.vmap(self.embed)(tokens) + jax.vmap(self.position)(positions)
            for block in self.blocks:
                x = block(x)
            return jax.vmap(self.norm)(x) @ self.embed.weight.T

    def layer(model):
        params, static = eqx.partition(model, eqx.is_array)
        return Layer(params, lambda params, x: jax.vmap(eqx.combine(params, static))(x))

    return lambda x: layer(Block()), lambda tokens: layer(GPT2())


def nnx():
    """Flax NNX."""
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.attention = nnx.MultiHeadAttention(
                HEADS, WIDTH, decode=False, rngs=rngs
            )
            self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
            self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)
            self.norm1 = nnx.LayerNorm(WIDTH, epsilon=EPSILON, rngs=rngs)
            self.norm2 = nnx.LayerNorm(WIDTH, epsilon=EPSILON, rngs=rngs)

        def __call__(self, x):
            mask = nnx.make_causal_mask(x[..., 0])
            x = x + self.attention(self.norm1(x), mask=mask)
            return x + self.down(jax.nn.gelu(self.up(self.norm2(x))))

    class GPT2(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(VOCAB, WIDTH, rngs=rngs)
            self.position = nnx.Embed(POSITIONS, WIDTH, rngs=rngs)
            self.blocks = nnx.List([Block(rngs) for _ in range(DEPTH)])
            self.norm = nnx.LayerNorm(WIDTH, epsilon=EPSILON, rngs=rngs)

        def __call__(self, tokens):
            x = self.embed(tokens) + self.position(jnp.arange(tokens.shape[1]))
            for block in self.blocks:
                x = block(x)
            return self.embed.attend(self.norm(x))

    def layer(model):
        graph, params, rest = nnx.split(model, nnx.Param, ...)
        return Layer(params, lambda params, x: nnx.merge(graph, params, rest)(x))

    rngs = nnx.Rngs(0)
    return lambda x: layer(Block(rngs)), lambda tokens: layer(GPT2(rngs))


def linen():
    """Flax Linen."""
    from flax import linen

    class Block(linen.Module):
        @linen.compact
        def __call__(self, x):
            y = linen.LayerNorm(epsilon=EPSILON)(x)
            mask = linen.make_causal_mask(x[..., 0])
            x = x + linen.MultiHeadDotProductAttention(HEADS)(y, mask=mask)
            y = linen.Dense(4 * WIDTH)(linen.LayerNorm(epsilon=EPSILON)(x))
            return x + linen.Dense(WIDTH)(jax.nn.gelu(y))

    class GPT2(linen.Module):
        @linen.compact
        def __call__(self, tokens):
            embed = linen.Embed(VOCAB, WIDTH)
            position = linen.Embed(POSITIONS, WIDTH)
            x = embed(tokens) + position(jnp.arange(tokens.shape[1]))
            for _ in range(DEPTH):
                x = Block()(x)
            return embed.attend(linen.LayerNorm(epsilon=EPSILON)(x))

    def layer(model, sample):
        return Layer(model.init(KEY, sample), model.apply)

    return lambda x: layer(Block(), x), lambda tokens: layer(GPT2(), tokens)


def torch():
    """PyTorch: modules, not yet with values."""
    import torch as pt
    from torch.nn.functional import gelu, scaled_dot_product_attention

    class Block(pt.nn.Module):
        def __init__(self):
            super().__init__()
            for name in NAMES:
                setattr(self, name, pt.nn.Linear(WIDTH, WIDTH))
            self.up = pt.nn.Linear(WIDTH, 4 * WIDTH)
            self.down = pt.nn.Linear(4 * WIDTH, WIDTH)
            self.norm1 = pt.nn.LayerNorm(WIDTH, EPSILON)
            self.norm2 = pt.nn.LayerNorm(WIDTH, EPSILON)

        def forward(self, x):
            y = self.norm1(x)
            split = (*x.shape[:-1], HEADS, WIDTH // HEADS)
            query, key, value = (
                getattr(self, name)(y).reshape(split).transpose(1, 2)
                for name in NAMES[:3]
            )
            y = scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self.merge(y.transpose(1, 2).reshape(x.shape))
            return x + self.down(gelu(self.up(self.norm2(x)), approximate="tanh"))

    class GPT2(pt.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = pt.nn.Embedding(VOCAB, WIDTH)
            self.position = pt.nn.Embedding(POSITIONS, WIDTH)
            self.blocks = pt.nn.ModuleList([Block() for _ in range(DEPTH)])
            self.norm = pt.nn.LayerNorm(WIDTH, EPSILON)

        def forward(self, tokens):
            x = self.embed(tokens) + self.position.weight[: tokens.shape[1]]
            for block in self.blocks:
                x = block(x)
            return self.norm(x) @ self.embed.weight.T

    return Block, GPT2
