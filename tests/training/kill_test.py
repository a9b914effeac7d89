"""A run that is killed at any moment goes on from its last checkpoint, bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

import house

RUN = """
import json, sys, time
import jax, jax.numpy as jnp, optax
from linnet import nn, training

folder, log, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
tx = optax.adam(1e-2)

def first():
    x = jnp.ones((1, 4))
    model = nn.init(nn.Sequential([nn.Dense(64), nn.Dropout(0.2), nn.Dense(1)]),
                    jax.random.key(0), x)
    return dict(model=model, opt=tx.init(nn.params(model)), key=jax.random.key(1))

@jax.jit
def train(state, x):
    key, rest = jax.random.split(state["key"])
    def loss_fn(model):
        y, model = nn.training(model, key)(x)
        return ((y[:, 0] - x.sum(-1)) ** 2).mean(), model
    (loss, model), grads = nn.value_and_grad(loss_fn, has_aux=True)(state["model"])
    updates, opt = tx.update(grads, state["opt"], nn.params(model))
    return dict(model=nn.apply_updates(model, updates), opt=opt, key=rest), loss

with training.Checkpoints(folder, keep_last=2) as checkpoints:
    start, state = 0, first()
    if checkpoints.latest() is not None:
        found = checkpoints.restore(state)
        start, state = found.data["step"], found.state
    print("from", start, flush=True)
    with open(log, "a") as file:
        for step in range(start, steps):
            x = jax.random.normal(jax.random.fold_in(jax.random.key(2), step), (8, 4))
            state, loss = train(state, x)
            file.write(json.dumps([step, float(loss).hex()]) + "\\n")
            file.flush()
            time.sleep(0.02)
            if (step + 1) % 5 == 0:
                checkpoints.save(step + 1, state, data={"step": step + 1})
"""


def start(folder, log, steps):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), str(log), str(steps)],
        env={**os.environ, "PYTHONPATH": str(house.ROOT), "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def losses(log):
    """Of each step, once; a step that was done twice must have the same."""
    found = {}
    for line in log.read_text().splitlines():
        try:
            step, loss = json.loads(line)
        except ValueError:  # the last line of a run that was killed
            continue
        assert found.setdefault(step, loss) == loss
    return found


def lines(log):
    """How many steps were done, with those that were done twice."""
    return log.read_text().count("\n") if log.exists() else 0


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_bit_for_bit(tmp_path):
    steps, moments, starts = 80, random.Random(0), []
    with start(tmp_path / "whole", tmp_path / "whole.log", steps) as run:
        assert run.wait(120) == 0, run.stderr.read()
    folder, log = tmp_path / "killed", tmp_path / "killed.log"
    for _ in range(4):
        with start(folder, log, steps) as run:
            starts.append(run.stdout.readline())
            goal = lines(log) + moments.randint(3, 30)
            while lines(log) < goal and run.poll() is None:
                time.sleep(0.005)
            time.sleep(moments.uniform(0.0, 0.05))
            run.send_signal(signal.SIGKILL)
    with start(folder, log, steps) as run:
        starts.append(run.stdout.readline())
        assert run.wait(120) == 0, run.stderr.read()
    assert losses(log) == losses(tmp_path / "whole.log")
    assert starts[0] == "from 0\n" != starts[-1], "no run went on from a checkpoint"
