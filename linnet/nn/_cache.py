"""What a model remembers of the tokens it has seen, for decoding one by one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from linnet._errors import ShapeError, describe
from linnet._typing import Array, DType
from linnet.core import Cache, Module, state
from linnet.core._check import check_size
from linnet.core._locate import locate
from linnet.functional._cache import FREE, slots_of, write_slots
from linnet.functional._dtype import inexact_dtype
from linnet.nn._place import placed

UNLIMITED = int(np.iinfo(np.int32).max)
ROWS = ("batch",)


class NoCache(Module):
    """Stands where a cache would, in a layer that cannot go on from one."""


class CacheIndex(Module):
    """How many tokens each row of a batch has taken, and how many it may take.

    The position of a row's next token is its `length`. A token whose position is
    negative, or not below `limit`, is padding: it is not taken.

    Args:
        batch_size: Number B of rows.

    Parameters:
        length: `[B]`, int32, starts at zero. Role `nn.Cache`, axes `("batch",)`.
        limit: `[B]`, int32, starts at the largest integer. Likewise.

    Raises:
        ConfigError: `batch_size` is no positive integer.

    Example:
        >>> index = nn.CacheIndex(2)
        >>> positions, index = nn.stateful(index.take)(3)
        >>> positions
        Array([[0, 1, 2],
               [0, 1, 2]], dtype=int32)
        >>> index.length
        Array([3, 3], dtype=int32)

    Source: Not from a paper.
    """

    def __init__(self, batch_size: int) -> None:
        shape = (check_size(self, "batch_size", batch_size),)
        empty, unlimited = jnp.zeros(shape, jnp.int32), jnp.full(shape, UNLIMITED)
        self.length = state(empty, role=Cache, axes=ROWS)
        self.limit = state(unlimited.astype(jnp.int32), role=Cache, axes=ROWS)

    def next(self, count: int) -> Array:
        """The positions `[B, T]` of the next tokens of each row.

        Args:
            count: Number T of tokens.
        """
        shape = (self.length.shape[0], count)
        return self.length[:, None] + jax.lax.broadcasted_iota(jnp.int32, shape, 1)

    def takes(self, positions: Array) -> Array:
        """Which tokens are taken, `[B, T]`.

        Args:
            positions: `[B, T]`, those of the tokens.
        """
        return (positions >= 0) & (positions < self.limit[:, None])

    def take(self, count: int, positions: Array | None = None) -> Array:
        """Takes tokens, and gives the positions `[B, T]` of all that were offered.

        Args:
            count: Number T of tokens.
            positions: `[B, T]`, theirs. By default those that come next.
        """
        positions = self.next(count) if positions is None else positions
        ends = jnp.where(self.takes(positions), positions + 1, 0)
        self.length = jnp.maximum(self.length, ends.max(1, initial=0))
        return positions


class KVCache(Module):
    """Keys and values of the tokens that each row of a batch has seen.

    Shapes do not change. A token at position p lies in slot `p % C`. Without a window
    there is a slot for every position, C of `max_length`. With one C is the smaller of
    the two, and if that is the window the slots are a ring: new tokens take the place
    of those that no query sees any more, and there may be more than `max_length`.

    Args:
        batch_size: Number B of rows.
        max_length: Tokens that a row may hold.
        num_kv_heads: Number G of heads.
        head_dim: Size D of a key.
        value_dim: Size E of a value; that of a key by default.
        window: Number of tokens that a query sees, itself included; `None` for all.
        dtype: Of the keys and values.

    Parameters:
        keys: `[B, C, G, D]`. Role `nn.Cache`, axes `("batch", "length", "kv_heads",
            "head_dim")`.
        values: `[B, C, G, E]`. Likewise.
        positions: `[B, C]`, int32: those of the tokens in the slots, -1 where there is
            none. Role `nn.Cache`, axes `("batch", "length")`.
        index: An `nn.CacheIndex`.

    Raises:
        ConfigError: A size is no positive integer.
        ShapeError: In `extend`, keys and values do not fit the cache.

    Example:
        >>> cache = nn.KVCache(1, 4, num_kv_heads=1, head_dim=2)
        >>> extend = nn.stateful(cache.extend)
        >>> (keys, values, positions), cache = extend(
        ...     jnp.ones((1, 2, 1, 2)), jnp.ones((1, 2, 1, 2)), jnp.array([[0, 1]])
        ... )
        >>> cache.positions, cache.index.length
        (Array([[ 0,  1, -1, -1]], dtype=int32), Array([2], dtype=int32))

    Differs from: Flax Linen, whose cache has one length for all rows.
    Source: Shazeer, "Fast Transformer Decoding", 2019, section 2.4, arXiv:1911.02150.
    """

    def __init__(
        self,
        batch_size: int,
        max_length: int,
        *,
        num_kv_heads: int,
        head_dim: int,
        value_dim: int | None = None,
        window: int | None = None,
        dtype: DType = jnp.float32,
    ) -> None:
        heads = check_size(self, "num_kv_heads", num_kv_heads)
        key_dim = check_size(self, "head_dim", head_dim)
        value_dim = check_size(self, "value_dim", value_dim, allow_none=True)
        window = check_size(self, "window", window, allow_none=True)
        capacity = check_size(self, "max_length", max_length)
        self.is_ring = window is not None and window <= capacity
        capacity = window if self.is_ring else capacity
        self.index = CacheIndex(batch_size)
        with placed(self):
            dtype = inexact_dtype(dtype)
        rows = (batch_size, capacity)
        axes = (*ROWS, "length", "kv_heads", "head_dim")
        keys = jnp.zeros((*rows, heads, key_dim), dtype)
        values = jnp.zeros((*rows, heads, value_dim or key_dim), dtype)
        empty = jnp.full(rows, FREE, jnp.int32)
        self.keys = state(keys, role=Cache, axes=axes)
        self.values = state(values, role=Cache, axes=axes)
        self.positions = state(empty, role=Cache, axes=axes[:2])

    def extend(
        self, keys: Array, values: Array, positions: Array
    ) -> tuple[Array, Array, Array]:
        """Takes the keys and values of new tokens, and gives those to attend to.

        Args:
            keys: `[B, T, G, D]`.
            values: `[B, T, G, E]`.
            positions: `[B, T]`, integers.

        Returns:
            Keys `[B, S, G, D]`, values `[B, S, G, E]` and their positions `[B, S]`,
            negative where there is none.
        """
        self._check("keys", keys, self.keys)
        self._check("values", values, self.values)
        is_taken = self.index.takes(positions)
        self.index.take(positions.shape[1], positions)
        new = keys, values, jnp.where(is_taken, positions, FREE)
        old = self.keys, self.values, self.positions
        capacity = self.keys.shape[1]
        if self.is_ring:  # of those with one slot the newest stays
            is_kept = is_taken & (positions >= self.index.length[:, None] - capacity)
        else:
            is_kept = is_taken & (positions < capacity)
        slots = slots_of(positions, is_kept, capacity)
        self.keys, self.values, self.positions = (
            write_slots(cache, x, slots) for cache, x in zip(old, new, strict=True)
        )
        if not self.is_ring or positions.shape[1] == 1:
            return self.keys, self.values, self.positions
        # The first of the new tokens see some whose slots the last ones took. Padding
        # is not seen, but zero times NaN would be.
        there = is_taken[:, :, None, None]
        new = jnp.where(there, keys, 0), jnp.where(there, values, 0), new[2]
        keys, values, positions = (
            jnp.concatenate([cache, x.astype(cache.dtype)], 1)
            for cache, x in zip(old, new, strict=True)
        )
        return keys, values, positions

    def _check(self, name: str, new: Array, old: Array) -> None:
        """Refuses keys or values of other sizes than the cache has."""
        rows, _, heads, width = old.shape
        if new.ndim == 4 and (new.shape[0], *new.shape[2:]) == (rows, heads, width):
            return
        raise ShapeError(
            f"`{name}` is {describe(new)}, but this cache takes "
            f"[{rows}, T, {heads}, {width}].",
            code="LN-CACHE-01",
            at=locate(self),
            why="The shapes of a cache do not change, so that a step compiles once.",
            fixes=_fitting_cache(name, new, old) if new.ndim == 4 else [],
        )

    def is_lost(self, positions: Array) -> Array | None:
        """Which tokens are past the end, `[B, T]`; `None` where there is no end.

        Args:
            positions: `[B, T]`, those of the tokens.
        """
        if self.is_ring:
            return None
        return self.index.takes(positions) & (positions >= self.keys.shape[1])


def _fitting_cache(name: str, new: Array, old: Array) -> list[tuple[str, str]]:
    rows, _, heads, width = new.shape
    options = f"num_kv_heads={heads}, head_dim={width}"
    if name == "values":
        options = f"num_kv_heads={heads}, head_dim={old.shape[-1]}, value_dim={width}"
    return [
        (
            f"the cache should fit the {name}",
            f"cache = nn.KVCache({rows}, 128, {options})",
        )
    ]
