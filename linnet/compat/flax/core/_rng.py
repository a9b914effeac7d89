"""Random streams: a key, and the path below it which is folded in when it is used."""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from linnet.compat.flax import struct
from linnet.compat.flax.configurations import config
from linnet.compat.flax.core._traced import traced_once

PRNGFoldable = int | str


class LazyRng(struct.PyTreeNode):
    """A key with names and counts that are still to be folded in.

    Args:
        rng: The key.
        suffix: What distinguishes this stream from others of the same key.
    """

    rng: jax.Array
    suffix: tuple[PRNGFoldable, ...] = struct.field(pytree_node=False)

    def as_jax_rng(self) -> jax.Array:
        """The key with the suffix folded in."""
        return fold_in_static(self.rng, self.suffix)

    def digest(self) -> np.uint32 | None:
        """What is to be folded into the key; None if nothing is."""
        return digest(self.suffix)

    @staticmethod
    def create(rng: "LazyRng | jax.Array", *suffix: PRNGFoldable) -> "LazyRng":
        """A stream of a key, or one below another stream."""
        if isinstance(rng, LazyRng):
            return LazyRng(rng.rng, rng.suffix + suffix)
        return LazyRng(rng, suffix)

    def clear_suffix(self) -> "LazyRng":
        """The stream of the folded key, with no suffix left."""
        return LazyRng(self.as_jax_rng(), ())


def fold_in_static(rng: jax.Array, data: tuple[PRNGFoldable, ...]) -> jax.Array:
    """Folds names and counts into a key."""
    number = digest(data)
    return rng if number is None else _fold_in(rng, number)


def digest(data: tuple[PRNGFoldable, ...]) -> np.uint32 | None:
    """The number that stands for names and counts; None if there are none."""
    if not data:
        return None
    return _digest(data, bool(config.flax_fix_rng_separator))


@traced_once(arrays=2)
def _fold_in(rng: jax.Array, data: np.uint32) -> jax.Array:
    return jax.random.fold_in(rng, data)


@lru_cache(maxsize=65536)
def _digest(data: tuple[PRNGFoldable, ...], separated: bool) -> np.uint32:
    sha = hashlib.sha1()
    for item in data:
        if separated:
            sha.update(b"\x00")
        if isinstance(item, str):
            sha.update(item.encode("utf-8"))
        elif isinstance(item, int):
            sha.update(item.to_bytes((item.bit_length() + 7) // 8, byteorder="big"))
        else:
            raise TypeError(
                f"{item!r} cannot be folded into a random key: names (str) and counts "
                f"(int) can."
            )
    return np.uint32(int.from_bytes(sha.digest()[:4], byteorder="big"))


def tree_map_rngs(fn: Callable[..., Any], tree: Any) -> Any:
    """The tree with `fn` of each key or stream."""
    return jax.tree.map(fn, tree, is_leaf=lambda x: isinstance(x, LazyRng))
