"""Layers made of layers."""

import jax

from linnet import nn
from zoo.case import case, sample


def block():
    return nn.Sequential(
        [nn.Dense(4), nn.LayerNorm(), jax.nn.relu, nn.Dropout(0.5), nn.Dense(4)]
    )


CASES = [
    case("Sequential", block, sample(8, 3), random=True),
    case("Stack", lambda: nn.Stack(block(), 3), sample(8, 4), random=True),
    case(
        "Stack, unrolled",
        lambda: nn.Stack(nn.BatchNorm(), 2, remat=True, unroll=True),
        sample(8, 4),
        state=True,
    ),
    case(
        "Ensemble",
        lambda: nn.Ensemble(nn.Dense(4), 3),
        sample(8, 3),
        vmaps=False,  # the members come first in the result, not the batch
    ),
    case(
        "Ensemble of Stacks",
        lambda: nn.Ensemble(nn.Stack(nn.Dense(4), 2, remat=True), 2),
        sample(8, 4),
        vmaps=False,
    ),
]
