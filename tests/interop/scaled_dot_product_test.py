"""attention against PyTorch: values, and gradients by all arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import normal
from interop.parity import assert_agrees, tensor
from linnet import functional as F

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

ORACLE = "torch.nn.functional.scaled_dot_product_attention"
T, S = 6, 9


def theirs(arrays, weight, mask=None, **options):
    """Their result and gradients, with the axes as we have them."""
    q, k, v, *bias = tensors = [tensor(x) for x in arrays]
    y = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(-2, -3) for x in (q, k, v)),
        attn_mask=bias[0] if bias else mask,
        enable_gqa=True,
        **options,
    ).transpose(-2, -3)
    (y * tensor(weight, False)).sum().backward()
    return y.detach().numpy(), [x.grad.numpy() for x in tensors]


@pytest.mark.parametrize("kernel", ["xla", "blockwise"])
@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("options", ["none", "mask", "bias", "causal", "scale"])
def test_values_and_gradients(options, groups, kernel):
    arrays = [
        normal((2, T, 4, 8)),
        normal((2, S, groups, 8), 1),
        normal((2, S, groups, 5), 2),
    ]
    mask = np.asarray(normal((2, 1, T, S), 4)) > -0.5
    ours, oracle = {
        "none": ({}, {}),
        "mask": ({"mask": jnp.asarray(mask)}, {"mask": tensor(mask, False)}),
        "bias": ({}, {}),
        "causal": ({"causal": True}, {"is_causal": True}),
        "scale": ({"scale": 0.2}, {"scale": 0.2}),
    }[options]
    if options == "bias":
        arrays.append(normal((2, 4, T, S), 3))

    def f(q, k, v, bias=None):
        return F.attention(q, k, v, bias=bias, kernel=kernel, block_size=4, **ours)

    y, pull = jax.vjp(f, *arrays)
    weight = normal(y.shape, 5)
    their_y, their_grads = theirs(arrays, weight, **oracle)
    names = (f"functional.attention, {kernel}", ORACLE)
    assert_agrees(*names, "values", y, their_y)
    assert_agrees(*names, "gradients", pull(weight), their_grads)
