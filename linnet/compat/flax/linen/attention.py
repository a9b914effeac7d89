"""Attention, with masks, dropout and a cache for decoding."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax, random

from linnet.compat.flax.core._traced import traced_once
from linnet.compat.flax.linen import initializers
from linnet.compat.flax.linen.dtypes import promote_dtype
from linnet.compat.flax.linen.linear import DenseGeneral, default_kernel_init
from linnet.compat.flax.linen.module import Module, compact, merge_param, nowrap
from linnet.compat.flax.linen.normalization import LayerNorm
from linnet.compat.flax.typing import (
    Array,
    DotGeneralT,
    Dtype,
    Initializer,
    PrecisionLike,
    PRNGKey,
    Shape,
)

__all__ = [
    "DotGeneralT",
    "MultiHeadAttention",
    "MultiHeadDotProductAttention",
    "SelfAttention",
    "Shape",
    "combine_masks",
    "dot_product_attention",
    "dot_product_attention_weights",
    "make_attention_mask",
    "make_causal_mask",
]


def dot_product_attention_weights(
    query: Array,
    key: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    broadcast_dropout: bool = True,
    dropout_rng: PRNGKey | None = None,
    dropout_rate: float = 0.0,
    deterministic: bool = False,
    dtype: Dtype | None = None,
    precision: PrecisionLike = None,
    module: Module | None = None,
    force_fp32_for_softmax: bool = False,
    einsum_dot_general: Callable[..., Array] | None = None,
    einsum: Callable[..., Array] | None = None,
) -> Array:
    """The weights of attention: the softmax of scaled products.

    Args:
        query: `[..., q, heads, features]`.
        key: `[..., k, heads, features]`.
        bias: Added to the products, `[..., heads, q, k]`.
        mask: True where a query may see a key, `[..., heads, q, k]`.
        broadcast_dropout: Whether all of the batch share what is dropped.
        dropout_rng: A key for dropout.
        dropout_rate: The chance of a weight to become zero.
        deterministic: Whether nothing is dropped.
        dtype: The type of the computation.
        precision: Of the product.
        module: Where weights are sown, as `attention_weights` in `intermediates`.
        force_fp32_for_softmax: Whether the softmax is computed in float32.
        einsum_dot_general: Computes the product.
        einsum: Computes the equation.

    Returns:
        `[..., heads, q, k]`.
    """
    query, key = promote_dtype(query, key, dtype=dtype)
    dtype = query.dtype
    assert query.ndim == key.ndim, "q, k must have same rank."
    assert query.shape[:-3] == key.shape[:-3], "q, k batch dims must match."
    assert query.shape[-2] == key.shape[-2], "q, k num_heads must match."
    assert query.shape[-1] == key.shape[-1], "q, k depths must match."
    if einsum is None and einsum_dot_general is None:
        weights = _plain_softmax_of_products(
            query, key, bias, mask, precision, force_fp32_for_softmax
        )
    else:
        einsum = _einsum(einsum, einsum_dot_general, precision)
        weights = _softmax_of_products(
            query, key, bias, mask, einsum, force_fp32_for_softmax
        )
    if module:
        module.sow("intermediates", "attention_weights", weights)
    if not deterministic and dropout_rate > 0.0:
        keep_prob = 1.0 - dropout_rate
        if broadcast_dropout:
            shape = (1,) * (key.ndim - 2) + weights.shape[-2:]
        else:
            shape = weights.shape
        keep = random.bernoulli(dropout_rng, keep_prob, shape)  # type: ignore[arg-type]
        multiplier = keep.astype(dtype) / jnp.asarray(keep_prob, dtype=dtype)
        weights = weights * multiplier
    return weights


def _softmax_of_products(
    query: Array,
    key: Array,
    bias: Array | None,
    mask: Array | None,
    einsum: Callable[..., Array],
    force_fp32: bool,
) -> Array:
    dtype = query.dtype
    query = query / jnp.sqrt(query.shape[-1]).astype(dtype)
    weights = einsum("...qhd,...khd->...hqk", query, key)
    if bias is not None:
        weights = weights + bias
    if mask is not None:
        weights = jnp.where(mask, weights, jnp.finfo(dtype).min)
    if force_fp32 and dtype != jnp.float32:
        return jax.nn.softmax(weights.astype(jnp.float32))
    return jax.nn.softmax(weights).astype(dtype)


@traced_once(arrays=4)
def _plain_softmax_of_products(
    query: Array,
    key: Array,
    bias: Array | None,
    mask: Array | None,
    precision: PrecisionLike,
    force_fp32: bool,
) -> Array:
    einsum = functools.partial(jnp.einsum, precision=precision)
    return _softmax_of_products(query, key, bias, mask, einsum, force_fp32)


@traced_once(arrays=2)
def _plain_weighted(weights: Array, value: Array, precision: PrecisionLike) -> Array:
    return jnp.einsum("...hqk,...khd->...qhd", weights, value, precision=precision)


def _einsum(
    given: Callable[..., Array] | None,
    dot_general: Callable[..., Array] | None,
    precision: PrecisionLike,
) -> Callable[..., Array]:
    if given is not None:
        if dot_general is not None or precision is not None:
            raise ValueError(
                "precision/einsum_dot_general and einsum are mutually exclusive: who "
                "computes the equation decides on both."
            )
        return given
    options = {} if dot_general is None else {"_dot_general": dot_general}
    return functools.partial(jnp.einsum, precision=precision, **options)


def dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    broadcast_dropout: bool = True,
    dropout_rng: PRNGKey | None = None,
    dropout_rate: float = 0.0,
    deterministic: bool = False,
    dtype: Dtype | None = None,
    precision: PrecisionLike = None,
    module: Module | None = None,
    force_fp32_for_softmax: bool = False,
    einsum_dot_general: Callable[..., Array] | None = None,
    qk_attn_weights_einsum: Callable[..., Array] | None = None,
    attn_weights_value_einsum: Callable[..., Array] | None = None,
) -> Array:
    """Values, weighted by how well their keys fit the queries.

    Args:
        query: `[..., q, heads, features]`.
        key: `[..., k, heads, features]`.
        value: `[..., k, heads, value_features]`.
        bias: As in `dot_product_attention_weights`, with all that follow.
        mask: True where a query may see a key.
        broadcast_dropout: Whether all of the batch share what is dropped.
        dropout_rng: A key for dropout.
        dropout_rate: The chance of a weight to become zero.
        deterministic: Whether nothing is dropped.
        dtype: The type of the computation.
        precision: Of the products.
        module: Where weights are sown.
        force_fp32_for_softmax: Whether the softmax is computed in float32.
        einsum_dot_general: Computes the products.
        qk_attn_weights_einsum: Computes the first equation.
        attn_weights_value_einsum: Computes the second equation.

    Returns:
        `[..., q, heads, value_features]`.
    """
    query, key, value = promote_dtype(query, key, value, dtype=dtype)
    dtype = query.dtype
    assert key.ndim == query.ndim == value.ndim, "q, k, v must have same rank."
    assert query.shape[:-3] == key.shape[:-3] == value.shape[:-3], (
        "q, k, v batch dims must match."
    )
    assert query.shape[-2] == key.shape[-2] == value.shape[-2], (
        "q, k, v num_heads must match."
    )
    assert key.shape[-3] == value.shape[-3], "k, v lengths must match."
    if (qk_attn_weights_einsum is None) != (attn_weights_value_einsum is None):
        raise ValueError(
            "qk_attn_weights_einsum and attn_weights_value_einsum must be specified "
            "together."
        )
    given = qk_attn_weights_einsum is not None
    if given and (einsum_dot_general is not None or precision is not None):
        raise ValueError(
            "precision/einsum_dot_general and "
            "qk_attn_weights_einsum/attn_weights_value_einsum are mutually exclusive: "
            "who computes the equations decides on both."
        )
    weights = dot_product_attention_weights(
        query,
        key,
        bias,
        mask,
        broadcast_dropout,
        dropout_rng,
        dropout_rate,
        deterministic,
        dtype,
        precision,
        module,
        force_fp32_for_softmax,
        einsum_dot_general,
        qk_attn_weights_einsum,
    )
    if attn_weights_value_einsum is None and einsum_dot_general is None:
        return _plain_weighted(weights, value, precision)
    einsum = _einsum(attn_weights_value_einsum, einsum_dot_general, precision)
    return einsum("...hqk,...khd->...qhd", weights, value)


class MultiHeadDotProductAttention(Module):
    """Attention with several heads.

    Args:
        num_heads: The number of heads.
        dtype: The type of the computation.
        param_dtype: The type of the parameters.
        qkv_features: The size of all heads together; by default that of the queries.
        out_features: The size of the result; by default that of the queries.
        broadcast_dropout: Whether all of the batch share what is dropped.
        dropout_rate: The chance of a weight to become zero.
        deterministic: Whether nothing is dropped; here or when called.
        precision: Of the products.
        kernel_init: Makes the kernels.
        out_kernel_init: Makes that of the last projection, if another one does.
        bias_init: Makes the biases.
        out_bias_init: Makes that of the last projection, if another one does.
        use_bias: Whether projections have biases.
        attention_fn: Computes attention.
        decode: Whether one position is given at a time, and kept in a cache.
        normalize_qk: Whether queries and keys are normalised.
        force_fp32_for_softmax: Whether the softmax is computed in float32.
        qkv_dot_general: Computes the first projections.
        out_dot_general: Computes the last projection.
        qkv_dot_general_cls: Makes what computes the first projections.
        out_dot_general_cls: Makes what computes the last projection.
        qk_attn_weights_einsum_cls: Makes what computes the weights.
        attn_weights_value_einsum_cls: Makes what computes the weighted values.
    """

    num_heads: int
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    qkv_features: int | None = None
    out_features: int | None = None
    broadcast_dropout: bool = True
    dropout_rate: float = 0.0
    deterministic: bool | None = None
    precision: PrecisionLike = None
    kernel_init: Initializer = default_kernel_init
    out_kernel_init: Initializer | None = None
    bias_init: Initializer = initializers.zeros_init()
    out_bias_init: Initializer | None = None
    use_bias: bool = True
    attention_fn: Callable[..., Array] = dot_product_attention
    decode: bool = False
    normalize_qk: bool = False
    force_fp32_for_softmax: bool = False
    qkv_dot_general: DotGeneralT | None = None
    out_dot_general: DotGeneralT | None = None
    qkv_dot_general_cls: Any = None
    out_dot_general_cls: Any = None
    qk_attn_weights_einsum_cls: Callable[..., Callable[..., Array]] | None = None
    attn_weights_value_einsum_cls: Callable[..., Callable[..., Array]] | None = None

    @compact
    def __call__(
        self,
        inputs_q: Array,
        inputs_k: Array | None = None,
        inputs_v: Array | None = None,
        *,
        inputs_kv: Array | None = None,
        mask: Array | None = None,
        deterministic: bool | None = None,
        dropout_rng: PRNGKey | None = None,
        sow_weights: bool = False,
    ) -> Array:
        """Lets queries attend to keys and values.

        Args:
            inputs_q: `[..., q, features]`.
            inputs_k: `[..., k, features]`; by default the queries.
            inputs_v: `[..., k, features]`; by default the keys.
            inputs_kv: Keys and values at once, as older code gives them.
            mask: True where a query may see a key, `[..., heads, q, k]`.
            deterministic: Whether nothing is dropped.
            dropout_rng: A key for dropout instead of one of the stream `dropout`.
            sow_weights: Whether the weights are sown in `intermediates`.

        Returns:
            `[..., q, out_features]`.
        """
        inputs_k, inputs_v = _keys_and_values(inputs_q, inputs_k, inputs_v, inputs_kv)
        features = self.out_features or inputs_q.shape[-1]
        qkv_features = self.qkv_features or inputs_q.shape[-1]
        assert qkv_features % self.num_heads == 0, (
            f"Memory dimension ({qkv_features}) must be divisible by number of heads "
            f"({self.num_heads})."
        )
        head_dim = qkv_features // self.num_heads
        dense = functools.partial(
            DenseGeneral,
            axis=-1,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            features=(self.num_heads, head_dim),
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
            use_bias=self.use_bias,
            precision=self.precision,
            dot_general=self.qkv_dot_general,
            dot_general_cls=self.qkv_dot_general_cls,
        )
        query = dense(name="query")(inputs_q)
        key = dense(name="key")(inputs_k)
        value = dense(name="value")(inputs_v)
        if self.normalize_qk:
            norm = functools.partial(
                LayerNorm,
                use_bias=False,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
            )
            query = norm(name="query_ln")(query)
            key = norm(name="key_ln")(key)
        if self.decode:
            query, key, value, mask = self._remember(query, key, value, mask)
        drops = False
        if self.dropout_rate > 0.0:
            is_fixed = merge_param("deterministic", self.deterministic, deterministic)
            drops = not is_fixed
            if drops and dropout_rng is None:
                dropout_rng = self.make_rng("dropout")
        options: dict[str, Any] = {
            "mask": mask,
            "dropout_rng": dropout_rng,
            "dropout_rate": self.dropout_rate,
            "broadcast_dropout": self.broadcast_dropout,
            "deterministic": not drops,
            "dtype": self.dtype,
            "precision": self.precision,
            "force_fp32_for_softmax": self.force_fp32_for_softmax,
        }
        if self.qk_attn_weights_einsum_cls or self.attn_weights_value_einsum_cls:
            options |= self._einsums()
        if sow_weights:
            options["module"] = self
        if self.attention_fn is not dot_product_attention:
            if not self.force_fp32_for_softmax:
                options.pop("force_fp32_for_softmax")
        x = self.attention_fn(query, key, value, **options)
        return DenseGeneral(
            features=features,
            axis=(-2, -1),
            kernel_init=self.out_kernel_init or self.kernel_init,
            bias_init=self.out_bias_init or self.bias_init,
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            precision=self.precision,
            dot_general=self.out_dot_general,
            dot_general_cls=self.out_dot_general_cls,
            name="out",
        )(x)

    @nowrap
    def _einsums(self) -> dict[str, Any]:
        first, second = (
            self.qk_attn_weights_einsum_cls,
            self.attn_weights_value_einsum_cls,
        )
        if first is None or second is None:
            raise ValueError(
                "qk_attn_weights_einsum_cls and attn_weights_value_einsum_cls must be "
                "given together."
            )
        return {
            "qk_attn_weights_einsum": first(),
            "attn_weights_value_einsum": second(),
        }

    @nowrap
    def _remember(
        self, query: Array, key: Array, value: Array, mask: Array | None
    ) -> tuple[Array, Array, Array, Array | None]:
        """Puts keys and values into the cache, and gives all that it holds."""
        is_there = self.has_variable("cache", "cached_key")
        cached_key = self.variable(
            "cache", "cached_key", jnp.zeros, key.shape, key.dtype
        )
        cached_value = self.variable(
            "cache", "cached_value", jnp.zeros, value.shape, value.dtype
        )
        index = self.variable(
            "cache", "cache_index", lambda: jnp.array(0, dtype=jnp.int32)
        )
        if not is_there:
            return query, key, value, mask
        *batch_dims, max_length, num_heads, head_dim = cached_key.value.shape
        expected = (*batch_dims, 1, num_heads, head_dim)
        if expected != query.shape:
            raise ValueError(
                f"Autoregressive cache shape error, expected query shape {expected} "
                f"instead got {query.shape}."
            )
        now = index.value
        start = [jnp.zeros((), now.dtype)] * key.ndim
        start[len(batch_dims)] = now
        key = lax.dynamic_update_slice(cached_key.value, key, start)
        value = lax.dynamic_update_slice(cached_value.value, value, start)
        cached_key.value, cached_value.value = key, value
        index.value = now + 1
        seen = jnp.broadcast_to(
            jnp.arange(max_length) <= now, (*batch_dims, 1, 1, max_length)
        )
        return query, key, value, combine_masks(mask, seen)


def _keys_and_values(
    q: Array, k: Array | None, v: Array | None, kv: Array | None
) -> tuple[Array, Array]:
    if kv is not None:
        if k is not None or v is not None:
            raise ValueError(
                "If either `inputs_k` or `inputs_v` is not None, `inputs_kv` must be "
                "None. If `inputs_kv` is not None, both `inputs_k` and `inputs_v` must "
                "be None. We recommend using `inputs_k` and `inputs_v` args, since "
                "`inputs_kv` will be deprecated soon."
            )
        warnings.warn(
            "The inputs_kv arg will be deprecated soon: keys and values are given as "
            "`inputs_k` and `inputs_v`.",
            DeprecationWarning,
            stacklevel=3,
        )
        return kv, kv
    if k is None:
        if v is not None:
            raise ValueError(
                "`inputs_k` cannot be None if `inputs_v` is not None. To have both "
                "`inputs_k` and `inputs_v` be the same value, pass in the value to "
                "`inputs_k` and leave `inputs_v` as None."
            )
        k = q
    if v is not None and v.shape[-1:] == v.shape[-2:-1]:
        warnings.warn(
            f"The array of shape {v.shape} is given as `inputs_v`, and looks like a "
            f"mask. Since Flax 0.7.4 the function signature of "
            f"MultiHeadDotProductAttention's `__call__` method has changed: the mask "
            f"is given as `mask=`.",
            DeprecationWarning,
            stacklevel=3,
        )
    return k, k if v is None else v


class MultiHeadAttention(MultiHeadDotProductAttention):
    """`MultiHeadDotProductAttention` by a shorter name."""


class SelfAttention(MultiHeadDotProductAttention):
    """`MultiHeadDotProductAttention` of a sequence to itself."""

    @compact
    def __call__(
        self,
        inputs_q: Array,
        mask: Array | None = None,
        deterministic: bool | None = None,
        dropout_rng: PRNGKey | None = None,
        sow_weights: bool = False,
    ) -> Array:
        """Lets a sequence attend to itself; arguments as of the base class."""
        warnings.warn(
            "SelfAttention will be deprecated soon: "
            "`MultiHeadDotProductAttention.__call__(inputs_q)` does the same.",
            DeprecationWarning,
            stacklevel=2,
        )
        return super().__call__(
            inputs_q,
            mask=mask,
            deterministic=deterministic,
            dropout_rng=dropout_rng,
            sow_weights=sow_weights,
        )


def make_attention_mask(
    query_input: Array,
    key_input: Array,
    pairwise_fn: Callable[..., Any] = jnp.multiply,
    extra_batch_dims: int = 0,
    dtype: Dtype = jnp.float32,
) -> Array:
    """A mask of attention from what is known of queries and of keys.

    Args:
        query_input: `[batch..., q]`.
        key_input: `[batch..., k]`.
        pairwise_fn: From both to whether the query may see the key.
        extra_batch_dims: The number of axes of size 1 to put in front.
        dtype: The type of the mask.

    Returns:
        `[batch..., 1, q, k]`.
    """
    mask = pairwise_fn(
        jnp.expand_dims(query_input, axis=-1), jnp.expand_dims(key_input, axis=-2)
    )
    mask = jnp.expand_dims(mask, axis=-3)
    mask = jnp.expand_dims(mask, axis=tuple(range(extra_batch_dims)))
    return mask.astype(dtype)


def make_causal_mask(
    x: Array, extra_batch_dims: int = 0, dtype: Dtype = jnp.float32
) -> Array:
    """The mask by which each position sees itself and those before it.

    Args:
        x: `[batch..., length]`, of which only the shape matters.
        extra_batch_dims: The number of axes of size 1 to put in front.
        dtype: The type of the mask.

    Returns:
        `[batch..., 1, length, length]`.
    """
    return _causal_mask(x, extra_batch_dims, dtype)


@traced_once(arrays=1)
def _causal_mask(x: Array, extra_batch_dims: int, dtype: Dtype) -> Array:
    places = jnp.broadcast_to(jnp.arange(x.shape[-1], dtype=jnp.int32), x.shape)
    return make_attention_mask(
        places,
        places,
        jnp.greater_equal,
        extra_batch_dims=extra_batch_dims,
        dtype=dtype,
    )


def combine_masks(*masks: Array | None, dtype: Dtype = jnp.float32) -> Array | None:
    """The mask that lets through what all masks do; None is left out.

    Args:
        *masks: Masks with the same number of axes.
        dtype: The type of the result.
    """
    given = [mask for mask in masks if mask is not None]
    if not given:
        return None
    assert all(mask.ndim == given[0].ndim for mask in given), (
        f"masks must have same rank: {tuple(mask.ndim for mask in given)}"
    )
    mask, *others = given
    for other in others:
        mask = jnp.logical_and(mask, other)
    return mask.astype(dtype)
