"""Attention by the fused kernel of cuDNN, for GPUs of NVIDIA.

T query length  S key length  H heads  G key-value heads  D head size  ... batch
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from linnet._errors import ConfigError, describe
from linnet._typing import Array, Key, Shape
from linnet.functional._attention_logits import Options
from linnet.functional._attention_mask import Rules, allowed

HALVES = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))


def capability() -> float | None:
    """The compute capability of the GPU that runs JAX's programs, if it has one."""
    if jax.default_backend() != "gpu":
        return None
    try:
        return float(jax.devices()[0].compute_capability)
    except (AttributeError, ValueError):  # a GPU of another maker
        return None


def suits_cudnn(
    q: Array, k: Array, v: Array, rules: Rules, bias: Array | None, options: Options
) -> bool:
    """Whether cuDNN does exactly what is asked, without a mask or bias in memory."""
    is_free = rules.positions is None and rules.key_positions is None
    return (
        not _obstacles(q, k, v, options)
        and bias is None
        and rules.mask is None
        and rules.segments is None
        and (is_free or _is_plainly_causal(rules, q, k))
    )


def _is_plainly_causal(rules: Rules, q: Array, k: Array) -> bool:
    """Whether each query attends to itself and what is before, by where it stands."""
    return rules.right == 0 and not rules.has_slots and q.shape[-3] == k.shape[-3]


def _obstacles(q: Array, k: Array, v: Array, options: Options) -> list[tuple[str, str]]:
    """What cuDNN cannot do, and the code that gets around it, where there is some."""
    found = capability()
    widest = 256 if found is not None and found >= 9.0 else 128
    half = "\n".join(
        f"{name} = {name}.astype(jnp.bfloat16)"
        for name in ("queries", "keys", "values")
    )
    checks = [
        (found is None, "JAX runs on no GPU of NVIDIA here", ""),
        (found is not None and found < 8.0, "the GPU is older than Ampere", ""),
        (q.dtype not in HALVES, f"the arrays are {q.dtype}, not 16 bits wide", half),
        (
            q.shape[-1] != v.shape[-1],
            f"queries have {q.shape[-1]} features, and values {v.shape[-1]}",
            "",
        ),
        (
            q.shape[-1] % 8 != 0 or q.shape[-1] > widest,
            f"heads of {q.shape[-1]} features are no multiple of 8 up to {widest}",
            "",
        ),
        (0 in (*q.shape, *k.shape), "an array is empty", ""),
        (options.softcap is not None, "it has no `softcap`", ""),
        (options.dropout_rate > 0.0, "it drops no weights", ""),
    ]
    return [(reason, code) for obstructs, reason, code in checks if obstructs]


def attend_cudnn(
    q: Array,
    k: Array,
    v: Array,
    rules: Rules,
    bias: Array | None,
    key: Key | None,
    options: Options,
) -> Array:
    """Attention by cuDNN, or a `ConfigError` that says why not."""
    obstacles = _obstacles(q, k, v, options)
    if obstacles:
        raise ConfigError(
            f"`kernel='cudnn'` cannot be used: {obstacles[0][0]}.",
            code="LN-VALUE-06",
            facts={"queries": describe(q), "keys": describe(k), "values": describe(v)},
            fixes=[("the library should choose", "kernel = 'auto'")]
            + [("half precision will do", code) for _, code in obstacles[:1] if code],
        )
    lead = q.shape[:-3]
    causal = _is_plainly_causal(rules, q, k)
    rest = rules
    if causal:
        rest = dataclasses.replace(
            rules, left=None, right=None, positions=None, key_positions=None
        )
    admitted = allowed(rest)
    queries, keys, values = (x.reshape((-1, *x.shape[-3:])) for x in (q, k, v))
    out: Array = jax.nn.dot_product_attention(
        queries,
        keys,
        values,
        bias=None if bias is None else _in_one_batch(bias.astype(q.dtype), lead, q, k),
        mask=None if admitted is None else _in_one_batch(admitted, lead, q, k),
        scale=options.scale,
        is_causal=causal,
        local_window_size=None if rules.left is None or not causal else (rules.left, 0),
        implementation="cudnn",
    )
    out = out.reshape(q.shape)
    if admitted is None:
        return out
    # Where nothing is admitted cuDNN averages all values; here the sum is empty.
    everything = allowed(rules)
    assert everything is not None
    some = jnp.swapaxes(everything.any(-1, keepdims=True), -2, -3)  # [..., T, H, 1]
    return jnp.where(some, out, jnp.zeros_like(out))


def _in_one_batch(x: Array, lead: Shape, q: Array, k: Array) -> Array:
    """`[..., H, T, S]` with one leading axis, and all queries and keys."""
    x = jnp.broadcast_to(x, (*x.shape[:-2], q.shape[-3], k.shape[-3]))
    if len(lead) != 1:
        x = jnp.broadcast_to(x, (*lead, *x.shape[-3:]))
    return x.reshape((-1, *x.shape[-3:]))
