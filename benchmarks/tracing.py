"""(b) Tracing a prediction of 200 layers, with a fresh function each time."""

import _deep
import jax
from _measure import OURS, RAW, Result, line_up, race

DEPTH = 200


def trace(function, *args):
    """A run that traces. JAX caches by function object, so each is a new one."""
    return lambda: jax.make_jaxpr(lambda *args: function(*args))(*args)


def of(name, network):
    """The contestant whose `predict` takes what its `make` gives."""

    def build():
        deep = network(DEPTH)
        return {name: trace(deep.predict, deep.make(), _deep.X)}

    return build


def nnx():
    """The module is put together from its state inside the traced function."""
    from flax import nnx

    graph, state = nnx.split(_deep.nnx(DEPTH).make())
    return {"Flax NNX": trace(lambda s, x: nnx.merge(graph, s)(x), state, _deep.X)}


CONTESTANTS = {
    RAW: of(RAW, _deep.raw),
    OURS: of(OURS, _deep.linnet),
    "Equinox": of("Equinox", _deep.equinox),
    "Flax NNX": nnx,
    "Flax Linen": of("Flax Linen", _deep.linen),
    "Haiku": of("Haiku", _deep.haiku),
}


def equations(runs):
    """How long each one's program is."""
    return {name: str(len(run().jaxpr.eqns)) for name, run in runs.items()}


def measure(quick):
    """One race."""
    field = line_up(CONTESTANTS)
    times = race(field.runs, 3 if quick else 25)
    title = "tracing 200 layers, prediction"
    columns = {"equations": equations(field.runs)}
    result = Result("b", title, times, left_out=field.left_out, columns=columns)
    result.require(title, 1.10)
    yield result
