"""Pools as `nn` offers them: agreement with Flax Linen, values and gradients."""

import flax.linen.pooling
import jax
import pytest

from helpers import assert_close, normal
from linnet import nn

POOLS = [
    (nn.max_pool, flax.linen.max_pool, {}),
    (nn.min_pool, flax.linen.pooling.min_pool, {}),
    (nn.avg_pool, flax.linen.avg_pool, {"count_include_pad": True}),
    (nn.avg_pool, flax.linen.avg_pool, {"count_include_pad": False}),
]


@pytest.mark.parametrize(("ours", "theirs", "extra"), POOLS)
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 0), (1, 1))])
@pytest.mark.parametrize("strides", [(2, 2), (1, 3)])
def test_pools_agree_with_linen(ours, theirs, extra, padding, strides):
    x = normal((2, 7, 6, 3))
    expected = theirs(x, (2, 3), strides, padding, **extra)
    assert_close(ours(x, (2, 3), strides, padding=padding, **extra), expected)
    weight = normal(expected.shape, 1)

    def pooled(pool, x):
        return (pool(x, (2, 3), strides, padding=padding, **extra) * weight).sum()

    grad, grad_theirs = (jax.grad(pooled, 1)(pool, x) for pool in (ours, theirs))
    assert_close(grad, grad_theirs)
