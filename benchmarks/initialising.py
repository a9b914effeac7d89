"""(c) Making the arrays of a deep network with nothing compiled yet.

The same kind of Dense layer 16, 64 and 200 times: what is compiled for one should do
for all.
"""

import _deep
import jax
from _measure import OURS, RAW, Check, Result, line_up, race

DEPTHS = (16, 64, 200)
ONE_PROGRAM_UP_TO = 64  # layers; beyond, one program takes more than half a minute


def eagerly(name, network):
    """As the library's first example does it."""

    def build(depth):
        make = network(depth).make
        return {name: lambda: jax.block_until_ready(jax.tree.leaves(make()))}

    return build


def also_jitted(name, network):
    """Also as one jitted program, which the library's guide advises."""

    def build(depth):
        runs = eagerly(name, network)(depth)
        if depth <= ONE_PROGRAM_UP_TO:
            make = network(depth).make
            runs[f"{name}, jitted"] = lambda: jax.block_until_ready(
                jax.jit(lambda: make())()
            )
        return runs

    return build


CONTESTANTS = {
    RAW: eagerly(RAW, _deep.raw),
    OURS: eagerly(OURS, _deep.linnet),
    "Equinox": eagerly("Equinox", _deep.equinox),
    "Flax NNX": eagerly("Flax NNX", _deep.nnx),
    "Flax Linen": also_jitted("Flax Linen", _deep.linen),
    "Haiku": also_jitted("Haiku", _deep.haiku),
}


def measure(quick):
    """One race for each depth."""
    compiled = {}
    for depth in DEPTHS[:2] if quick else DEPTHS:
        field = line_up(CONTESTANTS, depth)
        times = race(field.runs, 1 if quick else 3, before=jax.clear_caches)
        compiled[depth] = field.compiled[OURS]
        result = Result(
            "c",
            f"cold `init` of {depth} layers",
            times,
            left_out=field.left_out,
            columns={"programs compiled": field.compiled},
        )
        if depth == max(DEPTHS):
            result.checks.append(_growth(compiled))
        yield result


def _growth(compiled):
    counts = " / ".join(str(count) for count in compiled.values())
    return Check(
        f"programs compiled by `init` of {' / '.join(map(str, compiled))} layers",
        counts,
        "no growth",
        len(set(compiled.values())) == 1,
    )
