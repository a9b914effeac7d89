"""Normalisation of each example by its own features."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from linnet import functional as F
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import Module
from linnet.core._check import check_positive
from linnet.functional.initializers import ones, zeros
from linnet.nn._affine import result_dtype, sizes_along, vector, vectors
from linnet.nn._axes import check_axis, sizes
from linnet.nn._place import placed


class LayerNorm(Module):
    r"""Normalises each example by the mean and variance of its own features.

    $y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \mathrm{scale} +
    \mathrm{bias}$, with $\mu$ and $\sigma^2$ taken over `axis`.

    Args:
        features: Size D of the normalised axis, or one size per axis where there
            are several. `None` infers them at `nn.init`.
        axis: Axis or axes that are normalised together, in ascending order. The
            others are batch.
        epsilon: Added to the variance (unit: that of `x` squared). Must be positive.
        use_scale: Whether there is a scale.
        use_bias: Whether there is a bias.
        dtype: Of the result; `None` takes that of `x`. The computation is in
            float32 or wider.
        param_dtype: Of the parameters.
        scale_init: Initialiser of `scale`.
        bias_init: Initialiser of `bias`.

    Parameters:
        scale: `[D]`, starts at one. Logical axes `("features",)`; of several axes
            the last is so named.
        bias: `[D]`, starts at zero. Logical axes likewise.

    Shapes:
        x: `[..., D]`  ->  `[..., D]`, same dtype as `x` unless `dtype` is given.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: `x` holds integers or booleans.
        ShapeError: The normalised axes of `x` are not D, or the mask does not fit.

    Example:
        >>> x = jnp.array([1.0, 3.0, 1.0, 3.0])
        >>> norm = nn.init(nn.LayerNorm(), jax.random.key(0), x)
        >>> norm(x).round(3)
        Array([-1.,  1., -1.,  1.], dtype=float32)

    Differs from: PyTorch, whose `epsilon` is 1e-5. Flax Linen: the same, but it
    gives float32 for bfloat16 input.
    Source: Ba, Kiros and Hinton, "Layer Normalization", 2016, eq. 3,
    arXiv:1607.06450.
    """

    def __init__(
        self,
        features: int | Sequence[int] | None = None,
        *,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-6,
        use_scale: bool = True,
        use_bias: bool = True,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        scale_init: Initializer = ones,
        bias_init: Initializer = zeros,
    ) -> None:
        axes = tuple(axis) if isinstance(axis, Sequence) else (axis,)
        check_axis(self, *axes)
        self.axis = axes if isinstance(axis, Sequence) else axis
        self.epsilon = check_positive(self, "epsilon", epsilon)
        self.use_scale = use_scale
        self.use_bias = use_bias
        self.dtype = result_dtype(self, dtype)
        shape = sizes(self, features, len(axes))
        self.scale = vector(use_scale, scale_init, shape, param_dtype)
        self.bias = vector(use_bias, bias_init, shape, param_dtype)

    def __call__(self, x: ArrayLike, mask: ArrayLike | None = None) -> Array:
        """Applies the layer.

        Args:
            x: `[..., D]`, floating or complex.
            mask: Booleans with as many axes as `x`, each of its size or 1. `False`
                does not count in the statistics. Where nothing counts the result is
                `bias`.
        """
        self.check_input(x, dtype="inexact")
        with placed(self):
            self.expect(**vectors(self, sizes_along(x, self.axis)))
            return F.layer_norm(
                x,
                self.scale,
                self.bias,
                axis=self.axis,
                mask=mask,
                epsilon=self.epsilon,
                dtype=self.dtype,
            )


class RMSNorm(Module):
    r"""Divides each example by the root mean square of its own features.

    $y = x / \sqrt{\mathrm{mean}(|x|^2) + \epsilon} \cdot \mathrm{scale}$, with the
    mean taken over `axis`. Unlike LayerNorm it does not centre.

    Args:
        features: Size D of the normalised axis, or one size per axis where there
            are several. `None` infers them at `nn.init`.
        axis: Axis or axes that are normalised together, in ascending order. The
            others are batch.
        epsilon: Added to the mean square (unit: that of `x` squared). Must be positive.
        use_scale: Whether there is a scale.
        dtype: Of the result; `None` takes that of `x`. The computation is in
            float32 or wider.
        param_dtype: Of the parameters.
        scale_init: Initialiser of `scale`.

    Parameters:
        scale: `[D]`, starts at one. Logical axes `("features",)`; of several axes
            the last is so named.

    Shapes:
        x: `[..., D]`  ->  `[..., D]`, same dtype as `x` unless `dtype` is given.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: `x` holds integers or booleans.
        ShapeError: The normalised axes of `x` are not D, or the mask does not fit.

    Example:
        >>> x = jnp.array([3.0, 4.0, 0.0, 0.0])
        >>> norm = nn.init(nn.RMSNorm(), jax.random.key(0), x)
        >>> norm(x).round(3)
        Array([1.2, 1.6, 0. , 0. ], dtype=float32)

    Differs from: PyTorch, whose `epsilon` is that of the dtype. Flax Linen: the same,
    but it gives float32 for bfloat16 input.
    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, eq. 4,
    arXiv:1910.07467.
    """

    def __init__(
        self,
        features: int | Sequence[int] | None = None,
        *,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-6,
        use_scale: bool = True,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        scale_init: Initializer = ones,
    ) -> None:
        axes = tuple(axis) if isinstance(axis, Sequence) else (axis,)
        check_axis(self, *axes)
        self.axis = axes if isinstance(axis, Sequence) else axis
        self.epsilon = check_positive(self, "epsilon", epsilon)
        self.use_scale = use_scale
        self.dtype = result_dtype(self, dtype)
        shape = sizes(self, features, len(axes))
        self.scale = vector(use_scale, scale_init, shape, param_dtype)

    def __call__(self, x: ArrayLike, mask: ArrayLike | None = None) -> Array:
        """Applies the layer.

        Args:
            x: `[..., D]`, floating or complex.
            mask: Booleans with as many axes as `x`, each of its size or 1. `False`
                does not count in the mean. Where nothing counts the result is zero.
        """
        self.check_input(x, dtype="inexact")
        with placed(self):
            self.expect(**vectors(self, sizes_along(x, self.axis)))
            return F.rms_norm(
                x,
                self.scale,
                axis=self.axis,
                mask=mask,
                epsilon=self.epsilon,
                dtype=self.dtype,
            )
