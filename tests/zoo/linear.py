"""Linear maps and tables."""

from linnet import nn
from zoo.case import case, ids, sample

CASES = [
    case("Dense", lambda: nn.Dense(4), sample(8, 3)),
    case("Dense, no bias", lambda: nn.Dense(4, use_bias=False), sample(4, 2, 3)),
    case("Embed", lambda: nn.Embed(5, 4), ids(8, 3), refuses=["dtype"]),
]
