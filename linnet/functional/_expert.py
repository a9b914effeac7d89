"""Tokens brought to the rows of their experts and back, as arrays.

T tokens  K choices of a token  E experts  X blocks of rows  B rows of a block
I features in  O features out  ... batch
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from linnet._errors import ConfigError, ShapeError, describe
from linnet._typing import Array, ArrayLike
from linnet.functional._dtype import inexact, integer, widened
from linnet.functional._shape import require_shape

# A block is a power of two near a quarter of an expert's mean share: an eighth of
# the work then goes to padding. Measured on the CPU, 64 rows do as well as any.
SHARE_OF_BLOCK = 4
BLOCK_SIZES = (8, 512)


class ExpertSlots(NamedTuple):
    """Where each choice of each token is worked on.

    Attributes:
        slots: `[..., T, K]`, the row of each choice, counted through all blocks; the
            number of rows where the choice is dropped.
        tokens: `[..., X, B]`, the token in each row of each block; the number of
            tokens where the row is empty.
        experts: `[X]`, whose each block is; `None` if block x is that of expert x.
    """

    slots: Array
    tokens: Array
    experts: Array | None


def expert_capacity(
    tokens: int, num_experts: int, top_k: int, capacity_factor: float
) -> int:
    r"""How many tokens an expert takes.

    $\lceil \mathrm{factor} \cdot T K / E \rceil$, at least 1, at most T.

    Args:
        tokens: Number T of tokens.
        num_experts: Number E of experts.
        top_k: Number K of experts of each token.
        capacity_factor: The capacity, as a multiple of an expert's mean share.

    Returns:
        A number of rows.

    Example:
        >>> from linnet import functional as F
        >>> F.expert_capacity(100, num_experts=8, top_k=2, capacity_factor=1.25)
        32

    Source: Fedus, Zoph and Shazeer, "Switch Transformers", 2021, eq. 3,
    arXiv:2101.03961.
    """
    share = math.ceil(round(capacity_factor * tokens * top_k / num_experts, 6))
    return max(1, min(tokens, share))


def expert_slots(
    experts: ArrayLike, num_experts: int, capacity: int | None = None
) -> ExpertSlots:
    """Gives each choice of each token a row with its expert.

    With a capacity each expert has one block of so many rows for the tokens of one
    batch entry. Rows are given in order of priority: to first choices before second
    ones, then by position; who comes too late is dropped. Without one the rows of all
    batch entries are brought together and none is dropped; an expert has as many
    blocks as it needs. All shapes are static either way.

    Args:
        experts: `[..., T, K]`, integers; E for what is not to be worked on.
        num_experts: Number E of experts.
        capacity: Rows of an expert, or `None` for as many as it needs.

    Returns:
        The rows, and what is in them.

    Raises:
        DTypeError: `experts` holds no integers.
        ShapeError: `experts` has fewer than two axes.

    Example:
        >>> from linnet import functional as F
        >>> F.expert_slots(jnp.array([[1], [0], [1], [1]]), 2, capacity=2).tokens
        Array([[1, 4],
               [0, 2]], dtype=int32)

    Source: Lepikhin et al., "GShard", 2020, algorithm 1, arXiv:2006.16668.
    """
    experts = integer(experts, "experts").astype(jnp.int32)
    if experts.ndim < 2:
        raise ShapeError(
            f"`experts` has {experts.ndim} axes, but must have at least 2.",
            code="LN-SHAPE-02",
            facts={"experts": describe(experts)},
            why="They are the tokens, and the choices of each.",
            fixes=[("each token has one", "experts = experts.reshape(-1, 1)")],
        )
    *batch, tokens, choices = experts.shape
    if capacity is None:
        whole = experts.reshape(-1, choices)
        slots, held, owners = _blocks(whole, num_experts)
        return ExpertSlots(slots.reshape(experts.shape), held, owners)
    entries = experts.reshape(math.prod(batch), tokens, choices)
    slots, held = _columns(entries, num_experts, capacity)
    return ExpertSlots(
        slots.reshape(experts.shape),
        held.reshape(*batch, num_experts, capacity),
        None,
    )


@functools.partial(jax.jit, static_argnums=(1, 2))
def _columns(experts: Array, num_experts: int, capacity: int) -> tuple[Array, Array]:
    """For each batch entry, one block of `capacity` rows for each expert."""

    def columns(experts: Array) -> tuple[Array, Array]:
        rank, _ = _ranks(experts, num_experts)
        size = num_experts * capacity
        is_in = (rank < capacity) & (experts < num_experts)
        slots = jnp.where(is_in, experts * capacity + rank, size)  # [T, K]
        return slots, _held(slots, size).reshape(num_experts, capacity)

    return jax.vmap(columns)(experts)


@functools.partial(jax.jit, static_argnums=1)
def _blocks(experts: Array, num_experts: int) -> tuple[Array, Array, Array]:
    """As many blocks for each expert as it needs, those of the first one first."""
    rank, counts = _ranks(experts, num_experts)
    rows = block_rows(experts.size, num_experts)
    least = min(num_experts, experts.size)
    number = least + (experts.size - least) // rows  # [X], whatever the counts are
    ends = jnp.cumsum((counts + rows - 1) // rows)  # [E]
    starts = jnp.concatenate([jnp.zeros(1, jnp.int32), ends])  # [E + 1]
    is_in = experts < num_experts
    slots = jnp.where(is_in, starts[experts] * rows + rank, number * rows)  # [T, K]
    owners = jnp.searchsorted(ends, jnp.arange(number), side="right")
    owners = jnp.minimum(owners, num_experts - 1).astype(jnp.int32)  # [X]
    return slots, _held(slots, number * rows).reshape(number, rows), owners


def block_rows(choices: int, num_experts: int) -> int:
    """Number of rows of a block, for so many rows in all."""
    least, most = BLOCK_SIZES
    share = max(1, choices // (SHARE_OF_BLOCK * num_experts))
    return max(least, min(most, 1 << (share.bit_length() - 1)))


def _ranks(experts: Array, num_experts: int) -> tuple[Array, Array]:
    """How many choices of the same expert come before each, and how many there are."""
    tokens, choices = experts.shape
    flat = experts.T.reshape(-1)  # [K * T], first choices first
    order = jnp.argsort(flat, stable=True)
    counts = jnp.zeros(num_experts, jnp.int32).at[flat].add(1, mode="drop")  # [E]
    starts = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(counts)])  # [E + 1]
    rank = jnp.arange(flat.size, dtype=jnp.int32) - starts[flat[order]]
    rank = jnp.zeros_like(rank).at[order].set(rank)
    return rank.reshape(choices, tokens).T, counts


def _held(slots: Array, size: int) -> Array:
    """The token in each row; the number of tokens where there is none."""
    tokens, choices = slots.shape
    ids = jnp.arange(tokens, dtype=jnp.int32)[:, None]
    ids = jnp.broadcast_to(ids, (tokens, choices))
    return jnp.full(size, tokens, jnp.int32).at[slots].set(ids, mode="drop")


def expert_dispatch(x: ArrayLike, where: ExpertSlots) -> Array:
    """Brings the tokens to their experts.

    Args:
        x: `[..., T, I]`.
        where: What `expert_slots` gave.

    Returns:
        `[..., X, B, I]`, or `[X, B, I]` without a capacity; zeros in empty rows.

    Raises:
        DTypeError: `x` holds integers or booleans.
        ShapeError: `x` has not the tokens that were given slots.

    Example:
        >>> from linnet import functional as F
        >>> where = F.expert_slots(jnp.array([[1], [0]]), 2, capacity=1)
        >>> F.expert_dispatch(jnp.array([[5.0], [6.0]]), where).reshape(-1)
        Array([6., 5.], dtype=float32)
    """
    x = inexact(x, "x")
    _check_tokens(x, where)
    *batch, blocks, rows = where.tokens.shape
    features = x.shape[-1]
    if where.experts is not None:
        x = x.reshape(math.prod(x.shape[:-1]), features)
    found: Array = _rows(x, where.tokens.reshape(*batch, blocks * rows))
    return found.reshape(*where.tokens.shape, features)


def expert_combine(y: ArrayLike, weights: ArrayLike, where: ExpertSlots) -> Array:
    r"""Brings the results back, and adds up those of each token.

    $y_t = \sum_k w_{tk}\, y_{\mathrm{slot}(t, k)}$, where a dropped choice adds
    nothing.

    Args:
        y: `[..., X, B, O]`, or `[X, B, O]` without a capacity.
        weights: `[..., T, K]`.
        where: What `expert_slots` gave.

    Returns:
        `[..., T, O]`, in the dtype of `y`.

    Raises:
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> where = F.expert_slots(jnp.array([[1], [0]]), 2, capacity=1)
        >>> y = F.expert_dispatch(jnp.array([[5.0], [6.0]]), where)
        >>> F.expert_combine(y, jnp.array([[1.0], [0.5]]), where)
        Array([[5.],
               [3.]], dtype=float32)
    """
    y, weights = inexact(y, "y"), inexact(weights, "weights")
    slots, held = where.slots, where.tokens
    require_shape(weights, slots.shape, "weights", "Each choice has one.")
    require_shape(y, (*held.shape, *y.shape[-1:]), "y", "Each row has a result.")
    batch, features = held.shape[:-2], y.shape[-1]
    y = y.reshape(*batch, held.shape[-2] * held.shape[-1], features)
    each = math.prod(slots.shape[len(batch) :])
    found: Array = _rows(y, slots.reshape(*batch, each))
    wide = widened(y.dtype)
    found = found.reshape(*slots.shape, features).astype(wide)  # [..., T, K, O]
    return (weights.astype(wide)[..., None] * found).sum(-2).astype(y.dtype)


@jax.jit
def _rows(x: Array, index: Array) -> Array:
    """`x[..., index, :]` for each batch entry, zeros where there is no such row."""
    if x.ndim == 2 and x.shape[0] == 0:
        return jnp.zeros((index.size, x.shape[1]), x.dtype)
    if x.ndim == 2:
        rows: Array = x.at[index].get(mode="fill", fill_value=0)
        return rows
    batch, size = x.shape[:-2], math.prod(x.shape[:-2])
    x = x.reshape(size, *x.shape[-2:])
    found: Array = jax.vmap(_rows)(x, index.reshape(size, *index.shape[-1:]))
    return found.reshape(*batch, *found.shape[1:])


@functools.partial(jax.jit, static_argnums=2)
def expert_statistics(
    experts: Array, where: ExpertSlots, num_experts: int
) -> tuple[Array, Array]:
    """The share of the choices that each expert was given, and that found no room.

    Args:
        experts: `[..., T, K]`.
        where: What `expert_slots` gave.
        num_experts: Number E of experts.

    Returns:
        `[E]`, and a number.
    """
    is_choice = experts < num_experts
    number = jnp.maximum(is_choice.sum(), 1)
    given = jnp.zeros(num_experts).at[experts.reshape(-1)].add(1.0, mode="drop")
    rows = where.tokens.shape[-2] * where.tokens.shape[-1]
    lost = (is_choice & (where.slots >= rows)).sum()
    return given / number, lost / number


def _check_tokens(x: Array, where: ExpertSlots) -> None:
    wanted = where.slots.shape[:-1]
    if x.shape[:-1] != wanted:
        raise ShapeError(
            f"`x` has shape {list(x.shape)}, but slots were given to tokens of shape "
            f"{list(wanted)}.",
            code="LN-SHAPE-01",
            facts={"x": describe(x)},
            fixes=[
                (
                    "the tokens of `x` should be given slots",
                    "where = F.expert_slots(experts, num_experts)",
                )
            ],
        )


def check_top_k(top_k: int, num_experts: int) -> None:
    """Refuses more choices than there are experts.

    Args:
        top_k: Number of experts of each token.
        num_experts: Number of experts.

    Raises:
        ConfigError: There are not so many.
    """
    if not 1 <= top_k <= num_experts:
        raise ConfigError(
            f"`top_k` is {top_k}, but a token can go to 1 to {num_experts} experts.",
            code="LN-VALUE-06",
            fixes=[("each token goes to all", f"top_k = {num_experts}")],
        )
