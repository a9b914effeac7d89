"""Linear maps and tables."""

import numpy as np

from linnet import nn
from zoo.case import case, ids, sample

CASES = [
    case("Dense", lambda: nn.Dense(4), sample(8, 3)),
    case("Dense, no bias", lambda: nn.Dense(4, use_bias=False), sample(4, 2, 3)),
    case("Dense, masked", lambda: nn.Dense(3, mask=np.tri(3) > 0), sample(8, 3)),
    case("DenseGeneral", lambda: nn.DenseGeneral((2, 4)), sample(8, 3)),
    case(
        "DenseGeneral, several axes",
        lambda: nn.DenseGeneral((2, 4), axis=(-3, -1), batch_axis=-2),
        sample(8, 3, 2, 4),
    ),
    case("Bilinear", lambda: nn.Bilinear(4), (sample(8, 3), sample(8, 2))),
    case(
        "Einsum",
        lambda: nn.Einsum("...td,dhk->...thk", (None, 2, 4)),
        sample(8, 3, 5),
    ),
    case(
        "Einsum, no batch axes",
        lambda: nn.Einsum("bgi,gio->obg", (2, None, 4), use_bias=False),
        sample(8, 2, 5),
        vmaps=False,
    ),
    case("Embed", lambda: nn.Embed(5, 4), ids(8, 3), refuses=["dtype"]),
]
