"""Blocks of transformers."""

import jax

from linnet import nn
from zoo.case import case, sample


def block(**options):
    options = {"attention": nn.Attention(2), "mlp": nn.MLP(6)} | options
    return nn.TransformerBlock(**options)


CASES = [
    case(
        "TransformerBlock",
        lambda: block(dropout_rate=0.1),
        sample(2, 5, 4),
        random=True,
    ),
    case(
        "TransformerBlock, sandwich",
        lambda: block(
            attention=nn.Attention(2, num_kv_heads=1, position=nn.Rotary()),
            mlp=nn.MLP(6, activation=jax.nn.silu, gated=True, use_bias=False),
            norm=nn.RMSNorm,
            placement="sandwich",
            drop_path_rate=0.2,
        ),
        sample(4, 5, 4),
        random=True,
    ),
    case(
        "TransformerBlock, crossed",
        lambda: block(placement="post", cross_attention=nn.Attention(2)),
        (sample(2, 5, 4), sample(2, 3, 4)),
    ),
    case(
        "TransformerBlock, parallel",
        lambda: block(parallel=True, mlp=nn.MoE(2, 4, top_k=1)),
        sample(2, 5, 4),
    ),
]
