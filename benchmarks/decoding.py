"""(l) Decoding one token with a cache, in the shape of GPT-2 small.

512 of 1024 positions are taken. The rival is written by hand on nested dicts, with
arrays that it updates in place.
"""

import math

import _gpt2
import jax
import jax.numpy as jnp
import numpy as np
from _gpt2 import DEPTH, EPSILON, HEADS, POSITIONS, VOCAB, WIDTH
from _measure import OURS, RAW, Result, line_up, race

BATCH, TAKEN = 1, 512
HEAD = WIDTH // HEADS
PROMPT = _gpt2.tokens(BATCH, TAKEN)
TOKEN = PROMPT[:, :1]


class Raw:
    """Nested dicts; the keys and values of all layers are two lists of arrays."""

    def __init__(self):
        self.params = _gpt2.filled(self.make())
        shape = (BATCH, POSITIONS, HEADS, HEAD)
        cache = {
            name: [jnp.zeros(shape) for _ in range(DEPTH)]
            for name in ("keys", "values")
        }
        self.step = jax.jit(self.predict, donate_argnums=1)
        _, self.cache = self.step(self.params, cache, PROMPT, 0)
        self.index = TAKEN

    def __call__(self):
        logits, self.cache = self.step(self.params, self.cache, TOKEN, self.index)
        self.index += 1
        return logits.block_until_ready()

    @staticmethod
    def make():
        """The parameters, not yet with values."""

        def dense(inputs, outputs):
            return {"kernel": jnp.ones((inputs, outputs)), "bias": jnp.zeros(outputs)}

        norm = {"scale": jnp.ones(WIDTH), "shift": jnp.zeros(WIDTH)}
        block = {
            "qkv": dense(WIDTH, 3 * WIDTH),
            "merge": dense(WIDTH, WIDTH),
            "up": dense(WIDTH, 4 * WIDTH),
            "down": dense(4 * WIDTH, WIDTH),
            "norm1": norm,
            "norm2": norm,
        }
        return {
            "embed": jnp.ones((VOCAB, WIDTH)),
            "position": jnp.ones((POSITIONS, WIDTH)),
            "blocks": [block] * DEPTH,
            "norm": norm,
        }

    @staticmethod
    def predict(params, cache, tokens, index):
        """Logits for the tokens, the first of which has the position `index`."""
        time = tokens.shape[1]
        positions = index + jnp.arange(time)
        allowed = jnp.arange(POSITIONS)[None] <= positions[:, None]  # [T, C]
        keys, values = [], []

        def normed(p, x):
            mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
            return (x - mean) * jax.lax.rsqrt(var + EPSILON) * p["scale"] + p["shift"]

        def linear(p, x):
            return x @ p["kernel"] + p["bias"]

        def attend(p, x, layer):
            new = jnp.split(linear(p["qkv"], x), 3, axis=-1)
            query, key, value = (y.reshape(BATCH, time, HEADS, HEAD) for y in new)
            at = (0, index, 0, 0)
            key = jax.lax.dynamic_update_slice(cache["keys"][layer], key, at)
            value = jax.lax.dynamic_update_slice(cache["values"][layer], value, at)
            keys.append(key)
            values.append(value)
            # Heads first: plain matrix products are faster here than an einsum.
            query, keys_, values_ = (y.swapaxes(1, 2) for y in (query, key, value))
            logits = query @ keys_.swapaxes(2, 3) / math.sqrt(HEAD)  # [B, N, T, C]
            weights = jax.nn.softmax(jnp.where(allowed, logits, -jnp.inf))
            y = (weights @ values_).swapaxes(1, 2)
            return linear(p["merge"], y.reshape(x.shape))

        x = params["embed"][tokens] + params["position"][positions]
        for layer, p in enumerate(params["blocks"]):
            x = x + attend(p, normed(p["norm1"], x), layer)
            y = jax.nn.gelu(linear(p["up"], normed(p["norm2"], x)))
            x = x + linear(p["down"], y)
        logits = normed(params["norm"], x[:, -1:]) @ params["embed"].T
        return logits, {"keys": keys, "values": values}


class Linnet:
    """As the guide does it: a model with caches, called statefully."""

    def __init__(self, stacked):
        from linnet import nn

        layer = _gpt2.linnet(stacked, fused_qkv=True)[1](TOKEN)
        model = nn.with_cache(_gpt2.filled(layer.params), BATCH, POSITIONS)

        @jax.jit(donate_argnums=0)
        def step(model, tokens):
            return nn.stateful(model)(tokens)

        self.step = step
        _, self.model = step(model, PROMPT)

    def __call__(self):
        logits, self.model = self.step(self.model, TOKEN)
        return logits.block_until_ready()


def require_same(runs):
    """Refuses a race of models that do not predict the same."""
    logits = {name: np.asarray(run()) for name, run in runs.items()}
    for name, found in logits.items():
        np.testing.assert_allclose(
            found, logits[RAW], rtol=1e-3, atol=1e-5, err_msg=name
        )


def measure(quick):
    """One race."""
    field = line_up(
        {
            RAW: lambda: {RAW: Raw()},
            OURS: lambda: {
                OURS: Linnet(stacked=False),
                f"{OURS}, Stack": Linnet(stacked=True),
            },
        }
    )
    require_same(field.runs)
    times = race(field.runs, 5 if quick else 61)
    result = Result("l", "decoding a token of GPT-2 small's shape", times)
    result.require(result.title, 1.10)
    yield result
