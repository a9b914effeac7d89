"""(f) Importing the library after JAX and Optax, each time in a new process."""

import os
import random
import subprocess
import sys

from _measure import OURS, PEERS, RAW, Check, Result, spread

IMPORTS = {
    RAW: "pass",
    OURS: "from linnet import nn",
    "Equinox": "import equinox",
    "Flax NNX": "from flax import nnx",
    "Flax Linen": "from flax import linen",
    "Haiku": "import haiku",
}

PROGRAM = """
import time
start = time.perf_counter()
import jax, optax
between = time.perf_counter()
{line}
end = time.perf_counter()
print(between - start, end - between)
"""


def seconds(line):
    """What a process took to import JAX and Optax, and then for `line`."""
    program = PROGRAM.format(line=line)
    cached = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=cached,
    )
    if done.returncode:
        raise ImportError(done.stderr.strip().splitlines()[-1])
    base, own = map(float, done.stdout.split())
    return base, own


def line_up():
    """The imports that work, after each was done once to write its bytecode."""
    lines, left_out = {}, {}
    for name, line in IMPORTS.items():
        try:
            seconds(line)
            lines[name] = line
        except ImportError as error:
            if name not in PEERS:
                raise
            left_out[name] = str(error)
    return lines, left_out


def measure(quick):
    """One race."""
    lines, left_out = line_up()
    times = {name: [] for name in lines}
    own = {name: [] for name in lines}
    order = list(lines)
    shuffle = random.Random(0).shuffle
    for _ in range(2 if quick else 7):
        shuffle(order)
        for name in order:
            base, extra = seconds(lines[name])
            times[name].append(base + extra)
            own[name].append(extra)
    extra = {name: 1000 * spread(values).median for name, values in own.items()}
    ours = extra[OURS]
    yield Result(
        "f",
        "`import jax, optax`, then the library",
        times,
        left_out=left_out,
        columns={"its own share": {n: f"{ms:.0f} ms" for n, ms in extra.items()}},
        checks=[
            Check(
                "import of Linnet after jax and optax",
                f"{ours:.0f} ms",
                "150 ms",
                ours <= 150,
            )
        ],
    )
