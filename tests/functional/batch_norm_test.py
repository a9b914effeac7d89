"""Batch normalisation: formulas, stability, masks, and statistics across devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError, DTypeError, ShapeError


def wide(x):
    return np.asarray(x, np.float64)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_batch_statistics_are_mean_and_biased_variance(shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = normal(shape)
    others = tuple(a for a in range(len(shape)) if a != axis % len(shape))
    mean, var = F.batch_statistics(x, axis=axis)
    assert_close(mean, wide(x).mean(others))
    assert_close(var, wide(x).var(others))


def test_a_large_mean_costs_no_digits():
    x = jnp.asarray(1e4 + np.random.default_rng(0).standard_normal((4096, 3)), "f4")
    mean, var = F.batch_statistics(x)
    assert_close(mean, wide(x).mean(0), rtol=1e-7)
    assert_close(var, wide(x).var(0), rtol=1e-6)
    y = F.batch_norm(x, mean, var, epsilon=0.0)
    expected = (wide(x) - wide(x).mean(0)) / wide(x).std(0)
    rounding = float(np.spacing(np.float32(1e4)))  # of the mean that is handed over
    assert_close(y, expected, rtol=1e-5, atol=rounding)


def test_a_large_mean_costs_no_digits_among_padding():
    x = jnp.asarray(1e4 + np.random.default_rng(0).standard_normal((512, 3)), "f4")
    mask = jnp.arange(512)[:, None] >= 100
    mean, var = F.batch_statistics(jnp.where(mask, x, 0), mask=mask)
    assert_close(mean, wide(x)[100:].mean(0), rtol=1e-7)
    assert_close(var, wide(x)[100:].var(0), rtol=1e-6)


def test_equal_numbers_have_no_variance():
    x = jnp.full((7, 2), 0.1)
    assert_close(F.batch_statistics(x)[1], np.zeros(2), atol=1e-15)
    assert (F.batch_statistics(x)[1] >= 0).all()


def test_statistics_of_half_precision_are_float32():
    x = (100 + normal((512, 2))).astype(jnp.bfloat16)
    mean, var = F.batch_statistics(x)
    assert mean.dtype == var.dtype == jnp.float32
    assert_close((mean, var), (wide(x).mean(0), wide(x).var(0)), rtol=1e-4)


def test_statistics_of_large_float16_do_not_overflow():
    x = jnp.asarray([[60000.0], [-60000.0]], jnp.float16)
    assert_close(F.batch_statistics(x), (np.zeros(1), wide(x).var(0)))
    assert_close(F.layer_norm(x.T), np.array([[1.0, -1.0]]), rtol=1e-3)


def test_statistics_of_complex_numbers():
    x = normal((9, 2)) + 1j * normal((9, 2), 1)
    mean, var = F.batch_statistics(x)
    assert_close(mean, np.asarray(x).mean(0))
    assert_close(var, np.asarray(x).var(0))
    y = F.batch_norm(x, mean, var, epsilon=0.0)
    assert_close(np.mean(np.abs(y) ** 2, axis=0), np.ones(2))


def test_masked_entries_do_not_count_whatever_they_hold():
    x = normal((5, 4, 3))
    mask = np.random.default_rng(1).random((5, 4, 1)) < 0.6
    admitted = wide(x)[mask[..., 0]]
    x = jnp.where(mask, x, jnp.nan)
    mean, var = F.batch_statistics(x, mask=mask)
    assert_close(mean, admitted.mean(0))
    assert_close(var, admitted.var(0))


def test_a_mask_may_differ_from_feature_to_feature():
    x, mask = normal((6, 2)), np.random.default_rng(1).random((6, 2)) < 0.7
    mean, var = F.batch_statistics(x, mask=mask)
    columns = [wide(x)[mask[:, i], i] for i in range(2)]
    assert_close(mean, np.array([c.mean() for c in columns]))
    assert_close(var, np.array([c.var() for c in columns]))


def test_gradients_through_masked_statistics_are_finite():
    x, mask = normal((4, 2)), jnp.array([[True], [True], [False], [False]])
    x = x.at[3].set(jnp.inf)

    def loss(x):
        mean, var = F.batch_statistics(x, mask=mask)
        return (mean * var).sum()

    grad = jax.grad(loss)(x)
    assert np.isfinite(grad).all()
    assert_close(grad[2:], np.zeros((2, 2)))
    assert np.abs(grad[:2]).min() > 0


@pytest.mark.parametrize("masked", [False, True])
def test_where_nothing_counts_the_default_is_given(masked):
    x = normal((3, 2)) if masked else jnp.ones((0, 2))
    mask = jnp.zeros((3, 1), bool) if masked else None
    default = (jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]))
    assert_close(F.batch_statistics(x, mask=mask, default=default), default)
    without = F.batch_statistics(x, mask=mask)
    assert_close(without, (np.zeros(2), np.zeros(2)))


def test_statistics_across_a_vmapped_axis_are_those_of_the_whole_batch():
    x, mask = normal((4, 3, 2)), np.random.default_rng(1).random((4, 3, 1)) < 0.5
    pieces = functools.partial(F.batch_statistics, axis_name="pieces")
    mean, var = jax.vmap(pieces, axis_name="pieces")(x)
    whole = F.batch_statistics(x)
    assert_close((mean[0], var[0]), whole)
    assert_close((mean, var), jax.tree.map(lambda a: jnp.stack([a] * 4), whole))
    masked = jax.vmap(lambda x, m: pieces(x, mask=m), axis_name="pieces")(x, mask)
    expected = F.batch_statistics(x, mask=mask)
    assert_close(jax.tree.map(lambda a: a[2], masked), expected)


@pytest.mark.parametrize("names", ["data", ("data", "model")])
def test_statistics_across_devices_are_those_of_the_whole_batch(names):
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("data", "model"))
    x = normal((8, 3)) + 1e3
    spec = PartitionSpec(names)
    statistics = functools.partial(F.batch_statistics, axis_name=names)
    sharded = jax.shard_map(
        statistics, mesh=mesh, in_specs=spec, out_specs=PartitionSpec()
    )
    assert_close(jax.jit(sharded)(x), F.batch_statistics(x), rtol=1e-4)


def test_gradients_across_a_vmapped_axis_are_those_of_the_whole_batch():
    x, weight = normal((4, 3, 2)), normal((4, 3, 2), 1)

    def loss(x, axis_name):
        mean, var = F.batch_statistics(x, axis_name=axis_name)
        return F.batch_norm(x, mean, var)

    def joined(x):
        mapped = functools.partial(loss, axis_name="pieces")
        return (jax.vmap(mapped, axis_name="pieces")(x) * weight).sum()

    whole = jax.grad(lambda x: (loss(x, None) * weight).sum())(x)
    assert_close(jax.grad(joined)(x), whole, atol=1e-5)


def test_an_axis_that_is_not_in_force_is_refused():
    with pytest.raises(ConfigError, match="LN-VALUE-07") as caught:
        F.batch_statistics(normal((4, 2)), axis_name="batch")
    scope = {}
    exec(caught.value.fixes[0][1], scope)
    mean, _ = F.batch_statistics(normal((4, 2)), axis_name=scope["axis_name"])
    assert mean.shape == (2,)


def test_a_mask_of_numbers_is_refused_and_the_fix_works():
    x, mask = normal((4, 2)), jnp.array([[1], [0], [1], [1]])
    with pytest.raises(DTypeError, match="LN-DTYPE-01") as caught:
        F.batch_statistics(x, mask=mask)
    scope = {"mask": mask}
    exec(caught.value.fixes[0][1], scope)
    mean, _ = F.batch_statistics(x, mask=scope["mask"])
    assert_close(mean, wide(x)[[0, 2, 3]].mean(0))


def test_a_mask_without_the_feature_axis_is_refused_and_the_fix_works():
    x, mask = normal((3, 4, 2)), jnp.ones((3, 4), bool)
    with pytest.raises(ShapeError, match="LN-SHAPE-01") as caught:
        F.batch_statistics(x, mask=mask)
    scope = {"mask": mask}
    exec(caught.value.fixes[0][1], scope)
    assert_close(F.batch_statistics(x, mask=scope["mask"]), F.batch_statistics(x))


def test_batch_norm_is_its_formula():
    x, mean, var = normal((5, 3)), normal(3, 1), normal(3, 2) ** 2
    scale, bias = normal(3, 3), normal(3, 4)
    y = F.batch_norm(x, mean, var, scale, bias, epsilon=1e-3)
    centred = (wide(x) - wide(mean)) / np.sqrt(wide(var) + 1e-3)
    assert_close(y, centred * wide(scale) + wide(bias))
    first = F.batch_norm(x.T, mean, var, scale, bias, axis=0, epsilon=1e-3)
    assert_close(first, y.T)


@given(st.floats(0, 1))
def test_moving_average_stays_where_it_is_when_nothing_changes(momentum):
    old = normal(5)
    assert np.array_equal(F.moving_average(old, old, momentum), old)


def test_moving_average_is_its_formula_and_keeps_the_dtype():
    old, new = normal(5), normal(5, 1)
    expected = 0.9 * wide(old) + 0.1 * wide(new)
    assert_close(F.moving_average(old, new, 0.9), expected)
    half = F.moving_average(old.astype(jnp.bfloat16), new, 0.9)
    assert half.dtype == jnp.bfloat16
