"""Queries, keys and rules of attention cut into blocks, and put together again.

T query length  S key length  t, s lengths of a block  N, M blocks of queries and keys
H heads  G key-value heads  R heads of one group, H / G  D, E head sizes  ... batch
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax.numpy as jnp
from jax import lax

from linnet._typing import Array
from linnet.functional._attention_logits import Options, heads_first
from linnet.functional._attention_mask import Rules

LARGEST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """How T queries and S keys are cut; the last block of each may be padded.

    Args:
        options: Those of attention.
        block: The lengths t and s.
        count: The numbers N and M of blocks.
    """

    options: Options
    block: tuple[int, int]
    count: tuple[int, int]


def plan_for(size: tuple[int, int], block: tuple[int, int], options: Options) -> Plan:
    """Blocks as large as asked for at most, and as equal as can be."""
    counts = [math.ceil(n / b) for n, b in zip(size, block, strict=True)]
    blocks = [math.ceil(n / c) for n, c in zip(size, counts, strict=True)]
    return Plan(options, (blocks[0], blocks[1]), (counts[0], counts[1]))


def cut_queries(x: Array, groups: int, plan: Plan) -> Array:
    """`[..., T, H, D]` as `[N, ..., G, R t, D]`."""
    *lead, _, heads, features = x.shape
    x = _cut(jnp.swapaxes(x, -2, -3), -2, plan, 0)  # [N, ..., H, t, D]
    rows = heads // groups * plan.block[0]
    return x.reshape((plan.count[0], *lead, groups, rows, features))


def cut_keys(x: Array, plan: Plan) -> Array:
    """`[..., S, G, D]` as `[M, ..., G, s, D]`."""
    return _cut(heads_first(x), -2, plan, 1)


def join_queries(x: Array, length: int, plan: Plan) -> Array:
    """`[N, ..., G, R t, E]` as `[..., T, H, E]`."""
    count, *lead, _, _, features = x.shape
    x = x.reshape((count, *lead, plan.options.heads, plan.block[0], features))
    x = jnp.moveaxis(x, 0, -3)  # [..., H, N, t, E]
    x = x.reshape((*x.shape[:-3], count * plan.block[0], features))
    return jnp.swapaxes(x[..., :length, :], -2, -3)


def _cut(x: Array, axis: int, plan: Plan, which: int, fill: int | None = 0) -> Array:
    """One axis cut, and its blocks first.

    Args:
        x: Any array.
        axis: That is cut.
        plan: Into which blocks.
        which: 0 for an axis of queries, 1 for one of keys.
        fill: What the last block is padded with; `None` repeats the last entry.
    """
    axis %= x.ndim
    count, block = plan.count[which], plan.block[which]
    width = [(0, 0)] * x.ndim
    width[axis] = (0, count * block - x.shape[axis])
    if width[axis][1]:
        x = (
            jnp.pad(x, width, "edge")
            if fill is None
            else jnp.pad(x, width, constant_values=fill)
        )
    x = x.reshape((*x.shape[:axis], count, block, *x.shape[axis + 1 :]))
    return jnp.moveaxis(x, axis, 0)


def cut_rules(rules: Rules, lead: int, key_length: int, plan: Plan) -> Rules:
    """The rules with rows `[count, ..., block]`, where padded keys are empty slots.

    Args:
        rules: Of all queries and keys.
        lead: Number of leading axes.
        key_length: S.
        plan: Into which blocks.
    """
    key_positions = rules.key_positions
    is_padded = plan.count[1] * plan.block[1] != key_length
    if is_padded and key_positions is None:
        key_positions = jnp.zeros((1,) * lead + (key_length,), jnp.int32)

    def rows(x: Array | None, which: int, fill: int | None = None) -> Array | None:
        return None if x is None else _cut(x, -1, plan, which, fill)

    return dataclasses.replace(
        rules,
        positions=rows(rules.positions, 0),
        key_positions=rows(key_positions, 1, -1),
        has_slots=rules.has_slots or is_padded,
        segments=rows(rules.segments, 0),
        key_segments=rows(rules.key_segments, 1),
        mask=None if rules.mask is None else pad_tiles(rules.mask, plan),
    )


def rules_at(rules: Rules, i: Array, j: Array, plan: Plan) -> Rules:
    """The rules of query block i and key block j."""

    def at(x: Array | None, index: Array) -> Array | None:
        return None if x is None else lax.dynamic_index_in_dim(x, index, 0, False)

    return dataclasses.replace(
        rules,
        positions=at(rules.positions, i),
        key_positions=at(rules.key_positions, j),
        segments=at(rules.segments, i),
        key_segments=at(rules.key_segments, j),
        mask=None if rules.mask is None else tile(rules.mask, i, j, plan),
    )


def pad_tiles(x: Array, plan: Plan) -> Array:
    """A bias or mask `[..., H, T, S]`, padded with zeros where an axis is cut."""
    full = [c * b for c, b in zip(plan.count, plan.block, strict=True)]
    short = [n - m if m > 1 else 0 for n, m in zip(full, x.shape[-2:], strict=True)]
    width = [(0, 0)] * (x.ndim - 2) + [(0, n) for n in short]
    return jnp.pad(x, width) if any(short) else x


def tile(x: Array, i: Array, j: Array, plan: Plan) -> Array:
    """The block (i, j) of a bias or mask, with axes of size 1 where all are alike."""
    sizes = [b if m > 1 else 1 for b, m in zip(plan.block, x.shape[-2:], strict=True)]
    return lax.dynamic_slice(x, _corner(x, i, j, plan), (*x.shape[:-2], *sizes))


def add_tile(x: Array, change: Array, i: Array, j: Array, plan: Plan) -> Array:
    """The bias `x` with `change` added to its block (i, j).

    `change` is summed over those axes along which the bias is the same for all.
    """
    old = tile(x, i, j, plan)
    pairs = enumerate(zip(old.shape, change.shape, strict=True))
    alike = [axis for axis, (own, n) in pairs if own < n]
    new = old + change.sum(alike, keepdims=True)
    return lax.dynamic_update_slice(x, new, _corner(x, i, j, plan))


def _corner(x: Array, i: Array, j: Array, plan: Plan) -> tuple[Array | int, ...]:
    """Where the block (i, j) of a bias or mask starts."""
    pairs = zip((i, j), plan.block, x.shape[-2:], strict=True)
    return (*(0,) * (x.ndim - 2), *(n * b if m > 1 else 0 for n, b, m in pairs))


def spans(rules: Rules, plan: Plan) -> tuple[Array, Array]:
    """For each block of queries, the first block of keys that may count, and the end.

    Blocks outside of the span are never computed: those after the diagonal of a causal
    mask, before a window, of other segments, and of empty slots.

    Args:
        rules: Cut into blocks.
        plan: By which they were cut.

    Returns:
        Two arrays `[N]`.
    """
    parts = []
    if rules.key_positions is not None:
        filled = rules.key_positions >= 0 if rules.has_slots else None
        key_first, key_last = _extent(rules.key_positions, filled)
        parts.append((key_last >= 0)[None, :])
        if rules.positions is not None:
            first, last = _extent(rules.positions)
            if rules.right is not None:
                parts.append(key_first[None, :] - rules.right <= last[:, None])
            if rules.left is not None:
                parts.append(key_last[None, :] >= first[:, None] - rules.left)
    if rules.segments is not None and rules.key_segments is not None:
        first, last = _extent(rules.segments)
        key_first, key_last = _extent(rules.key_segments)
        parts.append(key_first[None, :] <= last[:, None])
        parts.append(key_last[None, :] >= first[:, None])
    counts = functools.reduce(jnp.logical_and, parts, jnp.ones(plan.count, bool))
    start = jnp.argmax(counts, 1)
    end = plan.count[1] - jnp.argmax(counts[:, ::-1], 1)
    return start, jnp.where(counts.any(1), end, start)


def _extent(rows: Array, among: Array | None = None) -> tuple[Array, Array]:
    """The least and the greatest number in each block `[count, ..., block]`.

    Of no numbers at all they are the largest integer and -1.
    """
    axes = tuple(range(1, rows.ndim))
    if among is None:
        return rows.min(axes), rows.max(axes)
    first = jnp.where(among, rows, LARGEST).min(axes)
    return first, jnp.where(among, rows, -1).max(axes)
