"""The multilayer perceptron of question e, by library: two hidden layers and relu."""

import jax
import jax.numpy as jnp
from _deep import Deep

INPUT, HIDDEN, OUTPUT, BATCH = 256, 512, 10, 128
X = jax.random.normal(jax.random.key(1), (BATCH, INPUT))
KEY = jax.random.key(0)


def raw():
    """Nested dicts."""

    def dense(inputs, outputs):
        return {"kernel": jnp.ones((inputs, outputs)), "bias": jnp.zeros(outputs)}

    def make():
        return {
            "one": dense(INPUT, HIDDEN),
            "two": dense(HIDDEN, HIDDEN),
            "out": dense(HIDDEN, OUTPUT),
        }

    def predict(p, x):
        x = jax.nn.relu(x @ p["one"]["kernel"] + p["one"]["bias"])
        x = jax.nn.relu(x @ p["two"]["kernel"] + p["two"]["bias"])
        return x @ p["out"]["kernel"] + p["out"]["bias"]

    return Deep(make, predict)


def linnet():
    """Linnet."""
    from linnet import nn

    class MLP(nn.Module):
        def __init__(self):
            self.one = nn.Dense(HIDDEN)
            self.two = nn.Dense(HIDDEN)
            self.out = nn.Dense(OUTPUT)

        def __call__(self, x):
            x = jax.nn.relu(self.one(x))
            return self.out(jax.nn.relu(self.two(x)))

    return Deep(lambda: nn.init(MLP(), KEY, X), lambda model, x: model(x))


def equinox():
    """Equinox."""
    import equinox as eqx

    class MLP(eqx.Module):
        one: eqx.nn.Linear
        two: eqx.nn.Linear
        out: eqx.nn.Linear

        def __init__(self, key):
            one, two, out = jax.random.split(key, 3)
            self.one = eqx.nn.Linear(INPUT, HIDDEN, key=one)
            self.two = eqx.nn.Linear(HIDDEN, HIDDEN, key=two)
            self.out = eqx.nn.Linear(HIDDEN, OUTPUT, key=out)

        def __call__(self, x):
            x = jax.nn.relu(self.one(x))
            return self.out(jax.nn.relu(self.two(x)))

    return Deep(lambda: MLP(KEY), lambda model, x: jax.vmap(model)(x))


def nnx():
    """Flax NNX."""
    from flax import nnx

    class MLP(nnx.Module):
        def __init__(self, rngs):
            self.one = nnx.Linear(INPUT, HIDDEN, rngs=rngs)
            self.two = nnx.Linear(HIDDEN, HIDDEN, rngs=rngs)
            self.out = nnx.Linear(HIDDEN, OUTPUT, rngs=rngs)

        def __call__(self, x):
            x = jax.nn.relu(self.one(x))
            return self.out(jax.nn.relu(self.two(x)))

    return Deep(lambda: MLP(nnx.Rngs(KEY)), lambda model, x: model(x))


def linen():
    """Flax Linen."""
    from flax import linen

    class MLP(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = jax.nn.relu(linen.Dense(HIDDEN)(x))
            x = jax.nn.relu(linen.Dense(HIDDEN)(x))
            return linen.Dense(OUTPUT)(x)

    return Deep(lambda: MLP().init(KEY, X), MLP().apply)


def haiku():
    """Haiku."""
    import haiku as hk

    def mlp(x):
        x = jax.nn.relu(hk.Linear(HIDDEN)(x))
        x = jax.nn.relu(hk.Linear(HIDDEN)(x))
        return hk.Linear(OUTPUT)(x)

    pure = hk.without_apply_rng(hk.transform(mlp))
    return Deep(lambda: pure.init(KEY, X), pure.apply)
