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
    case(
        "DropPath",
        lambda: nn.DropPath(0.5),
        sample(8, 6),
        random=True,
        vmaps=False,  # the first axis is the batch
        refuses=["rank", "dtype"],
    ),
]
