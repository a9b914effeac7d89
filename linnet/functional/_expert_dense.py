"""A dense layer of each of many experts, as arrays.

E experts  X blocks of rows  B rows of a block  I features in  O features out
... batch
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from linnet._errors import ShapeError, describe
from linnet._typing import Array, ArrayLike, DType
from linnet.functional._dtype import promoted, widened
from linnet.functional._shape import require_shape


def expert_dense(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    experts: Array | None = None,
    dtype: DType | None = None,
    precision: lax.PrecisionLike = None,
) -> Array:
    r"""Multiplies the rows of each block by the kernel of the block's expert.

    $y_{xbo} = \sum_i x_{xbi} \mathrm{kernel}_{e(x)io} + \mathrm{bias}_{e(x)o}$

    Given `experts`, one block is multiplied after another, so that no kernel is
    copied, and derivatives are taken in reverse mode only.

    Args:
        x: `[..., X, B, I]`; without a batch if `experts` are given.
        kernel: `[E, I, O]`.
        bias: `[E, O]`, or `None` for none.
        experts: `[X]`, whose each block is; `None` if X is E and block x is that of
            expert x.
        dtype: Of the computation and the result. `None` takes the one to which
            the arrays promote together.
        precision: Of the products, as in `jax.lax.dot_general`.

    Returns:
        `[..., X, B, O]`.

    Raises:
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> x = jnp.ones((3, 1, 2))
        >>> kernel = jnp.array([1.0, 10.0]).reshape(2, 1, 1) * jnp.ones((2, 2, 1))
        >>> F.expert_dense(x, kernel, experts=jnp.array([0, 0, 1])).reshape(-1)
        Array([ 2.,  2., 20.], dtype=float32)
    """
    x, kernel, bias = promoted(dtype, x, kernel, bias)
    _check_kernel(x, kernel, experts)
    require_shape(
        bias, kernel.shape[::2], "bias", "Each output of each expert has one bias."
    )
    if experts is None:
        axis = x.ndim - 3
        dims = (((x.ndim - 1,), (1,)), ((axis,), (0,)))
        y = lax.dot_general(x, kernel, dims, precision=precision)  # [E, ..., B, O]
        y = jnp.moveaxis(y, 0, axis)  # [..., E, B, O]
        return y if bias is None else y + _aligned(bias, y.ndim)
    y = _product(x, kernel, experts, False, precision)  # [X, B, O]
    return y if bias is None else y + bias[experts][:, None, :]


def _aligned(bias: Array, ndim: int) -> Array:
    """`[E, O]` as `[..., E, 1, O]`."""
    return bias.reshape(*(1,) * (ndim - 3), bias.shape[0], 1, bias.shape[1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _product(
    x: Array,
    kernel: Array,
    experts: Array,
    transposed: bool,
    precision: lax.PrecisionLike,
) -> Array:
    """Each block times its expert's kernel, or times its transpose.

    The derivative of a loop by what it indexes would add a whole kernel of all experts
    in each turn. `_outer` adds each block's share in place.
    """
    dims = (((1,), (1 if transposed else 0,)), ((), ()))

    def step(carry: None, block: tuple[Array, Array]) -> tuple[None, Array]:
        rows, expert = block
        own = lax.dynamic_index_in_dim(kernel, expert, keepdims=False)
        return None, lax.dot_general(rows, own, dims, precision=precision)

    return lax.scan(step, None, (x, experts))[1]


def _product_fwd(
    x: Array,
    kernel: Array,
    experts: Array,
    transposed: bool,
    precision: lax.PrecisionLike,
) -> tuple[Array, tuple[Array, Array, Array]]:
    return _product(x, kernel, experts, transposed, precision), (x, kernel, experts)


def _product_bwd(
    transposed: bool,
    precision: lax.PrecisionLike,
    saved: tuple[Array, Array, Array],
    g: Array,
) -> tuple[Array, Array, None]:
    x, kernel, experts = saved
    left, right = (g, x) if transposed else (x, g)
    grad_x = _product(g, kernel, experts, not transposed, precision)
    return grad_x, _outer(left, right, experts, kernel.shape[0], precision), None


_product.defvjp(_product_fwd, _product_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _outer(
    x: Array,
    g: Array,
    experts: Array,
    num_experts: int,
    precision: lax.PrecisionLike,
) -> Array:
    """For each expert the sum over its rows of `x` times `g`: `[E, I, O]`."""
    wide = widened(x.dtype)
    dims = (((0,), (0,)), ((), ()))

    def step(total: Array, block: tuple[Array, Array, Array]) -> tuple[Array, None]:
        rows, cotangents, expert = block
        share = lax.dot_general(
            rows, cotangents, dims, precision=precision, preferred_element_type=wide
        )
        old = lax.dynamic_index_in_dim(total, expert, keepdims=False)
        return lax.dynamic_update_index_in_dim(total, old + share, expert, 0), None

    total = jnp.zeros((num_experts, x.shape[-1], g.shape[-1]), wide)
    return lax.scan(step, total, (x, g, experts))[0].astype(x.dtype)


def _outer_fwd(
    x: Array,
    g: Array,
    experts: Array,
    num_experts: int,
    precision: lax.PrecisionLike,
) -> tuple[Array, tuple[Array, Array, Array]]:
    return _outer(x, g, experts, num_experts, precision), (x, g, experts)


def _outer_bwd(
    num_experts: int,
    precision: lax.PrecisionLike,
    saved: tuple[Array, Array, Array],
    cotangent: Array,
) -> tuple[Array, Array, None]:
    x, g, experts = saved
    return (
        _product(g, cotangent, experts, True, precision),
        _product(x, cotangent, experts, False, precision),
        None,
    )


_outer.defvjp(_outer_fwd, _outer_bwd)


def _check_kernel(x: Array, kernel: Array, experts: Array | None) -> None:
    fits = kernel.ndim == 3 and x.ndim >= 3 and x.shape[-1] == kernel.shape[1]
    if fits and experts is None:
        fits = x.shape[-3] == kernel.shape[0]
    elif fits and experts is not None:
        fits = x.ndim == 3 and experts.shape == x.shape[:1]
    if not fits:
        facts = {"x": describe(x), "kernel": describe(kernel)}
        if experts is not None:
            facts["experts"] = describe(experts)
        raise ShapeError(
            f"`x` of shape {list(x.shape)} cannot be multiplied by `kernel` of shape "
            f"{list(kernel.shape)}.",
            code="LN-SHAPE-01",
            facts=facts,
            why="`x` is [..., blocks, rows, in] and `kernel` [experts, in, out], with "
            "a block for each expert unless `experts` says whose each block is.",
            fixes=_kernel_fixes(x, kernel),
        )


def _kernel_fixes(x: Array, kernel: Array) -> list[tuple[str, str]]:
    if x.ndim == 3 and kernel.ndim == 3 and x.shape[-1] == kernel.shape[1]:
        code = "y = F.expert_dense(x, kernel, experts=experts)"
        return [("`experts` says whose each block is", code)]
    if x.ndim < 3:
        return [("the rows are of one expert", "x = x.reshape(1, -1, x.shape[-1])")]
    shape = (x.shape[-3], x.shape[-1], *kernel.shape[-1:])
    return [("the kernels should fit `x`", f"kernel = jnp.ones({shape})")]
