"""Layers of eight bits."""

from linnet import nn
from zoo.case import case, sample

CASES = [
    case(
        "Fp8Dense",
        lambda: nn.Fp8Dense(4, amax_history_length=3),
        sample(8, 3),
        state=True,
    ),
]
