"""Attention, as arrays.

T query length  S key length  H heads  G key-value heads  R heads of one group, H / G
D features of a head  E features of a value  ... batch

All kernels work on arrays with the heads first: queries [..., G, R T, D], keys
[..., G, S, D], values [..., G, S, E], so that each product is one of plain matrices.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linnet._typing import Array, ArrayLike, Key
from linnet.functional._attention_check import (
    check_dropout,
    check_heads,
    check_kernel,
    check_scale,
    check_softcap,
    fitted,
    floating,
)
from linnet.functional._attention_mask import Rules, Window, allowed, rules_for
from linnet.functional._dropout import dropout
from linnet.functional._dtype import widened


def attention(
    queries: ArrayLike,
    keys: ArrayLike,
    values: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    causal: bool = False,
    window: Window | None = None,
    segments: ArrayLike | None = None,
    key_segments: ArrayLike | None = None,
    positions: ArrayLike | None = None,
    key_positions: ArrayLike | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    dropout_rate: float = 0.0,
    key: Key | None = None,
    kernel: str = "auto",
    block_size: int | tuple[int, int] | None = None,
    precision: lax.PrecisionLike = None,
) -> Array:
    r"""Averages the values, weighted by how well their keys match each query.

    $y_t = \sum_s \mathrm{softmax}_s(\mathrm{scale}\, q_t \cdot k_s +
    \mathrm{bias}_{ts})\, v_s$, where $s$ runs over the keys to which query $t$ may
    attend. A query that may attend to none gives zeros. The softmax is taken in float32
    or wider.

    Args:
        queries: `[..., T, H, D]`, floating.
        keys: `[..., S, G, D]`, where G divides H: each group of H / G consecutive query
            heads shares one head of keys and values. H is multi-head attention, 1 is
            multi-query attention.
        values: `[..., S, G, E]`.
        mask: `[..., H, T, S]`, each axis of its size or 1, or `[T, S]`. Boolean; `True`
            lets a query attend to a key. All rules that are given must allow it.
        bias: Likewise, but floating: is added to the logits, after the cap.
        causal: Whether a query attends only to keys at its own position and before.
        window: With `causal`, the number of last positions that a query attends to,
            its own included; or a pair: how far before and after its own.
        segments: `[..., T]` integers. A query attends only to keys of its own segment,
            as in sequences that are packed into one.
        key_segments: `[..., S]`. `None` takes `segments`.
        positions: `[..., T]` integers, which `causal` and `window` compare. `None`
            counts up from zero.
        key_positions: `[..., S]`, likewise. A negative one marks an empty slot of a
            cache, to which no query attends.
        scale: Factor of the logits; `None` takes $1 / \sqrt{D}$.
        softcap: The bound c of logits $c \tanh(\mathrm{scale}\, q \cdot k / c)$.
        dropout_rate: Probability of dropping a weight, after the softmax.
        key: A random key, needed if weights are dropped.
        kernel: How it is computed: `"xla"` holds all logits in memory, `"blockwise"`
            never does, `"cudnn"` is the fused one for GPUs, and `"auto"` chooses.
        block_size: Of queries and of keys in `"blockwise"`: one number, or a pair.
        precision: Of the products, as in `jax.lax.dot_general`.

    Returns:
        `[..., T, H, E]`.

    Raises:
        ConfigError: An option cannot be used, or not with the others.
        DTypeError: An array holds numbers of another kind.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> alike, values = jnp.zeros((3, 1, 2)), jnp.array([1.0, 3.0, 8.0])
        >>> y = F.attention(alike, alike, values[:, None, None], causal=True)
        >>> y[:, 0, 0]
        Array([1., 2., 4.], dtype=float32)

    Source: Vaswani et al., "Attention Is All You Need", 2017, eq. 1, arXiv:1706.03762;
    groups of Ainslie et al., "GQA", 2023, arXiv:2305.13245.
    """
    queries, keys, values = _alike(queries, keys, values)
    check_heads(queries, keys, values)
    check_kernel(kernel)
    *lead, length, heads, features = queries.shape
    size = (length, keys.shape[-3])
    rules = rules_for(
        tuple(lead),
        heads,
        size,
        mask=mask,
        causal=causal,
        window=window,
        segments=segments,
        key_segments=key_segments,
        positions=positions,
        key_positions=key_positions,
    )
    if bias is not None:
        bias = fitted(floating(bias, "bias"), "bias", tuple(lead), heads, size)
    scale = check_scale(scale, features)
    softcap = check_softcap(softcap)
    dropout_rate = check_dropout(dropout_rate, key)
    return _materialised(
        queries, keys, values, rules, bias, scale, softcap, dropout_rate, key, precision
    )


def _alike(*arrays: ArrayLike) -> list[Array]:
    """The arrays in the dtype to which they promote together."""
    names = ("queries", "keys", "values")
    found = [floating(x, name) for x, name in zip(arrays, names, strict=True)]
    common = jnp.result_type(*found)
    return [x.astype(common) for x in found]


def _materialised(
    queries: Array,
    keys: Array,
    values: Array,
    rules: Rules,
    bias: Array | None,
    scale: float,
    softcap: float | None,
    dropout_rate: float,
    key: Key | None,
    precision: lax.PrecisionLike,
) -> Array:
    """Attention that holds all logits at once."""
    *lead, length, heads, _ = queries.shape
    groups, wide = keys.shape[-2], widened(queries.dtype)
    q, k, v = heads_first(queries, groups), heads_first(keys), heads_first(values)
    logits = _product(q, k, -1, precision, wide)  # [..., G, R T, S]
    logits = logits.reshape((*lead, heads, length, keys.shape[-3]))
    logits = shaped(logits, scale, softcap, bias)
    admitted = allowed(rules)
    if admitted is not None:
        logits = jnp.where(admitted, logits, -jnp.inf)
    weights = softmax(logits).astype(queries.dtype)  # [..., H, T, S]
    if dropout_rate:
        weights = dropout(weights, key, dropout_rate)
    weights = weights.reshape((*q.shape[:-1], keys.shape[-3]))  # [..., G, R T, S]
    return heads_last(_product(weights, v, -2, precision), heads)


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


def _product(
    a: Array, b: Array, axis: int, precision: lax.PrecisionLike, dtype: Any = None
) -> Array:
    """`[..., M, K]` and `[..., K, N]`, or `[..., N, K]`, multiplied over K."""
    batch = tuple(range(a.ndim - 2))
    contract = ((a.ndim - 1,), (b.ndim + axis,))
    return lax.dot_general(
        a,
        b,
        (contract, (batch, batch)),
        precision=precision,
        preferred_element_type=dtype,
    )


def shaped(
    logits: Array, scale: float, softcap: float | None, bias: Array | None
) -> Array:
    """Inner products as logits: scaled, capped, and with the bias added."""
    logits = logits * scale
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    return logits if bias is None else logits + bias.astype(logits.dtype)


@jax.custom_jvp
def softmax(logits: Array) -> Array:
    """Over the last axis; zeros where all logits are minus infinity.

    The rule for derivatives keeps the result alone, and not the steps to it.
    """
    largest = jnp.max(logits, -1, keepdims=True, initial=-jnp.inf)
    largest = jnp.where(largest == -jnp.inf, 0.0, largest)
    exponentials = jnp.exp(logits - largest)
    total = exponentials.sum(-1, keepdims=True)
    return exponentials / jnp.where(total == 0.0, 1.0, total)


@softmax.defjvp
def _softmax_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    weights = softmax(*primals)
    change = weights * tangents[0]
    return weights, change - weights * change.sum(-1, keepdims=True)
