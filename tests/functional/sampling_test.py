"""Transformations of logits: against NumPy, laws, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError, DTypeError, ShapeError

LOGITS = st.lists(st.integers(-6, 6), min_size=1, max_size=8, unique=True)


def softmax(logits):
    e = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return e / e.sum()


def kept(logits):
    return np.isfinite(np.asarray(logits)).tolist()


@settings(max_examples=20)
@given(LOGITS, st.integers(1, 9))
def test_top_k_keeps_the_largest(logits, k):
    best = set(np.argsort(logits)[::-1][:k].tolist())
    y = F.keep_top_k(jnp.array(logits, jnp.float32), k)
    assert kept(y) == [i in best for i in range(len(logits))]


@settings(max_examples=20)
@given(LOGITS, st.floats(0.05, 0.95))
def test_top_p_keeps_the_fewest_that_add_up(logits, p):
    probabilities, best, total = softmax(logits), set(), 0.0
    for i in np.argsort(logits)[::-1].tolist():
        if total >= p - 1e-6:
            break
        best.add(i)
        total += probabilities[i]
    y = F.keep_top_p(jnp.array(logits, jnp.float32), p - 1e-6)
    assert kept(y) == [i in best for i in range(len(logits))]


@settings(max_examples=20)
@given(LOGITS, st.floats(0.01, 0.99))
def test_min_p_keeps_what_is_near_the_largest(logits, p):
    probabilities = softmax(logits)
    best = probabilities >= p * probabilities.max()
    assert kept(F.keep_min_p(jnp.array(logits, jnp.float32), p)) == best.tolist()


@pytest.mark.parametrize(
    "f",
    [
        lambda x: F.keep_top_k(x, 3),
        lambda x: F.keep_top_p(x, 0.7),
        lambda x: F.keep_min_p(x, 0.2),
    ],
)
def test_what_is_kept_is_unchanged_and_each_row_is_for_itself(f):
    logits = normal((2, 3, 7))
    y = np.asarray(f(logits))
    stays = np.isfinite(y)
    assert 0 < stays.sum() < y.size
    assert stays.any(-1).all()
    assert_close(y[stays], np.asarray(logits)[stays])
    assert_close(f(logits[1, 2]), y[1, 2])
    assert f(logits.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_the_extremes_keep_all_or_one():
    logits = normal((4, 7))
    assert_close(F.keep_top_k(logits, 7), logits)
    assert_close(F.keep_top_p(logits, 1.0), logits)
    for y in (
        F.keep_top_k(logits, 1),
        F.keep_top_p(logits, 1e-9),
        F.keep_min_p(logits, 1.0),
    ):
        assert (np.isfinite(np.asarray(y)).sum(-1) == 1).all()
        assert_close(y.argmax(-1), logits.argmax(-1))


def test_probabilities_may_be_arrays_under_jit():
    logits = normal(7)
    for f in (F.keep_top_p, F.keep_min_p):
        assert_close(jax.jit(f)(logits, jnp.array(0.4)), f(logits, 0.4))


def test_repetition_lowers_what_was_seen():
    logits = jnp.array([[2.0, -2.0, 2.0, -2.0]])
    seen = jnp.array([[True, True, False, False]])
    y = F.repetition_penalty(logits, seen, 4.0)
    assert_close(y, np.array([[0.5, -8.0, 2.0, -2.0]]))
    assert_close(F.repetition_penalty(logits, seen, 1.0), logits)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: F.keep_top_k(x, 0), ConfigError),
        (lambda x: F.keep_top_p(x, 0.0), ConfigError),
        (lambda x: F.keep_top_p(x, 90), ConfigError),
        (lambda x: F.keep_min_p(x, -0.1), ConfigError),
        (lambda x: F.keep_min_p(x[0], 0.1), ShapeError),
        (lambda x: F.keep_top_k(x.astype(int), 1), DTypeError),
        (lambda x: F.repetition_penalty(x, x, 1.1), DTypeError),
        (lambda x: F.repetition_penalty(x, x[:2] > 0, 1.1), ShapeError),
        (lambda x: F.repetition_penalty(x, x > 0, 0.0), ConfigError),
    ],
)
def test_what_cannot_be_meant_is_refused(call, error):
    with pytest.raises(error):
        call(jnp.ones(3))
