"""(o) Peak memory of initialising a model that is divided over eight devices.

Each way runs in a process of its own with eight simulated devices, whose memory is that
of the process: a device that holds a whole array shows in it.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

from _measure import OURS, Result

WAYS = {OURS: "born", "one device, then divided": "moved"}
WIDTH, DEPTH, FLAG = 1024, 12, "--xla_force_host_platform_device_count=8"


def peak_memory():
    """Bytes that this process had at most, as Linux knows it."""
    status = pathlib.Path("/proc/self/status").read_text("utf-8")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def initialise(way):
    """Seconds, and bytes by which the peak of this process grew, over the model's."""
    import time

    import jax
    import jax.numpy as jnp

    from linnet import nn, parallel

    mesh, rules = parallel.make_mesh(data=8), parallel.fsdp()
    x = jnp.ones((1, WIDTH))
    model = nn.Sequential([nn.MLP(4 * WIDTH) for _ in range(DEPTH)])
    with parallel.use(mesh, rules):  # compiles the programs
        jax.block_until_ready(nn.init(nn.MLP(4 * WIDTH), jax.random.key(0), x))
    jax.block_until_ready(nn.init(nn.MLP(4 * WIDTH), jax.random.key(0), x))
    before = peak_memory()
    start = time.perf_counter()
    if way == "born":
        with parallel.use(mesh, rules):
            model = nn.init(model, jax.random.key(0), x)
    else:
        model = nn.init(model, jax.random.key(0), x)
        model = jax.device_put(model, parallel.shardings(model, mesh, rules))
    jax.block_until_ready(model)
    seconds = time.perf_counter() - start
    grown = peak_memory() - before
    size = sum(a.nbytes for a in jax.tree.leaves(model))
    kernel = model[0].out.kernel
    share = max(part.data.nbytes for part in kernel.addressable_shards) / kernel.nbytes
    return {"seconds": seconds, "peak": grown / size, "share": share}


def measure(quick):
    """One process for each way and round."""
    times, peaks, shares = {name: [] for name in WAYS}, {}, {}
    for _ in range(1 if quick else 3):
        for name, way in WAYS.items():
            done = subprocess.run(
                [sys.executable, __file__, way],
                env={**os.environ, "XLA_FLAGS": FLAG},
                capture_output=True,
                text=True,
                check=True,
            )
            found = json.loads(done.stdout)
            times[name].append(found["seconds"])
            peaks[name], shares[name] = f"{found['peak']:.2f}", f"{found['share']:.3f}"
    columns = {"peak over the model's bytes": peaks, "kernel on a device": shares}
    yield Result("o", "initialising over 8 devices", times, base=OURS, columns=columns)


if __name__ == "__main__":
    print(json.dumps(initialise(sys.argv[1])))
