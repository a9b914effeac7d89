"""(n) Saving and restoring a checkpoint, next to copying a file of as many bytes."""

import functools
import itertools
import os
import pathlib
import shutil
import tempfile

import jax
import jax.numpy as jnp
from _measure import OURS, RAW, Result, race

MEGABYTES = 256
COUNT = 16


def tree():
    """Arrays of 256 MB in all."""
    size = MEGABYTES * 2**20 // 4 // COUNT
    keys = jax.random.split(jax.random.key(0), COUNT)
    return {f"layer{i}": jax.random.normal(key, (size,)) for i, key in enumerate(keys)}


def copied(source, folder):
    """Copies a file, and has it written to the disk."""
    target = folder / "copy"
    shutil.copyfile(source, target)
    with open(target, "rb+") as file:
        os.fsync(file.fileno())


def measure(quick):
    """Two races."""
    from linnet import training

    rounds = 3 if quick else 9
    with tempfile.TemporaryDirectory() as name:
        folder, state = pathlib.Path(name), tree()
        source = folder / "bytes"
        source.write_bytes(jnp.concatenate([*state.values()]).tobytes())
        steps = itertools.count()
        with training.Checkpoints(folder / "run", keep_last=1) as checkpoints:

            def save():
                checkpoints.save(next(steps), state)
                checkpoints.wait()

            def restore():
                jax.block_until_ready(checkpoints.restore(state).state)

            copy = functools.partial(copied, source, folder)
            for title, ours in (("saving", save), ("restoring", restore)):
                ours()
                times = race({RAW: copy, OURS: ours}, rounds)
                result = Result("n", f"{title} {MEGABYTES} MB", times)
                result.note = (
                    "The base is a copy of a file of as many bytes. Compression and "
                    "checksums of every array are in Linnet's time."
                )
                yield result
