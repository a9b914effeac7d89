"""Convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import param
from linnet.core._check import check_size
from linnet.functional._conv import CONV_PADDINGS, check_conv_padding
from linnet.functional._window import Padding, per_axis
from linnet.functional.initializers import lecun_normal, zeros
from linnet.nn._kernel import bias_param, kernel_mask
from linnet.nn._place import placed
from linnet.nn._window import Windowed, check_groups, window_axes

KERNEL_INIT = lecun_normal()


class Conv(Windowed):
    """Slides a kernel over one or more spatial axes, and adds a bias.

    The kernel is not flipped (cross-correlation), and channels are last.

    Args:
        features: Size O of the last axis of the result.
        kernel_size: The window K, one number per spatial axis.
        in_features: Size I of the last axis of `x`. `None` infers it at `nn.init`.
        strides: Step of the window, in all or in each spatial axis.
        padding: "VALID" adds nothing. "SAME" adds zeros so that there are
            `ceil(size / stride)` outputs; "CAUSAL" (one spatial axis) adds them
            all before. "CIRCULAR" and "REFLECT" continue the input. An integer,
            or one per axis, adds so many zeros on both sides; a pair per axis
            says how many before and after.
        kernel_dilation: Distance between the kernel's entries.
        input_dilation: Distance to which the input's entries are drawn apart, with
            zeros between them, before padding.
        feature_group_count: Number G of groups of features that do not mix.
        mask: Booleans that say which entries of `kernel` count, with axes of its
            sizes or 1: `[*K, 1, 1]` for all features alike. Entries that do not count
            are zero, and not trained.
        use_bias: Whether there is a bias.
        dtype: Of the computation and the result. `None` takes the one to which `x`
            and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the products, as in `jax.lax.conv_general_dilated`.
        kernel_init: Initialiser of `kernel`.
        bias_init: Initialiser of `bias`.

    Parameters:
        kernel: `[*K, I / G, O]`. Logical axes `(None, ..., "in", "out")`.
        bias: `[O]`, starts at zero. Logical axes `("out",)`.
        mask: A constant, as given.

    Shapes:
        x: `[..., *W, I]`  ->  `[..., *W', O]`, any number of batch axes, or none.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: `x` holds integers or booleans, or `dtype` is one of these.
        ShapeError: `x` has too few axes, or its last axis is not I.

    Example:
        >>> x = jnp.ones((8, 28, 28, 1))
        >>> conv = nn.init(nn.Conv(16, (3, 3), strides=2), jax.random.key(0), x)
        >>> conv(x).shape
        (8, 14, 14, 16)

    Differs from: PyTorch, whose channels come first, and whose padding is 0. Flax
    Linen, for which one number as `kernel_size` is one spatial axis, and which
    refuses `input_dilation` with "SAME" padding.
    Source: LeCun et al., "Gradient-based learning applied to document
    recognition", 1998, section II.
    """

    def __init__(
        self,
        features: int,
        kernel_size: Sequence[int],
        *,
        in_features: int | None = None,
        strides: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        kernel_dilation: int | Sequence[int] = 1,
        input_dilation: int | Sequence[int] = 1,
        feature_group_count: int = 1,
        mask: ArrayLike | None = None,
        use_bias: bool = True,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = KERNEL_INIT,
        bias_init: Initializer = zeros,
    ) -> None:
        size_in = check_size(self, "in_features", in_features, allow_none=True)
        groups = check_size(self, "feature_group_count", feature_group_count)
        self.features = check_size(self, "features", features)
        self.feature_group_count = groups
        check_groups(self, size_in, self.features, groups)
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
            self.input_dilation = per_axis(input_dilation, spatial, "input_dilation")
            check_conv_padding(self.padding, spatial, self.input_dilation)
        size_in = None if size_in is None else size_in // groups
        shape = (*self.kernel_size, size_in, self.features)
        axes = window_axes(spatial, "in", "out")
        self.mask = kernel_mask(self, mask, shape, axes)
        self.kernel = param(kernel_init, shape, param_dtype, axes=axes)
        self.bias = bias_param(use_bias, bias_init, shape[-1:], param_dtype)

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[..., *W, I]`, floating or complex.
        """
        self.check_input(x, min_ndim=len(self.kernel_size) + 1, dtype="inexact")
        size_in = x.shape[-1] // self.feature_group_count
        self.expect(kernel=(*self.kernel_size, size_in, self.features))
        with placed(self):
            return F.conv(
                x,
                F.masked(self.kernel, self.mask),
                self.bias,
                strides=self.strides,
                padding=self.padding,
                kernel_dilation=self.kernel_dilation,
                input_dilation=self.input_dilation,
                feature_group_count=self.feature_group_count,
                dtype=self.dtype,
                precision=self.precision,
            )
