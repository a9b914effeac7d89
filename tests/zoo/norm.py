"""Normalisation."""

from linnet import nn
from zoo.case import case, sample

CASES = [
    case("BatchNorm", lambda: nn.BatchNorm(), sample(8, 3), state=True),
    case("LayerNorm", lambda: nn.LayerNorm(), sample(8, 3)),
]
