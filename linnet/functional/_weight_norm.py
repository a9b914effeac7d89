"""Kernels that are normalised before they are used, as arrays.

N all axes but the last, as one  O the last axis, of what the kernel gives

Norms are taken in float32 or wider.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from linnet._errors import ShapeError, describe
from linnet._typing import Array, ArrayLike
from linnet.functional._compile import compiled
from linnet.functional._dtype import inexact, widened
from linnet.functional._moments import check_vectors, squared
from linnet.functional._shape import align, axes_of, require_shape


def weight_norm(
    kernel: ArrayLike,
    scale: Array | None = None,
    *,
    axis: int | tuple[int, ...] = -1,
    epsilon: float = 1e-12,
) -> Array:
    r"""Gives each feature of a kernel a norm of its own.

    $w = \mathrm{scale} \cdot v / \sqrt{\|v\|^2 + \epsilon}$, with the norm taken over
    all axes but `axis`.

    Args:
        kernel: Any shape, floating or complex: the direction v.
        scale: The shape of `kernel` over `axis`; or `None` for ones.
        axis: Axis or axes of the features.
        epsilon: Added to the squared norm (unit: that of `kernel` squared).

    Returns:
        An array like `kernel`.

    Raises:
        DTypeError: `kernel` holds integers or booleans.
        ShapeError: `scale` does not fit, or there is no such axis.

    Example:
        >>> from linnet import functional as F
        >>> F.weight_norm(jnp.array([[3.0], [4.0]]), jnp.array([10.0]))[:, 0]
        Array([6., 8.], dtype=float32)

    Source: Salimans and Kingma, "Weight Normalization", 2016, eq. 2,
    arXiv:1602.07868.
    """
    kernel = inexact(kernel, "kernel")
    axes = axes_of(kernel.ndim, axis)
    check_vectors(kernel, axes, scale=scale)
    return _weight_norm(kernel, scale, axes, epsilon)


@compiled(2)
def _weight_norm(
    kernel: Array, scale: Array | None, axes: tuple[int, ...], epsilon: float
) -> Array:
    wide = kernel.astype(widened(kernel.dtype))
    factor = lax.rsqrt(norm_squared(wide, axes) + epsilon)
    if scale is not None:
        factor = factor * scale.astype(factor.dtype)
    return (wide * align(factor, wide.ndim, axes).astype(wide.dtype)).astype(
        kernel.dtype
    )


def norm_squared(kernel: Array, axes: tuple[int, ...]) -> Array:
    """The squared norm over all axes but `axes`."""
    others = tuple(a for a in range(kernel.ndim) if a not in axes)
    return squared(kernel).sum(others)


def power_iteration(
    kernel: ArrayLike,
    u: Array,
    *,
    n_steps: int = 1,
    epsilon: float = 1e-12,
) -> tuple[Array, Array]:
    r"""Estimates the largest singular value of a kernel.

    With the kernel as a matrix K of N rows, $v \leftarrow K u / \|K u\|$ and $u
    \leftarrow K^H v / \|K^H v\|$ are repeated, and $\sigma = |v^H K u|$. Where u has
    converged, that is the largest singular value; else it is less.

    The gradient of $\sigma$ is that for fixed u and v.

    Args:
        kernel: `[..., O]`, floating or complex; all axes but the last are rows.
        u: `[O]`, the vector to start from, of any length but zero.
        n_steps: How often the two vectors are improved.
        epsilon: Added to norms before they divide.

    Returns:
        The estimate `[]` in float32 or wider, real, and the next u `[O]` without a
        gradient. A kernel of zeros leaves u as it is.

    Raises:
        DTypeError: `kernel` holds integers or booleans.
        ShapeError: `kernel` has no axis, or `u` not the size of its last one.

    Example:
        >>> from linnet import functional as F
        >>> kernel = jnp.diag(jnp.array([3.0, 1.0]))
        >>> sigma, u = F.power_iteration(kernel, jnp.ones(2), n_steps=10)
        >>> sigma, u.round(3)
        (Array(3., dtype=float32), Array([1., 0.], dtype=float32))

    Source: Miyato et al., "Spectral Normalization for Generative Adversarial
    Networks", 2018, algorithm 1, arXiv:1802.05957.
    """
    kernel = inexact(kernel, "kernel")
    if kernel.ndim == 0:
        raise ShapeError(
            "`kernel` has no axes, but must have at least 1.",
            code="LN-SHAPE-02",
            facts={"kernel": describe(kernel)},
            fixes=[("it is a matrix of one entry", "kernel = kernel.reshape(1, 1)")],
        )
    require_shape(u, kernel.shape[-1:], "u", f"`kernel` is {describe(kernel)}.")
    return _power_iteration(kernel, u, n_steps, epsilon)


@compiled(2)
def _power_iteration(
    kernel: Array, u: Array, n_steps: int, epsilon: float
) -> tuple[Array, Array]:
    wide = kernel.astype(widened(kernel.dtype))
    matrix = wide.reshape(-1, wide.shape[-1])  # [N, O]
    fixed = lax.stop_gradient(matrix)

    def unit(vector: Array) -> Array:
        return vector / (jnp.sqrt(squared(vector).sum()) + epsilon)

    def product(a: Array, b: Array) -> Array:
        return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)

    adjoint = fixed.conj().T
    start = u = lax.stop_gradient(u).astype(matrix.dtype)
    v = unit(product(fixed, u))  # [N]
    for i in range(n_steps):
        u = unit(product(adjoint, v))  # [O]
        v = unit(product(fixed, u)) if i + 1 < n_steps else v
    sigma = jnp.abs(product(product(v.conj(), matrix), u))
    return sigma, jnp.where(sigma > 0, u, start)  # a kernel of zeros turns u to zero
