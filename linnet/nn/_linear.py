"""Dense layers."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import Module, param
from linnet.core._check import check_size
from linnet.functional._dtype import inexact_dtype
from linnet.functional.initializers import lecun_normal, zeros
from linnet.nn._place import placed

KERNEL_INIT = lecun_normal()


class Dense(Module):
    r"""Multiplies the last axis by a matrix, and adds a bias.

    $y = x \cdot \mathrm{kernel} + \mathrm{bias}$

    Args:
        features: Size O of the last axis of the result.
        in_features: Size I of the last axis of `x`. `None` infers it at `nn.init`.
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
        self.kernel = param(kernel_init, shape, param_dtype, axes=("in", "out"))
        self.bias = (
            param(bias_init, shape[1:], param_dtype, axes=("out",))
            if use_bias
            else None
        )

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[..., I]`, floating or complex.
        """
        self.check_input(x, min_ndim=1, dtype="inexact")
        self.expect(kernel=(x.shape[-1], self.features))
        return F.dense(
            x, self.kernel, self.bias, dtype=self.dtype, precision=self.precision
        )
