"""Layer and RMS normalisation: formulas, stability, masks, and refusals."""

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
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_layer_norm_is_its_formula(shape, data):
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1).map(tuple))
    x = normal(shape)
    over = tuple(shape[a] for a in sorted(axes))
    scale, bias = normal(over, 1), normal(over, 2)
    y = F.layer_norm(x, scale, bias, axis=axes, epsilon=1e-3)
    centred = wide(x) - wide(x).mean(axes, keepdims=True)
    centred /= np.sqrt(wide(x).var(axes, keepdims=True) + 1e-3)
    full = [n if a in axes else 1 for a, n in enumerate(shape)]
    expected = centred * wide(scale).reshape(full) + wide(bias).reshape(full)
    assert_close(y, expected, atol=1e-5)


@given(st.floats(0.1, 100), st.floats(-10, 10))
def test_layer_norm_ignores_scale_and_offset(factor, offset):
    x = normal((2, 8))
    moved = F.layer_norm(factor * x + offset, epsilon=0.0)
    assert_close(moved, F.layer_norm(x, epsilon=0.0), rtol=1e-3, atol=1e-3)


def test_layer_norm_of_zeros_is_zero_with_finite_gradients():
    x = jnp.zeros((2, 4))
    assert_close(F.layer_norm(x), x)
    grad = jax.grad(lambda x: F.layer_norm(x)[0, 0])(x)
    assert np.isfinite(grad).all()
    assert grad[0, 0] > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_norms_keep_the_dtype_of_the_input(dtype):
    x = (8 + normal((4, 64))).astype(dtype)
    scale, bias = normal(64, 1), normal(64, 2)
    y = F.layer_norm(x, scale, bias)
    assert y.dtype == dtype
    assert_close(y, F.layer_norm(x.astype("f4"), scale, bias), rtol=0.01, atol=0.01)
    assert F.layer_norm(x, scale, bias, dtype=jnp.float32).dtype == jnp.float32
    mean, var = F.batch_statistics(x)
    assert F.batch_norm(x, mean, var, scale, bias).dtype == dtype


@pytest.mark.parametrize("name", ["scale", "bias"])
def test_norms_refuse_vectors_of_another_size(name):
    with pytest.raises(ShapeError, match=name):
        F.layer_norm(normal((2, 3)), **{name: normal(2)})
    with pytest.raises(ShapeError, match=name):
        F.batch_norm(normal((2, 3)), normal(3), normal(3), **{name: normal(1)})


@pytest.mark.parametrize("axis", [2, -3, (0, 0), (0, -2)])
def test_norms_refuse_axes_that_are_not_there_or_named_twice(axis):
    with pytest.raises(ShapeError, match="distinct"):
        F.layer_norm(normal((2, 3)), axis=axis)


def test_norms_refuse_integers():
    with pytest.raises(DTypeError):
        F.layer_norm(jnp.arange(4))
    with pytest.raises(DTypeError):
        F.batch_statistics(jnp.arange(4))


LARGE = [(4, 512), (2, 6, 5, 16)]


@pytest.mark.parametrize("shape", LARGE)
def test_a_large_mean_costs_no_digits(shape):
    x = jnp.asarray(1e4 + np.random.default_rng(0).standard_normal(shape), "f4")
    axes = tuple(range(1, len(shape)))
    mean = wide(x).mean(axes, keepdims=True)
    expected = (wide(x) - mean) / np.sqrt(wide(x).var(axes, keepdims=True) + 1e-6)
    assert_close(F.layer_norm(x, axis=axes), expected, atol=5e-6)
    square = (wide(x) ** 2).mean(axes, keepdims=True)
    assert_close(F.rms_norm(x, axis=axes), wide(x) / np.sqrt(square + 1e-6))


def test_gradients_keep_their_digits_where_the_mean_is_large():
    x = jnp.asarray(1e4 + np.random.default_rng(0).standard_normal((3, 256)), "f4")
    weight = normal((3, 256), 1)
    grad = jax.grad(lambda x: (F.layer_norm(x) * weight).sum())(x)
    centred = wide(x) - wide(x).mean(-1, keepdims=True)
    factor = 1 / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    y, w = centred * factor, wide(weight)
    along = (w * y).mean(-1, keepdims=True)
    assert_close(grad, factor * (w - w.mean(-1, keepdims=True) - y * along), atol=1e-5)


@settings(max_examples=15)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_rms_norm_is_its_formula(shape, data):
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1).map(tuple))
    x = normal(shape)
    over = tuple(shape[a] for a in sorted(axes))
    scale = normal(over, 1)
    full = [n if a in axes else 1 for a, n in enumerate(shape)]
    square = (wide(x) ** 2).mean(axes, keepdims=True)
    expected = wide(x) / np.sqrt(square + 1e-3) * wide(scale).reshape(full)
    assert_close(F.rms_norm(x, scale, axis=axes, epsilon=1e-3), expected, atol=1e-5)


def test_rms_norm_of_complex_numbers_and_of_zeros():
    x = normal((3, 4)) + 1j * normal((3, 4), 1)
    y = F.rms_norm(x, epsilon=0.0)
    assert_close((np.abs(y) ** 2).mean(-1), np.ones(3))
    zeros = jnp.zeros((2, 4))
    assert_close(F.rms_norm(zeros), zeros)
    grad = jax.grad(lambda x: F.rms_norm(x)[0, 0])(zeros)
    assert np.isfinite(grad).all()


@pytest.mark.parametrize("norm", [F.layer_norm, F.rms_norm])
def test_where_nothing_counts_the_result_is_zero_and_gradients_are_finite(norm):
    x = normal((2, 4)).at[1].set(1e3)
    mask = jnp.array([[True], [False]])
    y = norm(x, mask=mask)
    assert_close(y[1], np.zeros(4))
    assert_close(y[0], norm(x)[0])
    grad = jax.grad(lambda x: norm(x, mask=mask).sum())(x.at[1].set(jnp.inf))
    assert np.isfinite(grad[0]).all()


@pytest.mark.parametrize("norm", [F.layer_norm, F.rms_norm])
def test_a_norm_in_a_larger_program_is_one_equation(norm):
    x = normal((2, 4))
    assert len(jax.make_jaxpr(norm)(x).eqns) == 1
    _, tangent = jax.jvp(norm, (x,), (normal((2, 4), 1),))
    assert np.isfinite(tangent).all()


def test_epsilon_may_be_an_array_and_has_a_gradient():
    x = normal((3, 8))

    def total(epsilon):
        return F.layer_norm(x, epsilon=epsilon)[0, 0]

    difference = (total(0.501) - total(0.499)) / 0.002
    assert_close(jax.jit(jax.grad(total))(0.5), difference, rtol=1e-2)
    assert_close(total(jnp.float32(0.5)), total(0.5))
