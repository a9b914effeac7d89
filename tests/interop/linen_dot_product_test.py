"""attention against Flax Linen, where each head has its own bias and mask."""

import flax.linen
import jax
import pytest

from helpers import normal
from interop.parity import assert_agrees
from linnet import functional as F


@pytest.mark.parametrize("kernel", ["xla", "blockwise"])
def test_values_and_gradients(kernel):
    arrays = [normal((2, 6, 3, 4)), normal((2, 7, 3, 4), 1), normal((2, 7, 3, 4), 2)]
    arrays.append(normal((2, 3, 6, 7), 3))
    mask = normal((2, 3, 6, 7), 4) > -0.5

    def ours(q, k, v, bias):
        options = {"bias": bias, "mask": mask, "kernel": kernel, "block_size": 3}
        return F.attention(q, k, v, **options)

    def theirs(q, k, v, bias):
        return flax.linen.dot_product_attention(q, k, v, bias=bias, mask=mask)

    y, pull = jax.vjp(ours, *arrays)
    their_y, their_pull = jax.vjp(theirs, *arrays)
    weight = normal(y.shape, 5)
    names = (f"functional.attention, {kernel}", "flax.linen.dot_product_attention")
    assert_agrees(*names, "values", y, their_y)
    assert_agrees(*names, "gradients", pull(weight), their_pull(weight))
