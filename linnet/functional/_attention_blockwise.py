"""Attention by blocks, which never holds the logits of all queries and keys.

T query length  S key length  t, s lengths of a block  N, M blocks of queries and keys
H heads  G key-value heads  R heads of one group, H / G  D, E head sizes  ... batch

The softmax is taken while the keys pass by, from a running maximum m, the sum l of the
exponentials below it, and the sum of the values weighted by them. The way back
computes each block of logits again; of the softmax only the logarithm of its
denominator is kept.

Source: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018,
algorithm 3, arXiv:1805.02867; Rabe and Staats, "Self-attention Does Not Need O(n^2)
Memory", 2021, arXiv:2112.05682; Dao, "FlashAttention-2", 2023, algorithms 1 and 2,
arXiv:2307.08691.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linnet._typing import Array, Key
from linnet.functional._attention_blocks import (
    Plan,
    add_tile,
    cut_keys,
    cut_queries,
    cut_rules,
    join_queries,
    pad_tiles,
    plan_for,
    rules_at,
    spans,
    tile,
)
from linnet.functional._attention_logits import (
    LEAST,
    Options,
    capped,
    product,
    restricted,
)
from linnet.functional._attention_mask import Rules, allowed
from linnet.functional._dtype import widened


def _usual_block(problems: int) -> tuple[int, int]:
    """Blocks whose logits fit a CPU's cache, for as many heads of all examples."""
    return (256, 256) if problems <= 32 else (128, 128)


# Rules and spans by block, and the key of dropout: what has no gradient.
_Given = tuple[Rules, tuple[Array, Array] | None, Key | None]


def attend_blockwise(
    queries: Array,
    keys: Array,
    values: Array,
    rules: Rules,
    bias: Array | None,
    key: Key | None,
    options: Options,
) -> Array:
    """Attention in memory that grows with the lengths, and not with their product."""
    *lead, length, heads, _ = queries.shape
    size = (length, keys.shape[-3])
    block = options.block_size or _usual_block(math.prod(lead) * heads)
    if queries.dtype == widened(queries.dtype):  # else the product would lose digits
        queries = queries * options.scale
        options = dataclasses.replace(options, scale=1.0)
    plan = plan_for(size, block, options)
    cut = cut_rules(rules, len(lead), size[1], plan)
    out = _attend(
        plan,
        cut_queries(queries, keys.shape[-2], plan),
        cut_keys(keys, plan),
        cut_keys(values, plan),
        None if bias is None else pad_tiles(bias, plan),
        (cut, spans(cut, plan) if rules.is_local else None, key),
    )
    return join_queries(out, length, plan)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    plan: Plan, q: Array, k: Array, v: Array, bias: Array | None, given: _Given
) -> Array:
    """From blocks of queries, keys and values to those of the result."""
    return _forward(plan, q, k, v, bias, given)[0]


def _forward(
    plan: Plan, q: Array, k: Array, v: Array, bias: Array | None, given: _Given
) -> tuple[Array, tuple[Any, ...]]:
    rules, span, key = given
    wide, precision = widened(q.dtype), plan.options.precision

    def row(i: Array, ends: Any, q_i: Array) -> tuple[Array, Array]:
        def step(j: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
            largest, total, weighted = carry
            logits, _ = _logits(plan, q_i, _at(k, j), bias, rules, i, j)
            new = jnp.maximum(largest, logits.max(-1))
            p = jnp.exp(logits - new[..., None])  # [..., G, R t, s]
            shrink = jnp.exp(largest - new)
            total = total * shrink + p.sum(-1)
            p = _dropped(plan, p, key, i, j).astype(q.dtype)
            change = product(p, _at(v, j), (-1, -2), precision, wide)
            return new, total, weighted * shrink[..., None] + change

        rows = q_i.shape[:-1]
        start = (
            jnp.full(rows, LEAST, wide),
            jnp.zeros(rows, wide),
            jnp.zeros((*rows, v.shape[-1]), wide),
        )
        largest, total, weighted = _loop(plan, ends, step, start)
        # What was summed before the first key that counts has shrunk to nothing by now,
        # unless there was no such key: then all of it goes.
        is_empty = largest <= LEAST
        out = weighted / jnp.where(is_empty, jnp.inf, total)[..., None]
        log_total = jnp.where(is_empty, jnp.inf, largest + jnp.log(total))
        return out.astype(q.dtype), log_total

    def scanned(_: None, x: tuple[Any, ...]) -> tuple[None, tuple[Array, Array]]:
        return None, row(*x)

    _, (out, log_total) = lax.scan(scanned, None, (jnp.arange(len(q)), span, q))
    return out, (q, k, v, bias, given, out, log_total)


def _backward(plan: Plan, kept: tuple[Any, ...], grad: Array) -> tuple[Any, ...]:
    q, k, v, bias, (rules, span, key), out, log_total = kept
    wide, precision = widened(q.dtype), plan.options.precision
    # The sum over the keys of each weight times its gradient, by what it weighs.
    mean = (grad.astype(wide) * out.astype(wide)).sum(-1)  # [N, ..., G, R t]

    def row(sums: Any, x: tuple[Any, ...]) -> tuple[Any, Array]:
        i, ends, q_i, grad_i, mean_i, log_i = x

        def step(j: Array, carry: Any) -> Any:
            dq, dk, dv, dbias = carry
            k_j, v_j = _at(k, j), _at(v, j)
            logits, slope = _logits(plan, q_i, k_j, bias, rules, i, j)
            weights = jnp.exp(logits - log_i[..., None])  # [..., G, R t, s]
            keep = _dropped(plan, jnp.ones((), wide), key, i, j, weights.shape)
            used = (weights * keep).astype(q.dtype)
            dv = _add_at(dv, j, product(used, grad_i, (-2, -2), precision, wide))
            dweights = product(grad_i, v_j, (-1, -1), precision, wide) * keep
            dlogits = weights * (dweights - mean_i[..., None])
            if dbias is not None:
                dbias = add_tile(dbias, _by_head(dlogits, plan), i, j, plan)
            dinner = (dlogits * slope).astype(q.dtype)
            dk = _add_at(dk, j, product(dinner, q_i, (-2, -2), precision, wide))
            dq = dq + product(dinner, k_j, (-1, -2), precision, wide)
            return dq, dk, dv, dbias

        dq, *sums = _loop(plan, ends, step, (jnp.zeros(q_i.shape, wide), *sums))
        return tuple(sums), dq.astype(q.dtype)

    start = (
        jnp.zeros(k.shape, wide),
        jnp.zeros(v.shape, wide),
        None if bias is None else jnp.zeros(bias.shape, wide),
    )
    xs = (jnp.arange(len(q)), span, q, grad, mean, log_total)
    sums: Any
    sums, dq = lax.scan(row, start, xs)
    dk, dv, dbias = sums
    dbias = None if bias is None else dbias.astype(bias.dtype)
    return dq, dk.astype(k.dtype), dv.astype(v.dtype), dbias, None


_attend.defvjp(_forward, _backward)


def _loop(plan: Plan, ends: Any, step: Callable[[Array, Any], Any], start: Any) -> Any:
    """`step` over the blocks of keys that count."""
    first, end = (0, plan.count[1]) if ends is None else ends
    return lax.fori_loop(first, end, step, start)


def _logits(
    plan: Plan,
    q: Array,
    k: Array,
    bias: Array | None,
    rules: Rules,
    i: Array,
    j: Array,
) -> tuple[Array, Array | float]:
    """The logits of block (i, j), and their derivative by the inner products."""
    options = plan.options
    inner = product(q, k, (-1, -1), options.precision, widened(q.dtype))
    logits = capped(inner * options.scale, options.softcap)  # [..., G, R t, s]
    slope: Array | float = options.scale
    if options.softcap is not None:
        slope = options.scale * (1.0 - (logits / options.softcap) ** 2)
    shape = logits.shape
    admitted = allowed(rules_at(rules, i, j, plan))
    if bias is not None or admitted is not None:
        bias = None if bias is None else tile(bias, i, j, plan)
        logits = restricted(_by_head(logits, plan), bias, admitted).reshape(shape)
    return logits, slope


def _by_head(x: Array, plan: Plan) -> Array:
    """`[..., G, R t, s]` as `[..., H, t, s]`."""
    shape = (*x.shape[:-3], plan.options.heads, plan.block[0], x.shape[-1])
    return x.reshape(shape)


def _dropped(
    plan: Plan,
    weights: Array,
    key: Key | None,
    i: Array,
    j: Array,
    shape: tuple[int, ...] | None = None,
) -> Array:
    """Weights of block (i, j) after dropout, the same whenever it is computed."""
    rate = plan.options.dropout_rate
    if key is None or not rate:
        return weights
    own = jax.random.fold_in(key, i * plan.count[1] + j)
    kept = jax.random.bernoulli(own, 1.0 - rate, shape or weights.shape)
    return jnp.where(kept, weights / (1.0 - rate), 0.0)


def _at(blocks: Array, j: Array) -> Array:
    found: Array = lax.dynamic_index_in_dim(blocks, j, 0, keepdims=False)
    return found


def _add_at(blocks: Array, j: Array, change: Array) -> Array:
    new: Array = lax.dynamic_update_index_in_dim(blocks, _at(blocks, j) + change, j, 0)
    return new
