"""The loop and its hooks."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import assert_close, normal
from linnet import nn, training
from linnet.training._origin import first_non_finite

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

    def on_finish(self, run):
        self.calls.append(("finish", run.step))

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
        ("finish", 5),
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


class Stops:
    """Ends a run after a step."""

    def __init__(self, step):
        self.step = step

    def on_step(self, run):
        if run.step == self.step:
            run.stop("enough")


@pytest.mark.parametrize("is_first", [True, False])
def test_the_end_is_saved_and_evaluated_whoever_made_it(is_first, tmp_path):
    values = []

    def evaluate(state):
        values.append(float(state))
        return {"test": -float(state)}

    with training.Checkpoints(tmp_path, keep_best=("test", "min", 2)) as checkpoints:
        hooks = [training.Save(checkpoints, 3, metrics=["test"])]
        hooks += [training.Evaluate(3, evaluate), Stops(4)]
        hooks = hooks if is_first else hooks[::-1]
        batches = [1.0] * 9
        state = training.fit(jnp.float32(0), count, batches, steps=9, hooks=hooks)
        assert (float(state), values) == (4, [3, 4])
        assert checkpoints.steps() == [3, 4]
        assert checkpoints.restore(state).state == 4
        saved = {m.step: m.metrics for m in checkpoints._manager._checkpoints}
    assert saved == {3: {"test": -3}, 4: {"test": -4}}


def test_a_run_without_steps_saves_nothing(tmp_path):
    with training.Checkpoints(tmp_path) as checkpoints:
        save = training.Save(checkpoints, 2)
        for _ in range(2):
            start = checkpoints.latest() or 0
            state = jnp.float32(start)
            training.fit(state, count, [1.0] * 4, steps=4, start=start, hooks=[save])
        assert checkpoints.steps() == [2, 4]


def test_nothing_is_saved_after_a_step_that_is_not_finite(tmp_path):
    def step(state, x):
        return state + x, {"loss": state + x}

    batches = [1.0, 1.0, float("nan"), 1.0]
    for every in (1, 3):
        with training.Checkpoints(tmp_path / str(every)) as checkpoints:
            hooks = [training.Save(checkpoints, every), training.StopOnNonFinite()]
            with pytest.raises(training.NonFiniteError, match="step 3 gave"):
                training.fit(jnp.float32(0), step, batches, steps=4, hooks=hooks)
            assert checkpoints.steps() == ([1, 2] if every == 1 else [])


class Overflows(nn.Module):
    def __init__(self, limit=1e9):
        self.limit = nn.constant(limit)

    def __call__(self, x):
        return jnp.where(x.max() > self.limit, jnp.inf, x)


class Block(nn.Module):
    """Names sort in another order than that of the calls, and two calls are alike."""

    def __init__(self):
        self.norm = nn.LayerNorm()
        self.drop = nn.Dropout(0.1)
        self.between = Overflows()
        self.after = nn.Dense(4)

    def __call__(self, x):
        x = self.drop(self.between(self.drop(self.norm(x))))
        return self.after(x)


@pytest.mark.parametrize(
    ("model", "limit", "place"),
    [
        (
            nn.Sequential([Block() for _ in range(3)]),
            "layers/1/between/limit",
            "`layers/1/between`",
        ),
        (nn.Stack(Block(), 3), "block/between/limit", "`block/between` in layer 1"),
        (
            nn.Sequential([nn.Dense(4), nn.Stack(Block(), 3, remat=True)]),
            "layers/1/block/between/limit",
            "`layers/1/block/between` in layer 1",
        ),
        (nn.Ensemble(Block(), 3), "block/between/limit", "`block/between` in member 1"),
        (
            nn.Stack(nn.Sequential([nn.Dense(4), nn.Stack(Block(), 3)]), 2),
            "block/layers/1/block/between/limit",
            "`block/layers/1/block/between` in layer 0, layer 1",
        ),
    ],
)
def test_the_first_output_that_is_not_finite_is_found_in_the_middle(
    model, limit, place
):
    x = normal((2, 4))
    model = nn.init(model, KEY, x)
    assert first_non_finite(model, x) == (None, None)
    arrays = nn.to_paths(model)
    limits = arrays[limit]
    arrays[limit] = limits.at[..., 1].set(0) if limits.ndim else 0 * limits
    model = nn.from_paths(model, arrays)
    found, output = first_non_finite(model, x)
    assert (found, output.shape) == (place, (2, 4))


def test_a_model_that_was_copied_long_before_is_said_to_be():
    x = jnp.ones((1, 2))
    model = nn.init(nn.Dense(1), KEY, x)
    model_before = np.asarray(model.kernel).copy()
    state = training.TrainState.create(model, optax.sgd(1.0), KEY)

    @jax.jit(donate_argnums=0)
    def step(state, x):
        loss, grads = nn.value_and_grad(lambda m: m(x).sum())(state.model)
        return state.apply_gradients(grads), {"loss": loss}

    hook = training.StopOnNonFinite(4, inputs=lambda x: (x,))
    batches = [x, x, jnp.inf * x, x]
    with pytest.raises(training.NonFiniteError) as error:
        training.fit(state, step, batches, steps=4, hooks=[hook])
    what = "step 4 gave numbers that are not finite; outputs of the model were finite"
    assert error.value.what == what + ", with the model of step 0."
    assert error.value.facts == {"parameters": "kernel"}
    assert_close(hook.model.kernel, model_before, atol=0)


def test_the_first_module_that_is_not_finite_is_named():
    x = 1 + jnp.abs(normal((2, 3)))
    model = nn.Sequential([nn.LayerNorm(), Overflows(0.0), nn.Dense(1)])
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
