"""Convolutions."""

from linnet import nn
from zoo.case import case, sample

CASES = [
    case("Conv 1d", lambda: nn.Conv(4, (3,), padding="CAUSAL"), sample(4, 6, 3)),
    case("Conv 2d", lambda: nn.Conv(4, (3, 2), strides=2), sample(4, 6, 5, 2)),
    case(
        "Conv 3d, grouped",
        lambda: nn.Conv(4, (2, 2, 2), feature_group_count=2, padding="VALID"),
        sample(4, 3, 3, 3, 4),
    ),
]
