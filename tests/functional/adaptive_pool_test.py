"""Adaptive pools: their windows, global pooling, dtypes, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError, ShapeError


def windows(size, count):
    """The definition: where each window starts and ends."""
    return [
        slice(int(np.floor(i * size / count)), int(np.ceil((i + 1) * size / count)))
        for i in range(count)
    ]


def pooled(x, axis, count, reduce):
    x = np.asarray(x, np.float64)
    parts = [
        reduce(np.take(x, np.arange(w.start, w.stop), axis), axis=axis)
        for w in windows(x.shape[axis], count)
    ]
    return np.stack(parts, axis)


POOLS = [(F.adaptive_avg_pool, np.mean), (F.adaptive_max_pool, np.max)]


@pytest.mark.parametrize(("pool", "reduce"), POOLS)
@settings(max_examples=15)
@given(st.integers(1, 7), st.integers(1, 5), st.integers(1, 6), st.integers(1, 3))
def test_each_axis_is_pooled_by_its_windows(pool, reduce, height, width, out, out_2):
    x = normal((2, height, width, 2))
    expected = pooled(pooled(x, 1, out, reduce), 2, out_2, reduce)
    assert_close(pool(x, (out, out_2)), expected, atol=1e-6)


@pytest.mark.parametrize(("pool", "reduce"), POOLS)
def test_a_size_of_one_is_global_and_none_keeps_the_axis(pool, reduce):
    x = normal((2, 3, 5, 4, 2))
    assert_close(pool(x, (1, 1))[..., 0, 0, :], reduce(np.asarray(x), (-3, -2)))
    assert pool(x, (None, 2)).shape == (2, 3, 5, 2, 2)
    assert_close(pool(x, (None, None)), x)
    assert_close(pool(x[0, 0], (3, 2)), pool(x, (3, 2))[0, 0])
    assert pool(x[:0], (3, 2)).shape == (0, 3, 3, 2, 2)


def test_dtypes_stay_and_means_of_integers_are_float32():
    x = jnp.arange(10, dtype=jnp.int32).reshape(5, 2)
    assert F.adaptive_max_pool(x, (2,)).dtype == jnp.int32
    assert_close(F.adaptive_avg_pool(x, (1,)), np.array([[4.0, 5.0]]))
    half = jnp.full((4097, 1), 1.0, jnp.bfloat16)
    assert_close(F.adaptive_avg_pool(half, (1,)), np.ones((1, 1)))
    assert F.adaptive_avg_pool(half, (2,)).dtype == jnp.bfloat16


def test_the_gradient_of_the_largest_goes_to_it():
    x = normal((5, 2))
    grad = jax.grad(lambda x: F.adaptive_max_pool(x, (2,)).sum())(x)
    expected = np.zeros((5, 2))
    for w in windows(5, 2):
        np.add.at(expected, (np.argmax(x[w], 0) + w.start, np.arange(2)), 1.0)
    assert_close(grad, expected)


@pytest.mark.parametrize("pool", [F.adaptive_avg_pool, F.adaptive_max_pool])
def test_what_cannot_be_pooled_is_refused(pool):
    with pytest.raises(ConfigError, match="LN-VALUE-01") as caught:
        pool(normal((2, 5, 4, 1)), 2)
    exec(caught.value.fixes[0][1], scope := {})
    assert pool(normal((2, 5, 4, 1)), scope["shape"]).shape == (2, 3, 3, 1)
    with pytest.raises(ConfigError, match="LN-VALUE-01"):
        pool(normal((5, 4, 1)), (2, 0))
    with pytest.raises(ShapeError, match="LN-SHAPE-02"):
        pool(normal((5, 4)), (2, 2))
    with pytest.raises(ShapeError, match="LN-SHAPE-04"):
        pool(normal((0, 4)), (2,))
