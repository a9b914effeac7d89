"""Eight bits: the bound of the error, products, and what is refused."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError, DTypeError, ShapeError

DTYPES = ("int8", "float8_e4m3fn", "float8_e5m2")
LARGEST = {"int8": 127, "float8_e4m3fn": 448, "float8_e5m2": 57344}


def wide(x):
    return np.asarray(x, np.float64)


@settings(max_examples=20)
@given(st.integers(0, 4), st.integers(1, 5), st.floats(-6, 6), st.booleans())
def test_int8_is_wrong_by_at_most_half_a_step(rows, columns, power, over_rows):
    x, axis = normal((rows, columns)) * 10.0**power, int(not over_rows)
    q, scale = F.quantize(x, axis=axis)
    bound = np.abs(wide(x)).max(axis, keepdims=True, initial=0) / 254
    error = np.abs(wide(q) * wide(scale) - wide(x))
    assert (error <= bound * (1 + 1e-5) + 1e-12 * bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), (0, 1, 2)])
def test_it_is_rounding_to_the_nearest_after_scaling(dtype, axis):
    x = normal((4, 3, 5))
    q, scale = F.quantize(x, dtype, axis=axis)
    largest = np.abs(wide(x)).max(axis, keepdims=True)
    assert_close(scale, largest / LARGEST[dtype])
    scaled = np.asarray(x / scale)
    kind = np.int8 if dtype == "int8" else getattr(ml_dtypes, dtype)
    limit = LARGEST[dtype]
    nearest = np.rint(scaled) if dtype == "int8" else scaled
    expected = np.clip(nearest, -limit, limit).astype(kind)
    assert_close(q, expected.astype(np.float32), rtol=0, atol=0)
    assert_close(F.dequantize(q, scale), wide(expected) * wide(scale))


@pytest.mark.parametrize("axis", [0, 1])
def test_blocks_are_quantised_each_by_itself(axis):
    x = normal((6, 6)) * jnp.logspace(-2, 2, 6)[:, None]
    q, scale = F.quantize(x, axis=axis, block_size=2)
    pairs = jnp.split(x, 3, axis)
    parts = [F.quantize(pair, axis=axis) for pair in pairs]
    assert_close(q, jnp.concatenate([part[0] for part in parts], axis), 0, 0)
    assert_close(scale, jnp.concatenate([part[1] for part in parts], axis))
    assert_close(F.dequantize(q, scale), x, rtol=0, atol=float(jnp.abs(x).max() / 200))


def test_zeros_stay_zeros_and_what_is_not_finite_is_seen():
    q, scale = F.quantize(jnp.zeros((3, 2)))
    assert_close(F.dequantize(q, scale), np.zeros((3, 2)))
    for bad in (jnp.nan, jnp.inf):
        x = jnp.ones((3, 2)).at[1, 0].set(bad)
        again = F.dequantize(*F.quantize(x))
        assert not np.isfinite(again[1, 0])
        assert np.isfinite(again[:, 1]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_size", [None, 3])
@pytest.mark.parametrize("batch", [(), (4,), (0,), (2, 3)])
def test_a_product_is_that_with_the_rounded_kernel(dtype, block_size, batch):
    x, bias = normal((*batch, 6)), normal((5,), 1)
    q, scale = F.quantize(normal((6, 5), 2), dtype, block_size=block_size)
    kernel = wide(F.dequantize(q, scale))
    assert_close(F.quantized_dense(x, q, scale, bias), wide(x) @ kernel + wide(bias))
    assert_close(F.quantized_dense(x, q, scale), wide(x) @ kernel)
    out = F.quantized_dense(x, q, scale, bias, dtype=jnp.bfloat16)
    assert out.dtype == jnp.bfloat16
    assert_close(out, wide(x) @ kernel + wide(bias), rtol=0.05, atol=0.05)


def test_gradients_pass_through_a_product():
    x, (q, scale) = normal((4, 6)), F.quantize(normal((6, 5), 2))
    weight = normal((4, 5), 3)
    grad = jax.grad(lambda x: (F.quantized_dense(x, q, scale) * weight).sum())(x)
    assert_close(grad, wide(weight) @ wide(F.dequantize(q, scale)).T)


def test_float16_does_not_overflow_before_it_is_scaled():
    x = jnp.ones((1, 2048), jnp.float16)
    q, scale = F.quantize(jnp.full((2048, 2), 0.01))
    assert_close(F.quantized_dense(x, q, scale), np.full((1, 2), 20.48), rtol=1e-3)


@pytest.mark.parametrize("block_size", [None, 2])
def test_tables(block_size):
    table = normal((5, 4))
    q, scale = F.quantize(table, axis=1, block_size=block_size)
    rounded = F.dequantize(q, scale)
    ids = jnp.array([[1, 0], [4, 4]])
    assert_close(F.quantized_embed(ids, q, scale), rounded[ids], 0, 0)
    assert np.isnan(F.quantized_embed(jnp.array([5, -1]), q, scale)).all()
    x = normal((3, 4), 1)
    assert_close(F.quantized_attend(x, q, scale), wide(x) @ wide(rounded).T)


def test_it_maps_and_compiles():
    x = normal((3, 4, 5))
    q, scale = jax.jit(jax.vmap(F.quantize))(x)
    one = F.quantize(x[1])
    assert_close((q[1], scale[1]), one)


@pytest.mark.parametrize("dtype", ["int4", "float32", "eight", jnp.uint8])
def test_other_dtypes_are_refused_and_the_fixes_work(dtype):
    with pytest.raises(ConfigError, match="LN-VALUE-04") as caught:
        F.quantize(jnp.ones((2, 2)), dtype)
    for _, code in caught.value.fixes:
        scope = {}
        exec(code, scope)
        assert F.quantize(jnp.ones((2, 2)), scope["dtype"])[0].dtype.itemsize == 1


@pytest.mark.parametrize(
    ("axis", "size"), [(0, 4), (0, 0), (0, -2), ((0, 1), 2), ((), 2)]
)
def test_blocks_that_do_not_fit_are_refused_and_the_fixes_work(axis, size):
    with pytest.raises(ConfigError, match="LN-VALUE-06") as caught:
        F.quantize(jnp.ones((6, 4)), axis=axis, block_size=size)
    for _, code in caught.value.fixes:
        scope = {}
        exec(code, scope)
        q, _ = F.quantize(jnp.ones((6, 4)), axis=axis, block_size=scope["block_size"])
        assert q.shape == (6, 4)


def test_wrong_arrays_are_refused():
    q, scale = F.quantize(jnp.ones((6, 4)))
    with pytest.raises(DTypeError, match="LN-DTYPE-01"):
        F.quantize(jnp.ones((2, 2), jnp.int32))
    with pytest.raises(DTypeError, match="LN-DTYPE-01"):
        F.quantized_dense(jnp.ones((2, 6), jnp.int32), q, scale)
    with pytest.raises(ShapeError, match="LN-SHAPE-02"):
        F.quantize(jnp.ones((2, 2)), axis=2)
    for x, s in [((2, 5), (1, 4)), ((), (1, 4)), ((2, 6), (4, 4)), ((2, 6), (4,))]:
        with pytest.raises(ShapeError, match="LN-SHAPE-01"):
            F.quantized_dense(jnp.ones(x), q, jnp.ones(s))
