"""(m) What `training.fit` adds to a loop, at steps of about a millisecond."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from _measure import OURS, RAW, Result, race

STEPS = 200
X = jax.random.normal(jax.random.key(0), (256, 256))


@jax.jit
def step(state, batch):
    for _ in range(4):
        state = jnp.tanh(state @ batch)
    return state, {"loss": state.sum(), "largest": state.max()}


def bare():
    """The loop by hand, which takes the mean of its metrics at the end."""
    state, seen = X, []
    for _ in range(STEPS):
        state, metrics = step(state, X)
        seen.append(metrics)
    {name: np.mean([np.asarray(row[name]) for row in seen]) for name in seen[0]}
    jax.block_until_ready(state)


def ours():
    """The same loop as one function, with a hook that listens."""
    from linnet import training

    class Listener:
        def on_log(self, run, values):
            self.values = values

    state = training.fit(
        X, step, itertools.repeat(X), steps=STEPS, hooks=[Listener()], log_every=STEPS
    )
    jax.block_until_ready(state)


def measure(quick):
    """One race."""
    runs = {RAW: bare, OURS: ours}
    for run in runs.values():
        run()
    times = race(runs, 5 if quick else 31)
    times = {name: [t / STEPS for t in found] for name, found in times.items()}
    result = Result("m", f"a step of a loop of {STEPS}", times)
    result.require("`training.fit` over the bare loop", 1.02)
    yield result
