"""Racing one layer of each library: forward, and forward with the backward pass.

Every parameter is set to the same number everywhere, so that the layers can be seen to
compute the same whatever they call and however they order their parameters: they have
as many, and give the same outputs.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _measure import JAX_PEERS, OURS, RAW, Check, Result, line_up, race

VALUE = 0.02
FORWARD, BOTH = "forward", "forward and backward"


class Layer(NamedTuple):
    """A layer in JAX: a tree of parameters, and a function of them and the input."""

    params: Any
    apply: Callable[..., Any]


def filled(tree):
    """The tree with the one number in every floating array."""
    return jax.tree.map(
        lambda a: jnp.full_like(a, VALUE) if is_floating(a) else a, tree
    )


def is_floating(a):
    """Whether this is an array that could be a parameter."""
    return hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.floating)


class JaxLayer:
    """A layer of a library on JAX, ready to run."""

    def __init__(self, layer, x):
        params = filled(layer.params)
        self.size = sum(a.size for a in jax.tree.leaves(params) if is_floating(a))
        predict = jax.jit(layer.apply)
        both = jax.jit(
            jax.grad(lambda p, x: jnp.square(layer.apply(p, x)).mean(), (0, 1))
        )
        self.out = lambda: np.asarray(predict(params, x))
        self.ways = {
            FORWARD: lambda: jax.block_until_ready(predict(params, x)),
            BOTH: lambda: jax.block_until_ready(both(params, x)),
        }


class TorchLayer:
    """A layer of PyTorch, as it is or compiled."""

    def __init__(self, module, x, compiled):
        import torch

        torch.set_num_threads(os.cpu_count() or 1)
        x = torch.tensor(np.asarray(x))
        for parameter in module.parameters():
            parameter.data.fill_(VALUE)
        parameters = list(module.parameters())
        self.size = sum(p.numel() for p in parameters)
        call = torch.compile(module) if compiled else module

        def forward():
            with torch.no_grad():
                return call(x)

        needs_gradient = x.clone().requires_grad_()

        def both():
            y = call(needs_gradient)
            return torch.autograd.grad(
                y.square().mean(), [needs_gradient, *parameters], allow_unused=True
            )

        self.out = lambda: forward().numpy()
        self.ways = {FORWARD: forward, BOTH: both}


def jax_layers(builders, x):
    """`{library: build(x)}` of layers, from functions that give a `Layer`."""
    return {
        name: lambda name=name, build=build: {name: JaxLayer(build(), x)}
        for name, build in builders.items()
    }


def torch_layers(make, x):
    """PyTorch twice, from a function that makes a module."""

    def build():
        return {
            f"PyTorch, {name}": TorchLayer(make(), x, compiled)
            for name, compiled in (("eager", False), ("compiled", True))
        }

    return {"PyTorch": build}


def measure_layer(question, title, layers, quick, rounds=41, turn=0.05):
    """A race forward, and one forward and backward."""
    field = line_up({name: _checked(build) for name, build in layers.items()})
    ready = {name: run.layer for name, run in field.runs.items()}
    require_same(ready)
    for way in (FORWARD, BOTH):
        runs = {name: layer.ways[way] for name, layer in ready.items()}
        for run in runs.values():
            run()
        times = race(runs, 5 if quick else rounds, turn=turn)
        result = Result(question, f"{title}, {way}", times, left_out=field.left_out)
        result.note = f"{ready[RAW].size:,} parameters each; the outputs agree."
        result.checks += never_slower(result)
        yield result


class _FirstRun:
    """What `line_up` calls: it holds the layer, and computes its output once."""

    def __init__(self, layer):
        self.layer = layer

    def __call__(self):
        for way in self.layer.ways.values():
            way()


def _checked(build):
    return lambda: {name: _FirstRun(layer) for name, layer in build().items()}


def require_same(layers):
    """Refuses a race of different layers."""
    desired = layers[RAW].out()
    for name, layer in layers.items():
        if layer.size != layers[RAW].size:
            raise ValueError(
                f"{name} has {layer.size} parameters, not {layers[RAW].size}"
            )
        np.testing.assert_allclose(
            layer.out(), desired, rtol=2e-3, atol=1e-5, err_msg=name
        )


def never_slower(result, most=1.03):
    """A target for each peer on JAX: Linnet's time over its own, round by round."""
    checks = []
    for name in result.times:
        if name.split(",")[0] in JAX_PEERS:
            ratio = result.ratio_between(OURS, name).median
            what = f"{result.title}, over {name}"
            checks.append(Check(what, f"{ratio:.2f}", f"{most:.2f}", ratio <= most))
    return checks
