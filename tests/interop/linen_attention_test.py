"""Attention against Flax Linen: sizes and options that PyTorch's layer has not."""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import normal
from interop.parity import SPREAD, assert_agrees, made
from linnet import nn

NAMES = ("Attention", "flax.linen.MultiHeadDotProductAttention")


def params_of(model, heads):
    """Our arrays as Linen has them, with an axis for the heads."""

    def projection(part):
        size = part.kernel.shape[0]
        return {
            "kernel": part.kernel.reshape(size, heads, -1),
            "bias": part.bias.reshape(heads, -1),
        }

    names = ("query", "key", "value")
    kernel = model.out.kernel
    return {name: projection(getattr(model, name)) for name in names} | {
        "out": {
            "kernel": kernel.reshape(heads, -1, kernel.shape[-1]),
            "bias": model.out.bias,
        }
    }


@pytest.mark.parametrize("context_shape", [None, (2, 3, 6)])
@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients(context_shape, masked):
    x = normal((2, 5, 8))
    context = x if context_shape is None else normal(context_shape, 1)
    weight = normal((2, 5, 7), 2)
    layer = nn.Attention(2, head_dim=3, features=7, bias_init=SPREAD)
    model = made(layer, x, context)
    linen = flax.linen.MultiHeadDotProductAttention(
        2, qkv_features=6, out_features=7, precision="highest"
    )
    size = (2, 2, 5, context.shape[1])
    mask = jnp.asarray(np.random.default_rng(3).random(size) < 0.7)
    mask = mask.at[..., 0].set(True) if masked else None

    def theirs(params, x, context):
        return linen.apply({"params": params}, x, context, mask=mask)

    def ours(model, x, context):
        return model(x, context, mask=mask)

    params = params_of(model, 2)
    expected = theirs(params, x, context)
    assert_agrees(*NAMES, "values", ours(model, x, context), expected)
    expected = jax.grad(lambda *a: (theirs(*a) * weight).sum(), (0, 1, 2))(
        params, x, context
    )
    grads, *others = jax.grad(lambda *a: (ours(*a) * weight).sum(), (0, 1, 2))(
        model, x, context
    )
    # The gradient of the keys' bias is zero, but for rounding.
    expected[0]["key"].pop("bias")
    found = params_of(grads, 2)
    found["key"].pop("bias")
    assert_agrees(*NAMES, "gradients", (found, *others), expected)


def test_norms_of_queries_and_keys():
    x = normal((2, 5, 8))
    model = made(nn.Attention(2, qk_norm=nn.LayerNorm, bias_init=SPREAD), x)
    linen = flax.linen.MultiHeadDotProductAttention(
        2, normalize_qk=True, precision="highest"
    )
    norm = {"scale": model.query_norm.scale}
    params = params_of(model, 2) | {"query_ln": norm, "key_ln": norm}
    assert_agrees(*NAMES, "values", model(x), linen.apply({"params": params}, x))
