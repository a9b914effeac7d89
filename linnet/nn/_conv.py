"""Convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._errors import ConfigError
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import Module, param
from linnet.core._check import check_size
from linnet.functional._conv import CONV_PADDINGS, check_conv_padding
from linnet.functional._dtype import inexact_dtype
from linnet.functional._window import (
    Padding,
    canonical_padding,
    canonical_window,
    per_axis,
)
from linnet.functional.initializers import lecun_normal, zeros
from linnet.nn._place import placed

KERNEL_INIT = lecun_normal()


class Conv(Module):
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
        _check_groups(size_in, self.features, groups)
        with placed(self):
            window = canonical_window(kernel_size, "kernel_size")
            spatial = len(window)
            self.kernel_size = window
            self.strides = per_axis(strides, spatial, "strides")
            self.kernel_dilation = per_axis(kernel_dilation, spatial, "kernel_dilation")
            self.input_dilation = per_axis(input_dilation, spatial, "input_dilation")
            self.padding = canonical_padding(padding, spatial, CONV_PADDINGS)
            check_conv_padding(self.padding, spatial, self.input_dilation)
            self.dtype = None if dtype is None else inexact_dtype(dtype)
        self.precision = precision
        size_in = None if size_in is None else size_in // groups
        shape = (*window, size_in, self.features)
        axes = (*(None for _ in window), "in", "out")
        self.kernel = param(kernel_init, shape, param_dtype, axes=axes)
        self.bias = (
            param(bias_init, shape[-1:], param_dtype, axes=("out",))
            if use_bias
            else None
        )

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
                self.kernel,
                self.bias,
                strides=self.strides,
                padding=self.padding,
                kernel_dilation=self.kernel_dilation,
                input_dilation=self.input_dilation,
                feature_group_count=self.feature_group_count,
                dtype=self.dtype,
                precision=self.precision,
            )


def _check_groups(size_in: int | None, size_out: int, groups: int) -> None:
    for name, size in (("in_features", size_in), ("features", size_out)):
        if size is not None and size % groups:
            raise ConfigError(
                f"`{name}` is {size}, which `feature_group_count={groups}` does not "
                "divide.",
                code="LN-VALUE-06",
                at="Conv",
                fixes=[("all features may mix", "feature_group_count = 1")],
            )
