"""Convolutions."""

import numpy as np

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
    case(
        "Conv, masked",
        lambda: nn.Conv(4, (3,), mask=np.array([True, True, False])[:, None, None]),
        sample(4, 6, 3),
    ),
    case("DepthwiseConv", lambda: nn.DepthwiseConv((3,)), sample(4, 6, 3)),
    case(
        "DepthwiseConv, multiplied",
        lambda: nn.DepthwiseConv((2, 2), channel_multiplier=2, strides=2),
        sample(4, 6, 5, 2),
    ),
    case("SeparableConv", lambda: nn.SeparableConv(4, (3,)), sample(4, 6, 3)),
    case(
        "ConvTranspose", lambda: nn.ConvTranspose(4, (3,), strides=2), sample(4, 6, 3)
    ),
    case(
        "ConvTranspose 2d, grouped, of a kernel that is transposed",
        lambda: nn.ConvTranspose(
            4,
            (3, 2),
            strides=2,
            padding=1,
            output_padding=(1, 0),
            feature_group_count=2,
            transpose_kernel=True,
        ),
        sample(4, 4, 3, 2),
    ),
    case("ConvLocal", lambda: nn.ConvLocal(4, (3,), strides=2), sample(4, 6, 3)),
    case("ConvLocal 2d", lambda: nn.ConvLocal(4, (2, 2)), sample(4, 3, 3, 2)),
]
