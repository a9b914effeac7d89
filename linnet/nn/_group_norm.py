"""Normalisation over groups of features and positions."""

from __future__ import annotations

import jax.numpy as jnp

from linnet import functional as F
from linnet._errors import ConfigError, describe
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import Module
from linnet.core._check import check_positive, check_size
from linnet.functional.initializers import ones, zeros
from linnet.nn._affine import result_dtype, vector, vectors
from linnet.nn._place import placed


class GroupNorm(Module):
    r"""Normalises groups of features of each example, over all its positions.

    $y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \mathrm{scale} +
    \mathrm{bias}$, with $\mu$ and $\sigma^2$ taken over the spatial axes and the
    features of a group, which lie side by side.

    Args:
        num_groups: Number of groups, a divisor of D. `None` where `group_size` says.
        features: Size D of the last axis. `None` infers it at `nn.init`.
        group_size: Number of features in a group, in the place of `num_groups`.
        spatial_ndim: Number of spatial axes; those before them are batch. `None`
            takes all but the first axis, which then is the batch, and the last.
        epsilon: Added to the variance (unit: that of `x` squared). Must be positive.
        use_scale: Whether there is a scale.
        use_bias: Whether there is a bias.
        dtype: Of the result; `None` takes that of `x`. The computation is in
            float32 or wider.
        param_dtype: Of the parameters.
        scale_init: Initialiser of `scale`.
        bias_init: Initialiser of `bias`.

    Parameters:
        scale: `[D]`, starts at one. Logical axes `("features",)`.
        bias: `[D]`, starts at zero. Logical axes `("features",)`.

    Shapes:
        x: `[..., *W, D]`  ->  `[..., *W, D]`, same dtype as `x` unless `dtype` is
            given.

    Raises:
        ConfigError: An option has a value that cannot be used, or the groups do not
            divide D.
        DTypeError: `x` holds integers or booleans.
        ShapeError: The last axis of `x` is not D, there are too few axes, or the mask
            does not fit.

    Example:
        >>> x = jnp.array([[1.0, 3.0, 10.0, 30.0]])
        >>> norm = nn.init(nn.GroupNorm(2), jax.random.key(0), x)
        >>> norm(x).round(3)
        Array([[-1.,  1., -1.,  1.]], dtype=float32)

    Differs from: PyTorch, whose features are on axis 1, and whose `epsilon` is 1e-5.
    Flax Linen: it has 32 groups unless told otherwise, and gives float32 for bfloat16
    input.
    Source: Wu and He, "Group Normalization", 2018, eq. 1 and 7, arXiv:1803.08494.
    """

    def __init__(
        self,
        num_groups: int | None = None,
        features: int | None = None,
        *,
        group_size: int | None = None,
        spatial_ndim: int | None = None,
        epsilon: float = 1e-6,
        use_scale: bool = True,
        use_bias: bool = True,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        scale_init: Initializer = ones,
        bias_init: Initializer = zeros,
    ) -> None:
        if (num_groups is None) == (group_size is None):
            raise _one_of_both(num_groups, group_size)
        self.num_groups = check_size(self, "num_groups", num_groups, allow_none=True)
        self.group_size = check_size(self, "group_size", group_size, allow_none=True)
        self.spatial_ndim = check_size(
            self, "spatial_ndim", spatial_ndim, allow_none=True, least=0
        )
        self.epsilon = check_positive(self, "epsilon", epsilon)
        self.use_scale = use_scale
        self.use_bias = use_bias
        self.dtype = result_dtype(self, dtype)
        shape = (check_size(self, "features", features, allow_none=True),)
        self.scale = vector(use_scale, scale_init, shape, param_dtype)
        self.bias = vector(use_bias, bias_init, shape, param_dtype)

    def __call__(self, x: ArrayLike, mask: ArrayLike | None = None) -> Array:
        """Applies the layer.

        Args:
            x: `[..., *W, D]`, floating or complex.
            mask: Booleans with as many axes as `x`, each of its size or 1. `False`
                does not count in the statistics. Where nothing counts the result is
                `bias`.
        """
        self.check_input(x, min_ndim=1 + (self.spatial_ndim or 0), dtype="inexact")
        with placed(self):
            self.expect(**vectors(self, x.shape[-1:]))
            return F.group_norm(
                x,
                self.num_groups or _groups(x, self.group_size),
                self.scale,
                self.bias,
                spatial_ndim=self.spatial_ndim,
                mask=mask,
                epsilon=self.epsilon,
                dtype=self.dtype,
            )


class InstanceNorm(Module):
    r"""Normalises each feature of each example, over all its positions.

    $y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \mathrm{scale} +
    \mathrm{bias}$, with $\mu$ and $\sigma^2$ taken over the spatial axes. It is
    GroupNorm with one feature in each group.

    Args:
        features: Size D of the last axis. `None` infers it at `nn.init`.
        spatial_ndim: Number of spatial axes, one or more; those before them are
            batch. `None` takes all but the first axis, which then is the batch, and
            the last.
        epsilon: Added to the variance (unit: that of `x` squared). Must be positive.
        use_scale: Whether there is a scale.
        use_bias: Whether there is a bias.
        dtype: Of the result; `None` takes that of `x`. The computation is in
            float32 or wider.
        param_dtype: Of the parameters.
        scale_init: Initialiser of `scale`.
        bias_init: Initialiser of `bias`.

    Parameters:
        scale: `[D]`, starts at one. Logical axes `("features",)`.
        bias: `[D]`, starts at zero. Logical axes `("features",)`.

    Shapes:
        x: `[..., *W, D]`  ->  `[..., *W, D]`, same dtype as `x` unless `dtype` is
            given.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: `x` holds integers or booleans.
        ShapeError: The last axis of `x` is not D, there are too few axes, or the mask
            does not fit.

    Example:
        >>> x = jnp.array([[[1.0, 10.0], [3.0, 30.0]]])
        >>> norm = nn.init(nn.InstanceNorm(), jax.random.key(0), x)
        >>> norm(x).round(3)
        Array([[[-1., -1.],
                [ 1.,  1.]]], dtype=float32)

    Differs from: PyTorch, whose features are on axis 1, which by default has neither
    scale nor bias, and whose `epsilon` is 1e-5. Flax Linen: the same, but it gives
    float32 for bfloat16 input.
    Source: Ulyanov, Vedaldi and Lempitsky, "Instance Normalization", 2016, eq. 4,
    arXiv:1607.08022.
    """

    def __init__(
        self,
        features: int | None = None,
        *,
        spatial_ndim: int | None = None,
        epsilon: float = 1e-6,
        use_scale: bool = True,
        use_bias: bool = True,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        scale_init: Initializer = ones,
        bias_init: Initializer = zeros,
    ) -> None:
        self.spatial_ndim = check_size(
            self, "spatial_ndim", spatial_ndim, allow_none=True
        )
        self.epsilon = check_positive(self, "epsilon", epsilon)
        self.use_scale = use_scale
        self.use_bias = use_bias
        self.dtype = result_dtype(self, dtype)
        shape = (check_size(self, "features", features, allow_none=True),)
        self.scale = vector(use_scale, scale_init, shape, param_dtype)
        self.bias = vector(use_bias, bias_init, shape, param_dtype)

    def __call__(self, x: ArrayLike, mask: ArrayLike | None = None) -> Array:
        """Applies the layer.

        Args:
            x: `[..., *W, D]`, floating or complex.
            mask: Booleans with as many axes as `x`, each of its size or 1. `False`
                does not count in the statistics. Where nothing counts the result is
                `bias`.
        """
        least = 3 if self.spatial_ndim is None else 1 + self.spatial_ndim
        self.check_input(x, min_ndim=least, dtype="inexact")
        with placed(self):
            self.expect(**vectors(self, x.shape[-1:]))
            return F.instance_norm(
                x,
                self.scale,
                self.bias,
                spatial_ndim=self.spatial_ndim,
                mask=mask,
                epsilon=self.epsilon,
                dtype=self.dtype,
            )


def _groups(x: ArrayLike, group_size: int) -> int:
    """How many groups of this size the features make."""
    size = x.shape[-1]
    if size % group_size:
        best = next(n for n in range(min(group_size, size), 0, -1) if size % n == 0)
        raise ConfigError(
            f"`group_size` is {group_size}, which does not divide {size} features.",
            code="LN-VALUE-06",
            facts={"x": describe(x)},
            why="All groups have the same number of features.",
            fixes=[("a size near it will do", f"group_size = {best}")],
        )
    return size // group_size


def _one_of_both(num_groups: int | None, group_size: int | None) -> ConfigError:
    if num_groups is None:
        what = "neither `num_groups` nor `group_size` is given."
        fixes = [
            ("the number of groups is known", "norm = nn.GroupNorm(num_groups=32)"),
            ("their size is known", "norm = nn.GroupNorm(group_size=16)"),
        ]
    else:
        what = f"`num_groups` is {num_groups} and `group_size` is {group_size}."
        fixes = [
            ("the number of groups is meant", f"norm = nn.GroupNorm({num_groups})"),
            ("their size is meant", f"norm = nn.GroupNorm(group_size={group_size})"),
        ]
    return ConfigError(
        what,
        code="LN-VALUE-06",
        at="GroupNorm",
        why="With the number of features, one of the two gives the other.",
        fixes=fixes,
    )
