"""(a2) Flattening and rebuilding the tree of a model, which each `jit` call does.

The same 400 arrays. Linnet puts the attributes of a rebuilt model in place when they
are first read; the third race counts that in.
"""

import _deep
import jax
from _measure import OURS, RAW, Result, line_up, race

DEPTH = 200


def flatten(tree, kernels):
    """To leaves."""
    return lambda: jax.tree.flatten(tree)


def unflatten(tree, kernels):
    """From leaves."""
    leaves, treedef = jax.tree.flatten(tree)
    return lambda: treedef.unflatten(leaves)


def unflatten_and_read(tree, kernels):
    """From leaves, reading the kernel of each layer, as a call does."""
    leaves, treedef = jax.tree.flatten(tree)
    return lambda: kernels(treedef.unflatten(leaves))


def by_key(tree):
    """The kernels of nested dicts."""
    return [layer["kernel"] for layer in tree.values()]


def by_attribute(tree):
    """The kernels of objects."""
    return [layer.kernel for layer in tree.layers]


def equinox(job):
    """Equinox, whose kernels are called `weight`."""
    model = _deep.equinox(DEPTH).make()
    return {"Equinox": job(model, lambda m: [layer.weight for layer in m.layers])}


def nnx(job):
    """The state of Flax NNX, and its module, which is a pytree as well."""
    from flax import nnx

    model = _deep.nnx(DEPTH).make()
    state = nnx.state(model)
    return {
        "Flax NNX, state": job(
            state, lambda s: [layer["kernel"] for layer in s["layers"].values()]
        ),
        "Flax NNX, module": job(model, by_attribute),
    }


CONTESTANTS = {
    RAW: lambda job: {RAW: job(_deep.raw(DEPTH).make(), by_key)},
    "register_dataclass": lambda job: {
        "register_dataclass": job(_deep.dataclasses(DEPTH).make(), by_attribute)
    },
    OURS: lambda job: {OURS: job(_deep.linnet(DEPTH).make(), by_attribute)},
    "Equinox": equinox,
    "Flax NNX": nnx,
}


def measure(quick):
    """Three races."""
    for title, job in [
        ("flatten", flatten),
        ("unflatten", unflatten),
        ("unflatten and read each kernel", unflatten_and_read),
    ]:
        field = line_up(CONTESTANTS, job)
        times = race(field.runs, 5 if quick else 31, turn=0.01)
        yield Result("a2", title, times, "µs", left_out=field.left_out)
