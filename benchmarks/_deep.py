"""The deep network of questions a, b and c: `depth` times Dense and relu, by library.

Each function returns `make`, which builds the network with its arrays, and `predict`,
which takes that and an input.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

WIDTH = 8
X = jnp.ones((4, WIDTH))


class Deep(NamedTuple):
    """How a library makes the network, and how it calls it."""

    make: Callable[[], Any]
    predict: Callable[[Any, jax.Array], jax.Array]


def raw(depth):
    """Nested dicts of arrays."""
    kernel_init = jax.nn.initializers.lecun_normal()

    def make():
        keys = jax.random.split(jax.random.key(0), depth)
        return {
            f"dense_{i:03}": {
                "kernel": kernel_init(keys[i], (WIDTH, WIDTH)),
                "bias": jnp.zeros(WIDTH),
            }
            for i in range(depth)
        }

    def predict(params, x):
        for layer in params.values():
            x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
        return x

    return Deep(make, predict)


def dataclasses(depth):
    """Classes that JAX flattens in C++."""
    from dataclasses import dataclass

    @jax.tree_util.register_dataclass
    @dataclass
    class Dense:
        kernel: jax.Array
        bias: jax.Array

    @jax.tree_util.register_dataclass
    @dataclass
    class Net:
        layers: list

    def make():
        return Net([Dense(**layer) for layer in raw(depth).make().values()])

    def predict(net, x):
        for layer in net.layers:
            x = jax.nn.relu(x @ layer.kernel + layer.bias)
        return x

    return Deep(make, predict)


def linnet(depth):
    """Linnet."""
    from linnet import nn

    class Net(nn.Module):
        def __init__(self):
            self.layers = [nn.Dense(WIDTH) for _ in range(depth)]

        def __call__(self, x):
            for layer in self.layers:
                x = jax.nn.relu(layer(x))
            return x

    return Deep(
        make=lambda: nn.init(Net(), jax.random.key(0), X),
        predict=lambda net, x: net(x),
    )


def equinox(depth):
    """Equinox, whose layers take one example."""
    import equinox as eqx

    class Net(eqx.Module):
        layers: list

        def __init__(self, key):
            keys = jax.random.split(key, depth)
            self.layers = [eqx.nn.Linear(WIDTH, WIDTH, key=key) for key in keys]

        def __call__(self, x):
            for layer in self.layers:
                x = jax.nn.relu(layer(x))
            return x

    return Deep(
        make=lambda: Net(jax.random.key(0)),
        predict=lambda net, x: jax.vmap(net)(x),
    )


def nnx(depth):
    """Flax NNX."""
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List(
                [nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(depth)]
            )

        def __call__(self, x):
            for layer in self.layers:
                x = jax.nn.relu(layer(x))
            return x

    return Deep(
        make=lambda: Net(nnx.Rngs(jax.random.key(0))),
        predict=lambda net, x: net(x),
    )


def linen(depth):
    """Flax Linen."""
    from flax import linen

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            for _ in range(depth):
                x = jax.nn.relu(linen.Dense(WIDTH)(x))
            return x

    net = Net()
    return Deep(make=lambda: net.init(jax.random.key(0), X), predict=net.apply)


def haiku(depth):
    """Haiku."""
    import haiku as hk

    def net(x):
        for _ in range(depth):
            x = jax.nn.relu(hk.Linear(WIDTH)(x))
        return x

    pure = hk.without_apply_rng(hk.transform(net))
    return Deep(make=lambda: pure.init(jax.random.key(0), X), predict=pure.apply)
