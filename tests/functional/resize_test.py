"""resize, pixel_shuffle and pixel_unshuffle: laws, formulas, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError, ShapeError

SMALL = st.integers(1, 3)
METHODS = ["nearest", "linear", "cubic", "lanczos3", "lanczos5"]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_size_and_constants_stay(method):
    x = normal((2, 5, 4, 3))
    assert_close(F.resize(x, (5, 4), method=method), x, atol=1e-5)
    ones = F.resize(jnp.ones((5, 1)), (8,), method=method)
    assert_close(ones, np.ones((8, 1)))


def test_linear_is_its_formula_at_the_centres_of_pixels():
    x = normal((6, 2))
    for size in (4, 9):
        at = np.clip((np.arange(size) + 0.5) * 6 / size - 0.5, 0, 5)
        expected = [np.interp(at, np.arange(6), np.asarray(x)[:, i]) for i in range(2)]
        y = F.resize(x, (size,), antialias=False)
        assert_close(y, np.stack(expected, 1), atol=1e-6)


def test_antialiasing_looks_at_all_pixels():
    x = jnp.zeros((16, 1)).at[5].set(1.0)
    assert_close(F.resize(x, (2,), antialias=False), np.zeros((2, 1)))
    assert F.resize(x, (2,))[0, 0] > 0.05


@given(st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=15)
def test_nearest_takes_over_values_of_any_dtype(before, after):
    x = jnp.arange(before, dtype=jnp.int32)[:, None] + 2**30
    expected = np.floor((np.arange(after) + 0.5) * before / after).astype(int)
    y = F.resize(x, (after,), method="nearest")
    assert y.dtype == jnp.int32
    assert_close(y[:, 0] - 2**30, expected)


def test_a_scale_is_rounded_down_to_pixels():
    x = normal((2, 5, 4, 3))
    assert F.resize(x, scale=(0.5, 2)).shape == (2, 2, 8, 3)
    assert_close(F.resize(x, scale=(2, 1.5)), F.resize(x, (10, 6)))


def test_batch_axes_are_any_and_none():
    x = normal((2, 3, 5, 4, 2))
    whole = F.resize(x, (7, 2))
    assert_close(F.resize(x[1, 2], (7, 2)), whole[1, 2], atol=1e-6)
    assert F.resize(x[:0], (7, 2)).shape == (0, 3, 7, 2, 2)


def test_dtypes_stay_and_integers_give_float32():
    assert F.resize(jnp.ones((4, 1), jnp.bfloat16), (3,)).dtype == jnp.bfloat16
    assert F.resize(jnp.ones((4, 1), jnp.uint8), (3,)).dtype == jnp.float32


def test_gradients_of_a_linear_map_are_its_transpose():
    x, weight = normal((6, 1)), normal((4, 1), 1)
    matrix = np.asarray(F.resize(jnp.eye(6)[..., None], (4,)))[..., 0]
    grad = jax.grad(lambda x: (F.resize(x, (4,)) * weight).sum())(x)
    assert_close(grad, matrix @ np.asarray(weight), atol=1e-6)


@pytest.mark.slow
@settings(max_examples=15)
@given(st.lists(st.tuples(SMALL, SMALL), min_size=1, max_size=3))
def test_unshuffling_undoes_shuffling(axes):
    factor = tuple(r for _, r in axes)
    x = normal((2, *(n for n, _ in axes), 2 * int(np.prod(factor))))
    y = F.pixel_shuffle(x, factor)
    assert y.shape == (2, *(n * r for n, r in axes), 2)
    assert_close(F.pixel_unshuffle(y, factor), x, rtol=0, atol=0)
    assert_close(F.pixel_shuffle(x[0], factor), y[0], rtol=0, atol=0)


def test_pixel_shuffle_is_its_formula():
    x = normal((2, 3, 3 * 2 * 4))
    y = F.pixel_shuffle(x, (2, 4))
    for c, i, j in np.ndindex(3, 2, 4):
        assert_close(y[i::2, j::4, c], x[..., (c * 2 + i) * 4 + j], rtol=0, atol=0)
    assert F.pixel_unshuffle(jnp.ones((0, 4, 2)), (2,)).shape == (0, 2, 4)


@pytest.mark.parametrize("scale", [2, (0,), (-1.0,), (True,), (), "22", (np.inf,)])
def test_scales_that_are_none_are_refused_and_the_fixes_work(scale):
    with pytest.raises(ConfigError, match="LN-VALUE-03") as caught:
        F.resize(normal((4, 4, 1)), scale=scale)
    for _, code in caught.value.fixes:
        exec(code, scope := {})
        assert F.resize(normal((4, 4, 1)), scale=scope["scale"]).size > 0


def test_what_cannot_be_resized_is_refused():
    x = normal((4, 4, 1))
    with pytest.raises(ConfigError, match="LN-VALUE-04"):
        F.resize(x, (2, 2), method="bilinear")
    for options in ({}, {"shape": (2, 2), "scale": (1, 1)}):
        with pytest.raises(ConfigError, match="LN-VALUE-06"):
            F.resize(x, **options)
    with pytest.raises(ShapeError, match="LN-SHAPE-02"):
        F.resize(x, (2, 2, 2))
    with pytest.raises(ShapeError, match="LN-SHAPE-04"):
        F.resize(x, scale=(0.1, 0.1))
    with pytest.raises(ShapeError, match="LN-SHAPE-04"):
        F.resize(x[:0], (2, 2))
    with pytest.raises(ShapeError, match="LN-SHAPE-01"):
        F.pixel_shuffle(x, (2, 2))
    with pytest.raises(ShapeError, match="LN-SHAPE-01"):
        F.pixel_unshuffle(x, (3, 2))
