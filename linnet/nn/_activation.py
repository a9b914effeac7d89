"""An activation that is trained. The others are `jax.nn`'s own, in the package."""

from __future__ import annotations

import jax.numpy as jnp

from linnet import functional as F
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import Module, param
from linnet.functional.initializers import constant
from linnet.nn._place import placed

QUARTER = constant(0.25)


class PReLU(Module):
    r"""Multiplies what is below zero by a trained slope, and leaves the rest.

    $y = \max(x, 0) + \mathrm{negative\_slope} \cdot \min(x, 0)$.

    Args:
        per_feature: Whether each entry of the last axis has a slope of its own.
        param_dtype: Of the slope. The result has the dtype of `x`.
        negative_slope_init: Initialiser of the slope.

    Parameters:
        negative_slope: Shape `[]`, or with `per_feature` `[D]`; starts at 0.25.
            Logical axes `("features",)` if any.

    Shapes:
        x: `[..., D]`  ->  `[..., D]`, same dtype as `x`.

    Raises:
        DTypeError: `x` holds integers, booleans or complex numbers.
        ShapeError: The last axis of `x` has another size than before.

    Example:
        >>> x = jnp.array([[-2.0, 3.0]])
        >>> nn.init(nn.PReLU(), jax.random.key(0), x)(x)
        Array([[-0.5,  3. ]], dtype=float32)

    Differs from: PyTorch, which is told the number of slopes, along axis 1. Flax
    Linen: it starts at 0.01.
    Source: He et al., "Delving Deep into Rectifiers", 2015, eq. 1, arXiv:1502.01852.
    """

    def __init__(
        self,
        *,
        per_feature: bool = False,
        param_dtype: DType = jnp.float32,
        negative_slope_init: Initializer = QUARTER,
    ) -> None:
        self.per_feature = per_feature
        shape = (None,) if per_feature else ()
        axes = ("features",)[: len(shape)]
        self.negative_slope = param(negative_slope_init, shape, param_dtype, axes=axes)

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[..., D]`, floating.
        """
        self.check_input(x, min_ndim=int(self.per_feature), dtype="floating")
        if self.per_feature:
            self.expect(negative_slope=x.shape[-1:])
        with placed(self):
            return F.prelu(x, self.negative_slope)
