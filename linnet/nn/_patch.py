"""Images as patches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._errors import ShapeError, describe
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import Module, param
from linnet.core._check import check_size
from linnet.core._locate import locate
from linnet.functional._dtype import inexact_dtype
from linnet.functional._window import per_axis
from linnet.functional.initializers import lecun_normal, zeros
from linnet.nn._kernel import bias_param
from linnet.nn._place import placed

KERNEL_INIT = lecun_normal()


class PatchEmbed(Module):
    """Cuts images into patches, and maps each to a vector.

    It is a convolution whose strides are its window. A size that the patches do not
    divide is refused: what to do with the rest is for the caller to say.

    Args:
        features: Size D of the vectors.
        patch_size: Of a patch P: of images one number for both axes, or one number
            per spatial axis (three of them for videos).
        in_features: Number C of channels. `None` infers it at `nn.init`.
        flatten: Whether the patches become one axis of tokens, row by row.
        use_bias: Whether there is a bias.
        dtype: Of the computation and the result. `None` takes the one to which `x`
            and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the products, as in `jax.lax.conv_general_dilated`.
        kernel_init: Initialiser of `kernel`.
        bias_init: Initialiser of `bias`.

    Parameters:
        kernel: `[*P, C, D]`. Logical axes `(None, ..., "in", "out")`.
        bias: `[D]`, starts at zero. Logical axes `("out",)`.

    Shapes:
        x: `[..., *W, C]`  ->  `[..., *W / P, D]`, or `[..., T, D]` with `flatten`.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: `x` holds integers or booleans, or `dtype` is one of these.
        ShapeError: `x` has too few axes or other channels, or a size that the patch
            does not divide.

    Example:
        >>> x = jnp.ones((8, 32, 32, 3))
        >>> patches = nn.PatchEmbed(64, 8, flatten=True)
        >>> patches = nn.init(patches, jax.random.key(0), x)
        >>> patches(x).shape
        (8, 16, 64)

    Differs from: a convolution in PyTorch, which drops the pixels of an incomplete
    patch.
    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020, eq. 1,
    arXiv:2010.11929.
    """

    def __init__(
        self,
        features: int,
        patch_size: int | Sequence[int],
        *,
        in_features: int | None = None,
        flatten: bool = False,
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
            count = len(patch_size) if isinstance(patch_size, Sequence) else 2
            self.patch_size = per_axis(patch_size, max(count, 1), "patch_size")
            self.dtype = None if dtype is None else inexact_dtype(dtype)
        self.flatten = bool(flatten)
        self.precision = precision
        shape = (*self.patch_size, size_in, self.features)
        axes = (*(None for _ in self.patch_size), "in", "out")
        self.kernel = param(kernel_init, shape, param_dtype, axes=axes)
        self.bias = bias_param(use_bias, bias_init, shape[-1:], param_dtype)

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[..., *W, C]`, floating or complex.
        """
        spatial = len(self.patch_size)
        self.check_input(x, min_ndim=spatial + 1, dtype="inexact")
        self.expect(kernel=(*self.patch_size, x.shape[-1], self.features))
        self._refuse_remainder(x)
        with placed(self):
            y = F.conv(
                x,
                self.kernel,
                self.bias,
                strides=self.patch_size,
                padding="VALID",
                dtype=self.dtype,
                precision=self.precision,
            )  # [..., *W / P, D]
        if not self.flatten:
            return y
        grid = y.shape[y.ndim - spatial - 1 : -1]
        batch = y.shape[: y.ndim - spatial - 1]
        return y.reshape(*batch, math.prod(grid), self.features)  # [..., T, D]

    def _refuse_remainder(self, x: ArrayLike) -> None:
        batch = x.ndim - len(self.patch_size) - 1
        sizes = x.shape[batch:-1]
        more = [-n % p for n, p in zip(sizes, self.patch_size, strict=True)]
        if any(more):
            widths = [(0, 0)] * batch + [(0, n) for n in more] + [(0, 0)]
            near = [
                max(round(n / p), 1) * p
                for n, p in zip(sizes, self.patch_size, strict=True)
            ]
            raise ShapeError(
                f"spatial axes of {list(sizes)} are no multiples of the patch "
                f"{list(self.patch_size)}.",
                code="LN-SHAPE-01",
                at=locate(self),
                facts={"x": describe(x)},
                why="The pixels of an incomplete patch would be lost.",
                fixes=[
                    ("the rest may be black", f"x = jnp.pad(x, {widths})"),
                    (
                        "the images may be resized",
                        "x = jax.image.resize("
                        f'x, {(*x.shape[:batch], *near, x.shape[-1])}, "linear")',
                    ),
                ],
            )
