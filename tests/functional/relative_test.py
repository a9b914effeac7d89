"""Biases by distance: ALiBi's slopes and T5's buckets, as published."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError, DTypeError, ShapeError


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (1, [2**-8]),
        (4, [2**-2, 2**-4, 2**-6, 2**-8]),
        (8, [2**-i for i in range(1, 9)]),
        (16, [2 ** (-i / 2) for i in range(1, 17)]),
        (3, [2**-4, 2**-8, 2**-2]),
        (6, [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]),
        (12, [*(2**-i for i in range(1, 9)), *(2 ** -(i + 0.5) for i in range(4))]),
    ],
)
def test_slopes_are_those_of_the_paper(heads, expected):
    assert_close(F.alibi_slopes(heads), np.array(expected))


def test_alibi_falls_off_with_distance():
    positions, keys = jnp.array([3, 9]), jnp.arange(5)
    bias = F.alibi_bias(2, positions, keys)
    assert bias.dtype == jnp.float32
    slopes, p, k = np.array([2**-4, 2**-8]), np.array([3, 9]), np.arange(5)
    assert_close(bias, -slopes[:, None, None] * np.abs(p[:, None] - k))


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.uint32, jnp.int8, jnp.float32])
def test_distances_are_right_in_every_dtype_of_positions(dtype):
    bias = F.alibi_bias(1, jnp.array([0, 100], dtype), jnp.array([100], dtype))
    assert_close(bias, -np.array([[[100.0], [0.0]]]) / 256)


def bucket(offset, buckets, farthest, both_ways):
    """T5's program, for one key at `offset` from its query."""
    out, n = 0, -offset
    if both_ways:
        buckets //= 2
        out, n = (buckets if n < 0 else 0), abs(n)
    else:
        n = max(n, 0)
    exact = buckets // 2
    if n < exact:
        return out + n
    share = math.log(n / exact) / math.log(farthest / exact)
    return out + min(exact + int(share * (buckets - exact)), buckets - 1)


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (8, 20), (64, 1000)])
def test_buckets_are_those_of_t5(buckets, farthest, both_ways):
    offsets = np.arange(-1200, 1200)
    found = F.relative_position_bucket(
        offsets, num_buckets=buckets, max_distance=farthest, bidirectional=both_ways
    )
    expected = [bucket(n, buckets, farthest, both_ways) for n in offsets.tolist()]
    assert found.dtype == jnp.int32
    assert_close(found, np.array(expected))


def test_a_relative_bias_is_a_row_for_each_bucket():
    embedding, positions, keys = normal((8, 3)), jnp.arange(2, 6), jnp.arange(7)
    options = {"max_distance": 9, "bidirectional": False}
    bias = F.relative_position_bias(embedding, positions, keys, **options)
    table = np.asarray(embedding)
    expected = np.array(
        [[table[bucket(s - t, 8, 9, False)] for s in range(7)] for t in range(2, 6)]
    )
    assert_close(bias, np.moveaxis(expected, -1, 0))


def test_batches_of_positions_may_differ_in_rank():
    positions, keys = jnp.array([[4], [9]]), jnp.arange(5)
    bias = F.alibi_bias(2, positions, keys)
    assert_close(bias[1], F.alibi_bias(2, positions[1], keys))
    embedding = normal((8, 2))
    bias = F.relative_position_bias(embedding, positions, keys)
    assert bias.shape == (2, 2, 1, 5)
    assert_close(bias[1], F.relative_position_bias(embedding, positions[1], keys))


def test_a_table_in_low_precision_gives_float32():
    embedding = normal((8, 2), dtype="bfloat16")
    bias = F.relative_position_bias(embedding, jnp.arange(2), jnp.arange(2))
    assert bias.dtype == jnp.float32


def test_gradients_count_how_often_a_bucket_is_met():
    def total(embedding):
        return F.relative_position_bias(embedding, jnp.arange(3), jnp.arange(3)).sum()

    grad = jax.grad(total)(normal((8, 1)))
    assert_close(grad[:, 0], np.array([3.0, 2, 1, 0, 0, 2, 1, 0]))


@pytest.mark.parametrize(
    "options",
    [
        {"num_buckets": 2},
        {"num_buckets": 7},
        {"num_buckets": 1, "bidirectional": False},
        {"num_buckets": 32, "max_distance": 8},
    ],
)
def test_numbers_of_buckets_that_leave_none_are_refused(options):
    with pytest.raises(ConfigError, match="LN-VALUE-06"):
        F.relative_position_bucket(jnp.arange(3), **options)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="`num_heads` is 0"):
        F.alibi_slopes(0)
    with pytest.raises(ShapeError, match="different batch axes"):
        F.alibi_bias(1, jnp.zeros((2, 3)), jnp.zeros((3, 3)))
    with pytest.raises(ShapeError, match="`positions` has no axes"):
        F.alibi_bias(1, jnp.array(3), jnp.arange(3))
    with pytest.raises(DTypeError, match="`offsets` has dtype float32"):
        F.relative_position_bucket(jnp.ones(3))
    with pytest.raises(ShapeError, match="`embedding` has 1 axes"):
        F.relative_position_bias(jnp.ones(8), jnp.arange(2), jnp.arange(2))
