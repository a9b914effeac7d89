"""Activations with parameters, as arrays.

D features  ... batch and positions
"""

from __future__ import annotations

import jax.numpy as jnp

from linnet._errors import DTypeError, describe
from linnet._typing import Array, ArrayLike
from linnet.functional._compile import compiled
from linnet.functional._dtype import inexact
from linnet.functional._shape import align, require_shape


def prelu(x: ArrayLike, negative_slope: Array) -> Array:
    r"""Multiplies what is below zero by a slope, and leaves the rest.

    $y = \max(x, 0) + \mathrm{negative\_slope} \cdot \min(x, 0)$.

    Args:
        x: `[..., D]`, floating.
        negative_slope: `[D]`, or `[]` for one that is shared.

    Returns:
        An array like `x`. At zero the derivative is the slope.

    Raises:
        DTypeError: `x` holds integers, booleans or complex numbers.
        ShapeError: `negative_slope` has neither of the two shapes.

    Example:
        >>> from linnet import functional as F
        >>> F.prelu(jnp.array([-2.0, 0.0, 3.0]), jnp.array(0.25))
        Array([-0.5,  0. ,  3. ], dtype=float32)

    Source: He et al., "Delving Deep into Rectifiers", 2015, eq. 1, arXiv:1502.01852.
    """
    x = inexact(x, "x")
    if jnp.iscomplexobj(x):
        raise DTypeError(
            f"`x` is {describe(x)}, but complex numbers are not above or below zero.",
            code="LN-DTYPE-01",
            fixes=[("the real part is meant", "x = x.real")],
        )
    if negative_slope.ndim:
        why = f"`x` is {describe(x)}; a slope without axes is shared."
        require_shape(negative_slope, x.shape[-1:], "negative_slope", why)
    return _prelu(x, negative_slope)


@compiled()
def _prelu(x: Array, negative_slope: Array) -> Array:
    slope = negative_slope.astype(x.dtype)
    slope = jnp.broadcast_to(align(slope, x.ndim, (x.ndim - 1,)[: slope.ndim]), x.shape)
    return jnp.where(x > 0, x, slope * x)
