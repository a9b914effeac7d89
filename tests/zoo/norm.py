"""Normalisation."""

from linnet import nn
from zoo.case import case, sample

CASES = [
    case("BatchNorm", lambda: nn.BatchNorm(), sample(8, 3), state=True),
    case("LayerNorm", lambda: nn.LayerNorm(), sample(8, 3)),
    case("RMSNorm", lambda: nn.RMSNorm(), sample(8, 3)),
    case("GroupNorm", lambda: nn.GroupNorm(2, spatial_ndim=1), sample(4, 5, 6)),
    case(
        "GroupNorm, by size",
        lambda: nn.GroupNorm(group_size=2, spatial_ndim=0),
        sample(4, 6),
    ),
    case("InstanceNorm", lambda: nn.InstanceNorm(spatial_ndim=2), sample(4, 3, 2, 3)),
    case("ActNorm", lambda: nn.ActNorm(), sample(8, 3)),
    case("WeightNorm", lambda: nn.WeightNorm(nn.Dense(4)), sample(8, 3)),
    case(
        "WeightNorm in a Stack",
        lambda: nn.Stack(
            nn.WeightNorm(nn.Dense(4), scale_init=nn.from_data), 2, remat=True
        ),
        sample(8, 4),
    ),
    case(
        "SpectralNorm", lambda: nn.SpectralNorm(nn.Dense(4)), sample(8, 3), state=True
    ),
    case(
        "SpectralNorm in a Stack",
        lambda: nn.Stack(nn.SpectralNorm(nn.Dense(4)), 2, remat=True),
        sample(8, 4),
        state=True,
    ),
]
