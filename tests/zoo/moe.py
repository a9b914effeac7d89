"""Mixtures of experts."""

from linnet import nn
from zoo.case import case, sample

CASES = [
    case("MoE", lambda: nn.MoE(3, 4), sample(4, 6, 3)),
    case(
        "MoE, dropless",
        lambda: nn.MoE(
            3, 4, capacity_factor=None, gated=True, use_bias=False, router_jitter=0.1
        ),
        sample(4, 6, 3),
        random=True,
    ),
    case(
        "MoE, one choice",
        lambda: nn.MoE(2, 4, top_k=1, capacity_factor=2, shared=nn.MLP(2)),
        sample(4, 6, 3),
    ),
]
