"""The network of question d, by library: blocks in a list or in a loop.

Each function returns `make`, which builds the arrays, and `predict`.
"""

import jax
import jax.numpy as jnp
from _deep import Deep

WIDTH, EPSILON = 16, 1e-6
X = jnp.ones((4, WIDTH))
KEY = jax.random.key(0)


def raw(depth, stacked):
    """Nested dicts; `jax.lax.scan`."""

    def one():
        return {
            "scale": jnp.ones(WIDTH),
            "shift": jnp.zeros(WIDTH),
            "up": {
                "kernel": jnp.ones((WIDTH, 4 * WIDTH)),
                "bias": jnp.zeros(4 * WIDTH),
            },
            "down": {"kernel": jnp.ones((4 * WIDTH, WIDTH)), "bias": jnp.zeros(WIDTH)},
        }

    def make():
        if stacked:
            return jax.tree.map(lambda array: jnp.stack([array] * depth), one())
        return [one() for _ in range(depth)]

    def block(p, x):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        y = (x - mean) * jax.lax.rsqrt(var + EPSILON) * p["scale"] + p["shift"]
        y = jax.nn.gelu(y @ p["up"]["kernel"] + p["up"]["bias"])
        return y @ p["down"]["kernel"] + p["down"]["bias"]

    def predict(params, x):
        if stacked:
            return jax.lax.scan(lambda x, p: (block(p, x), None), x, params)[0]
        for p in params:
            x = block(p, x)
        return x

    return Deep(make, predict)


def linnet(depth, stacked):
    """`nn.Sequential`; `nn.Stack`."""
    from linnet import nn

    class Block(nn.Module):
        def __init__(self):
            self.norm = nn.LayerNorm(epsilon=EPSILON)
            self.up = nn.Dense(4 * WIDTH)
            self.down = nn.Dense(WIDTH)

        def __call__(self, x):
            return self.down(jax.nn.gelu(self.up(self.norm(x))))

    if stacked:
        model = nn.Stack(Block(), depth)
    else:
        model = nn.Sequential([Block() for _ in range(depth)])
    return Deep(lambda: nn.init(model, KEY, X), lambda model, x: model(x))


def equinox(depth, stacked):
    """A list; `jax.vmap` over construction and `jax.lax.scan`, as its guide does."""
    import equinox as eqx

    class Block(eqx.Module):
        norm: eqx.nn.LayerNorm
        up: eqx.nn.Linear
        down: eqx.nn.Linear

        def __init__(self, key):
            up, down = jax.random.split(key)
            self.norm = eqx.nn.LayerNorm(WIDTH, eps=EPSILON)
            self.up = eqx.nn.Linear(WIDTH, 4 * WIDTH, key=up)
            self.down = eqx.nn.Linear(4 * WIDTH, WIDTH, key=down)

        def __call__(self, x):
            return self.down(jax.nn.gelu(self.up(self.norm(x))))

    def make():
        keys = jax.random.split(KEY, depth)
        return eqx.filter_vmap(Block)(keys) if stacked else [Block(key) for key in keys]

    def one(blocks, x):
        if stacked:
            return jax.lax.scan(lambda x, block: (block(x), None), x, blocks)[0]
        for block in blocks:
            x = block(x)
        return x

    return Deep(make, lambda blocks, x: jax.vmap(one, (None, 0))(blocks, x))


def nnx(depth, stacked):
    """`nnx.List`; `nnx.vmap` over construction and `nnx.scan`."""
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.LayerNorm(WIDTH, epsilon=EPSILON, rngs=rngs)
            self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
            self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

        def __call__(self, x):
            return self.down(jax.nn.gelu(self.up(self.norm(x))))

    class Net(nnx.Module):
        def __init__(self):
            if stacked:
                many = nnx.split_rngs(splits=depth)(nnx.vmap(Block))
                self.blocks = many(nnx.Rngs(KEY))
            else:
                self.blocks = nnx.List([Block(nnx.Rngs(i)) for i in range(depth)])

        def __call__(self, x):
            if stacked:
                step = nnx.scan(
                    lambda x, block: block(x),
                    in_axes=(nnx.Carry, 0),
                    out_axes=nnx.Carry,
                )
                return step(x, self.blocks)
            for block in self.blocks:
                x = block(x)
            return x

    graph = nnx.graphdef(nnx.eval_shape(Net))
    return Deep(
        make=lambda: nnx.state(Net()),
        predict=lambda state, x: nnx.merge(graph, state)(x),
    )


def linen(depth, stacked):
    """`linen.Sequential`; `linen.scan`."""
    from flax import linen

    class Block(linen.Module):
        @linen.compact
        def __call__(self, x, _=None):
            y = linen.LayerNorm(epsilon=EPSILON)(x)
            y = linen.Dense(WIDTH)(jax.nn.gelu(linen.Dense(4 * WIDTH)(y)))
            return (y, None) if stacked else y

    if stacked:
        net = linen.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=depth,
        )()
        return Deep(
            lambda: net.init(KEY, X, None), lambda p, x: net.apply(p, x, None)[0]
        )
    net = linen.Sequential([Block() for _ in range(depth)])
    return Deep(lambda: net.init(KEY, X), net.apply)


def haiku(depth, stacked):
    """A loop; `hk.experimental.layer_stack`."""
    import haiku as hk

    def block(x):
        y = hk.LayerNorm(-1, True, True, eps=EPSILON)(x)
        y = jax.nn.gelu(hk.Linear(4 * WIDTH)(y))
        return hk.Linear(WIDTH)(y)

    def net(x):
        if stacked:
            return hk.experimental.layer_stack(depth)(block)(x)
        for _ in range(depth):
            x = block(x)
        return x

    pure = hk.without_apply_rng(hk.transform(net))
    return Deep(lambda: pure.init(KEY, X), pure.apply)
