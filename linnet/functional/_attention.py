"""Attention, as arrays.

T query length  S key length  H heads  G key-value heads  R heads of one group, H / G
D features of a head  E features of a value  ... batch
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linnet._typing import Array, ArrayLike, Key
from linnet.functional._attention_blockwise import attend_blockwise
from linnet.functional._attention_check import (
    check_block_size,
    check_dropout,
    check_heads,
    check_kernel,
    check_scale,
    check_softcap,
    fitted,
    floating,
)
from linnet.functional._attention_cudnn import attend_cudnn, suits_cudnn
from linnet.functional._attention_logits import Options
from linnet.functional._attention_mask import Rules, Window, rules_for
from linnet.functional._attention_xla import attend_at_once

COMPUTE = {
    "xla": attend_at_once,
    "blockwise": attend_blockwise,
    "cudnn": attend_cudnn,
}

# With how many logits `"auto"` turns to blocks. On a CPU these are 32 MiB in float32,
# what no longer fits its caches: from there blocks are no slower, and save a third of
# the time at 8 heads of 2048. Elsewhere 1 GiB: there only memory speaks for them.
MOST_LOGITS = {"cpu": 2**23}
MOST_LOGITS_ELSEWHERE = 2**28

# Fewer queries or keys than this, as while decoding, are one block anyway.
NARROWEST = 128


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
    options = Options(
        heads=heads,
        scale=check_scale(scale, features, queries.ndim),
        softcap=check_softcap(softcap),
        dropout_rate=check_dropout(dropout_rate, key),
        precision=precision,
        block_size=check_block_size(block_size),
    )
    if 0 in size:
        return jnp.zeros((*queries.shape[:-1], values.shape[-1]), queries.dtype)
    # XLA is slower by a tenth where the logits have axes of size 1.
    ones = tuple(axis for axis, n in enumerate(lead) if n == 1)
    given: list[Any] = [queries, keys, values, rules, bias]
    given = jax.tree.map(lambda x: lax.squeeze(x, ones), given) if ones else given
    given += [key, options]
    kernel = _chosen(*given) if kernel == "auto" else kernel
    y = COMPUTE[kernel](*given)
    return lax.expand_dims(y, ones) if ones else y


def _chosen(
    queries: Array,
    keys: Array,
    values: Array,
    rules: Rules,
    bias: Array | None,
    key: Key | None,
    options: Options,
) -> str:
    """The kernel for these arrays and options, by the rule that `attention` tells."""
    if suits_cudnn(queries, keys, values, rules, bias, options):
        return "cudnn"
    *lead, length, heads, _ = queries.shape
    sizes = length, keys.shape[-3]
    count = math.prod(lead) * heads * math.prod(sizes)
    most = MOST_LOGITS.get(jax.default_backend(), MOST_LOGITS_ELSEWHERE)
    return "blockwise" if count >= most and min(sizes) >= NARROWEST else "xla"


def _alike(*arrays: ArrayLike) -> list[Array]:
    """The arrays in the dtype to which they promote together."""
    names = ("queries", "keys", "values")
    found = [floating(x, name) for x, name in zip(arrays, names, strict=True)]
    common = jnp.result_type(*found)
    return [x.astype(common) for x in found]
