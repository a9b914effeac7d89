"""A small transformer, the presets, and a program that trains it on several processes.

    training_run.py losses FILE                 each preset, from the start
    training_run.py resume FILE FOLDER STEPS    one preset, with checkpoints

Process 0 writes what it found to the file, as JSON.
"""

import json
import os
import pathlib
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from linnet import nn, parallel, training

TOKENS = np.random.default_rng(1).integers(0, 32, (8, 17))
TX = optax.adam(1e-2)
STEPS = 20
SMALL = parallel.fsdp(min_size=64)
DATA, TENSOR = parallel.data_parallel(), parallel.tensor_parallel()

# Sizes of the mesh, where -1 is what is left, and rules.
PRESETS = {
    "data": ({"data": -1}, DATA),
    "fsdp": ({"data": -1}, SMALL),
    "tensor": ({"data": -1, "model": 2}, DATA | TENSOR),
    "fsdp, tensor": ({"data": -1, "model": 2}, SMALL | TENSOR),
    "sequence": (
        {"data": -1, "sequence": 2},
        DATA | parallel.sequence_parallel(),
    ),
    "expert": ({"data": -1, "expert": 2}, DATA | parallel.expert_parallel()),
}


class Model(nn.Module):
    def __init__(self, mlp):
        attention = nn.Attention(4, num_kv_heads=2, causal=True, position=nn.Rotary())
        block = nn.TransformerBlock(attention, mlp, norm=nn.RMSNorm)
        self.embed = nn.Embed(32, 16)
        self.blocks = nn.Stack(block, 2)

    def __call__(self, tokens):
        x = nn.shard(self.embed(tokens), "batch", "length", "features")
        x = nn.shard(self.blocks(x), "batch", "length", "features")
        return self.embed.attend(x)


def model_of(preset):
    is_mixture = preset == "expert"
    return Model(nn.MoE(4, 32, top_k=2) if is_mixture else nn.MLP(32, gated=True))


def start(preset):
    """A model and the state of its optimiser."""
    model = nn.init(model_of(preset), jax.random.key(0), jnp.zeros((2, 4), int))
    return {"model": model, "opt_state": jax.jit(TX.init)(nn.params(model))}


@jax.jit
def step(state, tokens):
    def loss_fn(model):
        logits = model(tokens[:, :-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return losses.mean()

    loss, grads = nn.value_and_grad(loss_fn)(state["model"])
    params = nn.params(state["model"])
    updates, opt_state = TX.update(grads, state["opt_state"], params)
    model = nn.apply_updates(state["model"], updates)
    return {"model": model, "opt_state": opt_state}, loss


def losses(state, tokens, steps=STEPS):
    """As many steps."""
    found = []
    for _ in range(steps):
        state, loss = step(state, tokens)
        found.append(float(loss))
    return found


def placed(tokens):
    """The tokens on the mesh in force; each process looks up its own rows."""
    sharding = parallel.shardings(tokens, axes=("batch",))
    return jax.make_array_from_callback(tokens.shape, sharding, tokens.__getitem__)


def losses_of_presets():
    """The losses of each preset, and the bytes of its arrays on a device."""
    found = {}
    for name, (sizes, rules) in PRESETS.items():
        with parallel.use(parallel.make_mesh(**sizes), rules):
            found[name] = losses(start(name), placed(TOKENS))
    return found


def resume(folder, steps):
    """Goes on from the last checkpoint; each step makes one.

    A file `kill` in the folder makes the last process kill itself after that step.
    """
    sizes, rules = PRESETS["fsdp, tensor"]
    mesh = parallel.make_mesh(**sizes)
    with parallel.use(mesh, rules), training.Checkpoints(folder / "steps") as saved:
        state, first, found = start("fsdp, tensor"), 0, []
        if saved.latest() is not None:
            restored = saved.restore(state)
            state, first = restored.state, restored.step
        for i in range(first, steps):
            state, loss = step(state, placed(TOKENS))
            found.append(float(loss))
            saved.save(i + 1, state)
            saved.wait()
            if kills(folder, i + 1):
                os.kill(os.getpid(), signal.SIGKILL)
    return {"first": first, "losses": found}


def kills(folder, count):
    """Whether this process is to die after so many steps."""
    file = folder / "kill"
    is_last = jax.process_index() == jax.process_count() - 1
    return file.exists() and is_last and int(file.read_text()) == count


def main(what, file, *args):
    parallel.initialize(timeout=10)
    if what == "losses":
        found = losses_of_presets()
    else:
        folder, steps = args
        found = resume(pathlib.Path(folder), int(steps))
    if jax.process_index() == 0:
        pathlib.Path(file).write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
