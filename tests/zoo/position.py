"""Positions of tokens and patches."""

from linnet import nn
from zoo.case import case, sample

CASES = [
    case("Rotary", lambda: nn.Rotary(), sample(4, 5, 2, 6)),
    case(
        "Rotary, part, interleaved",
        lambda: nn.Rotary(fraction=0.5, interleaved=True),
        sample(4, 5, 2, 8),
    ),
    case(
        "Rotary, YaRN",
        lambda: nn.Rotary(scaling=nn.YaRNScaling(4.0, original_length=64)),
        sample(4, 5, 2, 8),
    ),
    case("ALiBi", lambda: nn.ALiBi(), sample(4, 3, 5, 5), refuses=["rank", "dtype"]),
    case("RelativeBias", lambda: nn.RelativeBias(3), sample(4, 3, 5, 5)),
    case("LearnedPosition", lambda: nn.LearnedPosition(7), sample(4, 5, 3)),
    case(
        "LearnedPosition 2d",
        lambda: nn.LearnedPosition((3, 4)),
        sample(4, 3, 3, 2),
    ),
    case("SinusoidalPosition", lambda: nn.SinusoidalPosition(), sample(4, 5, 6)),
    case(
        "SinusoidalPosition 2d",
        lambda: nn.SinusoidalPosition(ndim=2, interleaved=False),
        sample(4, 3, 2, 8),
    ),
    case("PatchEmbed", lambda: nn.PatchEmbed(4, 2), sample(4, 4, 6, 3)),
    case(
        "PatchEmbed, tokens",
        lambda: nn.PatchEmbed(4, (2, 3), flatten=True),
        sample(4, 4, 6, 3),
    ),
]
