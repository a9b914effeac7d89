"""(a) What one `jax.jit` call costs whose input, or input and output, is a model.

200 Dense layers of width 8, that is 400 small arrays. Each call waits for one number.
"""

import _deep
import jax
from _measure import OURS, RAW, Result, line_up, race

DEPTH = 200


def read(model):
    """A function of the model that computes next to nothing."""
    return jax.tree.leaves(model)[0].sum(), None


def rewrite(model):
    """A function that returns the model changed, as a training step does."""
    return read(model)[0], jax.tree.map(lambda array: 0.5 * array, model)


def call(compiled, *args):
    """A run that waits for the number."""
    return lambda: compiled(*args)[0].block_until_ready()


def raw(function):
    """Nested dicts."""
    return {RAW: call(jax.jit(function), _deep.raw(DEPTH).make())}


def dataclasses(function):
    """Classes of `jax.tree_util.register_dataclass`: what C++ flattening can give."""
    return {
        "register_dataclass": call(jax.jit(function), _deep.dataclasses(DEPTH).make())
    }


def linnet(function):
    """`jax.jit` on the model."""
    return {OURS: call(jax.jit(function), _deep.linnet(DEPTH).make())}


def equinox(function):
    """`eqx.filter_jit`, and `jax.jit`, which takes a model that has arrays only."""
    import equinox as eqx

    model = _deep.equinox(DEPTH).make()
    return {
        "Equinox, filter_jit": call(eqx.filter_jit(function), model),
        "Equinox, jax.jit": call(jax.jit(function), model),
    }


def nnx(function):
    """`nnx.jit`, also with the graph cached, and `jax.jit` on the state split off."""
    from flax import nnx

    def in_place(model):
        number, state = function(nnx.state(model))
        if state is not None:
            nnx.update(model, state)
        return number, None

    model = _deep.nnx(DEPTH).make()
    state = nnx.state(model)
    cached = nnx.cached_partial(nnx.jit(in_place), model)
    return {
        "Flax NNX, nnx.jit": call(nnx.jit(in_place), model),
        "Flax NNX, cached_partial": call(cached),
        "Flax NNX, jax.jit on the state": call(jax.jit(function), state),
    }


def linen(function):
    """Its parameters are nested dicts."""
    return {"Flax Linen": call(jax.jit(function), _deep.linen(DEPTH).make())}


def haiku(function):
    """Its parameters are nested dicts."""
    return {"Haiku": call(jax.jit(function), _deep.haiku(DEPTH).make())}


CONTESTANTS = {
    RAW: raw,
    "register_dataclass": dataclasses,
    OURS: linnet,
    "Equinox": equinox,
    "Flax NNX": nnx,
    "Flax Linen": linen,
    "Haiku": haiku,
}


def measure(quick):
    """Two races: a model in, and a model in and out."""
    for title, function, most in [
        ("one `jit` call, model in", read, 1.10),
        ("one `jit` call, model in and out", rewrite, 1.15),
    ]:
        field = line_up(CONTESTANTS, function)
        times = race(field.runs, 5 if quick else 101, turn=0.01)
        result = Result("a", title, times, "µs", left_out=field.left_out)
        result.require(title, most)
        yield result
