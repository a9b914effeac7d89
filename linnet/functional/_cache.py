"""Caches of static shape, as arrays.

B rows, one for each sequence  C slots of a row  T new entries of each row
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from linnet._typing import Array

FREE = -1  # the position that an empty slot holds


def slots_of(positions: Array, is_kept: Array, capacity: int) -> Array:
    """The slot for each position, and one past the end for what is not kept.

    Args:
        positions: `[B, T]`, integers.
        is_kept: `[B, T]`, booleans. Positions that are kept have distinct slots.
        capacity: Number C of slots, which are a ring.

    Returns:
        `[B, T]`: distinct along each row, as `write_slots` wants them.
    """
    past = lax.broadcasted_iota(jnp.int32, positions.shape, 1) + capacity
    return lax.select(is_kept, lax.rem(positions, jnp.int32(capacity)), past)  # [B, T]


def write_slots(cache: Array, new: Array, slots: Array) -> Array:
    """`cache` with `new` in some slots of each row, in place under `jax.jit`.

    Args:
        cache: `[B, C, ...]`.
        new: `[B, T, ...]`.
        slots: `[B, T]`, distinct along each row. An entry whose slot is not below C
            is dropped.

    Returns:
        `[B, C, ...]`.
    """
    numbers = lax.ScatterDimensionNumbers(
        update_window_dims=tuple(range(2, new.ndim)),
        inserted_window_dims=(1,),
        scatter_dims_to_operand_dims=(1,),
        operand_batching_dims=(0,),
        scatter_indices_batching_dims=(0,),
    )
    return lax.scatter(
        cache,
        lax.expand_dims(slots, (2,)),
        new.astype(cache.dtype),
        numbers,
        unique_indices=True,
        mode=lax.GatherScatterMode.FILL_OR_DROP,
    )
