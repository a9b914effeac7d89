"""Linear maps."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import Module, param
from linnet.core._check import check_size
from linnet.functional._dtype import inexact_dtype
from linnet.functional._linear import dense_axes
from linnet.functional.initializers import lecun_normal, zeros
from linnet.nn._axes import check_axis, sizes
from linnet.nn._kernel import as_matrix, bias_param, kernel_mask, logical_axes
from linnet.nn._place import placed

KERNEL_INIT = lecun_normal()
AXES = ("in", "out")


class Dense(Module):
    r"""Multiplies the last axis by a matrix, and adds a bias.

    $y = x \cdot \mathrm{kernel} + \mathrm{bias}$

    Args:
        features: Size O of the last axis of the result.
        in_features: Size I of the last axis of `x`. `None` infers it at `nn.init`.
        mask: Booleans that say which entries of `kernel` count, with two axes of its
            sizes or 1. Entries that do not count are zero, and not trained.
        use_bias: Whether there is a bias.
        dtype: Of the computation and the result. `None` takes the one to which `x`
            and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the product, as in `jax.lax.dot_general`.
        kernel_init: Initialiser of `kernel`.
        bias_init: Initialiser of `bias`.

    Parameters:
        kernel: `[I, O]`. Logical axes `("in", "out")`.
        bias: `[O]`, starts at zero. Logical axes `("out",)`.
        mask: A constant, as given.

    Shapes:
        x: `[..., I]`  ->  `[..., O]`

    Raises:
        ConfigError: A size is no positive integer.
        DTypeError: `x` holds integers or booleans, or `dtype` is one of these.
        ShapeError: The last axis of `x` is not I.

    Example:
        >>> x = jnp.ones((8, 3))
        >>> dense = nn.init(nn.Dense(4), jax.random.key(0), x)
        >>> dense(x).shape
        (8, 4)

    Differs from: PyTorch, whose weight is the transpose and starts uniform in
    $\pm 1 / \sqrt I$. Flax Linen: the same.
    Source: LeCun et al., "Efficient BackProp", 1998, section 4.6, for the start.
    """

    def __init__(
        self,
        features: int,
        *,
        in_features: int | None = None,
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
        with placed(self):
            self.dtype = None if dtype is None else inexact_dtype(dtype)
        self.precision = precision
        shape = (size_in, self.features)
        self.mask = kernel_mask(self, mask, shape, AXES)
        self.kernel = param(kernel_init, shape, param_dtype, axes=AXES)
        self.bias = bias_param(use_bias, bias_init, shape[1:], param_dtype)

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[..., I]`, floating or complex.
        """
        self.check_input(x, min_ndim=1, dtype="inexact")
        self.expect(kernel=(x.shape[-1], self.features))
        with placed(self):
            return F.dense(
                x,
                F.masked(self.kernel, self.mask),
                self.bias,
                dtype=self.dtype,
                precision=self.precision,
            )


class DenseGeneral(Module):
    r"""Maps one or more axes linearly to one or more new axes, and adds a bias.

    $y_{\ldots o} = \sum_i x_{\ldots i}\,\mathrm{kernel}_{io} + \mathrm{bias}_o$,
    where i and o may stand for several axes each.

    Args:
        features: Size, or sizes, O of the new axes.
        axis: Axis or axes of `x` that are contracted.
        batch_axis: Axis or axes of `x` along which each index has a kernel and a
            bias of its own.
        in_features: Sizes I of the contracted axes, in the order in which `x` has
            them, or one for all. `None` infers them at `nn.init`.
        mask: Booleans that say which entries of `kernel` count, with axes of its
            sizes or 1. Entries that do not count are zero, and not trained.
        use_bias: Whether there is a bias.
        dtype: Of the computation and the result. `None` takes the one to which `x`
            and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the product, as in `jax.lax.dot_general`.
        kernel_init: Initialiser of `kernel` as a matrix `[I, O]`, where I and O are
            the products of the sizes.
        bias_init: Initialiser of `bias`.
        kernel_axes: Logical names of the axes of `kernel`. `None` names the first
            contracted axis "in" and the first new one "out".

    Parameters:
        kernel: `[*B, *I, *O]`, with the sizes B of the batch axes. Logical axes
            `kernel_axes`.
        bias: `[*B, *O]`, starts at zero. Logical axes as in `kernel`.
        mask: A constant, as given.

    Shapes:
        x: `[...]`  ->  `[..., *O]`: the axes that are not contracted, then the new.

    Raises:
        ConfigError: A size is no positive integer, or options do not go together.
        DTypeError: `x` holds integers or booleans, or `dtype` is one of these.
        ShapeError: `x` lacks an axis, or has not the sizes I and B.

    Example:
        >>> x = jnp.ones((8, 5, 12))
        >>> heads = nn.init(nn.DenseGeneral((3, 4)), jax.random.key(0), x)
        >>> heads(x).shape
        (8, 5, 3, 4)
        >>> join = nn.DenseGeneral(12, axis=(-2, -1))
        >>> nn.init(join, jax.random.key(0), heads(x))(heads(x)).shape
        (8, 5, 12)

    Differs from: Flax Linen, whose `batch_dims` must come first, and are called so.
    Source: Vaswani et al., "Attention Is All You Need", 2017, section 3.2.2, for the
    use with heads, arXiv:1706.03762.
    """

    def __init__(
        self,
        features: int | Sequence[int],
        *,
        axis: int | Sequence[int] = -1,
        batch_axis: int | Sequence[int] = (),
        in_features: int | Sequence[int] | None = None,
        mask: ArrayLike | None = None,
        use_bias: bool = True,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = KERNEL_INIT,
        bias_init: Initializer = zeros,
        kernel_axes: Sequence[str | None] | None = None,
    ) -> None:
        listed = features if isinstance(features, Sequence) else (features,)
        self.features = tuple(check_size(self, "features", size) for size in listed)
        self.axis = axis if isinstance(axis, Sequence) else (axis,)
        check_axis(self, *self.axis)
        self.batch_axis = (
            batch_axis if isinstance(batch_axis, Sequence) else (batch_axis,)
        )
        check_axis(self, *self.batch_axis, name="batch_axis", optional=True)
        with placed(self):
            self.dtype = None if dtype is None else inexact_dtype(dtype)
        self.precision = precision
        count, inner = len(self.batch_axis), len(self.batch_axis) + len(self.axis)
        sizes_in = sizes(self, in_features, len(self.axis), "in_features")
        shape = (*(None,) * count, *sizes_in, *self.features)
        inputs = tuple(range(count, inner))
        outputs = tuple(range(inner, len(shape)))
        names = logical_axes(self, kernel_axes, len(shape), inputs, outputs)
        self.mask = kernel_mask(self, mask, shape, names)
        init = as_matrix(kernel_init, inputs, outputs)
        self.kernel = param(init, shape, param_dtype, axes=names)
        kept = [*range(count), *outputs]
        self.bias = bias_param(
            use_bias,
            bias_init,
            [shape[a] for a in kept],
            param_dtype,
            [names[a] for a in kept],
        )

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[...]`, floating or complex.
        """
        self.check_input(x, dtype="inexact")
        with placed(self):
            axes, batch, _ = dense_axes(x.ndim, self.axis, self.batch_axis)
            own = tuple(x.shape[a] for a in batch)
            sizes_in = tuple(x.shape[a] for a in axes)
            self.expect(
                kernel=(*own, *sizes_in, *self.features), bias=(*own, *self.features)
            )
            return F.dense_general(
                x,
                F.masked(self.kernel, self.mask),
                self.bias,
                axis=self.axis,
                batch_axis=self.batch_axis,
                dtype=self.dtype,
                precision=self.precision,
            )


class Bilinear(Module):
    r"""Gives a bilinear form of two inputs for each feature, and adds a bias.

    $z_o = \sum_{ij} x_i\, \mathrm{kernel}_{ijo}\, y_j + \mathrm{bias}_o$

    Args:
        features: Size O of the last axis of the result.
        in_features: Sizes I and J of the last axes of `x` and `y`. `None` infers
            them at `nn.init`.
        use_bias: Whether there is a bias.
        dtype: Of the computation and the result. `None` takes the one to which the
            inputs and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the products, as in `jax.lax.dot_general`.
        kernel_init: Initialiser of `kernel` as a matrix `[I * J, O]`.
        bias_init: Initialiser of `bias`.

    Parameters:
        kernel: `[I, J, O]`. Logical axes `("in", None, "out")`.
        bias: `[O]`, starts at zero. Logical axes `("out",)`.

    Shapes:
        x: `[..., I]`  ->  `[..., O]`
        y: `[..., J]`, with the same leading axes as `x`.

    Raises:
        ConfigError: A size is no positive integer.
        DTypeError: An input holds integers or booleans, or `dtype` is one of these.
        ShapeError: The last axes are not I and J, or the others differ.

    Example:
        >>> x, y = jnp.ones((8, 3)), jnp.ones((8, 4))
        >>> layer = nn.init(nn.Bilinear(2), jax.random.key(0), x, y)
        >>> layer(x, y).shape
        (8, 2)

    Differs from: PyTorch, whose weight is `[O, I, J]` and starts uniform in
    $\pm 1 / \sqrt I$, so that the result grows with J.
    Source: Tenenbaum and Freeman, "Separating Style and Content with Bilinear
    Models", 2000, eq. 1.
    """

    def __init__(
        self,
        features: int,
        *,
        in_features: Sequence[int] | None = None,
        use_bias: bool = True,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = KERNEL_INIT,
        bias_init: Initializer = zeros,
    ) -> None:
        self.features = check_size(self, "features", features)
        with placed(self):
            self.dtype = None if dtype is None else inexact_dtype(dtype)
        self.precision = precision
        shape = (*sizes(self, in_features, 2, "in_features"), self.features)
        init = as_matrix(kernel_init, (0, 1), (2,))
        self.kernel = param(init, shape, param_dtype, axes=("in", None, "out"))
        self.bias = bias_param(use_bias, bias_init, shape[2:], param_dtype)

    def __call__(self, x: ArrayLike, y: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[..., I]`, floating or complex.
            y: `[..., J]`, likewise.
        """
        self.check_input(x, min_ndim=1, dtype="inexact")
        self.check_input(y, "y", ndim=x.ndim, dtype="inexact")
        self.expect(kernel=(x.shape[-1], y.shape[-1], self.features))
        with placed(self):
            return F.bilinear(
                x, y, self.kernel, self.bias, dtype=self.dtype, precision=self.precision
            )
