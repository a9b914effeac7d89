"""Kernels of which only some entries count."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from linnet._errors import DTypeError, ShapeError, describe
from linnet._typing import Array, ArrayLike
from linnet.functional._dtype import as_array


def masked(kernel: ArrayLike, mask: ArrayLike | None) -> Array:
    """`kernel` where the mask admits it, and zero elsewhere.

    Entries that are zeroed get no gradient.

    Args:
        kernel: Any shape, floating or complex.
        mask: Booleans with as many axes as `kernel`, each of its size or 1. `None`
            admits all.

    Returns:
        An array like `kernel`.

    Raises:
        DTypeError: `mask` holds anything but booleans.
        ShapeError: The mask does not fit.

    Example:
        >>> from linnet import functional as F
        >>> F.masked(jnp.ones((2, 2)), jnp.array([[True], [False]]))
        Array([[1., 1.],
               [0., 0.]], dtype=float32)

    Source: Germain et al., "MADE: Masked Autoencoder for Distribution Estimation",
    2015, eq. 8, arXiv:1502.03509.
    """
    kernel = as_array(kernel)
    if mask is None:
        return kernel
    mask = as_array(mask)
    check_kernel_mask(mask, kernel.shape)
    admitted = jnp.broadcast_to(mask, kernel.shape)
    return lax.select(admitted, kernel, jnp.zeros_like(kernel))


def check_kernel_mask(mask: Array, shape: Sequence[int | None]) -> None:
    """Refuses what cannot mask a kernel of this shape; `None` is not yet known."""
    if mask.dtype != jnp.bool_:
        raise DTypeError(
            f"`mask` has dtype {mask.dtype}, but it must hold booleans.",
            code="LN-DTYPE-01",
            facts={"mask": describe(mask)},
            why="It says which entries of the kernel count. Numbers could be meant "
            "as weights, which belong into the kernel.",
            fixes=[("entries other than 0 count", "mask = mask != 0")],
        )
    fits = mask.ndim == len(shape) and all(
        m == 1 or n is None or m == n for m, n in zip(mask.shape, shape, strict=True)
    )
    if not fits:
        sizes = ", ".join("?" if n is None else str(n) for n in shape)
        missing = len(shape) - mask.ndim
        code = f"mask = mask.reshape({(*mask.shape, *(1,) * missing)})"
        raise ShapeError(
            f"`mask` of shape {list(mask.shape)} does not fit a kernel of shape "
            f"[{sizes}].",
            code="LN-SHAPE-01",
            facts={"mask": describe(mask)},
            why="It must have as many axes as the kernel, each of the same size or 1.",
            fixes=[("it is the same for all features", code)]
            if missing > 0 and mask.shape == tuple(shape[: mask.ndim])
            else [("all entries count", "mask = None")],
        )
