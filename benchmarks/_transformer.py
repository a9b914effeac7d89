"""The transformer block of question e, by library: attention and MLP, both residual.

B batch  T time  D width  N heads
"""

import jax
import jax.numpy as jnp
from _deep import Deep

BATCH, TIME, WIDTH, HEADS, EPSILON = 8, 64, 128, 4, 1e-6
X = jax.random.normal(jax.random.key(1), (BATCH, TIME, WIDTH))
KEY = jax.random.key(0)
NAMES = ("query", "key", "value", "merge")


def attend(query, key, value):
    """Attention over the heads of `[..., T, D]`."""
    split = (*query.shape[:-1], HEADS, WIDTH // HEADS)
    query, key, value = (y.reshape(split) for y in (query, key, value))
    return jax.nn.dot_product_attention(query, key, value).reshape(*split[:-2], WIDTH)


def raw():
    """Nested dicts."""

    def dense(inputs, outputs):
        return {"kernel": jnp.ones((inputs, outputs)), "bias": jnp.zeros(outputs)}

    def norm():
        return {"scale": jnp.ones(WIDTH), "shift": jnp.zeros(WIDTH)}

    def make():
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

    def predict(p, x):
        y = normed(p["norm1"], x)
        y = attend(linear(p["query"], y), linear(p["key"], y), linear(p["value"], y))
        x = x + linear(p["merge"], y)
        y = jax.nn.gelu(linear(p["up"], normed(p["norm2"], x)))
        return x + linear(p["down"], y)

    return Deep(make, predict)


def linnet():
    """Linnet."""
    from linnet import nn

    class Block(nn.Module):
        def __init__(self):
            self.query, self.key = nn.Dense(WIDTH), nn.Dense(WIDTH)
            self.value, self.merge = nn.Dense(WIDTH), nn.Dense(WIDTH)
            self.up, self.down = nn.Dense(4 * WIDTH), nn.Dense(WIDTH)
            self.norm1 = nn.LayerNorm(epsilon=EPSILON)
            self.norm2 = nn.LayerNorm(epsilon=EPSILON)

        def __call__(self, x):
            y = self.norm1(x)
            x = x + self.merge(attend(self.query(y), self.key(y), self.value(y)))
            return x + self.down(jax.nn.gelu(self.up(self.norm2(x))))

    return Deep(lambda: nn.init(Block(), KEY, X), lambda model, x: model(x))


def equinox():
    """Equinox, whose layers take one position."""
    import equinox as eqx

    class Block(eqx.Module):
        dense: dict
        norm1: eqx.nn.LayerNorm
        norm2: eqx.nn.LayerNorm

        def __init__(self, key):
            keys = jax.random.split(key, 6)
            self.dense = {
                name: eqx.nn.Linear(WIDTH, WIDTH, key=key)
                for name, key in zip(NAMES, keys, strict=False)
            }
            self.dense["up"] = eqx.nn.Linear(WIDTH, 4 * WIDTH, key=keys[4])
            self.dense["down"] = eqx.nn.Linear(4 * WIDTH, WIDTH, key=keys[5])
            self.norm1 = eqx.nn.LayerNorm(WIDTH, eps=EPSILON)
            self.norm2 = eqx.nn.LayerNorm(WIDTH, eps=EPSILON)

        def __call__(self, x):
            dense = {name: jax.vmap(layer) for name, layer in self.dense.items()}
            y = jax.vmap(self.norm1)(x)
            y = attend(dense["query"](y), dense["key"](y), dense["value"](y))
            x = x + dense["merge"](y)
            y = jax.nn.gelu(dense["up"](jax.vmap(self.norm2)(x)))
            return x + dense["down"](y)

    return Deep(lambda: Block(KEY), lambda model, x: jax.vmap(model)(x))


def nnx():
    """Flax NNX."""
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, rngs):
            def dense():
                return nnx.Linear(WIDTH, WIDTH, rngs=rngs)

            self.query, self.key, self.value, self.merge = (dense() for _ in NAMES)
            self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
            self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)
            self.norm1 = nnx.LayerNorm(WIDTH, epsilon=EPSILON, rngs=rngs)
            self.norm2 = nnx.LayerNorm(WIDTH, epsilon=EPSILON, rngs=rngs)

        def __call__(self, x):
            y = self.norm1(x)
            x = x + self.merge(attend(self.query(y), self.key(y), self.value(y)))
            return x + self.down(jax.nn.gelu(self.up(self.norm2(x))))

    return Deep(lambda: Block(nnx.Rngs(KEY)), lambda model, x: model(x))


def linen():
    """Flax Linen."""
    from flax import linen

    class Block(linen.Module):
        @linen.compact
        def __call__(self, x):
            y = linen.LayerNorm(epsilon=EPSILON)(x)
            y = attend(*(linen.Dense(WIDTH)(y) for _ in range(3)))
            x = x + linen.Dense(WIDTH)(y)
            y = linen.Dense(4 * WIDTH)(linen.LayerNorm(epsilon=EPSILON)(x))
            return x + linen.Dense(WIDTH)(jax.nn.gelu(y))

    return Deep(lambda: Block().init(KEY, X), Block().apply)


def haiku():
    """Haiku."""
    import haiku as hk

    def norm(x):
        return hk.LayerNorm(-1, True, True, eps=EPSILON)(x)

    def block(x):
        y = norm(x)
        y = attend(*(hk.Linear(WIDTH)(y) for _ in range(3)))
        x = x + hk.Linear(WIDTH)(y)
        y = hk.Linear(4 * WIDTH)(norm(x))
        return x + hk.Linear(WIDTH)(jax.nn.gelu(y))

    pure = hk.without_apply_rng(hk.transform(block))
    return Deep(lambda: pure.init(KEY, X), pure.apply)
