"""An affine map of each feature whose logarithm of the determinant is known.

D features  ... batch and positions
"""

from __future__ import annotations

from linnet._typing import Array, ArrayLike, DType
from linnet.functional._compile import compiled
from linnet.functional._dtype import inexact, widened
from linnet.functional._moments import check_vectors
from linnet.functional._shape import align, axes_of


def act_norm(
    x: ArrayLike,
    scale: Array,
    bias: Array,
    *,
    axis: int = -1,
    inverse: bool = False,
    dtype: DType | None = None,
) -> Array:
    r"""Shifts and scales each feature, or undoes it.

    $y = (x + \mathrm{bias}) \cdot \mathrm{scale}$, and $x = y / \mathrm{scale} -
    \mathrm{bias}$. The logarithm of the absolute determinant is $\sum_d \log
    |\mathrm{scale}_d|$ at each position.

    Args:
        x: `[..., D]`, floating or complex; with `inverse`, what was y.
        scale: `[D]`, nowhere zero.
        bias: `[D]`.
        axis: Where the features are.
        inverse: Whether to go from y to x.
        dtype: Of the result; `None` takes that of `x`. The computation is in
            float32 or wider.

    Returns:
        `[..., D]`.

    Raises:
        DTypeError: `x` holds integers or booleans.
        ShapeError: A vector has not the size of the feature axis.

    Example:
        >>> from linnet import functional as F
        >>> scale, bias = jnp.array([2.0]), jnp.array([-1.0])
        >>> y = F.act_norm(jnp.array([[1.0], [4.0]]), scale, bias)
        >>> y[:, 0], F.act_norm(y, scale, bias, inverse=True)[:, 0]
        (Array([0., 6.], dtype=float32), Array([1., 4.], dtype=float32))

    Source: Kingma and Dhariwal, "Glow", 2018, section 3.1 and table 1,
    arXiv:1807.03039.
    """
    x = inexact(x, "x")
    axes = axes_of(x.ndim, axis)
    check_vectors(x, axes, scale=scale, bias=bias)
    return _act_norm(x, scale, bias, axes, inverse, x.dtype if dtype is None else dtype)


@compiled(3, 4, 5)
def _act_norm(
    x: Array,
    scale: Array,
    bias: Array,
    axes: tuple[int, ...],
    inverse: bool,
    dtype: DType,
) -> Array:
    x = x.astype(widened(x.dtype))
    scale = align(scale, x.ndim, axes).astype(x.dtype)
    bias = align(bias, x.ndim, axes).astype(x.dtype)
    return (x / scale - bias if inverse else (x + bias) * scale).astype(dtype)
