"""Attention as functions of a scope, with masks and a cache for decoding."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random

from linnet.compat.flax import struct
from linnet.compat.flax.core.nn.linear import dense_general
from linnet.compat.flax.core.scope import Array, Scope
from linnet.compat.flax.linen import initializers
from linnet.compat.flax.linen.linear import default_kernel_init

__all__ = [
    "CacheEntry",
    "Callable",
    "Iterable",
    "Scope",
    "default_kernel_init",
    "dense_general",
    "dot_product_attention",
    "functools",
    "initializers",
    "jax",
    "jnp",
    "lax",
    "make_padding_mask",
    "multi_head_dot_product_attention",
    "np",
    "random",
    "struct",
]

_zeros = initializers.zeros
_Axes = int | Sequence[int] | None


def _attention_axes(axis: _Axes, ndim: int) -> tuple[int, ...]:
    """The axes over which an array `[batch, ..., heads, features]` attends."""
    if axis is None:
        return tuple(range(1, ndim - 2))
    axes = tuple(axis) if isinstance(axis, Iterable) else (axis,)
    if any(a < 1 or a >= ndim - 2 for a in axes):
        raise ValueError(
            "Attention axis must be between the batch axis and the last-two axes."
        )
    return axes


def dot_product_attention(
    scope: Scope,
    query: Array,
    key: Array,
    value: Array,
    dtype: Any = jnp.float32,
    bias: Array | None = None,
    axis: _Axes = None,
    broadcast_dropout: bool = True,
    dropout_rng: Array | None = None,
    dropout_rate: float = 0.0,
    deterministic: bool = False,
    precision: Any = None,
) -> Array:
    """Values, weighted by how well their keys fit the queries.

    Args:
        scope: Its stream `dropout` is used, unless a key is given.
        query: `[batch, *spatial, heads, features]`.
        key: The same, as `value`.
        value: `[batch, *spatial, heads, value_features]`.
        dtype: The type of the weights.
        bias: Added to the products, `[batch, heads, *queries, *keys]`.
        axis: The axes over which to attend; by default all spatial ones.
        broadcast_dropout: Whether all of the batch share what is dropped.
        dropout_rng: A key.
        dropout_rate: The chance of a weight to become zero.
        deterministic: Whether nothing is dropped.
        precision: Of the products.

    Raises:
        ValueError: An axis is none of the spatial ones.
    """
    assert key.shape[:-1] == value.shape[:-1], "Keys and values differ in shape."
    assert (query.shape[0], query.shape[-1]) == (key.shape[0], key.shape[-1]), (
        "Queries and keys differ in batch or features."
    )
    ndim = key.ndim
    axes = _attention_axes(axis, ndim)
    n = len(axes)
    batch_dims = tuple(i for i in range(ndim) if i not in (*axes, ndim - 1))
    qk_perm = (*batch_dims, *axes, ndim - 1)
    v_perm = (*batch_dims, ndim - 1, *axes)
    key, query = key.transpose(qk_perm), query.transpose(qk_perm)
    value = value.transpose(v_perm)
    query = query / jnp.sqrt(query.shape[-1]).astype(dtype)
    batch = tuple(range(ndim - n - 1))
    weights = lax.dot_general(
        query, key, (((ndim - 1,), (ndim - 1,)), (batch, batch)), precision=precision
    )
    if bias is not None:
        weights = weights + bias
    of_keys = tuple(range(weights.ndim - n, weights.ndim))
    norm = jax.scipy.special.logsumexp(weights, of_keys, keepdims=True)
    weights = jnp.exp(weights - norm).astype(dtype)
    if not deterministic and dropout_rate > 0.0:
        if dropout_rng is None:
            dropout_rng = scope.make_rng("dropout")
        keep_prob = 1.0 - dropout_rate
        shape = weights.shape
        if broadcast_dropout:
            shape = (1,) * (weights.ndim - 2 * n) + shape[-2 * n :]
        keep = random.bernoulli(dropout_rng, keep_prob, shape)
        weights *= keep.astype(weights.dtype) / jnp.asarray(keep_prob, dtype=dtype)
    contract = (of_keys, tuple(range(ndim - n, ndim)))
    y = lax.dot_general(weights, value, (contract, (batch, batch)), precision=precision)
    return y.transpose(np.argsort(qk_perm))


@struct.dataclass
class CacheEntry:
    """The keys and values of the positions before, and their number.

    Args:
        key: `[batch, *spatial, heads, features]`.
        value: The same.
        i: The position to come.
    """

    key: Any
    value: Any
    i: Any


def multi_head_dot_product_attention(
    scope: Scope,
    inputs_q: Array,
    inputs_kv: Array | None,
    num_heads: int,
    dtype: Any = jnp.float32,
    qkv_features: int | None = None,
    out_features: int | None = None,
    attention_axis: _Axes = None,
    causal_mask: bool = False,
    padding_mask: Array | None = None,
    key_padding_mask: Array | None = None,
    segmentation: Array | None = None,
    key_segmentation: Array | None = None,
    cache: bool = False,
    broadcast_dropout: bool = True,
    dropout_rng: Array | None = None,
    dropout_rate: float = 0.0,
    deterministic: bool = False,
    precision: Any = None,
    kernel_init: Any = default_kernel_init,
    bias_init: Any = _zeros,
    bias: bool = True,
    attention_fn: Callable[..., Array] = dot_product_attention,
) -> Array:
    """Attention with several heads.

    With `cache`, `init` leaves in `cache/entry` a function that makes the empty cache
    of a shape `(batch, *spatial)`; each call then takes one position, and adds it.

    Args:
        scope: Where the parameters of `query`, `key`, `value` and `out` are.
        inputs_q: `[batch, *spatial, features]`.
        inputs_kv: The same; by default the queries.
        num_heads: The number of heads.
        dtype: The type of the computation.
        qkv_features: The size of all heads together; by default that of the queries.
        out_features: The size of the result; by default that of the queries.
        attention_axis: The axes over which to attend; by default all spatial ones.
        causal_mask: Whether a position sees no later one.
        padding_mask: True at queries that count, `[batch, *spatial, 1]`.
        key_padding_mask: The same of keys; by default that of the queries.
        segmentation: Numbers of segments, which see only themselves.
        key_segmentation: The same of keys; by default those of the queries.
        cache: Whether one position is given at a time, and kept.
        broadcast_dropout: Whether all of the batch share what is dropped.
        dropout_rng: A key instead of one of the stream `dropout`.
        dropout_rate: The chance of a weight to become zero.
        deterministic: Whether nothing is dropped.
        precision: Of the products.
        kernel_init: Makes the kernels.
        bias_init: Makes the biases.
        bias: Whether projections have biases.
        attention_fn: Computes attention.

    Raises:
        ValueError: The cache is not made, or the inputs do not fit it.
    """
    assert causal_mask or not cache, "Caching is only support for causal attention."
    inputs_kv = inputs_q if inputs_kv is None else inputs_kv
    if attention_axis is None:
        attention_axis = tuple(range(1, inputs_q.ndim - 1))
    features = out_features or inputs_q.shape[-1]
    qkv_features = qkv_features or inputs_q.shape[-1]
    assert qkv_features % num_heads == 0, (
        "Memory dimension must be divisible by number of heads."
    )
    project = functools.partial(
        dense_general,
        dtype=dtype,
        kernel_init=kernel_init,
        bias_init=bias_init,
        bias=bias,
        precision=precision,
    )

    def heads(name: str, inputs: Array) -> Array:
        size = (num_heads, qkv_features // num_heads)
        return scope.child(project, name)(inputs, features=size, axis=-1)

    query, key, value = (
        heads("query", inputs_q),
        heads("key", inputs_kv),
        heads("value", inputs_kv),
    )
    seen = None
    if cache:
        key, value, seen = _remember(scope, attention_axis, inputs_q, key, value)
        if seen is not None:
            key_padding_mask = jnp.broadcast_to(seen, key.shape[:-2]).astype(
                jnp.float32
            )[..., None]
    masks = []
    if causal_mask:
        if seen is None:
            masks.append(_causal_mask(key.shape, attention_axis))
        else:
            masks.append(seen.reshape((1,) * (key.ndim - 1) + seen.shape))
    pairs = functools.partial(
        make_padding_mask,
        query_shape=query.shape,
        key_shape=key.shape,
        attention_axis=attention_axis,
    )
    if padding_mask is not None:
        keys = padding_mask if key_padding_mask is None else key_padding_mask
        masks.append(pairs(padding_mask, keys))
    if segmentation is not None:
        keys = segmentation if key_segmentation is None else key_segmentation
        masks.append(pairs(segmentation, keys, segmentation_mask=True))
    attention_bias = None
    if masks:
        mask = functools.reduce(jnp.logical_and, masks)
        attention_bias = lax.select(
            mask > 0,
            jnp.full(mask.shape, 0.0).astype(dtype),
            jnp.full(mask.shape, -1e10).astype(dtype),
        )
    x = scope.child(attention_fn)(
        query,
        key,
        value,
        dtype=dtype,
        axis=attention_axis,
        bias=attention_bias,
        precision=precision,
        dropout_rng=dropout_rng,
        dropout_rate=dropout_rate,
        broadcast_dropout=broadcast_dropout,
        deterministic=deterministic,
    )
    return scope.child(project, "out")(x, features=features, axis=(-2, -1))


def _remember(
    scope: Scope, axis: _Axes, inputs_q: Array, key: Array, value: Array
) -> tuple[Array, Array, Array | None]:
    """(all keys, all values, which positions are filled), with the new one in place."""
    axes = _attention_axes(axis, key.ndim)
    if not scope.has_variable("cache", "entry"):
        scope.put_variable("cache", "entry", _cache_maker(key.shape, len(axes)))
    before = scope.get_variable("cache", "entry")
    if scope.is_mutable_collection("params"):
        return key, value, None
    if not isinstance(before, CacheEntry):
        raise ValueError("Cache is not initialized.")
    spatial = tuple(before.key.shape[a] for a in axes)
    one = [1 if i in axes else n for i, n in enumerate(before.key.shape[:-2])]
    shape = (*one, inputs_q.shape[-1])
    if shape != inputs_q.shape:
        raise ValueError(
            f"Invalid shape provided, expected shape {shape} instead got "
            f"{inputs_q.shape}."
        )
    where: list[Any] = [0] * key.ndim
    for at, index in zip(axes, jnp.unravel_index(before.i, spatial), strict=True):
        where[at] = index
    where = [jnp.asarray(w, jnp.int32) for w in where]
    key = lax.dynamic_update_slice(before.key, key, where)
    value = lax.dynamic_update_slice(before.value, value, where)
    count = before.i + 1
    after = before.replace(key=key, value=value, i=count)  # type: ignore[attr-defined]
    scope.put_variable("cache", "entry", after)
    filled = (jnp.arange(np.prod(spatial)) < count).reshape(spatial)
    return key, value, filled


def _cache_maker(shape: tuple[int, ...], n_axes: int) -> Callable[..., CacheEntry]:
    def init_fn(shape: tuple[int, ...], dtype: Any = jnp.float32) -> CacheEntry:
        """The empty cache for arrays `[*shape, ...]`."""
        if len(shape) != n_axes + 1:
            raise ValueError(
                "Shape should be a tuple with the shape of the batch "
                "and attention dims."
            )
        zeros = jnp.zeros((*shape, *tail), dtype)
        return CacheEntry(zeros, zeros, jnp.zeros((), jnp.uint32))

    tail = shape[-2:]
    return init_fn


def _causal_mask(shape: tuple[int, ...], axis: _Axes) -> Array:
    axes = _attention_axes(axis, len(shape))
    spatial = tuple(shape[a] for a in axes)
    size = int(np.prod(spatial))
    mask = jnp.tri(size, dtype=bool)
    return mask.reshape((1,) * (len(shape) - len(axes) - 1) + spatial + spatial)


def make_padding_mask(
    padding_mask_query: Array,
    padding_mask_key: Array,
    query_shape: Sequence[int],
    key_shape: Sequence[int],
    attention_axis: _Axes = None,
    segmentation_mask: bool = False,
) -> Array:
    """Which pairs of positions may see each other, of what is known of each.

    Args:
        padding_mask_query: `[batch, *spatial, 1]`: true where a query counts, or the
            number of its segment.
        padding_mask_key: The same of keys.
        query_shape: `[batch, *spatial, heads, features]`.
        key_shape: The same of keys.
        attention_axis: The axes over which to attend; by default all spatial ones.
        segmentation_mask: Whether equal numbers make a pair.

    Returns:
        float32 `[batch, 1, *queries, *keys]`.

    Raises:
        ValueError: An axis is none of the spatial ones.
    """
    assert query_shape[0] == key_shape[0], "Queries and keys differ in batch."
    axes = _attention_axes(attention_axis, len(key_shape))
    shape = (
        query_shape[0],
        1,
        *(query_shape[a] for a in axes),
        *(key_shape[a] for a in axes),
    )
    queries, keys = padding_mask_query[..., None], padding_mask_key[..., None]
    keys = keys.transpose((0, *range(keys.ndim - 1, 0, -1)))
    pairs = jnp.equal(queries, keys) if segmentation_mask else queries * keys
    return pairs.reshape(shape).astype(jnp.float32)
