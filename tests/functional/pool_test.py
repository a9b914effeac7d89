"""Pools: their definition, laws, integer dtypes, and what they refuse."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError, ShapeError

POOLS = {
    "max": (F.max_pool, np.max),
    "min": (F.min_pool, np.min),
    "avg": (F.avg_pool, np.mean),
}


def by_loop(x, window, strides, padding, reduce):
    """The definition, one window at a time; what is padded is left out of it."""
    sizes = [
        (n + sum(p) - w) // s + 1
        for n, p, w, s in zip(x.shape, padding, window, strides, strict=False)
    ]
    y = np.zeros((*sizes, x.shape[-1]))
    for at in itertools.product(*map(range, sizes)):
        ends = []
        for i, n, p, w, s in zip(at, x.shape, padding, window, strides, strict=False):
            start = i * s - p[0]
            ends.append(slice(max(start, 0), min(start + w, n)))
        y[at] = reduce(x[tuple(ends)], tuple(range(len(window))))
    return y


@st.composite
def pools(draw):
    spatial = draw(st.integers(1, 3))
    some = st.lists(st.integers(1, 3), min_size=spatial, max_size=spatial)
    window = draw(some)
    padding = [
        (draw(st.integers(0, w - 1)), draw(st.integers(0, w - 1))) for w in window
    ]
    sizes = [draw(st.integers(3, 5)) for _ in range(spatial)]
    return sizes, tuple(window), tuple(draw(some)), padding


@pytest.mark.parametrize("name", POOLS)
@settings(max_examples=15)
@given(case=pools())
def test_pools_are_their_definition(name, case):
    sizes, window, strides, padding = case
    pool, reduce = POOLS[name]
    x = normal((*sizes, 2))
    extra = {"count_include_pad": False} if name == "avg" else {}
    y = pool(x, window, strides, padding=padding, **extra)
    expected = by_loop(np.asarray(x, np.float64), window, strides, padding, reduce)
    assert_close(y, expected)


def test_zeros_of_the_padding_count_in_the_mean_unless_told():
    x = jnp.ones((3, 1))
    included = F.avg_pool(x, (3,), 1, padding="SAME")
    assert_close(included[:, 0], np.array([2 / 3, 1, 2 / 3]))
    without = F.avg_pool(x, (3,), 1, padding="SAME", count_include_pad=False)
    assert_close(without[:, 0], np.ones(3))


@settings(max_examples=15)
@given(st.integers(1, 6), st.integers(1, 6))
def test_windows_do_not_overlap_by_default(size, window):
    x = normal((size * window, 2))
    y = F.max_pool(x, (window,))
    assert_close(y, np.asarray(x).reshape(size, window, 2).max(1))


def test_min_is_minus_the_max_of_minus():
    x = normal((7, 5, 2))
    assert_close(F.min_pool(x, (3, 2), 1), -F.max_pool(-x, (3, 2), 1))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "bool"])
def test_max_and_min_keep_integer_dtypes_even_at_their_extremes(dtype):
    low, high = (
        (0, 1) if dtype == "bool" else (jnp.iinfo(dtype).min, jnp.iinfo(dtype).max)
    )
    x = jnp.array([low, low, high, high], dtype)[:, None]
    for pool in (F.max_pool, F.min_pool):
        y = pool(x, (3,), 1, padding="SAME")
        assert y.dtype == x.dtype
    assert np.array_equal(F.max_pool(x, (2,), padding=1)[:, 0], [low, high, high])
    assert np.array_equal(F.min_pool(x, (2,), padding=1)[:, 0], [low, low, high])


def test_the_mean_of_integers_is_float32():
    y = F.avg_pool(jnp.array([[200], [100]], jnp.uint8), (2,))
    assert y.dtype == jnp.float32
    assert_close(y, np.array([[150.0]]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_long_means_in_half_precision_lose_nothing(dtype):
    y = F.avg_pool(jnp.full((4096, 1), 1.5, dtype), (4096,))
    assert y.dtype == dtype
    assert_close(y, np.array([[1.5]]))


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("batch", [(), (2, 3), (0,), (2, 0)])
def test_pools_take_any_batch_axes(name, batch):
    pool, _ = POOLS[name]
    x = normal((*batch, 6, 4, 2))
    y = pool(x, (2, 2), padding="SAME")
    assert y.shape == (*batch, 3, 2, 2)
    rows = [pool(row, (2, 2)) for row in x.reshape((-1, 6, 4, 2))] if x.size else []
    assert_close(
        y.reshape((len(rows), 3, 2, 2)), np.reshape(rows, (len(rows), 3, 2, 2))
    )


def test_the_gradient_of_max_goes_to_the_largest():
    x = jnp.array([1.0, 3.0, 2.0, 5.0])[:, None]
    grad = jax.grad(lambda x: (F.max_pool(x, (2,)) * jnp.array([[2.0], [7.0]])).sum())(
        x
    )
    assert_close(grad[:, 0], np.array([0.0, 2.0, 0.0, 7.0]))


def test_the_gradient_of_a_mean_is_spread():
    grad = jax.grad(lambda x: F.avg_pool(x, (2,)).sum())(jnp.ones((4, 1)))
    assert_close(grad, np.full((4, 1), 0.5))


@pytest.mark.parametrize("window", [2, (), (0,), (1.5,), "2"])
def test_pools_refuse_windows_that_do_not_say_their_axes(window):
    with pytest.raises(ConfigError, match="LN-VALUE"):
        F.max_pool(normal((4, 4, 1)), window)


def test_the_fixes_for_a_bare_number_work():
    x = normal((4, 4, 1))
    with pytest.raises(ConfigError) as caught:
        F.max_pool(x, 2)
    for _, code in caught.value.fixes:
        scope = {}
        exec(code, scope)
        assert F.max_pool(x, scope["window_shape"]).size < x.size


@pytest.mark.parametrize("padding", [2, [(0, 3)], -1, "CAUSAL", "same", [(1, 1)] * 2])
def test_pools_refuse_paddings_that_could_fill_a_window(padding):
    with pytest.raises(ConfigError, match="`padding`"):
        F.avg_pool(normal((4, 1)), (2,), padding=padding)


def test_pools_refuse_too_few_axes():
    with pytest.raises(ShapeError, match="LN-SHAPE-02") as caught:
        F.max_pool(normal((4,)), (2,))
    scope = {"x": normal((4,))}
    exec(caught.value.fixes[0][1], scope)
    assert F.max_pool(scope["x"], (2,)).shape == (2, 1)
