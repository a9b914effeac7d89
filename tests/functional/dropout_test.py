"""dropout: its probabilities, its exact cases, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError, DTypeError, ShapeError

KEY = jax.random.key(0)


@given(st.floats(0.05, 0.95))
def test_entries_are_zero_or_divided_by_what_is_kept(rate):
    x = normal((64,)) + 10
    y = np.asarray(F.dropout(x, KEY, rate))
    kept = y != 0
    assert_close(y[kept], np.asarray(x, np.float64)[kept] / (1 - rate))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_of_zeros_is_the_rate(rate):
    count = 100_000
    dropped = np.mean(np.asarray(F.dropout(jnp.ones(count), KEY, rate)) == 0)
    assert abs(dropped - rate) < 5 * np.sqrt(rate * (1 - rate) / count)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_mean_is_not_shifted_by_a_rounded_factor(dtype):
    x = jnp.full(8, 9.0, dtype)
    y = np.asarray(F.dropout(x, KEY, 0.1))
    assert y.dtype == x.dtype
    assert set(np.unique(y).astype(float)) == {0.0, 10.0}


def test_rate_zero_is_the_identity_and_needs_no_key():
    x = normal((3, 4))
    assert F.dropout(x, None, 0.0) is x


def test_a_rate_just_below_one_keeps_the_scale_exact():
    rate = 1 - 2.0**-10
    y = np.asarray(F.dropout(jnp.ones(100_000), KEY, rate))
    assert set(np.unique(y)) == {0.0, 1024.0}
    assert 50 < np.count_nonzero(y) < 150


def test_a_share_of_zero_entries_has_no_nan_even_for_infinite_input():
    y = np.asarray(F.dropout(jnp.full(64, jnp.inf), KEY, 0.5))
    assert set(np.unique(y)) == {0.0, np.inf}


def test_broadcast_axes_are_dropped_together():
    y = np.asarray(F.dropout(jnp.ones((50, 7, 3)), KEY, 0.5, broadcast_axes=(1,)))
    assert_close(y, np.repeat(y[:, :1], 7, axis=1))
    assert 0 < np.count_nonzero(y[:, 0]) < 150
    last = np.asarray(F.dropout(jnp.ones((50, 7)), KEY, 0.5, broadcast_axes=-1))
    assert_close(last, np.repeat(last[:, :1], 7, axis=1))


def test_the_gradient_is_zero_exactly_where_entries_were_dropped():
    x = normal((32,)) + 10
    grad = jax.grad(lambda x: F.dropout(x, KEY, 0.25).sum())(x)
    kept = np.asarray(F.dropout(x, KEY, 0.25)) != 0
    assert_close(grad, kept / 0.75)


def test_an_empty_array_stays_empty():
    assert F.dropout(jnp.ones((0, 3)), KEY, 0.5).shape == (0, 3)


@pytest.mark.parametrize("rate", [1.0, -0.1, float("nan"), float("inf")])
def test_rates_that_are_no_probability_of_dropping_some_are_refused(rate):
    x = normal((2,))
    with pytest.raises(ConfigError, match="LN-VALUE-02") as caught:
        F.dropout(x, KEY, rate)
    fixed = {"x": x, "jnp": jnp}
    for _, code in caught.value.fixes:
        exec(code, fixed)
    assert_close(fixed["y"], jnp.zeros(2))
    assert F.dropout(x, KEY, fixed["rate"]) is x


def test_a_missing_key_is_refused():
    with pytest.raises(ConfigError, match="LN-VALUE-06") as caught:
        F.dropout(normal((2,)), None, 0.5)
    scope = {"jax": jax}
    exec(caught.value.fixes[0][1], scope)
    assert F.dropout(normal((2,)), scope["key"], 0.5).shape == (2,)


def test_drop_path_drops_whole_examples():
    x = normal((200, 3, 2)) + 10
    y = np.asarray(F.drop_path(x, KEY, 0.25))
    kept = y[:, 0, 0] != 0
    assert_close(y, np.asarray(x) * kept[:, None, None] / 0.75)
    assert 120 < kept.sum() < 180
    both = np.asarray(F.drop_path(x, KEY, 0.5, batch_axes=(0, 1)))
    assert_close(both != 0, np.repeat(both[..., :1] != 0, 2, -1))
    assert 200 < np.count_nonzero(both[..., 0]) < 400
    whole = {
        bool((F.drop_path(x, jax.random.key(i), 0.5, batch_axes=()) != 0).all())
        for i in range(8)
    }
    assert whole == {True, False}


def test_drop_path_at_rate_zero_is_the_identity():
    x = normal((3, 4))
    assert F.drop_path(x, None, 0.0) is x
    with pytest.raises(ShapeError):
        F.drop_path(x, KEY, 0.5, batch_axes=2)


def test_integers_and_absent_axes_are_refused():
    with pytest.raises(DTypeError):
        F.dropout(jnp.arange(3), KEY, 0.5)
    with pytest.raises(ShapeError):
        F.dropout(jnp.ones(3), KEY, 0.5, broadcast_axes=1)
