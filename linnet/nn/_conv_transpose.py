"""Transposed convolutions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._typing import Array, ArrayLike, DType, Initializer, Key, Shape
from linnet.core import param
from linnet.core._check import check_size
from linnet.functional._conv_transpose import (
    CONV_TRANSPOSE_PADDINGS,
    check_transpose_padding,
)
from linnet.functional._window import Padding, per_axis
from linnet.functional.initializers import lecun_normal, zeros
from linnet.nn._kernel import bias_param, kernel_mask
from linnet.nn._place import placed
from linnet.nn._window import Windowed, check_groups, window_axes

KERNEL_INIT = lecun_normal()


class ConvTranspose(Windowed):
    """Lets each entry of the input add a multiple of a kernel to the result.

    Neighbours in `x` are `strides` apart in the result, which is how decoders grow.

    Args:
        features: Size O of the last axis of the result.
        kernel_size: The window K, one number per spatial axis.
        in_features: Size I of the last axis of `x`. `None` infers it at `nn.init`.
        strides: Distance, in all or in each spatial axis of the result, of what
            neighbours in `x` add.
        padding: What is cut off the result, which without is as large as what the
            window reaches. "SAME" leaves `size * stride` entries, cutting both ends;
            "CAUSAL" (one spatial axis) as many, cutting the end, so that no entry
            depends on later ones; "CIRCULAR" as many as "SAME", where what was cut
            is added at the other end. "VALID" cuts nothing, and fills up to
            `size * stride` entries. An integer, or one per axis, cuts so many on
            both sides; a pair per axis says how many before and after.
        output_padding: Entries that only the bias fills, after each axis. It goes
            with a padding in numbers, and is less than the stride or the dilation.
        kernel_dilation: Distance between the kernel's entries.
        feature_group_count: Number G of groups of features that do not mix.
        transpose_kernel: Whether `kernel` is laid out as that of a `Conv` from O to I
            features, of which this is then the transpose; the two may be tied.
            Otherwise it is that of a `Conv` from I to O, which this equals if the
            strides are 1.
        mask: Booleans that say which entries of `kernel` count, with axes of its
            sizes or 1. Entries that do not count are zero, and not trained.
        use_bias: Whether there is a bias.
        dtype: Of the computation and the result. `None` takes the one to which `x`
            and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the products, as in `jax.lax.conv_general_dilated`.
        kernel_init: Initialiser of `kernel`, called with the shape `[*K, I / G, O]`.
        bias_init: Initialiser of `bias`.

    Parameters:
        kernel: `[*K, ..., ...]`, ending in `I / G, O`, or in `O / G, I` if
            `transpose_kernel`. Logical axes `(None, ..., "in", "out")`, or "out"
            before "in".
        bias: `[O]`, starts at zero. Logical axes `("out",)`.
        mask: A constant, as given.

    Shapes:
        x: `[..., *W, I]`  ->  `[..., *W', O]`, any number of batch axes, or none.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: `x` holds integers or booleans, or `dtype` is one of these.
        ShapeError: `x` has too few axes, or its last axis is not I.

    Example:
        >>> x = jnp.ones((8, 7, 7, 16))
        >>> grow = nn.ConvTranspose(4, (3, 3), strides=2)
        >>> nn.init(grow, jax.random.key(0), x)(x).shape
        (8, 14, 14, 4)

    Differs from: PyTorch, whose weight is that of `transpose_kernel=True`, and whose
    padding is 0. Flax Linen, where padding in numbers surrounds the input that was
    drawn apart: there p stands for `kernel_size - 1 - p` here. With "CIRCULAR" and a
    transposed kernel it shifts the result by one if window and stride differ by an
    odd number.
    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep
    learning", 2016, chapter 4, arXiv:1603.07285.
    """

    def __init__(
        self,
        features: int,
        kernel_size: Sequence[int],
        *,
        in_features: int | None = None,
        strides: int | Sequence[int] = 1,
        padding: Padding = "SAME",
        output_padding: int | Sequence[int] = 0,
        kernel_dilation: int | Sequence[int] = 1,
        feature_group_count: int = 1,
        transpose_kernel: bool = False,
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
        self.transpose_kernel = transpose_kernel
        check_groups(self, size_in, self.features, groups)
        spatial = self._set_window(
            kernel_size,
            strides,
            padding,
            kernel_dilation,
            CONV_TRANSPOSE_PADDINGS,
            dtype,
            precision,
        )
        with placed(self):
            self.output_padding = per_axis(
                output_padding, spatial, "output_padding", least=0
            )
            check_transpose_padding(
                self.padding, self.output_padding, self.strides, self.kernel_dilation
            )
        shape = self._kernel_shape(size_in)
        names = ("out", "in") if transpose_kernel else ("in", "out")
        axes = window_axes(spatial, *names)
        self.mask = kernel_mask(self, mask, shape, axes)
        init = turned(kernel_init, groups) if transpose_kernel else kernel_init
        self.kernel = param(init, shape, param_dtype, axes=axes)
        self.bias = bias_param(use_bias, bias_init, (self.features,), param_dtype)

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[..., *W, I]`, floating or complex.
        """
        self.check_input(x, min_ndim=len(self.kernel_size) + 1, dtype="inexact")
        self.expect(kernel=self._kernel_shape(x.shape[-1]))
        with placed(self):
            return F.conv_transpose(
                x,
                F.masked(self.kernel, self.mask),
                self.bias,
                strides=self.strides,
                padding=self.padding,
                output_padding=self.output_padding,
                kernel_dilation=self.kernel_dilation,
                feature_group_count=self.feature_group_count,
                transpose_kernel=self.transpose_kernel,
                dtype=self.dtype,
                precision=self.precision,
            )

    def _kernel_shape(self, size_in: Any) -> tuple[Any, ...]:
        groups = self.feature_group_count
        if self.transpose_kernel:
            return (*self.kernel_size, self.features // groups, size_in)
        size_in = None if size_in is None else size_in // groups
        return (*self.kernel_size, size_in, self.features)


@dataclasses.dataclass(frozen=True)
class turned:
    """Starts `[*K, O / G, I]` as another initialiser starts `[*K, I / G, O]`.

    Args:
        init: The other one.
        groups: G.
    """

    init: Initializer
    groups: int

    def __call__(self, key: Key, shape: Shape, dtype: DType = jnp.float32) -> Array:
        """The kernel."""
        *window, size_out, size_in = shape
        ends = (size_in // self.groups, size_out * self.groups)
        kernel = self.init(key, (*window, *ends), dtype)
        return kernel.swapaxes(-1, -2).reshape(shape)
