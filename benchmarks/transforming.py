"""(j) A transformer block of the width of GPT-2 small, by library."""

import _gpt2
from _layers import jax_layers, measure_layer, torch_layers
from _measure import OURS, RAW

BATCH, TIME = 2, 256


def measure(quick):
    """Two races."""
    x = _gpt2.sample(BATCH, TIME)
    builders = {
        name: lambda library=library: library()[0](x)
        for name, library in {
            RAW: _gpt2.raw,
            OURS: _gpt2.linnet,
            "Equinox": _gpt2.equinox,
            "Flax NNX": _gpt2.nnx,
            "Flax Linen": _gpt2.linen,
        }.items()
    }
    layers = jax_layers(builders, x)
    layers |= torch_layers(lambda: _gpt2.torch()[0](), x)
    yield from measure_layer("j", "a block of GPT-2", layers, quick)
