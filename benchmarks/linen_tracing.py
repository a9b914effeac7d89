"""(q) Tracing Linen modules: `linnet.compat.flax` beside the genuine Flax and raw JAX.

Predictions of 200 Dense layers, of a transformer with 12 layers, and of scans over its
layers and over 24 Dense layers; and `init` of each. The compiled programs are compared
by their cost.
"""

import importlib

import jax
import jax.numpy as jnp
from _measure import RAW, Check, Result, race

OURS, THEIRS = "compat.flax", "Flax Linen"
WIDTH, KEY = 16, jax.random.key(0)
X = jnp.ones((2, 8, WIDTH))


def library(name):
    """Its module `linen`."""
    root = "linnet.compat.flax" if name == OURS else "flax"
    return importlib.import_module(f"{root}.linen")


def dense_layers(nn):
    """200 layers, one after the other."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(200):
                x = nn.Dense(WIDTH)(x)
            return x

    return Net()


def block(nn, x):
    """A block of attention and an MLP, in a compact method."""
    mask = nn.make_causal_mask(x[..., 0])
    x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x), mask=mask)
    y = nn.Dense(4 * WIDTH)(nn.LayerNorm()(x))
    return x + nn.Dense(WIDTH)(jnp.tanh(y))


def transformer(nn):
    """12 blocks of attention and an MLP."""

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            return block(nn, x)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(12):
                x = Block()(x)
            return x

    return Net()


def scanned_transformer(nn):
    """The same blocks as the steps of a scan."""

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return block(nn, x), None

    return scan_over(nn, Block, 12)


def scanned(nn):
    """24 Dense layers as the steps of a scan."""

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return jnp.tanh(nn.Dense(WIDTH)(x)), None

    return scan_over(nn, Block, 24)


def scan_over(nn, step, length):
    """A network whose layers are the steps of a scan."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            axes, split = {"params": 0}, {"params": True}
            return nn.scan(step, axes, split_rngs=split, length=length)()(x, None)[0]

    return Net()


# ---- the same by hand, on the parameters of Linen

DRAW = jax.nn.initializers.lecun_normal()


def raw_dense_layers(variables, x):
    """200 layers."""
    for i in range(200):
        layer = variables["params"][f"Dense_{i}"]
        x = x @ layer["kernel"] + layer["bias"]
    return x


def raw_layer(key):
    """The parameters of a layer, by a key of its own."""
    kernel = DRAW(key, (WIDTH, WIDTH), jnp.float32)
    return {"kernel": kernel, "bias": jnp.zeros(WIDTH)}


def raw_init_dense_layers(key, x):
    """Parameters of 200 layers, and the prediction, which `init` computes too."""
    layers = {}
    for i in range(200):
        layers[f"Dense_{i}"] = raw_layer(jax.random.fold_in(key, i))
    return {"params": layers}, raw_dense_layers({"params": layers}, x)


def raw_scanned(variables, x):
    """24 layers, whose parameters are stacked."""
    [block] = variables["params"].values()

    def step(x, layer):
        return jnp.tanh(x @ layer["kernel"] + layer["bias"]), None

    return jax.lax.scan(step, x, block["Dense_0"])[0]


def raw_init_scanned(key, x):
    """Their parameters, made in the steps of the scan, as `init` does."""

    def step(x, key):
        layer = raw_layer(key)
        return jnp.tanh(x @ layer["kernel"] + layer["bias"]), layer

    return jax.lax.scan(step, x, jax.random.split(key, 24))


RAW_OF = {
    dense_layers: (raw_dense_layers, raw_init_dense_layers),
    scanned: (raw_scanned, raw_init_scanned),
}


def tracing(function, *args):
    """A run that traces a function anew."""
    return lambda: jax.make_jaxpr(lambda *args: function(*args))(*args)


def cost(model, params):
    """Operations of the compiled prediction."""
    return jax.jit(model.apply).lower(params, X).cost_analysis()["flops"]


def measure(quick):
    """A race for each network, and for `init`."""
    rounds = 3 if quick else 15
    for make in (dense_layers, transformer, scanned_transformer, scanned):
        models = {name: make(library(name)) for name in (OURS, THEIRS)}
        params = models[THEIRS].init(KEY, X)
        name = make.__name__.replace("_", " ")
        runs = {n: tracing(m.apply, params, X) for n, m in models.items()}
        inits = {n: tracing(m.init, KEY, X) for n, m in models.items()}
        if make in RAW_OF:
            raw_apply, raw_init = RAW_OF[make]
            runs[RAW] = tracing(raw_apply, params, X)
            inits[RAW] = tracing(raw_init, KEY, X)
        result = _raced(f"tracing {name}", runs, rounds)
        costs = [cost(model, params) for model in models.values()]
        same = costs[0] == costs[1]
        what = f"operations of {name}"
        result.checks.append(Check(what, f"{costs[0]:,.0f}", f"{costs[1]:,.0f}", same))
        yield result
        yield _raced(f"init of {name}", inits, rounds)


def _raced(title, runs, rounds):
    times = race(runs, rounds)
    result = Result("q", title, times, base=THEIRS)
    ratio = result.ratio(OURS).median
    result.checks.append(
        Check(f"{title}, over Flax", f"{ratio:.2f}", "0.20", ratio <= 0.2)
    )
    if RAW in times:
        ratio = result.ratio_between(OURS, RAW).median
        what = f"{title}, over raw JAX"
        result.checks.append(Check(what, f"{ratio:.2f}", "3.50", ratio <= 3.5))
    return result
