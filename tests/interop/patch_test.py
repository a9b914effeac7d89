"""Patches against PyTorch."""

import jax.numpy as jnp
import pytest

from helpers import normal
from interop.parity import (
    SPREAD,
    assert_same,
    copy,
    first,
    made,
    plain,
    same,
    transposed,
)
from linnet import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")


@pytest.mark.parametrize("patch", [(2, 2), (4, 3)])
def test_patch_embed(patch):
    x = normal((2, 8, 6, 3))
    model = made(nn.PatchEmbed(5, patch, bias_init=SPREAD), x)
    layer = torch.nn.Conv2d(3, 5, patch, stride=patch)
    copy(layer.weight, transposed(model.kernel))
    copy(layer.bias, model.bias)
    pairs = [("kernel", layer.weight, transposed), ("bias", layer.bias, same)]
    names = ("PatchEmbed", "torch.nn.Conv2d")
    assert_same(names, plain, layer, model, x, pairs, to_torch=first)
    tokens = model.replace(flatten=True)(x)
    assert jnp.array_equal(tokens, model(x).reshape(tokens.shape))
