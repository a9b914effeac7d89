"""Attention against PyTorch."""

import jax.numpy as jnp
import numpy as np
import pytest

from helpers import normal
from interop.parity import SPREAD, assert_same, copy, made, same, tensor
from linnet import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

NAMES = ("Attention", "torch.nn.MultiheadAttention")
MASK = np.tri(5, 5, 1) > 0


def theirs_of(model, width, **options):
    """PyTorch's layer with our weights."""
    theirs = torch.nn.MultiheadAttention(
        width, model.num_heads, batch_first=True, **options
    )
    parts = [model.query, model.key, model.value]
    if theirs.in_proj_weight is not None:
        kernel = jnp.concatenate([part.kernel for part in parts], 1)
        copy(theirs.in_proj_weight, kernel.T)
    else:
        copy(theirs.q_proj_weight, model.query.kernel.T)
        copy(theirs.k_proj_weight, model.key.kernel.T)
        copy(theirs.v_proj_weight, model.value.kernel.T)
    copy(theirs.in_proj_bias, jnp.concatenate([part.bias for part in parts]))
    copy(theirs.out_proj.weight, model.out.kernel.T)
    copy(theirs.out_proj.bias, model.out.bias)
    return theirs


def out_pairs(theirs):
    return [
        ("out/kernel", theirs.out_proj.weight, jnp.transpose),
        ("out/bias", theirs.out_proj.bias, same),
    ]


@pytest.mark.parametrize("rule", ["none", "causal", "mask"])
@pytest.mark.parametrize("shape", [(2, 5, 8), (5, 8)])
def test_fused_self_attention(shape, rule):
    x = normal(shape)
    options = {"causal": rule == "causal", "bias_init": SPREAD}
    apart = made(nn.Attention(2, **options), x)
    theirs = theirs_of(apart, 8)
    fused = made(nn.Attention(2, fused_qkv=True, **options), x)
    qkv = fused.qkv.replace(
        kernel=jnp.asarray(theirs.in_proj_weight.detach().numpy().T),
        bias=jnp.asarray(theirs.in_proj_bias.detach().numpy()),
    )
    fused = fused.replace(qkv=qkv, out=apart.out)
    mask = {"none": None, "causal": np.tri(5) > 0, "mask": MASK}[rule]

    def run(x):
        hidden = None if mask is None else torch.tensor(~mask)
        return theirs(x, x, x, attn_mask=hidden, need_weights=False)[0]

    def ours(model, x):
        return model(x, mask=jnp.asarray(MASK) if rule == "mask" else None)

    pairs = [
        ("qkv/kernel", theirs.in_proj_weight, jnp.transpose),
        ("qkv/bias", theirs.in_proj_bias, same),
        *out_pairs(theirs),
    ]
    assert_same(NAMES, ours, run, fused, x, pairs)


def test_projections_apart_and_a_bias():
    x, bias = normal((2, 5, 8)), normal((2, 2, 5, 5), 1)
    model = made(nn.Attention(2, bias_init=SPREAD), x)
    theirs = theirs_of(model, 8)

    def run(x):
        added = tensor(bias.reshape(4, 5, 5), False)
        return theirs(x, x, x, attn_mask=added, need_weights=False)[0]

    assert_same(NAMES, lambda m, x: m(x, bias=bias), run, model, x, out_pairs(theirs))


def test_cross_attention_from_padded_contexts():
    x, context = normal((2, 5, 8)), normal((2, 3, 6), 1)
    there = np.array([[True, True, False], [True, True, True]])
    model = made(nn.Attention(2, bias_init=SPREAD), x, context)
    theirs = theirs_of(model, 8, kdim=6, vdim=6)

    def run(x):
        c, hidden = tensor(context, False), torch.tensor(~there)
        return theirs(x, c, c, key_padding_mask=hidden, need_weights=False)[0]

    def ours(model, x):
        return model(x, context, mask=jnp.asarray(there)[:, None, None, :])

    pairs = [
        ("query/kernel", theirs.q_proj_weight, jnp.transpose),
        ("key/kernel", theirs.k_proj_weight, jnp.transpose),
        ("value/kernel", theirs.v_proj_weight, jnp.transpose),
        *out_pairs(theirs),
    ]
    assert_same(NAMES, ours, run, model, x, pairs)
