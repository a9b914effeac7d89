"""The zoo: every layer, how to build it, what to feed it, what it is known to do.

Run as a program, this writes the parameter trees to `golden/parameters.json`.
"""

import json
import pathlib
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from linnet import nn

ROOT = pathlib.Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "parameters.json"


class Case(NamedTuple):
    """A layer, its input, and what `check_layer` is told about it."""

    name: str
    make: Any
    sample: Any
    options: dict[str, Any]


def case(name, make, sample, **options):
    return Case(name, make, sample, options)


def sample(*shape):
    """Numbers that are no special case of anything."""
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def ids(*shape):
    return jnp.asarray(np.random.default_rng(0).integers(0, 5, shape), jnp.int32)


def block():
    return nn.Sequential(
        [nn.Dense(4), nn.LayerNorm(), jax.nn.relu, nn.Dropout(0.5), nn.Dense(4)]
    )


ZOO = [
    case("Dense", lambda: nn.Dense(4), sample(8, 3)),
    case("Dense, no bias", lambda: nn.Dense(4, use_bias=False), sample(4, 2, 3)),
    case("Conv 1d", lambda: nn.Conv(4, (3,), padding="CAUSAL"), sample(4, 6, 3)),
    case("Conv 2d", lambda: nn.Conv(4, (3, 2), strides=2), sample(4, 6, 5, 2)),
    case(
        "Conv 3d, grouped",
        lambda: nn.Conv(4, (2, 2, 2), feature_group_count=2, padding="VALID"),
        sample(4, 3, 3, 3, 4),
    ),
    case("BatchNorm", lambda: nn.BatchNorm(), sample(8, 3), state=True),
    case("LayerNorm", lambda: nn.LayerNorm(), sample(8, 3)),
    case(
        "Dropout",
        lambda: nn.Dropout(0.5),
        sample(8, 6),
        random=True,
        refuses=["dtype"],
    ),
    case("Embed", lambda: nn.Embed(5, 4), ids(8, 3), refuses=["dtype"]),
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


def parameters():
    """For each case the path of every array, with shape, dtype and role."""
    return {c.name: _parameters(c) for c in ZOO}


def _parameters(case):
    model = nn.abstract(case.make(), case.sample)
    arrays = nn.to_paths(model)
    roles = {
        path: role.__name__
        for role in (nn.Param, nn.State, nn.BatchStat, nn.Constant)
        for path in nn.select(model, role)
    }
    return {
        path: f"{array.dtype}[{', '.join(map(str, array.shape))}] {roles[path]}"
        for path, array in arrays.items()
    }


def golden_text():
    """The text of `golden/parameters.json`."""
    return json.dumps(parameters(), indent=2) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    jax.config.update("jax_platforms", "cpu")
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(golden_text(), "utf-8")
    print(GOLDEN.relative_to(ROOT))
