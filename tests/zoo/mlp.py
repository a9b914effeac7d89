"""Perceptrons of several layers."""

import jax

from linnet import nn
from zoo.case import case, sample

CASES = [
    case("MLP", lambda: nn.MLP(8), sample(8, 3)),
    case(
        "MLP, several layers",
        lambda: nn.MLP([6, 5], out_features=2, dropout_rate=0.5),
        sample(4, 2, 3),
        random=True,
    ),
    case(
        "MLP, gated",
        lambda: nn.MLP(6, activation=jax.nn.silu, gated=True, use_bias=False),
        sample(8, 3),
    ),
]
