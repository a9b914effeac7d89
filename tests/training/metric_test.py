"""Metrics, against NumPy, over steps and devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn, parallel, training


def wide(x):
    return np.asarray(x, np.float64)


def merged(metrics):
    return functools.reduce(training.merge, metrics)


def test_a_mean_over_steps_is_that_of_all_values():
    values, mask = normal((6, 50)), np.arange(300).reshape(6, 50) % 7 > 0
    steps = [training.Mean.of(v, mask=m) for v, m in zip(values, mask, strict=True)]
    assert_close(merged(steps).compute(), wide(values)[mask].mean())
    assert np.isnan(training.Mean.of(jnp.zeros(0)).compute())


def test_counts_do_not_saturate():
    many = training.Mean.of(jnp.float32(2**24), 2**24)
    one = training.Mean.of(jnp.float32(1))
    whole = merged([many, *[one] * 5])
    assert float(whole.count[0]) + float(whole.count[1]) == 2**24 + 5
    assert whole.compute() == 1.0


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_accuracy_counts_labels_among_the_largest(top_k):
    logits, labels = normal((40, 5)), np.arange(40) % 5
    best = np.argsort(-np.asarray(logits), -1)[:, :top_k]
    expected = (best == labels[:, None]).any(-1)
    found = training.accuracy(logits, labels, top_k=top_k)
    assert_close(found.compute(), expected.mean())
    equal = training.accuracy(jnp.zeros((4, 3)), jnp.array([0, 1, 2, 0]), top_k=top_k)
    assert_close(equal.compute(), [0.5, 0.75, 1.0][min(top_k, 3) - 1])


def test_confusion_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    labels, guesses = rng.integers(0, 4, (2, 60))
    mask = rng.integers(0, 2, 60).astype(bool)
    expected = np.zeros((4, 4), int)
    np.add.at(expected, (labels[mask], guesses[mask]), 1)
    parts = [
        training.Confusion.of(guesses[s], labels[s], 4, mask=mask[s])
        for s in (slice(0, 20), slice(20, 60))
    ]
    assert np.array_equal(merged(parts).compute(), expected)


def test_perplexity_and_bits_per_byte():
    nats = np.abs(normal(20))
    assert_close(training.Perplexity.of(nats).compute(), np.exp(wide(nats).mean()))
    sizes = np.arange(1, 21)
    expected = wide(nats).sum() / np.log(2) / sizes.sum()
    assert_close(training.BitsPerByte.of(nats, sizes).compute(), expected)
    assert training.throughput(100, 0.5).compute() == 200


def test_they_go_through_jit_and_over_devices():
    values = normal((8, 3))
    mesh = parallel.make_mesh(data=4)

    @jax.jit
    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P()
    )
    def local(x):
        return training.Mean.of(x, mask=x > 0).psum("data")

    expected = wide(values)[np.asarray(values) > 0].mean()
    assert_close(local(values).compute(), expected)
    placed = jax.device_put(values, jax.NamedSharding(mesh, jax.P("data")))
    auto = jax.jit(lambda x: training.Mean.of(x, mask=x > 0))(placed)
    assert_close(auto.compute(), expected)


def test_a_collection_is_computed_by_name():
    found = training.compute(
        {"loss": training.Mean.of(jnp.ones(2)), "lr": jnp.ones(())}
    )
    assert found == {"loss": 1.0, "lr": 1.0}
    with pytest.raises(nn.ShapeError):
        training.Mean.of(jnp.ones(3), mask=jnp.ones(2, bool))
