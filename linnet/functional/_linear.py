"""Linear maps, as arrays.

I, J features in  O features out  B batch axes with kernels of their own
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from linnet._errors import ShapeError, describe
from linnet._typing import Array, ArrayLike, DType
from linnet.functional._compile import compiled
from linnet.functional._dtype import inexact, promoted
from linnet.functional._shape import axes_of, features_elsewhere, require_shape


def dense(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    dtype: DType | None = None,
    precision: lax.PrecisionLike = None,
) -> Array:
    """Multiplies the last axis of `x` by `kernel` and adds `bias`.

    Args:
        x: `[..., I]`, floating or complex.
        kernel: `[I, O]`.
        bias: `[O]`, or `None` for none.
        dtype: Of the computation and the result. `None` takes the one to which
            the arrays promote together.
        precision: Of the product, as in `jax.lax.dot_general`.

    Returns:
        `[..., O]`.

    Raises:
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> F.dense(jnp.array([1.0, 2.0]), jnp.eye(2), jnp.array([0.0, 1.0]))
        Array([1., 3.], dtype=float32)
    """
    x, kernel, bias = promoted(dtype, x, kernel, bias)
    if kernel.ndim != 2 or x.ndim < 1 or x.shape[-1] != kernel.shape[0]:
        _refuse(x, kernel)
    require_shape(bias, kernel.shape[1:], "bias", "Each output feature has one bias.")
    last = x.ndim - 1
    numbers = (((last,), (0,)), ((), ()))
    return _contracted(x, kernel, bias, numbers, None, (last,), precision)


@compiled(3, 4, 5, 6)
def _contracted(
    x: Array,
    kernel: Array,
    bias: Array | None,
    numbers: lax.DotDimensionNumbers,
    order: tuple[int, ...] | None,
    bias_at: tuple[int, ...],
    precision: lax.PrecisionLike,
) -> Array:
    """The product with its axes in another order, and the bias along some of them."""
    y = lax.dot_general(x, kernel, numbers, precision=precision)
    if order is not None:
        y = lax.transpose(y, order)
    if bias is None:
        return y
    return lax.add(y, lax.broadcast_in_dim(bias, y.shape, bias_at))


def dense_general(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    axis: int | Sequence[int] = -1,
    batch_axis: int | Sequence[int] = (),
    dtype: DType | None = None,
    precision: lax.PrecisionLike = None,
) -> Array:
    """Contracts axes of `x` with those of `kernel`, and adds `bias`.

    Args:
        x: Any shape, floating or complex.
        kernel: `[*B, *I, *O]`: the sizes of the batch axes and of the contracted
            ones, each in the order in which `x` has them, then those of the new
            axes, of which there may be any number.
        bias: `[*B, *O]`, or `None` for none.
        axis: Axis or axes of `x` that are contracted.
        batch_axis: Axis or axes of `x` along which each index has a kernel and a
            bias of its own.
        dtype: Of the computation and the result. `None` takes the one to which
            the arrays promote together.
        precision: Of the product, as in `jax.lax.dot_general`.

    Returns:
        The axes of `x` that are not contracted, in their order, then `*O`.

    Raises:
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> x, kernel = jnp.ones((8, 5, 2, 3)), jnp.ones((2, 3, 4))
        >>> F.dense_general(x, kernel, axis=(-2, -1)).shape
        (8, 5, 4)
    """
    x, kernel, bias = promoted(dtype, x, kernel, bias)
    axes, batch, kept = dense_axes(x.ndim, axis, batch_axis)
    needed = tuple(x.shape[a] for a in (*batch, *axes))
    count, inner = len(batch), len(needed)
    if kernel.shape[:inner] != needed:
        raise ShapeError(
            f"`x` of shape {list(x.shape)} needs a kernel whose first axes are "
            f"{list(needed)}, not one of shape {list(kernel.shape)}.",
            code="LN-SHAPE-01",
            facts={"x": describe(x), "kernel": describe(kernel)},
            why="A kernel has the batch axes of `x`, then those that are contracted, "
            "then the new ones.",
            fixes=_other_kernel(kernel, needed),
        )
    shape = (*needed[:count], *kernel.shape[inner:])
    require_shape(bias, shape, "bias", "It has the axes of `kernel` that stay.")
    numbers = (
        (axes, tuple(range(count, inner))),
        (batch, tuple(range(count))),
    )
    free = tuple(a for a in kept if a not in batch)
    came = (*batch, *free)  # as the product has them
    ndim = len(kept) + kernel.ndim - inner
    new = range(len(kept), ndim)
    order = None if came == kept else (*(came.index(a) for a in kept), *new)
    bias_at = (*(kept.index(a) for a in batch), *new)
    return _contracted(x, kernel, bias, numbers, order, bias_at, precision)


def dense_axes(
    ndim: int, axis: int | Sequence[int], batch_axis: int | Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The axes of `x` that are contracted, those with own kernels, those that stay."""
    axes = axes_of(ndim, axis)
    batch = axes_of(ndim, batch_axis, "batch_axis")
    both = [a for a in axes if a in batch]
    if both:
        raise ShapeError(
            f"axis {both[0]} of `x`, which has {ndim}, is named by `axis` and by "
            "`batch_axis`.",
            code="LN-SHAPE-02",
            why="A contracted axis is gone from the result; a batch axis stays.",
            fixes=[("it is contracted", "batch_axis = ()")],
        )
    return axes, batch, tuple(a for a in range(ndim) if a not in axes)


def bilinear(
    x: ArrayLike,
    y: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    dtype: DType | None = None,
    precision: lax.PrecisionLike = None,
) -> Array:
    r"""Gives a bilinear form of two vectors for each feature, and adds `bias`.

    $z_o = \sum_{ij} x_i\, \mathrm{kernel}_{ijo}\, y_j + \mathrm{bias}_o$

    Args:
        x: `[..., I]`, floating or complex.
        y: `[..., J]`, with the same leading axes.
        kernel: `[I, J, O]`.
        bias: `[O]`, or `None` for none.
        dtype: Of the computation and the result. `None` takes the one to which
            the arrays promote together.
        precision: Of the products, as in `jax.lax.dot_general`.

    Returns:
        `[..., O]`.

    Raises:
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> x, y = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
        >>> F.bilinear(x, y, jnp.eye(2)[:, :, None])
        Array([11.], dtype=float32)
    """
    x, y = inexact(x, "x"), inexact(y, "y")
    if dtype is None:
        dtype = jnp.result_type(x, y, *(a for a in (kernel, bias) if a is not None))
    x, kernel, bias = promoted(dtype, x, kernel, bias)
    y = y.astype(x.dtype)
    sizes = (*x.shape[-1:], *y.shape[-1:])
    fits = x.ndim and kernel.ndim == 3 and kernel.shape[:2] == sizes
    if not fits or x.shape[:-1] != y.shape[:-1]:
        _refuse_pair(x, y, kernel)
    require_shape(bias, kernel.shape[2:], "bias", "Each output feature has one bias.")
    return _bilinear(x, y, kernel, bias, precision)


@compiled(4)
def _bilinear(
    x: Array,
    y: Array,
    kernel: Array,
    bias: Array | None,
    precision: lax.PrecisionLike,
) -> Array:
    last = x.ndim - 1
    rows = tuple(range(last))
    forms = lax.dot_general(
        x, kernel, (((last,), (0,)), ((), ())), precision=precision
    )  # [..., J, O]
    z = lax.dot_general(
        y, forms, (((last,), (last,)), (rows, rows)), precision=precision
    )  # [..., O]
    if bias is None:
        return z
    return lax.add(z, lax.broadcast_in_dim(bias, z.shape, (last,)))


def _other_kernel(kernel: Array, needed: tuple[int, ...]) -> list[tuple[str, str]]:
    inner = len(needed)
    rest = kernel.shape[inner:]
    first = kernel.shape[:inner]
    if sorted(first) != sorted(needed):
        return []
    order = [first.index(n) for n in needed]
    if len(set(order)) != inner:
        return []
    order += range(inner, inner + len(rest))
    return [("its axes are in another order", f"kernel = kernel.transpose({order})")]


def _refuse_pair(x: Array, y: Array, kernel: Array) -> None:
    raise ShapeError(
        f"`x` of shape {list(x.shape)} and `y` of shape {list(y.shape)} do not fit "
        f"a `kernel` of shape {list(kernel.shape)}.",
        code="LN-SHAPE-01",
        facts={"x": describe(x), "y": describe(y), "kernel": describe(kernel)},
        why="The kernel has three axes: the features of `x`, those of `y`, and those "
        "of the result. All other axes of `x` and `y` are the same.",
        fixes=_pair_fixes(x, y, kernel),
    )


def _pair_fixes(x: Array, y: Array, kernel: Array) -> list[tuple[str, str]]:
    if kernel.shape[:2] == (*y.shape[-1:], *x.shape[-1:]):
        return [("the two are swapped", "x, y = y, x")]
    if x.ndim and y.ndim and y.ndim < x.ndim:
        shape = f"(*x.shape[:-1], {y.shape[-1]})"
        return [("one `y` is for all of `x`", f"y = jnp.broadcast_to(y, {shape})")]
    return []


def _refuse(x: Array, kernel: Array) -> None:
    raise ShapeError(
        f"`x` of shape {list(x.shape)} cannot be multiplied by `kernel` of shape "
        f"{list(kernel.shape)}.",
        code="LN-SHAPE-01",
        facts={"x": describe(x), "kernel": describe(kernel)},
        why="The last axis of `x` is contracted with the first of a two-axis `kernel`.",
        fixes=[] if kernel.ndim < 1 else features_elsewhere("x", x, kernel.shape[0]),
    )
