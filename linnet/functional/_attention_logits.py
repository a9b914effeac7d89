"""What the kernels of attention share: their layout, and the logits.

T query length  S key length  H heads  G key-value heads  R heads of one group, H / G
D, E head sizes  ... batch

The kernels work on arrays with the heads first, queries [..., G, R T, D] and keys
[..., G, S, D], so that each product is one of plain matrices.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import lax

from linnet._typing import Array, DType

# Stands for minus infinity, of which a row that has nothing else would give NaN.
LEAST = -(2.0**127)


@dataclasses.dataclass(frozen=True)
class Options:
    """What is fixed when attention is compiled, as `attention` describes it."""

    heads: int
    scale: float
    softcap: float | None
    dropout_rate: float
    precision: lax.PrecisionLike
    block_size: tuple[int, int] | None


def heads_first(x: Array, groups: int | None = None) -> Array:
    """`[..., T, H, D]` as `[..., G, R T, D]`: those that share keys lie together."""
    *lead, length, heads, features = x.shape
    groups = heads if groups is None else groups
    x = jnp.swapaxes(x, -2, -3)  # [..., H, T, D]
    return x.reshape((*lead, groups, heads // groups * length, features))


def heads_last(x: Array, heads: int) -> Array:
    """`[..., G, R T, E]` as `[..., T, H, E]`."""
    *lead, groups, rows, features = x.shape
    x = x.reshape((*lead, heads, rows * groups // heads, features))
    return jnp.swapaxes(x, -2, -3)


def product(
    a: Array,
    b: Array,
    over: tuple[int, int],
    precision: lax.PrecisionLike,
    dtype: DType | None = None,
) -> Array:
    """Matrices `a` and `b` multiplied over the axes `over`, each -1 or -2."""
    batch = tuple(range(a.ndim - 2))
    contract = ((a.ndim + over[0],), (b.ndim + over[1],))
    return lax.dot_general(
        a,
        b,
        (contract, (batch, batch)),
        precision=precision,
        preferred_element_type=dtype,
    )


def capped(logits: Array, softcap: float | None) -> Array:
    """The logits bent to lie between -c and c."""
    return logits if softcap is None else softcap * jnp.tanh(logits / softcap)


def restricted(logits: Array, bias: Array | None, admitted: Array | None) -> Array:
    """The logits with the bias added, and the least where nothing is admitted."""
    if bias is not None:
        logits = jnp.maximum(logits + bias.astype(logits.dtype), LEAST)
    return logits if admitted is None else jnp.where(admitted, logits, LEAST)
