"""(d) Compiling a deep model: forward, backward, from trace to machine code.

A block is LayerNorm, Dense, gelu, Dense, without a residual: XLA on CPU fuses long
chains of sums, which takes minutes and hides what is measured. The blocks are in a
list, and then in each library's loop over layers.
"""

import _blocks
import jax
from _measure import OURS, RAW, Check, Result, line_up, race, spread

DEPTHS = (4, 16, 64)


def compile_gradient(deep):
    """A run that compiles the gradient of a new function."""
    arrays = jax.eval_shape(deep.make)

    def run():
        def loss(arrays, x):
            return deep.predict(arrays, x).sum()

        return jax.jit(jax.grad(loss)).lower(arrays, _blocks.X).compile()

    return run


def of(name, network):
    """A contestant."""
    return lambda *args: {name: compile_gradient(network(*args))}


CONTESTANTS = {
    RAW: of(RAW, _blocks.raw),
    OURS: of(OURS, _blocks.linnet),
    "Equinox": of("Equinox", _blocks.equinox),
    "Flax NNX": of("Flax NNX", _blocks.nnx),
    "Flax Linen": of("Flax Linen", _blocks.linen),
    "Haiku": of("Haiku", _blocks.haiku),
}


def of_all_depths(depths, stacked):
    """The runs by depth and name, and who is left out, which the least depth shows."""
    field = line_up(CONTESTANTS, depths[0], stacked)
    runs = {
        (depth, name): CONTESTANTS[name](depth, stacked)[name]
        for depth in depths
        for name in field.runs
    }
    return runs, field.left_out


def measure(quick):
    """Two races, of lists and of loops, each over all depths."""
    depths = DEPTHS[:2] if quick else DEPTHS
    for form, stacked in [("a list", False), ("a loop over layers", True)]:
        runs, left_out = of_all_depths(depths, stacked)
        times = race(runs, 1 if quick else 7 if stacked else 3)
        for depth in depths:
            title = f"compile {depth} blocks as {form}"
            mine = {name: times[at, name] for at, name in times if at == depth}
            result = Result("d", title, mine, left_out=left_out)
            if stacked and depth == depths[-1]:
                result.checks.append(_growth(times, depths[0], depth))
            yield result


def _growth(times, shallow, deep):
    """`Stack` of the greatest depth, as a multiple of that of the least."""
    pairs = zip(times[deep, OURS], times[shallow, OURS], strict=True)
    ratio = spread([more / less for more, less in pairs]).median
    return Check(
        f"compile `nn.Stack` of {deep} blocks, over that of {shallow}",
        f"{ratio:.2f}",
        "flat (1.25)",
        ratio <= 1.25,
    )
