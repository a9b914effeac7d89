"""Layers that drop something in training."""

from linnet import nn
from zoo.case import case, sample

CASES = [
    case(
        "Dropout",
        lambda: nn.Dropout(0.5),
        sample(8, 6),
        random=True,
        refuses=["dtype"],
    ),
]
