"""Plans: bytes, operations and communication, against XLA and against formulas."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import optax
import pytest

from linnet import nn, parallel

X = jax.ShapeDtypeStruct((64, 32), jnp.float32)
MLP = nn.Sequential([nn.Dense(128, use_bias=False), nn.Dense(16, use_bias=False)])
SIZE = 4 * (32 * 128 + 128 * 16)  # bytes of its parameters


def square(model, x):
    return jnp.mean(model(x) ** 2)


@pytest.fixture(scope="module")
def model():
    return nn.abstract(MLP, X)


@pytest.mark.slow
def test_memory_is_within_a_tenth_of_what_xla_says():
    script = pathlib.Path(__file__).parent / "memory_run.py"
    flags = "--xla_force_host_platform_device_count=8"
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_DISABLE")}
    env |= {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = [sys.executable, str(script)]
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=True)
    for name, found in json.loads(done.stdout).items():
        (mine, theirs), (total, whole) = found["arguments"], found["total"]
        assert abs(mine - theirs) <= 64, name  # a count, an alignment
        # XLA's CPU compiler keeps more of a recomputed layer: design note 7.
        tolerance = 0.2 if name == "fsdp True" else 0.1
        assert abs(total / whole - 1) < tolerance, (name, total, whole)


def test_operations_are_those_of_the_products(model):
    found = parallel.plan(model, X, {"data": 4}, parallel.data_parallel(), loss=square)
    forward = 2 * 64 * (32 * 128 + 128 * 16)
    assert found.model_flops == 3 * forward
    # The first layer has no gradient by its input.
    assert found.flops * 4 == 3 * forward - 2 * 64 * 32 * 128


def test_data_parallelism_sums_all_gradients(model):
    found = parallel.plan(model, X, {"data": 4}, parallel.data_parallel(), loss=square)
    assert found.parameters == SIZE
    assert found.collectives == {("all-reduce", ("data",)): SIZE + 4}  # and the loss


def test_fsdp_gathers_twice_and_scatters_once(model):
    rules = parallel.fsdp(min_size=1)
    found = parallel.plan(model, X, {"data": 4}, rules, optax.adam(1e-3), loss=square)
    assert found.parameters == found.gradients == SIZE // 4
    assert found.optimizer == 2 * SIZE // 4 + 4  # and the count of steps
    assert found.collectives[("all-gather", ("data",))] == 2 * SIZE
    assert found.collectives[("reduce-scatter", ("data",))] >= SIZE


def test_a_pair_of_megatron_needs_one_sum_each_way():
    x = jax.ShapeDtypeStruct((8, 4, 32), jnp.float32)
    block = nn.Sequential([nn.MLP(128, use_bias=False) for _ in range(2)])
    rules = parallel.data_parallel() | parallel.tensor_parallel()
    found = parallel.plan(block, x, {"data": 2, "model": 2}, rules)
    activation = 4 * 4 * 32 * 4  # bytes of [batch / 2, length, features]
    # Two pairs forward, and the input of the second pair backward.
    assert found.collectives[("all-reduce", ("model",))] == 3 * activation


def test_recomputing_costs_operations_and_saves_memory():
    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    block = nn.Sequential([nn.Dense(256), jnp.tanh, nn.Dense(64)])
    plans = [
        parallel.plan(nn.Stack(block, 8, remat=r), x, {"data": 1}, parallel.Rules())
        for r in (False, True)
    ]
    assert plans[1].activations < plans[0].activations / 2
    assert plans[1].flops > plans[0].flops
    assert plans[1].model_flops == plans[0].model_flops


def test_what_does_not_fit_gets_advice_that_holds():
    small = parallel.Accelerator("small", 1e12, 3e6, 1e9, 1e9, "made up")
    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    block = nn.Sequential([nn.Dense(256), jnp.tanh, nn.Dense(64)])

    def planned(**options):
        stack = nn.Stack(block, 8, **options)
        rules, tx = parallel.data_parallel(), optax.adam(1e-3)
        return parallel.plan(stack, x, {"data": 2}, rules, tx, accelerators=[small])

    found = planned()
    advice = dict(found.advice)
    assert not found.estimates[0].fits
    assert advice["recompute the layers of stacks (remat=True)"] == (
        planned(remat=True).total
    )
    assert all(size < found.total for size in advice.values())
    assert "To need less memory" in str(found)


def test_times_lie_between_full_overlap_and_none(model):
    found = parallel.plan(model, X, {"data": 4}, parallel.fsdp(min_size=1))
    for one in found.estimates:
        best, worst = one.step_time
        assert best == max(one.compute, one.traffic, one.communication)
        assert worst == pytest.approx(one.compute + one.traffic + one.communication)
        assert one.utilization[1] == pytest.approx(
            found.model_flops / (4 * one.accelerator.flops * best)
        )


def test_a_slow_axis_takes_longer(model):
    rules = parallel.data_parallel("pod")
    mesh = {"pod": 4}
    fast, slow = (
        parallel.plan(model, X, mesh, rules, slow=s) for s in (None, {"pod": 1e6})
    )
    for a, b in zip(fast.estimates, slow.estimates, strict=True):
        assert b.communication > a.communication


def test_loops_of_unknown_length_are_noted():
    def loop(model, x):
        run = jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1]), (0, x))
        return jnp.mean(model(run[1]))

    model = nn.abstract(MLP, X)
    found = parallel.plan(model, X, {"data": 1}, parallel.Rules(), loss=loop)
    assert "unknown length" in found.notes[0]


def test_every_accelerator_names_its_source():
    names = [one.name for one in parallel.ACCELERATORS]
    assert len(set(names)) == len(names)
    assert all(one.source and one.flops > 1e14 for one in parallel.ACCELERATORS)
