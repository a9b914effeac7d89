"""Kernels normalised by their norms and by their largest singular values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import DTypeError, ShapeError


def wide(x):
    return np.asarray(x, np.float64)


@pytest.mark.parametrize("axis", [-1, 0, (0, 2)])
def test_weight_norm_is_its_formula(axis):
    v = normal((3, 4, 5))
    axes = (axis % 3,) if isinstance(axis, int) else axis
    others = tuple(a for a in range(3) if a not in axes)
    scale = normal(tuple(v.shape[a] for a in axes), 1)
    full = [n if a in axes else 1 for a, n in enumerate(v.shape)]
    norm = np.sqrt((wide(v) ** 2).sum(others, keepdims=True))
    expected = wide(scale).reshape(full) * wide(v) / norm
    assert_close(F.weight_norm(v, scale, axis=axis), expected)
    assert_close(F.weight_norm(v, axis=axis), wide(v) / norm)


def test_weight_norm_ignores_the_length_of_the_direction():
    v = normal((6, 3))
    assert_close(F.weight_norm(7 * v), F.weight_norm(v))
    grad = jax.grad(lambda v: (F.weight_norm(v) * normal((6, 3), 1)).sum())(v)
    assert_close((grad * v).sum(0), np.zeros(3), atol=1e-6)


def test_a_direction_of_zeros_has_finite_gradients():
    v = jnp.zeros((4, 2))
    assert_close(F.weight_norm(v), v)
    assert np.isfinite(jax.grad(lambda v: F.weight_norm(v).sum())(v)).all()


def test_the_dtype_stays_and_norms_do_not_overflow():
    v = jnp.full((4, 2), 300.0, jnp.float16)
    assert F.weight_norm(v).dtype == jnp.float16
    assert_close(F.weight_norm(v), np.full((4, 2), 0.5))


def test_power_iteration_finds_the_largest_singular_value():
    kernel = normal((2, 3, 5))
    sigma, u = F.power_iteration(kernel, normal(5, 1), n_steps=200)
    singular = np.linalg.svd(wide(kernel).reshape(-1, 5))
    assert_close(sigma, singular[1][0])
    assert_close(jnp.abs(u), np.abs(singular[2][0]), rtol=1e-4)


def test_one_step_is_the_algorithm_of_the_paper():
    kernel, u = normal((4, 3)), normal(3, 1)
    k, v = wide(kernel), wide(kernel) @ wide(u)
    v /= np.linalg.norm(v)
    new = k.T @ v / np.linalg.norm(k.T @ v)
    assert_close(F.power_iteration(kernel, u), (v @ k @ new, new))
    start = F.power_iteration(kernel, u, n_steps=0)
    assert_close(start, (np.linalg.norm(k @ wide(u)), wide(u)))


def test_power_iteration_of_complex_numbers():
    kernel = normal((4, 3)) + 1j * normal((4, 3), 1)
    sigma, _ = F.power_iteration(kernel, normal(3, 2) + 0j, n_steps=200)
    assert not jnp.iscomplexobj(sigma)
    assert_close(sigma, np.linalg.svd(np.asarray(kernel))[1][0])


def test_the_gradient_of_the_largest_singular_value_is_the_product_of_its_vectors():
    kernel = normal((4, 3))
    u = F.power_iteration(kernel, normal(3, 1), n_steps=200)[1]
    grad = jax.grad(lambda k: F.power_iteration(k, u)[0])(kernel)
    left, _, right = np.linalg.svd(wide(kernel))
    assert_close(grad, np.outer(left[:, 0], right[0]), rtol=1e-4)
    along_u = jax.grad(lambda u: F.power_iteration(kernel, u)[0])(u)
    assert_close(along_u, np.zeros(3))


def test_a_kernel_of_zeros_leaves_the_vector_as_it_is():
    sigma, u = F.power_iteration(jnp.zeros((4, 3)), jnp.ones(3))
    assert_close((sigma, u), (np.zeros(()), np.ones(3)))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match="`u` has shape"):
        F.power_iteration(normal((4, 3)), normal(4))
    with pytest.raises(ShapeError, match="no axes"):
        F.power_iteration(jnp.ones(()), normal(1))
    with pytest.raises(DTypeError):
        F.power_iteration(jnp.ones((2, 2), jnp.int32), normal(2))
    with pytest.raises(ShapeError, match="`scale` has shape"):
        F.weight_norm(normal((4, 3)), normal(4))
    with pytest.raises(ShapeError, match="distinct"):
        F.weight_norm(normal((4, 3)), axis=2)
