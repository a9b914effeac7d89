"""How much memory attention takes beside its arguments and results.

XLA says it of the compiled program, which is not run: no machine has to have as much.
One example, two heads of 64 features, float32.

    python benchmarks/attention_memory.py
"""

import functools
import sys

import jax
import jax.numpy as jnp

from linnet import functional as F

HEADS, FEATURES = 2, 64
KERNELS = ("xla", "blockwise")
LENGTHS = tuple(1024 * 2**i for i in range(6))


def temporary_bytes(length, kernel, *, backward, **rules):
    """The largest size of what lies between arguments and results."""
    x = jax.ShapeDtypeStruct((length, HEADS, FEATURES), jnp.float32)
    function = functools.partial(F.attention, kernel=kernel, causal=True, **rules)
    if backward:
        function = _gradients(function)
    compiled = jax.jit(function).lower(x, x, x).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def _gradients(function):
    return jax.grad(lambda *arrays: function(*arrays).sum(), argnums=(0, 1, 2))


def table(lengths=LENGTHS):
    """One row per length: the length, and the bytes of each kernel and direction.

    Returns:
        Dicts with the keys `length` and `(kernel, direction)`, where the directions are
        `"forward"` and `"backward"`; the latter includes the forward pass.
    """
    return [
        {"length": length}
        | {
            (kernel, direction): temporary_bytes(
                length, kernel, backward=direction == "backward"
            )
            for kernel in KERNELS
            for direction in ("forward", "backward")
        }
        for length in lengths
    ]


def main(out=sys.stdout):
    """Prints the table, in MiB."""
    rows = table()
    columns = [name for name in rows[0] if name != "length"]
    print("| length | " + " | ".join(map(" ".join, columns)) + " |", file=out)
    print("| ---: |" + " ---: |" * len(columns), file=out)
    for row in rows:
        cells = [f"{row[name] / 2**20:,.1f}" for name in columns]
        print(f"| {row['length']:,} | " + " | ".join(cells) + " |", file=out)


if __name__ == "__main__":
    main()
