"""embed and attend: rows, scores, ids outside the table, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import DTypeError, ShapeError


@settings(max_examples=15)
@given(st.lists(st.integers(0, 3), max_size=3))
def test_embed_picks_rows(shape):
    ids = np.random.default_rng(0).integers(0, 5, shape)
    table = normal((5, 2))
    assert_close(F.embed(ids, table), np.asarray(table)[ids])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "uint32"])
def test_embed_takes_every_integer_dtype(dtype):
    table = normal((300, 2))
    ids = jnp.array([0, 100], dtype)
    assert_close(F.embed(ids, table), np.asarray(table)[[0, 100]])


@pytest.mark.parametrize("wrong", [-1, -5, 5, 2**31 - 1])
def test_an_id_outside_the_table_gives_nan_under_jit_and_sends_no_gradient(wrong):
    table, ids = normal((5, 2)), jnp.array([1, wrong])
    rows = jax.jit(F.embed)(ids, table)
    assert_close(rows[0], table[1])
    assert np.isnan(rows[1]).all()
    grad = jax.grad(lambda t: F.embed(ids, t).sum())(table)
    assert_close(grad, np.zeros((5, 2)) + (np.arange(5) == 1)[:, None])


def test_repeated_ids_add_their_gradients():
    ids = jnp.array([2, 2, 0])
    grad = jax.grad(lambda t: F.embed(ids, t).sum())(normal((3, 1)))
    assert_close(grad, np.array([[1.0], [0.0], [2.0]]))


def test_embed_gives_the_dtype_of_the_table_unless_asked():
    table = normal((5, 2), dtype=jnp.bfloat16)
    assert F.embed(jnp.array(1), table).dtype == jnp.bfloat16
    assert F.embed(jnp.array(1), table, dtype=jnp.float32).dtype == jnp.float32


@pytest.mark.parametrize("ids", [1.0, True])
def test_embed_refuses_ids_that_are_not_integers(ids):
    ids, table = jnp.asarray([ids]), normal((5, 2))
    with pytest.raises(DTypeError, match="LN-DTYPE-01") as caught:
        F.embed(ids, table)
    scope = {"ids": ids, "jnp": jnp}
    exec(caught.value.fixes[0][1], scope)
    assert_close(F.embed(scope["ids"], table), table[1:2])


def test_attend_scores_every_row():
    x, table = normal((3, 2, 4)), normal((5, 4), 1)
    expected = np.asarray(x, np.float64) @ np.asarray(table, np.float64).T
    assert_close(F.attend(x, table), expected)
    assert F.attend(x, table, dtype=jnp.bfloat16).dtype == jnp.bfloat16


def test_a_unit_row_scores_highest_against_itself():
    table = normal((7, 16))
    table = table / jnp.linalg.norm(table, axis=1, keepdims=True)
    scores = F.attend(F.embed(jnp.arange(7), table), table)
    assert np.array_equal(scores.argmax(-1), np.arange(7))


@pytest.mark.parametrize(("x", "table"), [((3,), (5, 4)), ((4,), (4,)), ((), (5, 4))])
def test_attend_refuses_shapes_that_do_not_fit(x, table):
    with pytest.raises(ShapeError, match="LN-SHAPE"):
        F.attend(normal(x), normal(table))


def test_tables_of_integers_or_of_three_axes_are_refused():
    ids = jnp.array([0])
    with pytest.raises(DTypeError):
        F.embed(ids, jnp.ones((5, 2), jnp.int8))
    with pytest.raises(ShapeError):
        F.embed(ids, normal((5, 2, 2)))
    with pytest.raises(DTypeError):
        F.attend(jnp.array([0, 1]), normal((5, 2)))
