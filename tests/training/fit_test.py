"""The loop and its hooks."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import optax
import pytest

from helpers import assert_close, normal
from linnet import nn, training

KEY = jax.random.key(0)


@jax.jit
def count(state, batch):
    return state + batch, {"loss": batch, "mean": training.Mean.of(batch)}


class Recorder:
    def __init__(self):
        self.calls = []

    def on_start(self, run):
        self.calls.append(("start", run.step))

    def on_step(self, run):
        self.calls.append(("step", run.step))

    def on_log(self, run, values):
        self.calls.append(("log", run.step, values))

    def on_end(self, run):
        self.calls.append(("end", run.step))


def test_it_is_the_loop():
    seen = Recorder()
    state = training.fit(
        jnp.float32(0),
        count,
        iter([1.0, 2, 3, 4, 5]),
        steps=5,
        hooks=[seen],
        log_every=2,
    )
    assert state == 15
    kinds = [call[:2] for call in seen.calls]
    assert kinds == [
        ("start", 0),
        ("step", 1),
        ("log", 2),
        ("step", 2),
        ("step", 3),
        ("log", 4),
        ("step", 4),
        ("log", 5),
        ("step", 5),
        ("end", 5),
    ]
    values = [call[2] for call in seen.calls if call[0] == "log"]
    assert [(v["loss"], v["mean"]) for v in values] == [(1.5, 1.5), (3.5, 3.5), (5, 5)]
    assert all(v["steps_per_second"] > 0 for v in values)


def test_a_run_goes_on_from_the_step_of_its_state():
    model = nn.init(nn.Dense(1), KEY, jnp.ones((1, 2)))
    state = training.TrainState.create(model, optax.sgd(0.1), KEY)
    state = state.replace(step=jnp.int32(3))
    seen = Recorder()
    training.fit(
        state,
        lambda s, b: (s.replace(step=s.step + 1), {}),
        [1, 2],
        steps=5,
        hooks=[seen],
    )
    assert [c[1] for c in seen.calls if c[0] == "step"] == [4, 5]


def test_hooks_end_though_a_step_fails():
    seen = Recorder()

    def step(state, batch):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        training.fit(0, step, [1], steps=1, hooks=[seen])
    assert seen.calls == [("start", 0), ("end", 0)]


def test_evaluations_stop_early(capsys):
    values = iter([3.0, 2.0, 2.5, 2.1, 1.0])
    hooks = [
        training.EarlyStop("test", 2),
        training.Evaluate(10, lambda state: {"test": next(values)}),
        training.Progress(["test"]),
    ]
    batches = iter([1.0] * 100)
    state = training.fit(jnp.float32(0), count, batches, steps=100, hooks=hooks)
    assert state == 40
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 10/100  test 3")
    assert lines[-1] == "stopped after step 40: test is not better than 2"
    with pytest.raises(nn.ConfigError):
        training.EarlyStop("test", 2, mode="least")


def test_values_are_written_as_lines_and_for_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    hooks = [
        training.JsonLines(tmp_path / "log"),
        training.TensorBoard(tmp_path / "tb"),
    ]
    training.fit(jnp.float32(0), count, [2.0] * 4, steps=4, hooks=hooks, log_every=2)
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(2, 2.0), (4, 2.0)]
    (file,) = (tmp_path / "tb").iterdir()
    found = {
        (event.step, value.tag): value.tensor.float_val[0]
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
    }
    assert found[2, "loss"] == found[4, "mean"] == 2.0


def test_it_saves_and_sigterm_saves_first(tmp_path):
    class Data:
        position = 0

        def __iter__(self):
            while True:
                self.position += 1
                if self.position == 8:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield 1.0

        def get_state(self):
            return self.position

    data = Data()
    before = signal.getsignal(signal.SIGTERM)
    with training.Checkpoints(tmp_path) as checkpoints:
        save = training.Save(checkpoints, 3, data=data, config={"a": 1})
        state = training.fit(jnp.float32(0), count, data, steps=100, hooks=[save])
        assert state == 8
        assert checkpoints.steps() == [3, 6, 8]
        found = checkpoints.restore(jnp.float32(0))
    assert (found.state, found.data, found.config) == (8, 8, {"a": 1})
    assert signal.getsignal(signal.SIGTERM) == before


class Overflows(nn.Module):
    def __call__(self, x):
        return jnp.exp(1000 * x)


def test_the_first_module_that_is_not_finite_is_named():
    x = 1 + jnp.abs(normal((2, 3)))
    model = nn.Sequential([nn.LayerNorm(), Overflows(), nn.Dense(1)])
    model = nn.init(model, KEY, x)
    state = training.TrainState.create(model, optax.sgd(0.1), KEY)

    def step(state, x):
        loss, grads = nn.value_and_grad(lambda m: m(x).sum())(state.model)
        return state.apply_gradients(grads), {"loss": loss}

    hook = training.StopOnNonFinite(inputs=lambda x: (x,))
    with pytest.raises(
        training.NonFiniteError, match=r"output of `layers/1`.*LN-FIT-03"
    ):
        training.fit(state, step, [x], steps=1, hooks=[hook])
    with pytest.raises(FloatingPointError, match="LN-FIT-03"):
        training.fit(state, step, [x], steps=1, hooks=[training.StopOnNonFinite()])


def test_steps_are_profiled(tmp_path):
    hook = training.Profile(tmp_path, first=2, steps=1)
    training.fit(jnp.float32(0), count, [1.0] * 4, steps=4, hooks=[hook])
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_it_compiles_once_and_gives_what_a_plain_loop_gives():
    batches = [jnp.float32(i) for i in range(7)]
    state = jnp.float32(0)
    for batch in batches:
        state, _ = count(state, batch)
    assert_close(training.fit(jnp.float32(0), count, batches, steps=7), state, atol=0)
