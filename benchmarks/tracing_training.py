"""(b) Tracing training: 100 times Dense, BatchNorm, relu, Dropout.

Batch statistics go in and out, and a key goes in. How many equations each library
needs for this differs, and is part of the time; the table gives the numbers. What is
left of Linnet's time over that of its own `functional` on nested dicts is the modules'.
"""

import jax
import jax.numpy as jnp
from _measure import OURS, RAW, Check, Result, line_up, race, spread
from tracing import equations, trace

DEPTH, WIDTH, RATE, MOMENTUM, EPSILON = 100, 8, 0.1, 0.99, 1e-5
X = jnp.ones((4, WIDTH))
KEY = jax.random.key(0)
FUNCTIONAL = "linnet.functional on nested dicts"


def nested_dicts():
    """Parameters and statistics."""
    params = {
        f"block_{i:03}": {
            "kernel": jnp.ones((WIDTH, WIDTH)),
            "bias": jnp.zeros(WIDTH),
            "norm_scale": jnp.ones(WIDTH),
            "norm_bias": jnp.zeros(WIDTH),
        }
        for i in range(DEPTH)
    }
    stats = {
        name: {"mean": jnp.zeros(WIDTH), "var": jnp.ones(WIDTH)} for name in params
    }
    return params, stats


def raw():
    """By hand."""

    def norm(x, block, stat):
        mean, var = x.mean(0), x.var(0)
        y = (x - mean) * jax.lax.rsqrt(var + EPSILON)
        new = {
            "mean": MOMENTUM * stat["mean"] + (1 - MOMENTUM) * mean,
            "var": MOMENTUM * stat["var"] + (1 - MOMENTUM) * var,
        }
        return y * block["norm_scale"] + block["norm_bias"], new

    def dropout(x, key):
        keep = jax.random.bernoulli(key, 1 - RATE, x.shape)
        return jnp.where(keep, x / (1 - RATE), 0)

    def forward(params, stats, key, x):
        new = {}
        for i, (name, block) in enumerate(params.items()):
            x = x @ block["kernel"] + block["bias"]
            x, new[name] = norm(x, block, stats[name])
            x = dropout(jax.nn.relu(x), jax.random.fold_in(key, i))
        return x, new

    return {RAW: trace(forward, *nested_dicts(), KEY, X)}


def functional():
    """The mathematics of Linnet's layers, without its modules."""
    from linnet import functional as F

    def forward(params, stats, key, x):
        new = {}
        for i, (name, block) in enumerate(params.items()):
            x = F.dense(x, block["kernel"], block["bias"])
            old = stats[name]
            mean, var = F.batch_statistics(x, default=(old["mean"], old["var"]))
            new[name] = {
                "mean": F.moving_average(old["mean"], mean, MOMENTUM),
                "var": F.moving_average(old["var"], var, MOMENTUM),
            }
            x = F.batch_norm(x, mean, var, block["norm_scale"], block["norm_bias"])
            mask_key = jax.random.fold_in(jax.random.fold_in(key, i), 0)
            x = F.dropout(jax.nn.relu(x), mask_key, RATE)
        return x, new

    return {FUNCTIONAL: trace(forward, *nested_dicts(), KEY, X)}


def linnet():
    """`nn.training`."""
    from linnet import nn

    class Block(nn.Module):
        def __init__(self):
            self.dense = nn.Dense(WIDTH)
            self.norm = nn.BatchNorm(momentum=MOMENTUM, epsilon=EPSILON)
            self.drop = nn.Dropout(RATE)

        def __call__(self, x):
            return self.drop(jax.nn.relu(self.norm(self.dense(x))))

    model = nn.Sequential([Block() for _ in range(DEPTH)])
    model = nn.init(model, jax.random.key(0), X)
    return {OURS: trace(lambda m, key, x: nn.training(m, key)(x), model, KEY, X)}


def equinox():
    """One example at a time under `jax.vmap`, whose axis the statistics go over."""
    import equinox as eqx

    class Block(eqx.Module):
        dense: eqx.nn.Linear
        norm: eqx.nn.BatchNorm
        drop: eqx.nn.Dropout

        def __init__(self, key):
            self.dense = eqx.nn.Linear(WIDTH, WIDTH, key=key)
            self.norm = eqx.nn.BatchNorm(
                WIDTH, "batch", eps=EPSILON, momentum=MOMENTUM, mode="ema"
            )
            self.drop = eqx.nn.Dropout(RATE)

        def __call__(self, x, state, key):
            x, state = self.norm(self.dense(x), state)
            return self.drop(jax.nn.relu(x), key=key), state

    class Net(eqx.Module):
        blocks: list

        def __init__(self, key):
            self.blocks = [Block(key) for key in jax.random.split(key, DEPTH)]

        def __call__(self, x, state, key):
            for i, block in enumerate(self.blocks):
                x, state = block(x, state, jax.random.fold_in(key, i))
            return x, state

    model, state = eqx.nn.make_with_state(Net)(KEY)
    arrays, static = eqx.partition(model, eqx.is_array)

    def forward(arrays, state, key, x):
        batched = jax.vmap(
            eqx.combine(arrays, static),
            in_axes=(0, None, 0),
            out_axes=(0, None),
            axis_name="batch",
        )
        return batched(x, state, jax.random.split(key, len(x)))

    return {"Equinox": trace(forward, arrays, state, KEY, X)}


def nnx():
    """Statistics and keys are in the module's state, which comes out as well."""
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
            self.norm = nnx.BatchNorm(
                WIDTH, momentum=MOMENTUM, epsilon=EPSILON, rngs=rngs
            )
            self.drop = nnx.Dropout(RATE, rngs=rngs)

        def __call__(self, x):
            return self.drop(jax.nn.relu(self.norm(self.dense(x))))

    model = nnx.Sequential(*[Block(nnx.Rngs(i)) for i in range(DEPTH)])
    model.train()
    graph, state = nnx.split(model)

    def forward(state, x):
        model = nnx.merge(graph, state)
        return model(x), nnx.state(model)

    return {"Flax NNX": trace(forward, state, X)}


def linen():
    """`apply` with mutable `batch_stats`."""
    from flax import linen

    class Block(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.Dense(WIDTH)(x)
            x = linen.BatchNorm(
                use_running_average=False, momentum=MOMENTUM, epsilon=EPSILON
            )(x)
            return linen.Dropout(RATE, deterministic=False)(jax.nn.relu(x))

    model = linen.Sequential([Block() for _ in range(DEPTH)])
    variables = model.init({"params": KEY, "dropout": KEY}, X)

    def forward(variables, key, x):
        return model.apply(variables, x, rngs={"dropout": key}, mutable=["batch_stats"])

    return {"Flax Linen": trace(forward, variables, KEY, X)}


def haiku():
    """`hk.transform_with_state`."""
    import haiku as hk

    def net(x):
        for _ in range(DEPTH):
            x = hk.Linear(WIDTH)(x)
            x = hk.BatchNorm(True, True, MOMENTUM, EPSILON)(x, is_training=True)
            x = hk.dropout(hk.next_rng_key(), RATE, jax.nn.relu(x))
        return x

    pure = hk.transform_with_state(net)
    params, state = pure.init(KEY, X)
    return {"Haiku": trace(pure.apply, params, state, KEY, X)}


CONTESTANTS = {
    RAW: raw,
    FUNCTIONAL: functional,
    OURS: linnet,
    "Equinox": equinox,
    "Flax NNX": nnx,
    "Flax Linen": linen,
    "Haiku": haiku,
}


def measure(quick):
    """One race."""
    field = line_up(CONTESTANTS)
    times = race(field.runs, 2 if quick else 9)
    title = "tracing 100 blocks, training"
    columns = {"equations": equations(field.runs)}
    result = Result("b", title, times, left_out=field.left_out, columns=columns)
    result.require(title, 1.10)
    result.checks.append(_share_of_modules(times))
    yield result


def _share_of_modules(times):
    pairs = zip(times[OURS], times[FUNCTIONAL], strict=True)
    ratio = spread([ours / bare for ours, bare in pairs]).median
    return Check(f"the same, over {FUNCTIONAL}", f"{ratio:.2f}", "1.10", ratio <= 1.10)
