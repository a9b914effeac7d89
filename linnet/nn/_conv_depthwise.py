"""Convolutions that do not mix features, and those that mix them afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import Module, param
from linnet.core._check import check_size
from linnet.functional._conv import CONV_PADDINGS, check_conv_padding
from linnet.functional._window import Padding
from linnet.functional.initializers import lecun_normal, zeros
from linnet.nn._kernel import bias_param, kernel_mask
from linnet.nn._linear import Dense
from linnet.nn._place import placed
from linnet.nn._window import Windowed, window_axes

KERNEL_INIT = lecun_normal()


class DepthwiseConv(Windowed):
    """Slides kernels of their own over each feature, without mixing features.

    Args:
        kernel_size: The window K, one number per spatial axis.
        channel_multiplier: Number M of kernels, and so of results, for each feature.
        in_features: Size I of the last axis of `x`. `None` infers it at `nn.init`.
        strides: Step of the window, in all or in each spatial axis.
        padding: As in `Conv`.
        kernel_dilation: Distance between the kernel's entries.
        mask: Booleans that say which entries of `kernel` count, with axes of its
            sizes or 1. Entries that do not count are zero, and not trained.
        use_bias: Whether there is a bias.
        dtype: Of the computation and the result. `None` takes the one to which `x`
            and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the products, as in `jax.lax.conv_general_dilated`.
        kernel_init: Initialiser of `kernel`.
        bias_init: Initialiser of `bias`.

    Parameters:
        kernel: `[*K, 1, I * M]`; the M kernels of a feature are neighbours. Logical
            axes `(None, ..., None, "out")`.
        bias: `[I * M]`, starts at zero. Logical axes `("out",)`.
        mask: A constant, as given.

    Shapes:
        x: `[..., *W, I]`  ->  `[..., *W', I * M]`, any number of batch axes, or none.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: `x` holds integers or booleans, or `dtype` is one of these.
        ShapeError: `x` has too few axes, or its last axis is not I.

    Example:
        >>> x = jnp.ones((8, 28, 28, 3))
        >>> conv = nn.DepthwiseConv((3, 3), channel_multiplier=2)
        >>> nn.init(conv, jax.random.key(0), x)(x).shape
        (8, 28, 28, 6)

    Differs from: PyTorch and Flax Linen, where it is a convolution with as many
    groups as features, whose numbers have to be said.
    Source: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions",
    2017, section 1.1, arXiv:1610.02357.
    """

    def __init__(
        self,
        kernel_size: Sequence[int],
        *,
        channel_multiplier: int = 1,
        in_features: int | None = None,
        strides: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        kernel_dilation: int | Sequence[int] = 1,
        mask: ArrayLike | None = None,
        use_bias: bool = True,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = KERNEL_INIT,
        bias_init: Initializer = zeros,
    ) -> None:
        size_in = check_size(self, "in_features", in_features, allow_none=True)
        multiplier = check_size(self, "channel_multiplier", channel_multiplier)
        self.channel_multiplier = multiplier
        spatial = self._set_window(
            kernel_size,
            strides,
            padding,
            kernel_dilation,
            CONV_PADDINGS,
            dtype,
            precision,
        )
        with placed(self):
            check_conv_padding(self.padding, spatial, ())
        size_out = None if size_in is None else size_in * multiplier
        shape = (*self.kernel_size, 1, size_out)
        axes = window_axes(spatial, None, "out")
        self.mask = kernel_mask(self, mask, shape, axes)
        self.kernel = param(kernel_init, shape, param_dtype, axes=axes)
        self.bias = bias_param(use_bias, bias_init, shape[-1:], param_dtype)

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[..., *W, I]`, floating or complex.
        """
        self.check_input(x, min_ndim=len(self.kernel_size) + 1, dtype="inexact")
        size_out = x.shape[-1] * self.channel_multiplier
        self.expect(kernel=(*self.kernel_size, 1, size_out), bias=(size_out,))
        with placed(self):
            return F.conv(
                x,
                F.masked(self.kernel, self.mask),
                self.bias,
                strides=self.strides,
                padding=self.padding,
                kernel_dilation=self.kernel_dilation,
                feature_group_count=x.shape[-1],
                dtype=self.dtype,
                precision=self.precision,
            )


class SeparableConv(Module):
    """Slides kernels over each feature, then mixes the features at each position.

    `DepthwiseConv` without bias, then `Dense`. For a window of K entries and I
    features that become O it takes `I (K + O)` weights, where `Conv` has `I K O`.

    Args:
        features: Size O of the last axis of the result.
        kernel_size: The window K, one number per spatial axis.
        channel_multiplier: Number M of features between the two, for each of `x`.
        in_features: Size I of the last axis of `x`. `None` infers it at `nn.init`.
        strides: Step of the window, in all or in each spatial axis.
        padding: As in `Conv`.
        kernel_dilation: Distance between the kernel's entries.
        use_bias: Whether there is a bias, which is added last.
        dtype: Of the computation and the result. `None` takes the one to which `x`
            and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the products, as in `jax.lax.conv_general_dilated`.
        depthwise_init: Initialiser of the kernel that slides.
        pointwise_init: Initialiser of the kernel that mixes.
        bias_init: Initialiser of the bias.

    Parameters:
        depthwise: A `DepthwiseConv`, with `kernel` of shape `[*K, 1, I * M]`.
        pointwise: A `Dense`, with `kernel` of shape `[I * M, O]` and `bias`.

    Shapes:
        x: `[..., *W, I]`  ->  `[..., *W', O]`, any number of batch axes, or none.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: `x` holds integers or booleans, or `dtype` is one of these.
        ShapeError: `x` has too few axes, or its last axis is not I.

    Example:
        >>> x = jnp.ones((8, 28, 28, 3))
        >>> conv = nn.init(nn.SeparableConv(16, (3, 3)), jax.random.key(0), x)
        >>> conv(x).shape
        (8, 28, 28, 16)

    Differs from: Keras, whose window is 3 along every axis if one number is given.
    Source: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions",
    2017, section 1.1, arXiv:1610.02357.
    """

    def __init__(
        self,
        features: int,
        kernel_size: Sequence[int],
        *,
        channel_multiplier: int = 1,
        in_features: int | None = None,
        strides: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        kernel_dilation: int | Sequence[int] = 1,
        use_bias: bool = True,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        precision: lax.PrecisionLike = None,
        depthwise_init: Initializer = KERNEL_INIT,
        pointwise_init: Initializer = KERNEL_INIT,
        bias_init: Initializer = zeros,
    ) -> None:
        alike = {"dtype": dtype, "param_dtype": param_dtype, "precision": precision}
        self.depthwise = DepthwiseConv(
            kernel_size,
            channel_multiplier=channel_multiplier,
            in_features=in_features,
            strides=strides,
            padding=padding,
            kernel_dilation=kernel_dilation,
            use_bias=False,
            kernel_init=depthwise_init,
            **alike,
        )
        self.pointwise = Dense(
            features,
            use_bias=use_bias,
            kernel_init=pointwise_init,
            bias_init=bias_init,
            **alike,
        )

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[..., *W, I]`, floating or complex.
        """
        return self.pointwise(self.depthwise(x))
