"""Layers around a layer, whose kernels are normalised before they are used."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._errors import ConfigError
from linnet._typing import Array, DType, Initializer
from linnet.core import (
    BatchStat,
    Module,
    from_data,
    select,
    state,
    substitute,
)
from linnet.core._check import check_positive, check_size
from linnet.core._node import is_module
from linnet.core._where import Where
from linnet.functional._dtype import widened
from linnet.functional._shape import axes_of
from linnet.functional._weight_norm import norm_squared
from linnet.functional.initializers import normal, ones
from linnet.nn._affine import vector
from linnet.nn._axes import check_axis
from linnet.nn._place import placed


class WeightNorm(Module):
    r"""Trains the direction of a layer's kernels apart from their norms.

    $w = \mathrm{scale} \cdot v / \sqrt{\|v\|^2 + \epsilon}$ takes the place of each
    kernel v, with the norm taken over all axes but `axis`.

    Args:
        layer: Any module.
        where: Which of its arrays: a path pattern, or what else `nn.select` takes.
        axis: Axis or axes of the features, each of which has a norm of its own.
        epsilon: Added to the squared norm (unit: that of the kernel squared). Must
            be positive.
        use_scale: Whether there are scales; without them the norm is 1.
        param_dtype: Of the scales.
        scale_init: Initialiser of the scales. `nn.from_data` starts them at the
            norms of the kernels, so that at first the layer is what it was.

    Parameters:
        layer: The layer's own; its kernels are the directions.
        magnitudes: For each kernel, by its path, a `scale` of the size of its
            features, starts at one. Logical axes `("features",)`; of several axes
            the last is so named.

    Shapes:
        x: as of the layer  ->  as of the layer.

    Raises:
        ConfigError: An option has a value that cannot be used, or nothing is
            selected.
        PathError: The pattern matches nothing.
        TreeError: A kernel belongs to a stack inside the layer.

    Example:
        >>> x = jnp.ones((2, 3))
        >>> layer = nn.init(nn.WeightNorm(nn.Dense(4)), jax.random.key(0), x)
        >>> sorted(nn.to_paths(layer))
        ['layer/bias', 'layer/kernel', 'magnitudes/kernel/scale']
        >>> layer(x).shape
        (2, 4)

    Differs from: PyTorch, whose scales start at the norms, as `nn.from_data` does
    here. Flax Linen: the same.
    Source: Salimans and Kingma, "Weight Normalization", 2016, eq. 2,
    arXiv:1602.07868.
    """

    def __init__(
        self,
        layer: Any,
        where: Where = "**/kernel",
        *,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-12,
        use_scale: bool = True,
        param_dtype: DType = jnp.float32,
        scale_init: Initializer = ones,
    ) -> None:
        axes = tuple(axis) if isinstance(axis, Sequence) else (axis,)
        check_axis(self, *axes)
        self.layer = layer
        self.where = where
        self.axis = axes if isinstance(axis, Sequence) else axis
        self.epsilon = check_positive(self, "epsilon", epsilon)
        self.magnitudes = {
            path: Magnitude(scale_init if use_scale else None, len(axes), param_dtype)
            for path in _kernels(self, layer, where)
        }

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer with its normalised kernels.

        Args:
            *args: As of the layer.
            **kwargs: Likewise.
        """
        __tracebackhide__ = True
        options = {"axis": self.axis, "epsilon": self.epsilon}
        by = _with_options(self.magnitudes, options)
        return substitute(self.layer, by)(*args, **kwargs)


class Magnitude(Module):
    """The norms of one kernel.

    Args:
        scale_init: Initialiser of `scale`, or `None` for no scale.
        ndim: Number of axes of `scale`.
        param_dtype: Of `scale`.
    """

    def __init__(
        self, scale_init: Initializer | None, ndim: int, param_dtype: DType
    ) -> None:
        self.from_data = scale_init is from_data
        self.scale = None
        if scale_init is not None:
            self.scale = vector(True, scale_init, (None,) * ndim, param_dtype)

    def __call__(
        self, kernel: Array, *, axis: int | tuple[int, ...], epsilon: float
    ) -> Array:
        """The kernel with these norms.

        Args:
            kernel: Its direction.
            axis: Axis or axes of the features.
            epsilon: Added to the squared norm.
        """
        with placed(self):
            axes = axes_of(kernel.ndim, axis)
            if self.initializing and self.from_data:
                wide = kernel.astype(widened(kernel.dtype))
                self.scale = jnp.sqrt(norm_squared(wide, axes))
            self.expect(scale=tuple(kernel.shape[a] for a in axes))
            return F.weight_norm(kernel, self.scale, axis=axis, epsilon=epsilon)


class SpectralNorm(Module):
    r"""Divides a layer's kernels by their largest singular values.

    $w / \sigma$ takes the place of each kernel w, seen as a matrix whose columns are
    its last axis. In training $\sigma$ is estimated by power iteration, which goes on
    from where it was the last time. Otherwise the last estimate is used; before any
    training it is 1.

    Args:
        layer: Any module.
        where: Which of its arrays: a path pattern, or what else `nn.select` takes.
        n_steps: Steps of the power iteration in each call in training.
        epsilon: Added to norms before they divide. Must be positive.

    Parameters:
        layer: The layer's own.
        estimates: For each kernel, by its path, the vector `u` of the size of its
            last axis, which starts normal, and `sigma`, which starts at one. Both
            float32 or wider. Role `nn.BatchStat`.

    Shapes:
        x: as of the layer  ->  as of the layer.

    Raises:
        ConfigError: An option has a value that cannot be used, or nothing is
            selected.
        PathError: The pattern matches nothing.
        TreeError: A kernel belongs to a stack inside the layer.

    Example:
        >>> x = jnp.eye(3)
        >>> norm = nn.SpectralNorm(nn.Dense(3, use_bias=False), n_steps=100)
        >>> norm = nn.init(norm, jax.random.key(0), x)
        >>> y, norm = nn.training(norm)(x)
        >>> jnp.linalg.norm(y, 2).round(3)
        Array(1., dtype=float32)

    Differs from: PyTorch, which keeps two vectors, improves them when it is made, and
    estimates anew in prediction. Flax Linen: the same.
    Source: Miyato et al., "Spectral Normalization for Generative Adversarial
    Networks", 2018, algorithm 1, arXiv:1802.05957.
    """

    def __init__(
        self,
        layer: Any,
        where: Where = "**/kernel",
        *,
        n_steps: int = 1,
        epsilon: float = 1e-12,
    ) -> None:
        self.layer = layer
        self.where = where
        self.n_steps = check_size(self, "n_steps", n_steps)
        self.epsilon = check_positive(self, "epsilon", epsilon)
        self.estimates = {
            path: Estimate(kernel.dtype)
            for path, kernel in _kernels(self, layer, where).items()
        }

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer with its normalised kernels.

        Args:
            *args: As of the layer.
            **kwargs: Likewise.
        """
        __tracebackhide__ = True
        options = {"n_steps": self.n_steps, "epsilon": self.epsilon}
        by = _with_options(self.estimates, options)
        return substitute(self.layer, by)(*args, **kwargs)


class Estimate(Module):
    """The largest singular value of one kernel.

    Args:
        dtype: Of the kernel.
    """

    def __init__(self, dtype: DType) -> None:
        wide = widened(dtype)
        real = jnp.finfo(wide).dtype
        self.u = state(normal(1.0), (None,), wide, role=BatchStat, axes=("out",))
        self.sigma = state(ones, (), real, role=BatchStat, axes=())

    def __call__(self, kernel: Array, *, n_steps: int, epsilon: float) -> Array:
        """The kernel with a largest singular value of about 1.

        Args:
            kernel: As it is trained.
            n_steps: Steps of the power iteration in training.
            epsilon: Added to norms.
        """
        with placed(self):
            self.expect(u=kernel.shape[-1:])
            sigma = self.sigma
            if self.training:
                sigma, self.u = F.power_iteration(
                    kernel, self.u, n_steps=n_steps, epsilon=epsilon
                )
                self.sigma = lax.stop_gradient(sigma)
            divisor = jnp.where(sigma > 0, sigma, jnp.ones_like(sigma))
            return (kernel / divisor).astype(kernel.dtype)


def _with_options(
    modules: Mapping[str, Module], options: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        path: functools.partial(module, **options) for path, module in modules.items()
    }


def _kernels(module: Module, layer: Any, where: Where) -> dict[str, Any]:
    """The arrays of the layer that are normalised, or the places for them."""
    name = type(module).__name__
    if not is_module(layer):
        is_class = isinstance(layer, type)
        what = (
            f"the class {layer.__name__}" if is_class else f"a {type(layer).__name__}"
        )
        raise ConfigError(
            f"`layer` is {what}, but it must be a module.",
            code="LN-VALUE-04",
            at=name,
            fixes=[("a layer is meant", "layer = nn.Dense(4)")],
        )
    found = dict(select(layer, where))
    if not found:
        raise ConfigError(
            "`where` selects none of the arrays of the layer.",
            code="LN-VALUE-06",
            at=name,
            facts={"arrays": ", ".join(select(layer, "**")) or "none"},
            why="A layer without normalised kernels is the layer itself.",
            fixes=[("everything named `kernel` is meant", 'where = "**/kernel"')],
        )
    return found
