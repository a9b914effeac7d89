"""The loop on several processes: they end and save at one step, and log wholes."""

import re

import pytest

import house
from linnet import parallel

RUN = """
import os, signal, sys
import jax, jax.numpy as jnp
from linnet import parallel, training

parallel.initialize(timeout=20)
mesh = parallel.make_mesh(data=2)
sharding = jax.NamedSharding(mesh, jax.P("data"))
state = jax.device_put(jnp.zeros(4), sharding)
index = jax.process_index()

@jax.jit
def step(state, batch):
    return state + batch, {"each": state, "sum": state.sum()}

class Show:
    def on_log(self, run, values):
        self.values = values

    def on_end(self, run):
        values = self.values["each"].tolist(), self.values["sum"]
        print("ended at", run.step, run.reason, *values, flush=True)

def batches():
    for i in range(100_000):
        if i == 5 and index == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        yield 1.0

with training.Checkpoints(sys.argv[1]) as checkpoints:
    hooks = [Show(), training.Save(checkpoints, 100_000)]
    training.fit(state, step, batches(), steps=100_000, hooks=hooks, log_every=2)
    print("saved", checkpoints.steps(), flush=True)
"""


@pytest.mark.slow
def test_when_one_process_is_asked_to_end_all_save_the_same_step(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(house.ROOT))
    outputs = parallel.launch(["-c", RUN, str(tmp_path)], 2, devices=1, echo=False)
    ends = [re.search(r"ended at (\d+) SIGTERM (.*)", text) for text in outputs]
    steps = {int(end[1]) for end in ends}
    assert len(steps) == 1
    (step,) = steps
    assert 5 < step < 100_000
    assert all(f"saved [{step}]" in text for text in outputs)
    last = step - 1.0 if step % 2 else step - 1.5  # the mean of the last window
    assert {end[2] for end in ends} == {f"{[last] * 4} {4 * last}"}
