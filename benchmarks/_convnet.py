"""The convolutional net of question e, by library: three convolutions, mean, Dense."""

import jax
import jax.numpy as jnp
from _deep import Deep

SIZE, CHANNELS, OUTPUT, BATCH = 16, (16, 32, 32), 10, 32
X = jax.random.normal(jax.random.key(1), (BATCH, SIZE, SIZE, 3))
KEY = jax.random.key(0)
STRIDES = (1, 2, 2)


def raw():
    """Nested dicts."""
    widths = list(zip((3, *CHANNELS), CHANNELS, strict=False))

    def make():
        return {
            "convs": [
                {"kernel": jnp.ones((3, 3, i, o)), "bias": jnp.zeros(o)}
                for i, o in widths
            ],
            "out": {
                "kernel": jnp.ones((CHANNELS[-1], OUTPUT)),
                "bias": jnp.zeros(OUTPUT),
            },
        }

    def conv(p, x, stride):
        y = jax.lax.conv_general_dilated(
            x,
            p["kernel"],
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + p["bias"]

    def predict(p, x):
        for one, stride in zip(p["convs"], STRIDES, strict=True):
            x = jax.nn.relu(conv(one, x, stride))
        return x.mean((1, 2)) @ p["out"]["kernel"] + p["out"]["bias"]

    return Deep(make, predict)


def linnet():
    """Linnet."""
    from linnet import nn

    class ConvNet(nn.Module):
        def __init__(self):
            self.convs = [
                nn.Conv(width, (3, 3), strides=stride)
                for width, stride in zip(CHANNELS, STRIDES, strict=True)
            ]
            self.out = nn.Dense(OUTPUT)

        def __call__(self, x):
            for conv in self.convs:
                x = jax.nn.relu(conv(x))
            return self.out(x.mean((1, 2)))

    return Deep(lambda: nn.init(ConvNet(), KEY, X), lambda model, x: model(x))


def equinox():
    """Equinox, where channels come first and layers take one example."""
    import equinox as eqx

    class ConvNet(eqx.Module):
        convs: list
        out: eqx.nn.Linear

        def __init__(self, key):
            keys = jax.random.split(key, 4)
            self.convs = [
                eqx.nn.Conv2d(i, o, 3, stride, padding="SAME", key=key)
                for i, o, stride, key in zip(
                    (3, *CHANNELS), CHANNELS, STRIDES, keys, strict=False
                )
            ]
            self.out = eqx.nn.Linear(CHANNELS[-1], OUTPUT, key=keys[-1])

        def __call__(self, x):
            for conv in self.convs:
                x = jax.nn.relu(conv(x))
            return self.out(x.mean((1, 2)))

    def predict(model, x):
        return jax.vmap(model)(jnp.moveaxis(x, -1, 1))

    return Deep(lambda: ConvNet(KEY), predict)


def nnx():
    """Flax NNX."""
    from flax import nnx

    class ConvNet(nnx.Module):
        def __init__(self, rngs):
            self.convs = nnx.List(
                [
                    nnx.Conv(i, o, (3, 3), strides=stride, rngs=rngs)
                    for i, o, stride in zip(
                        (3, *CHANNELS), CHANNELS, STRIDES, strict=False
                    )
                ]
            )
            self.out = nnx.Linear(CHANNELS[-1], OUTPUT, rngs=rngs)

        def __call__(self, x):
            for conv in self.convs:
                x = jax.nn.relu(conv(x))
            return self.out(x.mean((1, 2)))

    return Deep(lambda: ConvNet(nnx.Rngs(KEY)), lambda model, x: model(x))


def linen():
    """Flax Linen."""
    from flax import linen

    class ConvNet(linen.Module):
        @linen.compact
        def __call__(self, x):
            for width, stride in zip(CHANNELS, STRIDES, strict=True):
                x = jax.nn.relu(linen.Conv(width, (3, 3), strides=stride)(x))
            return linen.Dense(OUTPUT)(x.mean((1, 2)))

    return Deep(lambda: ConvNet().init(KEY, X), ConvNet().apply)


def haiku():
    """Haiku."""
    import haiku as hk

    def convnet(x):
        for width, stride in zip(CHANNELS, STRIDES, strict=True):
            x = jax.nn.relu(hk.Conv2D(width, 3, stride)(x))
        return hk.Linear(OUTPUT)(x.mean((1, 2)))

    pure = hk.without_apply_rng(hk.transform(convnet))
    return Deep(lambda: pure.init(KEY, X), pure.apply)
