"""Biases of attention by distance, as arrays.

T queries  S keys  H heads  B buckets
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from linnet._errors import ConfigError, ShapeError, describe
from linnet._typing import Array, ArrayLike
from linnet.functional._dtype import inexact, integer, is_integer
from linnet.functional._position import positions_array


def alibi_slopes(num_heads: int) -> Array:
    r"""How much a head loses per token of distance.

    For a power of two $m_h = 2^{-8 h / H}$, h from 1 to H. Another number of heads
    takes the slopes of the power below, and then every other one of the power above.

    Args:
        num_heads: Number H of heads.

    Returns:
        `[H]`, float32.

    Raises:
        ConfigError: `num_heads` is below one.

    Example:
        >>> from linnet import functional as F
        >>> F.alibi_slopes(2)
        Array([0.0625    , 0.00390625], dtype=float32)

    Source: Press, Smith and Lewis, "Train Short, Test Long", 2021, section 3,
    arXiv:2108.12409, and for other numbers of heads the authors' program.
    """
    if num_heads < 1:
        raise ConfigError(
            f"`num_heads` is {num_heads}, but it must be at least 1.",
            code="LN-VALUE-01",
            fixes=[("there is one head", "num_heads = 1")],
        )
    power = 2 ** int(math.log2(num_heads))
    slopes = _slopes(power)
    if power < num_heads:
        slopes = np.concatenate([slopes, _slopes(2 * power)[::2]])[:num_heads]
    return jnp.asarray(slopes, jnp.float32)


def _slopes(power: int) -> np.ndarray[Any, Any]:
    return np.asarray(2.0 ** (-8.0 * np.arange(1, power + 1) / power))


def alibi_bias(num_heads: int, positions: ArrayLike, key_positions: ArrayLike) -> Array:
    r"""The linear bias of attention logits: $-m_h |p_t - p_s|$.

    Args:
        num_heads: Number H of heads.
        positions: `[..., T]` of the queries, integers or floating.
        key_positions: `[..., S]` of the keys.

    Returns:
        `[..., H, T, S]`, float32.

    Raises:
        ConfigError: `num_heads` is below one.
        DTypeError: Positions are booleans or complex numbers.
        ShapeError: The batch axes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> F.alibi_bias(1, jnp.arange(2), jnp.arange(2)) * 256
        Array([[[ 0., -1.],
                [-1.,  0.]]], dtype=float32)

    Source: Press, Smith and Lewis, "Train Short, Test Long", 2021, section 3,
    arXiv:2108.12409.
    """
    slopes = alibi_slopes(num_heads)
    offsets = relative_positions(positions, key_positions)  # [..., T, S]
    nearness = (-jnp.abs(offsets)).astype(jnp.float32)[..., None, :, :]
    slopes = slopes.reshape((1,) * (offsets.ndim - 2) + (num_heads, 1, 1))
    return slopes * nearness


def relative_position_bucket(
    offsets: ArrayLike,
    *,
    num_buckets: int = 32,
    max_distance: int = 128,
    bidirectional: bool = True,
) -> Array:
    """The bucket of each distance between a key and a query, as in T5.

    Small distances have a bucket each, larger ones share buckets whose width grows
    geometrically, and all from `max_distance` on share the last.

    Args:
        offsets: `[...]`, integers: position of the key less that of the query.
        num_buckets: Number B of buckets.
        max_distance: Distance from which on all are in the last bucket.
        bidirectional: Whether keys after the query have half of the buckets for
            themselves; otherwise they share the bucket of distance 0.

    Returns:
        `[...]`, int32, from 0 to B - 1.

    Raises:
        ConfigError: There are too few buckets, or distances for them.
        DTypeError: `offsets` are no integers.

    Example:
        >>> from linnet import functional as F
        >>> F.relative_position_bucket(jnp.array([-200, -9, -1, 0, 1, 9, 200]))
        Array([15,  8,  1,  0, 17, 24, 31], dtype=int32)

    Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified
    Text-to-Text Transformer", 2019, section 2.1, arXiv:1910.10683, and the authors'
    program.
    """
    offsets = integer(offsets, "offsets").astype(jnp.int32)
    check_buckets(num_buckets, max_distance, bidirectional)
    count = num_buckets // 2 if bidirectional else num_buckets
    table = jnp.asarray(_buckets(count, max_distance))  # [max_distance + 1]
    distance = jnp.abs(offsets) if bidirectional else jnp.maximum(-offsets, 0)
    buckets = table.at[jnp.minimum(distance, max_distance)].get(
        mode="promise_in_bounds"
    )
    return buckets + count * (offsets > 0) if bidirectional else buckets


def relative_position_bias(
    embedding: ArrayLike,
    positions: ArrayLike,
    key_positions: ArrayLike,
    *,
    max_distance: int = 128,
    bidirectional: bool = True,
) -> Array:
    """A learned bias of attention logits for each bucket of distances, as in T5.

    Args:
        embedding: `[B, H]`, floating.
        positions: `[..., T]` of the queries, integers.
        key_positions: `[..., S]` of the keys, integers.
        max_distance: As in `relative_position_bucket`.
        bidirectional: Likewise.

    Returns:
        `[..., H, T, S]`, float32 or wider.

    Raises:
        ConfigError: There are too few buckets, or distances for them.
        DTypeError: Positions are no integers, or `embedding` holds integers.
        ShapeError: `embedding` has not two axes, or the batch axes do not fit.

    Example:
        >>> from linnet import functional as F
        >>> embedding = jnp.arange(8.0)[:, None]
        >>> F.relative_position_bias(embedding, jnp.arange(2), jnp.arange(2))
        Array([[[0., 5.],
                [1., 0.]]], dtype=float32)

    Source: Raffel et al., 2019, section 2.1, arXiv:1910.10683.
    """
    embedding = inexact(embedding, "embedding")
    if embedding.ndim != 2:
        raise ShapeError(
            f"`embedding` has {embedding.ndim} axes, but a table of biases has two.",
            code="LN-SHAPE-02",
            facts={"embedding": describe(embedding)},
            why="They are buckets and heads.",
            fixes=[("there is one head", "embedding = embedding.reshape(-1, 1)")],
        )
    offsets = relative_positions(
        integer(positions, "positions"), integer(key_positions, "key_positions")
    )
    buckets = relative_position_bucket(
        offsets,
        num_buckets=embedding.shape[0],
        max_distance=max_distance,
        bidirectional=bidirectional,
    )
    wide = embedding.astype(jnp.promote_types(embedding.dtype, jnp.float32))
    bias = wide.T.at[:, buckets].get(mode="promise_in_bounds")  # [H, ..., T, S]
    return jnp.moveaxis(bias, 0, -3)  # [..., H, T, S]


def check_buckets(num_buckets: int, max_distance: int, bidirectional: bool) -> None:
    """Refuses a number of buckets that leaves one of the formula's parts empty."""
    least = 4 if bidirectional else 2
    if num_buckets < least or (bidirectional and num_buckets % 2):
        kind = f"an even number of at least {least}" if bidirectional else "at least 2"
        raise ConfigError(
            f"`num_buckets` is {num_buckets}, but it must be {kind}.",
            code="LN-VALUE-06",
            why="Half of them are for distances one by one"
            + (", in each direction." if bidirectional else "."),
            fixes=[("as many as in T5", "num_buckets = 32")],
        )
    single = num_buckets // (4 if bidirectional else 2)
    if max_distance <= single:
        raise ConfigError(
            f"`max_distance` is {max_distance}, but distances up to {single} have a "
            "bucket each.",
            code="LN-VALUE-06",
            why="The other buckets lie between that and `max_distance`.",
            fixes=[("a larger one is meant", f"max_distance = {16 * single}")],
        )


@functools.lru_cache
def _buckets(count: int, max_distance: int) -> np.ndarray[Any, Any]:
    """The bucket of each distance from 0 to `max_distance`."""
    single = count // 2
    distance = np.arange(max_distance + 1)
    share = np.log(np.maximum(distance, 1) / single) / np.log(max_distance / single)
    # The logarithms of exact powers round to either side: 1e-9 puts them on one.
    shared = single + np.floor(share * (count - single) + 1e-9)
    buckets = np.where(distance < single, distance, np.minimum(shared, count - 1))
    return buckets.astype(np.int32)


def relative_positions(positions: ArrayLike, key_positions: ArrayLike) -> Array:
    """`[..., T, S]`: position of each key less that of each query."""
    queries = _signed(positions_array(positions))
    keys = _signed(positions_array(key_positions, "key_positions"))
    for name, array in (("positions", queries), ("key_positions", keys)):
        if array.ndim < 1:
            raise ShapeError(
                f"`{name}` has no axes, but one position for each token is needed.",
                code="LN-SHAPE-02",
                facts={name: describe(array)},
                fixes=[("there is one token", f"{name} = {name}[None]")],
            )
    ndim = max(queries.ndim, keys.ndim)
    queries = queries.reshape((1,) * (ndim - queries.ndim) + queries.shape)
    keys = keys.reshape((1,) * (ndim - keys.ndim) + keys.shape)
    if not _broadcast(queries.shape[:-1], keys.shape[:-1]):
        raise ShapeError(
            f"`positions` of shape {list(queries.shape)} and `key_positions` of shape "
            f"{list(keys.shape)} have different batch axes.",
            code="LN-SHAPE-01",
            why="All axes but the last are batch, and equal or 1.",
            fixes=[
                (
                    "all rows are alike",
                    f"key_positions = key_positions.reshape(-1, {keys.shape[-1]})[0]",
                )
            ],
        )
    return keys[..., None, :] - queries[..., :, None]


def _signed(positions: Array) -> Array:
    """Integers in a dtype that holds their differences."""
    return positions.astype(jnp.int32) if is_integer(positions.dtype) else positions


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(a, b, strict=True))
