"""Normalisation of activations, and of the parameters of other layers."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linnet.compat.flax.core._traced import traced_once
from linnet.compat.flax.linen import initializers
from linnet.compat.flax.linen.dtypes import canonicalize_dtype
from linnet.compat.flax.linen.module import Module, compact, merge_param, nowrap
from linnet.compat.flax.linen.transforms import map_variables
from linnet.compat.flax.typing import (
    Array,
    Axes,
    Dtype,
    Initializer,
    PRNGKey,
    Shape,
)

__all__ = [
    "BatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "PRNGKey",
    "RMSNorm",
    "SpectralNorm",
    "WeightNorm",
    "field",
]

_zeros, _ones = initializers.zeros_init(), initializers.ones_init()


def _canonicalize_axes(rank: int, axes: Any) -> tuple[int, ...]:
    axes = tuple(axes) if isinstance(axes, Iterable) else (axes,)
    return tuple(axis if axis >= 0 else rank + axis for axis in axes)


def _abs_sq(x: Array) -> Array:
    if jnp.iscomplexobj(x):
        return lax.square(lax.real(x)) + lax.square(lax.imag(x))
    return lax.square(x)


@traced_once(arrays=2)
def _statistics(
    x: Array,
    mask: Array | None,
    axes: tuple[int, ...],
    dtype: Any,
    axis_name: str | None,
    axis_index_groups: Any,
    use_mean: bool,
    use_fast_variance: bool,
    force_float32_reductions: bool,
) -> tuple[Array, Array]:
    """(mean, variance) over axes, and over the devices along `axis_name`.

    The fast variance is the mean of squares less the square of the mean.
    """
    dtype = jnp.result_type(x) if dtype is None else dtype
    if force_float32_reductions:
        dtype = jnp.promote_types(dtype, jnp.float32)
    x = jnp.asarray(x, dtype)

    def means(*xs: Array) -> Any:
        found = [x.mean(axes, where=mask) for x in xs]
        if axis_name is not None:
            together = lax.pmean(
                jnp.stack(found) if len(found) > 1 else found[0],
                axis_name,
                axis_index_groups=axis_index_groups,
            )
            found = list(together) if len(found) > 1 else [together]
        return found

    if not use_mean:
        (var,) = means(_abs_sq(x))
        return jnp.zeros(var.shape, dtype), var
    if use_fast_variance:
        mean, square = means(x, _abs_sq(x))
        return mean, jnp.maximum(0.0, square - _abs_sq(mean))
    (mean,) = means(x)
    (var,) = means(_abs_sq(x - jnp.expand_dims(mean, axes)))
    return mean, var


# The names of the functions with an underscore that follow, and what they take, are
# those of Flax: layers that were copied from it and changed call them.


def _compute_stats(
    x: Array,
    axes: Axes,
    dtype: Dtype | None,
    axis_name: str | None = None,
    axis_index_groups: Any = None,
    use_mean: bool = True,
    use_fast_variance: bool = True,
    mask: Array | None = None,
    force_float32_reductions: bool = True,
) -> tuple[Array, Array]:
    """(mean, variance) of `x` over axes."""
    groups = axis_index_groups
    return _statistics(
        x,
        mask,
        _canonicalize_axes(x.ndim, axes),
        dtype,
        axis_name,
        None if groups is None else tuple(map(tuple, groups)),
        use_mean,
        use_fast_variance,
        force_float32_reductions,
    )


def _statistics_of(
    module: Any,
    x: Array,
    axes: tuple[int, ...],
    mask: Array | None,
    axis_name: str | None,
    use_mean: bool = True,
) -> tuple[Array, Array]:
    """The statistics by the options of a module."""
    return _compute_stats(
        x,
        axes,
        module.dtype,
        axis_name,
        module.axis_index_groups,
        use_mean,
        module.use_fast_variance,
        mask,
        module.force_float32_reductions,
    )


def _normalize(
    mdl: Any,
    x: Array,
    mean: Array,
    var: Array,
    reduction_axes: Axes,
    feature_axes: Axes,
    dtype: Dtype | None,
    param_dtype: Dtype,
    epsilon: float,
    use_bias: bool,
    use_scale: bool,
    bias_init: Initializer | None,
    scale_init: Initializer,
    force_float32_reductions: bool = True,
) -> Array:
    """`(x - mean) / sqrt(var + epsilon) * scale + bias`, with parameters of the module.

    Parameters have the shape of the feature axes.
    """
    del force_float32_reductions  # The statistics are of the type they are to be.
    reduction_axes = _canonicalize_axes(x.ndim, reduction_axes)
    feature_axes = _canonicalize_axes(x.ndim, feature_axes)
    shape = tuple(x.shape[i] for i in feature_axes)
    scale = bias = None
    if use_scale:
        scale = mdl.param("scale", scale_init, shape, param_dtype)
    if use_bias:
        bias = mdl.param("bias", bias_init, shape, param_dtype)
    return _scaled(
        x, mean, var, scale, bias, reduction_axes, feature_axes, epsilon, dtype
    )


def _normalize_by(
    module: Any,
    x: Array,
    mean: Array,
    var: Array,
    reduction_axes: tuple[int, ...],
    feature_axes: tuple[int, ...],
) -> Array:
    """`_normalize` by the options of a module."""
    return _normalize(
        module,
        x,
        mean,
        var,
        reduction_axes,
        feature_axes,
        module.dtype,
        module.param_dtype,
        module.epsilon,
        getattr(module, "use_bias", False),
        module.use_scale,
        getattr(module, "bias_init", None),
        module.scale_init,
    )


@traced_once(arrays=5)
def _scaled(
    x: Array,
    mean: Array,
    var: Array,
    scale: Array | None,
    bias: Array | None,
    reduction_axes: tuple[int, ...],
    feature_axes: tuple[int, ...],
    epsilon: float,
    dtype: Any,
) -> Array:
    stats_shape = [1 if i in reduction_axes else n for i, n in enumerate(x.shape)]
    wide = [x.shape[i] if i in feature_axes else 1 for i in range(x.ndim)]
    y = x - mean.reshape(stats_shape)
    mul = lax.rsqrt(var.reshape(stats_shape) + epsilon)
    args = [x]
    if scale is not None:
        scale = scale.reshape(wide)
        mul *= scale
        args.append(scale)
    y *= mul
    if bias is not None:
        bias = bias.reshape(wide)
        y += bias
        args.append(bias)
    return jnp.asarray(y, canonicalize_dtype(*args, dtype=dtype))


class BatchNorm(Module):
    """Normalises each channel over the batch.

    Moving averages are kept in the collection `batch_stats`, and change where it is
    mutable and `use_running_average` is false.

    Args:
        use_running_average: Whether the moving averages are used; here or when called.
        axis: The axes of channels.
        momentum: The weight of the old average.
        epsilon: Added to the variance.
        dtype: The type of the result.
        param_dtype: The type of the parameters.
        use_bias: Whether to add a bias.
        use_scale: Whether to multiply by a scale.
        bias_init: Makes the bias.
        scale_init: Makes the scale.
        axis_name: An axis of devices over which statistics are taken, too.
        axis_index_groups: Groups of these devices.
        use_fast_variance: Whether the variance is found in one pass.
        force_float32_reductions: Whether statistics are computed in float32 at least.
    """

    use_running_average: bool | None = None
    axis: int = -1
    momentum: float = 0.99
    epsilon: float = 1e-5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = _zeros
    scale_init: Initializer = _ones
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @compact
    def __call__(
        self,
        x: Array,
        use_running_average: bool | None = None,
        *,
        mask: Array | None = None,
    ) -> Array:
        """Normalises `[..., channels]`.

        Args:
            x: The array.
            use_running_average: Whether the moving averages are used.
            mask: Which positions count, broadcastable to `x`.
        """
        is_fixed = merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        feature_axes = _canonicalize_axes(x.ndim, self.axis)
        reduction_axes = tuple(i for i in range(x.ndim) if i not in feature_axes)
        shape = [x.shape[i] for i in feature_axes]
        ra_mean = self.variable(
            "batch_stats", "mean", lambda s: jnp.zeros(s, jnp.float32), shape
        )
        ra_var = self.variable(
            "batch_stats", "var", lambda s: jnp.ones(s, jnp.float32), shape
        )
        if is_fixed:
            mean, var = ra_mean.value, ra_var.value
        else:
            axis_name = None if self.is_initializing() else self.axis_name
            mean, var = _statistics_of(self, x, reduction_axes, mask, axis_name)
            if not self.is_initializing():
                for average, new in ((ra_mean, mean), (ra_var, var)):
                    average.value = (
                        self.momentum * average.value + (1 - self.momentum) * new
                    )
        return _normalize_by(self, x, mean, var, reduction_axes, feature_axes)


class LayerNorm(Module):
    """Normalises each position over its features.

    Args:
        epsilon: Added to the variance.
        dtype: The type of the result.
        param_dtype: The type of the parameters.
        use_bias: Whether to add a bias.
        use_scale: Whether to multiply by a scale.
        bias_init: Makes the bias.
        scale_init: Makes the scale.
        reduction_axes: The axes over which statistics are taken.
        feature_axes: The axes of parameters.
        axis_name: An axis of devices over which statistics are taken, too.
        axis_index_groups: Groups of these devices.
        use_fast_variance: Whether the variance is found in one pass.
        force_float32_reductions: Whether statistics are computed in float32 at least.
    """

    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = _zeros
    scale_init: Initializer = _ones
    reduction_axes: Axes = -1
    feature_axes: Axes = -1
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @compact
    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Normalises an array; `mask` tells which positions count."""
        return _normalized(self, x, mask)


class RMSNorm(Module):
    """Divides each position by the root of the mean square of its features.

    Args:
        epsilon: Added to the mean square.
        dtype: The type of the result.
        param_dtype: The type of the parameters.
        use_scale: Whether to multiply by a scale.
        scale_init: Makes the scale.
        reduction_axes: The axes over which the mean is taken.
        feature_axes: The axes of parameters.
        axis_name: An axis of devices over which the mean is taken, too.
        axis_index_groups: Groups of these devices.
        use_fast_variance: Of no effect.
        force_float32_reductions: Whether the mean is computed in float32 at least.
    """

    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_scale: bool = True
    scale_init: Initializer = _ones
    reduction_axes: Axes = -1
    feature_axes: Axes = -1
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @compact
    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Normalises an array; `mask` tells which positions count."""
        return _normalized(self, x, mask, use_mean=False)


def _normalized(
    module: Any, x: Array, mask: Array | None, use_mean: bool = True
) -> Array:
    reduction_axes = _canonicalize_axes(x.ndim, module.reduction_axes)
    mean, var = _statistics_of(
        module, x, reduction_axes, mask, module.axis_name, use_mean
    )
    features = _canonicalize_axes(x.ndim, module.feature_axes)
    return _normalize_by(module, x, mean, var, reduction_axes, features)


class GroupNorm(Module):
    """Normalises groups of channels.

    Args:
        num_groups: The number of groups; or None, where `group_size` tells.
        group_size: The number of channels in a group.
        epsilon: Added to the variance.
        dtype: The type of the result.
        param_dtype: The type of the parameters.
        use_bias: Whether to add a bias.
        use_scale: Whether to multiply by a scale.
        bias_init: Makes the bias.
        scale_init: Makes the scale.
        reduction_axes: The axes over which statistics are taken, the last among them;
            by default all but the first.
        axis_name: An axis of devices over which statistics are taken, too.
        axis_index_groups: Groups of these devices.
        use_fast_variance: Whether the variance is found in one pass.
        force_float32_reductions: Whether statistics are computed in float32 at least.
    """

    num_groups: int | None = 32
    group_size: int | None = None
    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = _zeros
    scale_init: Initializer = _ones
    reduction_axes: Axes | None = None
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @compact
    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Normalises `[batch, ..., channels]`.

        Args:
            x: The array.
            mask: Which positions count, broadcastable to `x`.

        Raises:
            ValueError: The groups do not divide the channels.
        """
        every = (*range(1, x.ndim - 1), -1)
        axes = every if self.reduction_axes is None else self.reduction_axes
        reduction_axes = _canonicalize_axes(x.ndim, axes)
        if reduction_axes[-1] != x.ndim - 1 and max(reduction_axes) != x.ndim - 1:
            raise ValueError("`reduction_axes` must include the last axis (channels).")
        groups = self._groups(x.shape[-1])

        def grouped(a: Array) -> Array:
            return a.reshape((*a.shape[:-1], groups, a.shape[-1] // groups))

        within = (*(i for i in reduction_axes if i != x.ndim - 1), x.ndim)
        if mask is not None:
            mask = grouped(jnp.broadcast_to(mask, x.shape))
        mean, var = _statistics_of(self, grouped(x), within, mask, self.axis_name)
        size = x.shape[-1] // groups
        mean, var = jnp.repeat(mean, size, axis=-1), jnp.repeat(var, size, axis=-1)
        others = tuple(i for i in reduction_axes if i != x.ndim - 1)
        return _normalize_by(self, x, mean, var, others, (x.ndim - 1,))

    @nowrap
    def _groups(self, channels: int) -> int:
        if (self.num_groups is None) == (self.group_size is None):
            raise ValueError(
                "Either `num_groups` or `group_size` should be specified. If "
                "`group_size` is to be specified, pass `num_groups=None` as argument "
                "to override the default `num_groups` value of 32."
            )
        if self.group_size is not None:
            if channels % self.group_size:
                raise ValueError(
                    f"Number of channels ({channels}) is not multiple of the group "
                    f"size ({self.group_size})."
                )
            return channels // self.group_size
        groups = self.num_groups
        if not groups or groups <= 0 or channels % groups:
            raise ValueError(
                f"Number of groups ({groups}) does not divide the number of channels "
                f"({channels})."
            )
        return groups


class InstanceNorm(Module):
    """Normalises each channel of each example.

    Args:
        epsilon: Added to the variance.
        dtype: The type of the result.
        param_dtype: The type of the parameters.
        use_bias: Whether to add a bias.
        use_scale: Whether to multiply by a scale.
        bias_init: Makes the bias.
        scale_init: Makes the scale.
        feature_axes: The axes of channels.
        axis_name: An axis of devices over which statistics are taken, too.
        axis_index_groups: Groups of these devices.
        use_fast_variance: Whether the variance is found in one pass.
        force_float32_reductions: Whether statistics are computed in float32 at least.
    """

    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = _zeros
    scale_init: Initializer = _ones
    feature_axes: Axes = -1
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @compact
    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Normalises `[batch, ..., channels]`; `mask` tells which positions count."""
        feature_axes = _canonicalize_axes(x.ndim, self.feature_axes)
        if 0 in feature_axes:
            raise ValueError(
                "The channel axes cannot include the leading dimension as this is "
                "assumed to be the batch axis."
            )
        reduction_axes = tuple(i for i in range(1, x.ndim) if i not in feature_axes)
        mean, var = _statistics_of(self, x, reduction_axes, mask, self.axis_name)
        return _normalize_by(self, x, mean, var, reduction_axes, feature_axes)


def _l2_normalize(x: Array, axis: Any = None, eps: float = 1e-12) -> Array:
    return x * lax.rsqrt((x * x).sum(axis=axis, keepdims=True) + eps)


class SpectralNorm(Module):
    """Divides the matrices of a layer by their largest singular values.

    These are found by power iteration, whose state is in the collection named.

    Args:
        layer_instance: The layer.
        n_steps: Iterations in a call.
        epsilon: Keeps divisors from zero.
        dtype: The type of the normalised matrices.
        param_dtype: The type of the state.
        error_on_non_matrix: Whether an array with more than two axes is refused instead
            of flattened.
        collection_name: The collection of the state.
    """

    layer_instance: Module
    n_steps: int = 1
    epsilon: float = 1e-12
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    error_on_non_matrix: bool = False
    collection_name: str = "batch_stats"

    @compact
    def __call__(self, *args: Any, update_stats: bool, **kwargs: Any) -> Any:
        """Calls the layer.

        Args:
            *args: What the layer takes.
            update_stats: Whether what the iterations find is kept.
            **kwargs: What the layer takes.
        """

        def transform(variables: Any) -> Any:
            normalize = functools.partial(
                self._spectral_normalize, update_stats=update_stats
            )
            return _each_array(normalize, variables)

        return _call_mapped(self, transform, args, kwargs, mutable=True)

    def _spectral_normalize(self, path: Any, vs: Array, update_stats: bool) -> Array:
        value = jnp.asarray(vs)
        original = value.shape
        if value.ndim <= 1 or self.n_steps < 1:
            return value
        if value.ndim > 2:
            if self.error_on_non_matrix:
                raise ValueError(
                    f"Input is {value.ndim}D but error_on_non_matrix is True"
                )
            value = jnp.reshape(value, (-1, value.shape[-1]))
        name = _name_of(path)
        u_var = self.variable(
            self.collection_name,
            f"{self.layer_instance.name}/{name}/u",
            lambda: self._start((1, value.shape[-1])),
        )
        sigma_var = self.variable(
            self.collection_name,
            f"{self.layer_instance.name}/{name}/sigma",
            lambda: jnp.ones((), self.param_dtype),
        )
        u0 = u_var.value
        for _ in range(self.n_steps):
            v0 = _l2_normalize(jnp.matmul(u0, value.T), eps=self.epsilon)
            u0 = _l2_normalize(jnp.matmul(v0, value), eps=self.epsilon)
        u0, v0 = lax.stop_gradient(u0), lax.stop_gradient(v0)
        sigma = jnp.matmul(jnp.matmul(v0, value), u0.T)[0, 0]
        if update_stats:
            u_var.value, sigma_var.value = u0, sigma
        value = value / jnp.where(sigma != 0, sigma, 1)
        dtype = canonicalize_dtype(vs, u0, sigma, dtype=self.dtype)
        return jnp.asarray(value.reshape(original), dtype)

    @nowrap
    def _start(self, shape: Shape) -> Array:
        return jax.random.normal(self.make_rng("params"), shape, self.param_dtype)


def _name_of(path: Any) -> str:
    """The keys, fields and indices of a path, as the name of a variable."""
    parts = (
        next(
            getattr(key, kind) for kind in ("key", "name", "idx") if hasattr(key, kind)
        )
        for key in path
    )
    return "/".join(map(str, parts))


class WeightNorm(Module):
    """Divides kernels of a layer by their norms, and scales them by parameters.

    Args:
        layer_instance: The layer.
        epsilon: Keeps divisors from zero.
        dtype: The type of the normalised arrays.
        param_dtype: The type of the scales.
        use_scale: Whether to scale.
        scale_init: Makes the scales.
        feature_axes: The axes that keep a norm of their own.
        variable_filter: Parts of the paths of arrays that are normalised; None for all.
    """

    layer_instance: Module
    epsilon: float = 1e-12
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_scale: bool = True
    scale_init: Initializer = _ones
    feature_axes: Axes | None = -1
    variable_filter: Iterable[str] | None = field(default_factory=lambda: {"kernel"})

    @compact
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer."""

        def transform(variables: Any) -> Any:
            return _each_array(self._l2_normalize, variables)

        return _call_mapped(self, transform, args, kwargs)

    def _l2_normalize(self, path: Any, vs: Array) -> Array:
        name = f"{self.layer_instance.name}/{_name_of(path)}"
        if self.variable_filter and not any(
            part in name for part in self.variable_filter
        ):
            return vs
        value = jnp.asarray(vs)
        if self.feature_axes is None:
            feature_axes: tuple[int, ...] = ()
        else:
            feature_axes = _canonicalize_axes(value.ndim, self.feature_axes)
        axes = tuple(i for i in range(value.ndim) if i not in feature_axes)
        normed = _l2_normalize(value, axis=axes, eps=self.epsilon)
        args = [vs]
        if self.use_scale:
            shape = tuple(value.shape[i] for i in feature_axes)
            scale = self.param(
                f"{name}/scale",
                self.scale_init,
                shape,
                self.param_dtype,
            )
            wide = [n if i in feature_axes else 1 for i, n in enumerate(value.shape)]
            normed = normed * scale.reshape(wide)
            args.append(scale)
        return jnp.asarray(normed, canonicalize_dtype(*args, dtype=self.dtype))


def _each_array(fn: Callable[[Any, Any], Any], variables: Any) -> Any:
    """The collections with `fn(path, array)` for each array."""
    return {
        name: jax.tree_util.tree_map_with_path(fn, dict(collection))
        for name, collection in variables.items()
    }


def _call_mapped(
    module: Any,
    transform: Callable[[Any], Any],
    args: Any,
    kwargs: Any,
    mutable: bool = False,
) -> Any:
    """Calls the layer of a module, with parameters that go through a function."""

    @functools.partial(
        map_variables,
        mapped_collections="params",
        trans_in_fn=transform,
        init=module.is_initializing(),
        mutable=mutable,
    )
    def layer_forward(layer: Any) -> Any:
        return layer(*args, **kwargs)

    return layer_forward(module.layer_instance)
