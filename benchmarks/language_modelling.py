"""(k) A training step of a model of the shape of GPT-2 small: 124 million parameters.

Everyone starts from the same numbers, takes the same tokens and plain gradient descent,
and its loss must follow that of raw JAX for some steps before it may race.
"""

import os

import _gpt2
import jax
import numpy as np
import optax
from _layers import is_floating, never_slower
from _measure import OURS, RAW, Result, line_up, race

BATCH, TIME = 1, 128
RATE = 1e-2
TX = optax.sgd(RATE)  # Adam's state for all contestants at once would take 9 GB more
STEPS_COMPARED = 3


class JaxTraining:
    """Steps of a model in JAX, each from where the last one ended."""

    def __init__(self, layer, tokens):
        params = _gpt2.filled(layer.params)
        self.size = sum(a.size for a in jax.tree.leaves(params) if is_floating(a))

        def loss_of(params, tokens):
            logits = layer.apply(params, tokens)[:, :-1]
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, tokens[:, 1:]
            ).mean()

        def step(state, tokens):
            params, opt_state = state
            loss, grads = jax.value_and_grad(loss_of)(params, tokens)
            updates, opt_state = TX.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        self.tokens = tokens
        self.state = params, TX.init(params)
        jitted = jax.jit(step, donate_argnums=0)
        self.step = jitted.lower(self.state, tokens).compile()

    def __call__(self):
        self.state, loss = self.step(self.state, self.tokens)
        return float(loss)


class TorchTraining:
    """Steps of a model in PyTorch."""

    def __init__(self, make, tokens, compiled):
        import torch

        torch.set_num_threads(os.cpu_count() or 1)
        module = make()
        for name, parameter in module.named_parameters():
            shape = tuple(parameter.shape)
            if "norm" in name or name.endswith("bias"):
                value = np.full(shape, float(not name.endswith("bias")), np.float32)
            elif "embed" in name or "position" in name:
                value = _gpt2.numbers(shape)
            else:
                value = np.ascontiguousarray(_gpt2.numbers(shape[::-1]).T)
            parameter.data = torch.tensor(value)
        parameters = list(module.parameters())
        self.size = sum(p.numel() for p in parameters)
        self.tokens = torch.tensor(np.asarray(tokens), dtype=torch.long)
        self.optimizer = torch.optim.SGD(parameters, RATE)
        self.call = torch.compile(module) if compiled else module
        self.cross_entropy = torch.nn.functional.cross_entropy

    def __call__(self):
        self.optimizer.zero_grad()
        logits = self.call(self.tokens)[:, :-1]
        loss = self.cross_entropy(logits.flatten(0, 1), self.tokens[:, 1:].flatten())
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def contestants(tokens):
    """By library, and for PyTorch by way."""

    def in_jax(name, library):
        return lambda: {name: JaxTraining(library()[1](tokens), tokens)}

    builders = {
        RAW: in_jax(RAW, _gpt2.raw),
        OURS: in_jax(OURS, _gpt2.linnet),
        f"{OURS}, Stack": in_jax(f"{OURS}, Stack", lambda: _gpt2.linnet(stacked=True)),
        "Equinox": in_jax("Equinox", _gpt2.equinox),
        "Flax NNX": in_jax("Flax NNX", _gpt2.nnx),
        "Flax Linen": in_jax("Flax Linen", _gpt2.linen),
    }
    ways = {"PyTorch, eager": False, "PyTorch, compiled": True}

    def in_torch(*names):
        return {
            name: TorchTraining(_gpt2.torch()[1], tokens, ways[name])
            for name in names or ways
        }

    return builders | {"PyTorch": in_torch}


def require_same(runs):
    """Refuses a race of different models: sizes, and losses of the next steps."""
    losses = {
        name: [run() for _ in range(STEPS_COMPARED)] for name, run in runs.items()
    }
    for name, run in runs.items():
        if run.size != runs[RAW].size:
            raise ValueError(f"{name} has {run.size} parameters, not {runs[RAW].size}")
        np.testing.assert_allclose(losses[name], losses[RAW], rtol=1e-3, err_msg=name)


def measure(quick):
    """One race."""
    field = line_up(contestants(_gpt2.tokens(BATCH, TIME)))
    require_same(field.runs)
    times = race(field.runs, 3 if quick else 15)
    title = "training step of the shape of GPT-2 small"
    result = Result("k", title, times, left_out=field.left_out)
    size = field.runs[RAW].size
    result.note = f"{size:,} parameters each, {TIME} tokens; losses agree."
    result.checks += never_slower(result)
    yield result
