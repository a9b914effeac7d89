"""Blocks of transformers against PyTorch's layers of encoders and decoders."""

import functools

import jax
import jax.numpy as jnp
import pytest

from helpers import normal
from interop.parity import SPREAD, assert_same, copy, made, plain, same, tensor
from linnet import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

NORM = functools.partial(
    nn.LayerNorm, epsilon=1e-5, scale_init=SPREAD, bias_init=SPREAD
)


class Rows:
    """Some rows of a PyTorch parameter, and of its gradient."""

    def __init__(self, parameter, start, stop):
        self.parameter, self.rows = parameter, slice(start, stop)

    @property
    def grad(self):
        return self.parameter.grad[self.rows]


def packed(path, names, attention, theirs):
    """Copies projections to where PyTorch packs them, and pairs them up."""
    layers = [getattr(attention, name) for name in names]
    copy(theirs.in_proj_weight, jnp.concatenate([p.kernel.T for p in layers]))
    copy(theirs.in_proj_bias, jnp.concatenate([p.bias for p in layers]))
    copy(theirs.out_proj.weight, attention.out.kernel.T)
    copy(theirs.out_proj.bias, attention.out.bias)
    pairs = [
        (f"{path}/out/kernel", theirs.out_proj.weight, jnp.transpose),
        (f"{path}/out/bias", theirs.out_proj.bias, same),
    ]
    start = 0
    for name, layer in zip(names, layers, strict=True):
        stop = start + layer.bias.size
        weight = Rows(theirs.in_proj_weight, start, stop)
        pairs.append((f"{path}/{name}/kernel", weight, jnp.transpose))
        if name != "key":  # adding to all keys alike changes nothing: it is zero
            bias = Rows(theirs.in_proj_bias, start, stop)
            pairs.append((f"{path}/{name}/bias", bias, same))
        start = stop
    return pairs


def linear(path, dense, theirs):
    copy(theirs.weight, dense.kernel.T)
    copy(theirs.bias, dense.bias)
    return [
        (f"{path}/kernel", theirs.weight, jnp.transpose),
        (f"{path}/bias", theirs.bias, same),
    ]


def norm(path, ours, theirs):
    copy(theirs.weight, ours.scale)
    copy(theirs.bias, ours.bias)
    return [(f"{path}/scale", theirs.weight, same), (f"{path}/bias", theirs.bias, same)]


def parts(model, layer, norms):
    """Copies what encoder and decoder layers have in common."""
    pairs = linear("mlp/hidden/0", model.mlp.hidden[0], layer.linear1)
    pairs += linear("mlp/out", model.mlp.out, layer.linear2)
    for i, name in enumerate(norms, 1):
        pairs += norm(name, getattr(model, name), getattr(layer, f"norm{i}"))
    return pairs


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_encoder_layer(placement):
    x = normal((2, 5, 8))
    block = nn.TransformerBlock(
        nn.Attention(2, fused_qkv=True, bias_init=SPREAD),
        nn.MLP(12, activation=jax.nn.relu, bias_init=SPREAD),
        norm=NORM,
        placement=placement,
    )
    model = made(block, x)
    layer = torch.nn.TransformerEncoderLayer(
        8, 2, 12, dropout=0.0, batch_first=True, norm_first=placement == "pre"
    )
    pairs = packed("attention", ["qkv"], model.attention, layer.self_attn)
    pairs += parts(model, layer, ["attention_norm", "mlp_norm"])
    names = ("TransformerBlock", "torch.nn.TransformerEncoderLayer")
    assert_same(names, plain, layer, model, x, pairs)


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_decoder_layer(placement):
    x, context = normal((2, 5, 8)), normal((2, 3, 8), 2)
    block = nn.TransformerBlock(
        nn.Attention(2, causal=True, fused_qkv=True, bias_init=SPREAD),
        nn.MLP(12, activation=jax.nn.relu, bias_init=SPREAD),
        cross_attention=nn.Attention(2, bias_init=SPREAD),
        norm=NORM,
        placement=placement,
    )
    model = made(block, x, context)
    layer = torch.nn.TransformerDecoderLayer(
        8, 2, 12, dropout=0.0, batch_first=True, norm_first=placement == "pre"
    )
    pairs = packed("attention", ["qkv"], model.attention, layer.self_attn)
    pairs += packed(
        "cross_attention",
        ["query", "key", "value"],
        model.cross_attention,
        layer.multihead_attn,
    )
    norms = ["attention_norm", "cross_attention_norm", "mlp_norm"]
    pairs += parts(model, layer, norms)
    memory = tensor(context, False)
    later = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)

    def theirs(x):
        return layer(x, memory, tgt_mask=later)

    def ours(model, x):
        return model(x, context)

    names = ("TransformerBlock, crossed", "torch.nn.TransformerDecoderLayer")
    assert_same(names, ours, theirs, model, x, pairs)


@pytest.mark.parametrize("form", ["parallel", "sandwich"])
def test_forms_that_pytorch_has_only_the_parts_of(form):
    x = normal((2, 5, 8))
    options = {"parallel": True} if form == "parallel" else {"placement": form}
    block = nn.TransformerBlock(
        nn.Attention(2, fused_qkv=True, bias_init=SPREAD),
        nn.MLP(12, activation=jax.nn.relu, bias_init=SPREAD),
        norm=NORM,
        **options,
    )
    model = made(block, x)
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    first, last = torch.nn.Linear(8, 12), torch.nn.Linear(12, 8)
    pairs = packed("attention", ["qkv"], model.attention, attention)
    pairs += linear("mlp/hidden/0", model.mlp.hidden[0], first)
    pairs += linear("mlp/out", model.mlp.out, last)
    norms = {}
    for name in ("attention_norm", "attention_out_norm", "mlp_norm", "mlp_out_norm"):
        if getattr(model, name) is not None:
            norms[name] = torch.nn.LayerNorm(8)
            pairs += norm(name, getattr(model, name), norms[name])

    def attend(x):
        return attention(x, x, x, need_weights=False)[0]

    def feed(x):
        return last(torch.relu(first(x)))

    def theirs(x):
        h = norms["attention_norm"](x)
        if form == "parallel":
            return x + attend(h) + feed(h)
        x = x + norms["attention_out_norm"](attend(h))
        return x + norms["mlp_out_norm"](feed(norms["mlp_norm"](x)))

    names = (f"TransformerBlock, {form}", "torch.nn.MultiheadAttention")
    assert_same(names, plain, theirs, model, x, pairs)
