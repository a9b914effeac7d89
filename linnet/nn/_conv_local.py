"""Convolutions with a kernel for each position."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import param
from linnet.core._check import check_size
from linnet.functional._conv import CONV_PADDINGS, check_conv_padding
from linnet.functional._conv_local import local_positions
from linnet.functional._window import Padding, per_axis
from linnet.functional.initializers import lecun_normal, zeros
from linnet.nn._kernel import as_matrix, bias_param, kernel_mask
from linnet.nn._place import placed
from linnet.nn._window import Windowed, window_axes

KERNEL_INIT = lecun_normal()


class ConvLocal(Windowed):
    """Multiplies the window around each position by that position's own kernel.

    Like `Conv`, but the weights are not shared between positions, so the spatial
    sizes of the input are fixed.

    Args:
        features: Size O of the last axis of the result.
        kernel_size: The window K, one number per spatial axis.
        in_features: Size I of the last axis of `x`. `None` infers it at `nn.init`.
        strides: Step of the window, in all or in each spatial axis.
        padding: As in `Conv`.
        kernel_dilation: Distance between the kernel's entries.
        input_dilation: Distance to which the input's entries are drawn apart, with
            zeros between them, before padding.
        mask: Booleans that say which entries of `kernel` count, with axes of its
            sizes or 1. Entries that do not count are zero, and not trained.
        use_bias: Whether there is a bias.
        dtype: Of the computation and the result. `None` takes the one to which `x`
            and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the products, as in `jax.lax.dot_general`.
        kernel_init: Initialiser of each position's kernel, as a matrix `[K * I, O]`.
        bias_init: Initialiser of `bias`.

    Parameters:
        kernel: `[*W', *K, I, O]`, where W' are the positions. Logical axes
            `(None, ..., "in", "out")`.
        bias: `[*W', O]`, starts at zero. Logical axes `(None, ..., "out")`.
        mask: A constant, as given.

    Shapes:
        x: `[..., *W, I]`  ->  `[..., *W', O]`, any number of batch axes, or none.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: `x` holds integers or booleans, or `dtype` is one of these.
        ShapeError: `x` has too few axes, or not the sizes that it was made for.

    Example:
        >>> x = jnp.ones((8, 7, 7, 3))
        >>> local = nn.ConvLocal(4, (3, 3), padding="VALID")
        >>> nn.init(local, jax.random.key(0), x)(x).shape
        (8, 5, 5, 4)

    Differs from: Flax Linen, whose kernel is `[*W', I * K, O]`, and starts smaller
    the more positions there are.
    Source: LeCun, "Generalization and network design strategies", 1989, section 4.
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
        mask: ArrayLike | None = None,
        use_bias: bool = True,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = KERNEL_INIT,
        bias_init: Initializer = zeros,
    ) -> None:
        size_in = check_size(self, "in_features", in_features, allow_none=True)
        self.features = check_size(self, "features", features)
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
        positions = (None,) * spatial
        shape = (*positions, *self.kernel_size, size_in, self.features)
        axes = window_axes(2 * spatial, "in", "out")
        self.mask = kernel_mask(self, mask, shape, axes)
        inputs = tuple(range(spatial, 2 * spatial + 1))
        init = as_matrix(kernel_init, inputs, (2 * spatial + 1,))
        self.kernel = param(init, shape, param_dtype, axes=axes)
        self.bias = bias_param(
            use_bias,
            bias_init,
            (*positions, self.features),
            param_dtype,
            window_axes(spatial, "out"),
        )

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[..., *W, I]`, floating or complex.
        """
        self.check_input(x, min_ndim=len(self.kernel_size) + 1, dtype="inexact")
        with placed(self):
            _, positions = local_positions(
                x,
                self.kernel_size,
                self.strides,
                self.padding,
                self.kernel_dilation,
                self.input_dilation,
            )
            self.expect(
                kernel=(*positions, *self.kernel_size, x.shape[-1], self.features),
                bias=(*positions, self.features),
            )
            return F.conv_local(
                x,
                F.masked(self.kernel, self.mask),
                self.bias,
                strides=self.strides,
                padding=self.padding,
                kernel_dilation=self.kernel_dilation,
                input_dilation=self.input_dilation,
                dtype=self.dtype,
                precision=self.precision,
            )
