"""Normalisation as functions of a scope."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from linnet.compat.flax.core.scope import Array, Scope
from linnet.compat.flax.linen import initializers

__all__ = [
    "Scope",
    "batch_norm",
    "group_norm",
    "initializers",
    "jnp",
    "lax",
    "layer_norm",
]

_zeros, _ones = initializers.zeros, initializers.ones


def _variance(mean: Array, mean_of_squares: Array) -> Array:
    # Rounding must not make it negative, whose root is no number.
    return jnp.maximum(0.0, mean_of_squares - lax.square(mean))


def batch_norm(
    scope: Scope,
    x: Array,
    use_running_average: bool = False,
    axis: int | tuple[int, ...] = -1,
    momentum: float = 0.99,
    epsilon: float = 1e-5,
    dtype: Any = jnp.float32,
    bias: bool = True,
    scale: bool = True,
    bias_init: Any = _zeros,
    scale_init: Any = _ones,
    axis_name: str | None = None,
    axis_index_groups: Any = None,
    kind: str = "batch_stats",
) -> Array:
    """Normalises each channel over the batch.

    Args:
        scope: Where the parameters and the moving averages `mean`, `var` are.
        x: `[..., channels]`.
        use_running_average: Whether the moving averages are used, and kept.
        axis: The axes of channels.
        momentum: The weight of the old average.
        epsilon: Added to the variance.
        dtype: The type of the result.
        bias: Whether to add a bias.
        scale: Whether to multiply by a scale.
        bias_init: Makes the bias.
        scale_init: Makes the scale.
        axis_name: An axis of devices over which means are taken, too.
        axis_index_groups: Groups of these devices.
        kind: The collection of moving averages.
    """
    x = jnp.asarray(x, jnp.float32)
    axes = tuple(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,)))
    reduced = tuple(i for i in range(x.ndim) if i not in axes)
    shape = tuple(x.shape[i] for i in axes)
    wide = tuple(x.shape[i] if i in axes else 1 for i in range(x.ndim))

    def mean_of(values: Array) -> Array:
        mean = jnp.mean(values, reduced, keepdims=True)
        if axis_name is not None:
            mean = lax.pmean(mean, axis_name, axis_index_groups=axis_index_groups)
        return mean

    mean = mean_of(x)
    var = _variance(mean, mean_of(lax.square(x)))
    is_first = not scope.has_variable(kind, "mean")
    ra_mean = scope.variable(kind, "mean", jnp.zeros, mean.squeeze(reduced).shape)
    ra_var = scope.variable(kind, "var", jnp.ones, mean.squeeze(reduced).shape)
    if use_running_average:
        mean, var = ra_mean.value.reshape(wide), ra_var.value.reshape(wide)
    elif not is_first:
        for average, new in ((ra_mean, mean), (ra_var, var)):
            step = new.squeeze(reduced) - average.value
            average.value += (1 - momentum) * step
    y = x - mean
    mul = lax.rsqrt(var + epsilon)
    if scale:
        mul = mul * scope.param("scale", scale_init, shape).reshape(wide)
    y = y * mul
    if bias:
        y = y + scope.param("bias", bias_init, shape).reshape(wide)
    return jnp.asarray(y, dtype)


def layer_norm(
    scope: Scope,
    x: Array,
    epsilon: float = 1e-6,
    dtype: Any = jnp.float32,
    bias: bool = True,
    scale: bool = True,
    bias_init: Any = _zeros,
    scale_init: Any = _ones,
) -> Array:
    """Normalises each position of `[..., features]` over its features."""
    shape = (x.shape[-1],)
    wide = (*(1,) * (x.ndim - 1), *shape)
    mean = jnp.mean(x, -1, keepdims=True)
    var = _variance(mean, jnp.mean(lax.square(x), -1, keepdims=True))
    mul = lax.rsqrt(var + epsilon)
    if scale:
        scale_ = scope.param("scale", scale_init, shape).reshape(wide)
        mul = mul * jnp.asarray(scale_, dtype)
    y = (x - mean) * mul
    if bias:
        bias_ = scope.param("bias", bias_init, shape).reshape(wide)
        y = y + jnp.asarray(bias_, dtype)
    return y


def group_norm(
    scope: Scope,
    x: Array,
    num_groups: int | None = 32,
    group_size: int | None = None,
    epsilon: float = 1e-6,
    dtype: Any = jnp.float32,
    bias: bool = True,
    scale: bool = True,
    bias_init: Any = _zeros,
    scale_init: Any = _ones,
) -> Array:
    """Normalises groups of channels of `[batch, *spatial, channels]`.

    Raises:
        ValueError: Both or none of `num_groups` and `group_size` are given, or the
            channels do not fill the groups.
    """
    x = jnp.asarray(x, jnp.float32)
    if (num_groups is None) == (group_size is None):
        raise ValueError(
            "Either `num_groups` or `group_size` should be specified, but not both of "
            "them."
        )
    channels = x.shape[-1]
    if num_groups is None:
        assert group_size is not None
        if channels % group_size:
            raise ValueError(
                f"Number of channels ({channels}) is not multiple of the group size "
                f"({group_size})."
            )
        num_groups = channels // group_size
    grouped = x.reshape(*x.shape[:-1], num_groups, channels // num_groups)
    axes = (*range(1, grouped.ndim - 2), grouped.ndim - 1)
    mean = jnp.mean(grouped, axes, keepdims=True)
    var = _variance(mean, jnp.mean(lax.square(grouped), axes, keepdims=True))
    y = ((grouped - mean) * lax.rsqrt(var + epsilon)).reshape(x.shape)
    shape = (1,) * (x.ndim - 1) + (channels,)
    if scale:
        y = y * scope.param("scale", scale_init, shape)
    if bias:
        y = y + scope.param("bias", bias_init, shape)
    return y.astype(dtype)
