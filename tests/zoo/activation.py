"""Activations with parameters."""

from linnet import nn
from zoo.case import case, sample

CASES = [
    case("PReLU", lambda: nn.PReLU(), sample(8, 3), refuses=["dtype"]),
    case("PReLU, by feature", lambda: nn.PReLU(per_feature=True), sample(8, 3)),
]
