"""Attention that holds all logits at once, in operations of XLA.

T query length  S key length  H heads  G key-value heads  R heads of one group, H / G
D, E head sizes  ... batch
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from linnet._typing import Array, Key
from linnet.functional._attention_logits import (
    LEAST,
    Options,
    capped,
    heads_first,
    heads_last,
    product,
    restricted,
)
from linnet.functional._attention_mask import Rules, allowed
from linnet.functional._dropout import dropout
from linnet.functional._dtype import widened


def attend_at_once(
    queries: Array,
    keys: Array,
    values: Array,
    rules: Rules,
    bias: Array | None,
    key: Key | None,
    options: Options,
) -> Array:
    """Attention in as many operations as the formula has."""
    wide, precision = widened(queries.dtype), options.precision
    is_wide = queries.dtype == wide
    if is_wide:  # else the product would lose digits; this is cheaper by D / S
        queries = queries * options.scale
    groups = keys.shape[-2]
    q, k, v = heads_first(queries, groups), heads_first(keys), heads_first(values)
    logits = product(q, k, (-1, -1), precision, wide)  # [..., G, R T, S]
    logits = capped(logits if is_wide else logits * options.scale, options.softcap)
    shape = logits.shape
    *lead, length, heads, _ = queries.shape
    logits = logits.reshape((*lead, heads, length, shape[-1]))
    admitted = allowed(rules)
    logits = restricted(logits, bias, admitted)
    weights = dropout(softmax(logits), key, options.dropout_rate)  # [..., H, T, S]
    weights = weights.reshape(shape).astype(q.dtype)
    out = heads_last(product(weights, v, (-1, -2), precision), heads)
    some = None if rules.is_total else admitted
    if bias is not None:
        some = (bias > LEAST) if some is None else some & (bias > LEAST)
    if some is None:
        return out
    # Only here are the rows without a key told: to do so between the steps of the
    # softmax costs a quarter of the whole at 128 keys, since XLA fuses them no more.
    some = jnp.swapaxes(some.any(-1, keepdims=True), -2, -3)  # [..., T, H, 1]
    return jnp.where(some, out, jnp.zeros_like(out))


@jax.custom_jvp
def softmax(logits: Array) -> Array:
    """Over the last axis, of finite numbers.

    The rule for derivatives keeps the result alone, and not the steps to it.
    """
    exponentials = jnp.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@softmax.defjvp
def _softmax_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    weights, (change,) = softmax(*primals), tangents
    mean = (weights * change).sum(-1, keepdims=True)
    return weights, weights * (change - mean)
