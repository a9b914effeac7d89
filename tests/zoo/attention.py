"""Attention."""

from linnet import nn
from zoo.case import case, sample

CASES = [
    case("Attention", lambda: nn.Attention(2), sample(4, 5, 6)),
    case(
        "Attention, grouped, rotary",
        lambda: nn.Attention(
            4,
            num_kv_heads=2,
            head_dim=4,
            causal=True,
            window=3,
            position=nn.Rotary(),
            qk_norm=nn.RMSNorm,
            dropout_rate=0.5,
        ),
        sample(4, 5, 6),
        random=True,
    ),
    case(
        "Attention, fused, relative",
        lambda: nn.Attention(
            2,
            features=5,
            fused_qkv=True,
            softcap=5.0,
            use_bias=False,
            position=nn.RelativeBias(num_buckets=6, max_distance=8),
        ),
        sample(4, 5, 6),
    ),
    case(
        "Attention, cross",
        lambda: nn.Attention(3, head_dim=2, position=nn.ALiBi(), use_bias=False),
        (sample(4, 5, 6), sample(4, 3, 5)),
    ),
]
