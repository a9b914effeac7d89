"""Products in fp8: their definition, gradients and scales."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import DTypeError, ShapeError

E4M3, E5M2 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2


def wide(x):
    return np.asarray(x, np.float64)


def rounded(x, scale, dtype):
    limit = float(ml_dtypes.finfo(dtype).max)
    return wide(np.clip(np.asarray(x, np.float32) / scale, -limit, limit).astype(dtype))


@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.01, 0.003)])
@pytest.mark.parametrize("batch", [(), (4,), (0,), (2, 3)])
def test_it_is_a_product_of_rounded_factors_with_its_gradients(batch, scales):
    x, kernel, bias = normal((*batch, 6)), normal((6, 5), 1), normal((5,), 2)
    sx, sk = (np.float32(scale) for scale in scales)
    weight = normal((*batch, 5), 3)

    def run(x, kernel, bias):
        return F.fp8_dense(x, kernel, bias, x_scale=sx, kernel_scale=sk)

    y, vjp = jax.vjp(run, x, kernel, bias)
    xq, kq = rounded(x, sx, E4M3) * sx, rounded(kernel, sk, E4M3) * sk
    assert_close(y, xq @ kq + wide(bias), atol=1e-5)
    largest = np.abs(np.asarray(weight)).max(initial=0)
    sg = np.float32(largest / 57344) if largest else np.float32(1)
    gq = rounded(weight, sg, E5M2) * wide(sg)
    grad_kernel = xq.reshape(-1, 6).T @ gq.reshape(-1, 5)
    grad_bias = wide(weight).reshape(-1, 5).sum(0)
    assert_close(vjp(weight), (gq @ kq.T, grad_kernel, grad_bias), 1e-5, 1e-5)


def test_what_is_too_large_becomes_the_largest_number():
    y = F.fp8_dense(jnp.array([1e6, 0.0]), jnp.eye(2), x_scale=1.0, kernel_scale=1.0)
    assert_close(y, np.array([448.0, 0.0]))


def test_large_and_small_gradients_survive():
    x, kernel = normal((3, 4)), normal((4, 2), 1)
    for factor in (1e-20, 1.0, 1e20):
        grad = jax.grad(
            lambda x, by=factor: (
                by * F.fp8_dense(x, kernel, x_scale=0.01, kernel_scale=0.01).sum()
            )
        )(x)
        expected = np.ones((3, 2)) @ wide(kernel).T
        assert_close(grad / factor, expected, rtol=0.1, atol=0.05)


def test_a_gradient_that_is_not_finite_is_seen():
    x, kernel = normal((3, 4)), normal((4, 2), 1)
    _, vjp = jax.vjp(lambda x: F.fp8_dense(x, kernel, x_scale=1.0, kernel_scale=1.0), x)
    for bad in (jnp.inf, jnp.nan):
        assert not np.isfinite(vjp(jnp.ones((3, 2)).at[0, 0].set(bad))[0]).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_results_and_gradients_have_the_dtypes_of_their_arrays(dtype):
    x, kernel = normal((3, 4), dtype=dtype), normal((4, 2), 1)

    def run(x, kernel, dtype=None):
        return F.fp8_dense(x, kernel, x_scale=1.0, kernel_scale=1.0, dtype=dtype)

    assert run(x, kernel).dtype == jnp.float32
    assert run(x, kernel, dtype).dtype == dtype
    grads = jax.grad(lambda x, k: run(x, k, dtype).sum(), (0, 1))(x, kernel)
    assert (grads[0].dtype, grads[1].dtype) == (dtype, "float32")


def test_what_is_kept_for_the_backward_pass_has_eight_bits():
    x, kernel = jnp.ones((64, 32)), jnp.ones((32, 16))

    def run(x, kernel):
        return F.fp8_dense(x, kernel, x_scale=1.0, kernel_scale=1.0)

    kept = jax.tree.leaves(jax.vjp(run, x, kernel)[1])
    assert sum(array.nbytes for array in kept) <= x.size + kernel.size + 16


def test_the_product_of_the_program_is_one_of_fp8():
    def run(x, kernel):
        return F.fp8_dense(x, kernel, x_scale=1.0, kernel_scale=1.0).sum()

    text = str(
        jax.make_jaxpr(jax.grad(run, (0, 1)))(jnp.ones((3, 4)), jnp.ones((4, 2)))
    )
    dots = [line for line in text.splitlines() if "dot_general" in line]
    assert len(dots) in (2, 3)
    assert "f8_e4m3fn" in text
    assert "f8_e5m2" in text


def test_scales_follow_the_history():
    history = jnp.zeros(3)
    assert F.fp8_scale(history) == 1
    seen = []
    for largest in (2.0, 8.0, 1.0, 1.0, 1.0):
        history = F.fp8_remember(history, jnp.array([-largest, 0.5]))
        seen.append(float(F.fp8_scale(history)) * 448)
    assert_close(np.array(seen), np.array([2.0, 8.0, 8.0, 8.0, 1.0]))
    for bad in (jnp.inf, jnp.nan):
        again = F.fp8_remember(history, jnp.array([bad, 5.0]))
        assert_close(again, np.array([0.0, 1.0, 1.0]))
    assert_close(F.fp8_remember(history, jnp.zeros((0, 2))), np.array([0.0, 1.0, 1.0]))


def test_it_maps():
    x, kernel = normal((3, 4)), normal((4, 2), 1)

    def grad(x):
        return jax.grad(
            lambda x: F.fp8_dense(x, kernel, x_scale=0.01, kernel_scale=0.01).sum()
        )(x)

    assert_close(jax.vmap(grad)(x), jnp.stack([grad(row) for row in x]))


def test_wrong_arrays_are_refused():
    good, kernel, one = jnp.ones((2, 6)), jnp.ones((6, 4)), {"kernel_scale": 1.0}
    with pytest.raises(DTypeError, match="`x` has dtype int32"):
        F.fp8_dense(jnp.ones((2, 6), jnp.int32), kernel, x_scale=1.0, **one)
    with pytest.raises(DTypeError, match="`kernel` has dtype complex64"):
        F.fp8_dense(good, kernel.astype(jnp.complex64), x_scale=1.0, **one)
    for x, k, bias in [((2, 5), (6, 4), None), ((), (6, 4), None), ((6,), (6,), None)]:
        with pytest.raises(ShapeError, match="LN-SHAPE-01"):
            F.fp8_dense(jnp.ones(x), jnp.ones(k), bias, x_scale=1.0, **one)
    with pytest.raises(ShapeError, match="`bias` has shape"):
        F.fp8_dense(good, kernel, jnp.ones(3), x_scale=1.0, **one)
    with pytest.raises(ShapeError, match="`x_scale` has shape"):
        F.fp8_dense(good, kernel, x_scale=jnp.ones(6), **one)
