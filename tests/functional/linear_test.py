"""dense: its definition, dtypes, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import DTypeError, ShapeError


def wide(x):
    return np.asarray(x, np.float64)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3), max_size=3), st.integers(1, 4), st.integers(1, 4))
def test_dense_is_a_matrix_product_plus_bias(batch, size_in, size_out):
    x = normal((*batch, size_in))
    kernel, bias = normal((size_in, size_out), 1), normal(size_out, 2)
    expected = wide(x) @ wide(kernel) + wide(bias)
    assert_close(F.dense(x, kernel, bias), expected)


def test_dense_without_bias_is_linear():
    x, y, kernel = normal((4, 3)), normal((4, 3), 1), normal((3, 2), 2)
    whole = F.dense(2 * x + y, kernel)
    assert_close(whole, 2 * F.dense(x, kernel) + F.dense(y, kernel))


@pytest.mark.parametrize(
    ("x", "params", "asked", "result"),
    [
        ("bfloat16", "bfloat16", None, "bfloat16"),
        ("bfloat16", "float32", None, "float32"),
        ("float32", "float32", "bfloat16", "bfloat16"),
        ("float16", "float16", None, "float16"),
        ("bfloat16", "float32", "float16", "float16"),
    ],
)
def test_dense_computes_in_the_dtype_asked_for_or_the_joint_one(
    x, params, asked, result
):
    x, kernel = normal((5, 3), dtype=x), normal((3, 2), 1, dtype=params)
    bias = normal(2, 2, dtype=params)
    y = F.dense(x, kernel, bias, dtype=asked)
    assert y.dtype == result
    assert_close(y, wide(x) @ wide(kernel) + wide(bias), rtol=0.03, atol=0.03)


def test_dense_of_complex_numbers():
    x, kernel = normal((2, 3)) + 1j * normal((2, 3), 1), normal((3, 2), 2) + 0j
    assert_close(F.dense(x, kernel), np.asarray(x) @ np.asarray(kernel))


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.bool_])
def test_dense_refuses_what_is_no_quantity(dtype):
    x, kernel = jnp.ones((2, 3), dtype), normal((3, 2))
    with pytest.raises(DTypeError, match="LN-DTYPE-01") as caught:
        F.dense(x, kernel)
    scope = {"x": x, "jnp": jnp}
    exec(caught.value.fixes[0][1], scope)
    assert F.dense(scope["x"], kernel).shape == (2, 2)


def test_dense_refuses_to_compute_in_integers():
    with pytest.raises(DTypeError, match="`dtype` is int8"):
        F.dense(normal((2, 3)), normal((3, 2)), dtype=jnp.int8)


def test_dense_refuses_features_at_another_axis_and_says_how_to_move_them():
    x, kernel = normal((3, 5)), normal((3, 2))
    with pytest.raises(ShapeError, match="LN-SHAPE-01") as caught:
        F.dense(x, kernel)
    scope = {"x": x, "jnp": jnp}
    exec(caught.value.fixes[0][1], scope)
    assert F.dense(scope["x"], kernel).shape == (5, 2)


@pytest.mark.parametrize(
    ("x", "kernel", "bias"),
    [((), (3, 2), (2,)), ((3,), (3,), None), ((3,), (3, 2), (3,)), ((3,), (3, 2), ())],
)
def test_dense_refuses_shapes_that_do_not_fit(x, kernel, bias):
    with pytest.raises(ShapeError):
        F.dense(normal(x), normal(kernel), None if bias is None else normal(bias))


def test_dense_takes_numpy_arrays_in_their_narrowed_dtype():
    y = F.dense(np.ones((2, 3)), np.ones((3, 1)))
    assert y.dtype == jnp.float32
    assert_close(y, np.full((2, 1), 3.0))


def test_gradient_of_dense_is_that_of_the_formula():
    x, kernel = normal((4, 3)), normal((3, 2), 1)
    grad = jax.grad(lambda k: (F.dense(x, k) ** 2).sum())(kernel)
    assert_close(grad, 2 * wide(x).T @ (wide(x) @ wide(kernel)), rtol=1e-4)
