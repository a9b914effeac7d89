"""Products in 8-bit floats, whose scales follow the values seen before.

Both operands are divided by a scale, rounded to `float8_e4m3`, multiplied, and scaled
back; gradients pass through `float8_e5m2` in the same way (Micikevicius et al., 2022,
"FP8 formats for deep learning"). A scale fits the largest value of the last
`amax_history_length` steps. Scales and histories live in the collection
`_overwrite_with_gradient`: their "gradient" is their next value, which replaces them.
"""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import custom_jvp, custom_vjp, lax, random

from linnet.compat.flax.linen import initializers
from linnet.compat.flax.linen._fp8_dtype import (
    Fp8MetaTyRules,
    fm32,
    fp8_meta_dtype,
    fp8_meta_dtype_wrapper,
    fp32_max_grad,
)
from linnet.compat.flax.linen.dtypes import promote_dtype
from linnet.compat.flax.linen.module import Module, nowrap
from linnet.compat.flax.typing import Array, Dtype

__all__ = [
    "CAN_USE_EARRAY",
    "OVERWRITE_WITH_GRADIENT",
    "DType",
    "Fp8DirectDotGeneralOp",
    "Fp8DotGeneral",
    "Fp8DotGeneralBase",
    "Fp8DotGeneralOp",
    "Fp8Einsum",
    "Fp8MetaTyRules",
    "NANOOFp8DotGeneralOp",
    "compute_amax_history",
    "compute_scale",
    "dequantize",
    "dot_general_transpose_lhs",
    "dot_general_transpose_rhs",
    "dot_general_with_precision",
    "dot_general_with_precision_jvp",
    "fm32",
    "fp8_meta_dtype",
    "fp8_meta_dtype_wrapper",
    "fp8_scaled_dot_general",
    "fp32_max_grad",
    "get_fp8_max",
    "in_q",
    "in_q_bwd",
    "in_q_fwd",
    "in_qdq",
    "in_qdq_bwd",
    "in_qdq_fwd",
    "initializers",
    "out_dq",
    "out_dq_bwd",
    "out_dq_fwd",
    "out_qdq",
    "out_qdq_bwd",
    "out_qdq_fwd",
    "qdq",
    "quantize",
    "quantize_dequantize_update",
    "quantized_dot",
    "quantized_dot_bwd",
    "quantized_dot_fwd",
    "random",
    "update_fp8_meta",
]

OVERWRITE_WITH_GRADIENT = "_overwrite_with_gradient"
CAN_USE_EARRAY = True
DType = Any
_FP8_TYPES = (
    jnp.float8_e4m3fn,
    jnp.float8_e5m2,
    jnp.float8_e4m3fnuz,
    jnp.float8_e5m2fnuz,
)

# ---- rounding


def get_fp8_max(fp8_dtype: Any, out_dtype: Any) -> Array:
    """The largest value of a type of 8-bit floats, in another type."""
    assert fp8_dtype in _FP8_TYPES, f"{fp8_dtype} is no type of 8-bit floats."
    return jnp.finfo(fp8_dtype).max.astype(out_dtype)


def quantize(x: Array, q_dtype: Any, scale: Array, compute_dtype: Any) -> Array:
    """`x / scale` in 8-bit floats; what is too large becomes the largest."""
    largest = get_fp8_max(q_dtype, compute_dtype)
    scaled = x / jnp.broadcast_to(jnp.asarray(scale, compute_dtype), x.shape)
    return jnp.clip(scaled, -largest, largest).astype(q_dtype)


def dequantize(x: Array, dq_dtype: Any, scale: Array) -> Array:
    """`x * scale` in another type."""
    scale = jnp.asarray(scale, dq_dtype)
    return x.astype(dq_dtype) * jnp.broadcast_to(scale, x.shape)


def qdq(x: Array, q_dtype: Any, scale: Array, compute_dtype: Any) -> Array:
    """`x`, rounded to what 8-bit floats can hold at a scale."""
    return dequantize(quantize(x, q_dtype, scale, compute_dtype), x.dtype, scale)


# ---- scales


def compute_scale(amax: Array, scale: Array, fp8_max: Any, margin: int = 0) -> Array:
    """The scale at which the largest value of `amax` is the largest 8-bit float.

    Args:
        amax: The largest value; where it is zero or not finite, the scale stays.
        scale: The scale before.
        fp8_max: The largest 8-bit float.
        margin: Powers of two that are left free above.
    """
    before = 1.0 / scale
    factor = (fp8_max / amax) / (2**margin)
    factor = jnp.where(amax > 0.0, factor, before)
    factor = jnp.where(jnp.isfinite(amax), factor, before)
    return 1.0 / factor


def compute_amax_history(x: Array, amax_history: Array) -> Array:
    """The history, with the largest value of `x` first instead of the oldest one."""
    largest = jnp.max(jnp.abs(x)).astype(amax_history.dtype)
    return jnp.roll(amax_history, shift=-1, axis=0).at[0].set(largest)


def update_fp8_meta(
    x: Array, q_dtype: Any, scale: Array, amax_history: Array
) -> tuple[Array, Array]:
    """(the next scale, which fits the history, and the history with `x`)."""
    largest = get_fp8_max(q_dtype, jnp.float32)
    scale = compute_scale(jnp.max(amax_history, axis=0), scale, largest)
    return scale, compute_amax_history(x, amax_history)


def _next(
    x: Array, q_dtype: Any, scale: Array, amax_history: Array
) -> tuple[Array, Array, Array]:
    """(the scale to use, the scale to keep, the history to keep)."""
    kept = scale.dtype == fm32 and amax_history.dtype == fm32
    if kept:
        scale = lax.convert_element_type(scale, jnp.float32)
        amax_history = lax.convert_element_type(amax_history, jnp.float32)
    scale, history = update_fp8_meta(x, q_dtype, scale, amax_history)
    if kept:
        return (
            scale,
            lax.convert_element_type(scale, fm32),
            lax.convert_element_type(history, fm32),
        )
    return scale, scale, history


def quantize_dequantize_update(
    x: Array, q_dtype: Any, scale: Array, amax_history: Array, compute_dtype: Any
) -> tuple[Array, Array, Array]:
    """(`x` rounded, the next scale, the next history)."""
    used, scale, history = _next(x, q_dtype, scale, amax_history)
    return qdq(x, q_dtype, used, compute_dtype), scale, history


# ---- functions whose gradients are the next scales


@functools.partial(custom_vjp, nondiff_argnums=(0, 1))
def in_qdq(
    compute_dtype: Any, q_dtype: Any, inp: Array, scale: Array, amax_history: Array
) -> Array:
    """An operand, rounded; gradients of it pass unchanged."""
    return quantize_dequantize_update(inp, q_dtype, scale, amax_history, compute_dtype)[
        0
    ]


def in_qdq_fwd(
    compute_dtype: Any, q_dtype: Any, inp: Array, scale: Array, amax_history: Array
) -> Any:
    """The operand rounded, and what is kept for the way back."""
    rounded, *kept = quantize_dequantize_update(
        inp, q_dtype, scale, amax_history, compute_dtype
    )
    return rounded, tuple(kept)


def in_qdq_bwd(compute_dtype: Any, q_dtype: Any, res: Any, g: Array) -> Any:
    """The gradient, and the next scale and history."""
    return (g, *res)


in_qdq.defvjp(in_qdq_fwd, in_qdq_bwd)


@functools.partial(custom_vjp, nondiff_argnums=(0, 1))
def out_qdq(
    compute_dtype: Any, q_dtype: Any, out: Array, scale: Array, amax_history: Array
) -> Array:
    """A result, unchanged; gradients of it are rounded."""
    return out


def out_qdq_fwd(
    compute_dtype: Any, q_dtype: Any, out: Array, scale: Array, amax_history: Array
) -> Any:
    """The result, and what is kept for the way back."""
    return out, (scale, amax_history)


def out_qdq_bwd(compute_dtype: Any, q_dtype: Any, res: Any, g: Array) -> Any:
    """The gradient rounded, and the next scale and history."""
    scale, amax_history = res
    return quantize_dequantize_update(g, q_dtype, scale, amax_history, compute_dtype)


out_qdq.defvjp(out_qdq_fwd, out_qdq_bwd)


@functools.partial(custom_vjp, nondiff_argnums=(0, 1))
def in_q(
    compute_dtype: Any, q_dtype: Any, inp: Array, scale: Array, amax_history: Array
) -> tuple[Array, Array]:
    """(an operand in 8-bit floats, its scale)."""
    used, _, _ = _next(inp, q_dtype, scale, amax_history)
    return quantize(inp, q_dtype, used, compute_dtype), used


def in_q_fwd(
    compute_dtype: Any, q_dtype: Any, inp: Array, scale: Array, amax_history: Array
) -> Any:
    """The operand in 8-bit floats, and what is kept for the way back."""
    used, scale, history = _next(inp, q_dtype, scale, amax_history)
    return (quantize(inp, q_dtype, used, compute_dtype), used), (inp, scale, history)


def in_q_bwd(compute_dtype: Any, q_dtype: Any, res: Any, _: Any) -> Any:
    """No gradient (`quantized_dot` gives it), and the next scale and history."""
    inp, scale, history = res
    return jnp.zeros_like(inp), scale, history


in_q.defvjp(in_q_fwd, in_q_bwd)


@functools.partial(custom_vjp, nondiff_argnums=(0,))
def out_dq(dq_type: Any, lhs_scale: Array, rhs_scale: Array, out: Array) -> Array:
    """The product of scaled operands, scaled back."""
    return dequantize(out, dq_type, lhs_scale * rhs_scale)


def out_dq_fwd(dq_type: Any, lhs_scale: Array, rhs_scale: Array, out: Array) -> Any:
    """The same; nothing is kept."""
    return out_dq(dq_type, lhs_scale, rhs_scale, out), None


def out_dq_bwd(dq_type: Any, _: Any, g: Array) -> Any:
    """The gradient unchanged (`quantized_dot` scales it)."""
    return None, None, g


out_dq.defvjp(out_dq_fwd, out_dq_bwd)


# ---- products


@functools.partial(custom_vjp, nondiff_argnums=(8, 9))
def quantized_dot(
    lhs: Array,
    q_lhs: Array,
    lhs_scale: Array,
    rhs: Array,
    q_rhs: Array,
    rhs_scale: Array,
    out_grad_scale: Array,
    out_grad_amax_history: Array,
    dimension_numbers: Any,
    preferred_element_type: Any = None,
) -> Array:
    """The product of operands in 8-bit floats, whose gradient is one of those, too.

    Args:
        lhs: The first operand, which gets the gradient.
        q_lhs: The same in 8-bit floats.
        lhs_scale: The scale of that.
        rhs: The second operand.
        q_rhs: The same in 8-bit floats.
        rhs_scale: The scale of that.
        out_grad_scale: The scale of the gradient of the result.
        out_grad_amax_history: The largest values of that gradient before.
        dimension_numbers: As for `lax.dot_general`.
        preferred_element_type: The type of the result.
    """
    return lax.dot_general(
        q_lhs,
        q_rhs,
        dimension_numbers,
        precision=lax.Precision.DEFAULT,
        preferred_element_type=preferred_element_type,
    )


def quantized_dot_fwd(
    lhs: Array,
    q_lhs: Array,
    lhs_scale: Array,
    rhs: Array,
    q_rhs: Array,
    rhs_scale: Array,
    out_grad_scale: Array,
    out_grad_amax_history: Array,
    dimension_numbers: Any,
    preferred_element_type: Any,
) -> Any:
    """The product, and what is kept for the way back."""
    out = lax.dot_general(
        q_lhs,
        q_rhs,
        dimension_numbers,
        precision=lax.Precision.DEFAULT,
        preferred_element_type=preferred_element_type,
    )
    operands = (lhs, q_lhs, lhs_scale, rhs, q_rhs, rhs_scale)
    return out, (*operands, out_grad_scale, out_grad_amax_history)


def quantized_dot_bwd(
    dimension_numbers: Any, preferred_element_type: Any, res: Any, g: Array
) -> Any:
    """The gradients of the operands, and the next scale and history of `g`."""
    lhs, q_lhs, lhs_scale, rhs, q_rhs, rhs_scale, scale, history = res
    used, scale, history = _next(g, jnp.float8_e5m2, scale, history)
    q_g = quantize(g, jnp.float8_e5m2, used, preferred_element_type)
    options: dict[str, Any] = {
        "dimension_numbers": dimension_numbers,
        "precision": lax.Precision.HIGHEST,
        "preferred_element_type": preferred_element_type,
    }
    grad_lhs = dot_general_transpose_lhs(q_g, lhs, q_rhs, **options)
    grad_lhs = dequantize(grad_lhs, preferred_element_type, rhs_scale * used)
    grad_rhs = dot_general_transpose_rhs(q_g, q_lhs, rhs, **options)
    grad_rhs = dequantize(grad_rhs, preferred_element_type, lhs_scale * used)
    return (
        grad_lhs.astype(lhs.dtype),
        None,
        None,
        grad_rhs.astype(rhs.dtype),
        None,
        None,
        scale,
        history,
    )


quantized_dot.defvjp(quantized_dot_fwd, quantized_dot_bwd)


def dot_general_transpose_lhs(
    g: Array,
    x: Array,
    y: Array,
    *,
    dimension_numbers: Any,
    precision: Any,
    preferred_element_type: Any,
    swap_ans: bool = False,
) -> Array:
    """The gradient of a product with respect to its first operand.

    Args:
        g: The gradient of the product.
        x: The first operand, of which only the shape matters.
        y: The second operand.
        dimension_numbers: Of the product.
        precision: Of this product.
        preferred_element_type: The type of the gradient.
        swap_ans: Whether `g` has the free axes of `y` before those of `x`.
    """
    (x_contract, y_contract), (x_batch, y_batch) = dimension_numbers
    x_free = [i for i in range(x.ndim) if i not in (*x_contract, *x_batch)]
    y_free = [i for i in range(y.ndim) if i not in (*y_contract, *y_batch)]
    n_batch = len(x_batch)
    start = n_batch if swap_ans else n_batch + len(x_free)
    g_of_y = tuple(range(start, start + len(y_free)))
    grad = lax.dot_general(
        g,
        y,
        ((g_of_y, tuple(y_free)), (tuple(range(n_batch)), tuple(y_batch))),
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    # What remains of `y` comes in the order of its own axes.
    contracted = [x_contract[i] for i in np.argsort(y_contract)]
    order = [*x_batch, *x_free, *contracted]
    return lax.transpose(grad, tuple(int(i) for i in np.argsort(order)))


def dot_general_transpose_rhs(
    g: Array,
    x: Array,
    y: Array,
    *,
    dimension_numbers: Any,
    precision: Any,
    preferred_element_type: Any,
) -> Array:
    """The gradient of a product with respect to its second operand."""
    (x_contract, y_contract), (x_batch, y_batch) = dimension_numbers
    return dot_general_transpose_lhs(
        g,
        y,
        x,
        dimension_numbers=((y_contract, x_contract), (y_batch, x_batch)),
        precision=precision,
        preferred_element_type=preferred_element_type,
        swap_ans=True,
    )


@functools.partial(custom_jvp, nondiff_argnums=(2, 3, 4))
def dot_general_with_precision(
    lhs: Array,
    rhs: Array,
    dimension_numbers: Any,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Array:
    """A product of the default precision, whose gradients have the highest one."""
    if precision is not None or preferred_element_type is not None:
        warnings.warn(
            "The function dot_general_with_precision will set the "
            "precision/preferred_element_type and disregard any provided values.",
            stacklevel=2,
        )
    return lax.dot_general(lhs, rhs, dimension_numbers, precision=lax.Precision.DEFAULT)


@dot_general_with_precision.defjvp
def dot_general_with_precision_jvp(
    dimension_numbers: Any,
    precision: Any,
    preferred_element_type: Any,
    primals: Any,
    tangents: Any,
) -> Any:
    """The product and its tangent."""
    (lhs, rhs), (lhs_dot, rhs_dot) = primals, tangents
    out = lax.dot_general(lhs, rhs, dimension_numbers, precision=lax.Precision.DEFAULT)
    highest = functools.partial(
        lax.dot_general,
        dimension_numbers=dimension_numbers,
        precision=lax.Precision.HIGHEST,
    )
    return out, highest(lhs_dot, rhs) + highest(lhs, rhs_dot)


def fp8_scaled_dot_general(
    lhs: Array,
    rhs: Array,
    dimension_numbers: Any,
    precision: Any = None,
    preferred_element_type: Any = None,
    *,
    lhs_scale: Any = None,
    rhs_scale: Any = None,
    grad_scale: Any = None,
    lhs_amax_history: Any = None,
    rhs_amax_history: Any = None,
    grad_amax_history: Any = None,
    quantize_compute_type: Any = jnp.float32,
) -> Array:
    """A product computed in 8-bit floats.

    Args:
        lhs: The first operand.
        rhs: The second operand.
        dimension_numbers: As for `lax.dot_general`.
        precision: Of no effect.
        preferred_element_type: The type of the result.
        lhs_scale: The scale of the first operand, `[1]`.
        rhs_scale: The scale of the second operand.
        grad_scale: The scale of the gradient.
        lhs_amax_history: The largest values of the first operand, `[steps]`.
        rhs_amax_history: Those of the second operand.
        grad_amax_history: Those of the gradient.
        quantize_compute_type: The type in which operands are scaled.
    """
    to_fp8 = functools.partial(in_q, quantize_compute_type, jnp.float8_e4m3fn)
    q_lhs, new_lhs_scale = to_fp8(lhs, lhs_scale, lhs_amax_history)
    q_rhs, new_rhs_scale = to_fp8(rhs, rhs_scale, rhs_amax_history)
    y = quantized_dot(
        lhs,
        q_lhs,
        new_lhs_scale,
        rhs,
        q_rhs,
        new_rhs_scale,
        grad_scale,
        grad_amax_history,
        dimension_numbers,
        preferred_element_type,
    )
    return out_dq(preferred_element_type, new_lhs_scale, new_rhs_scale, y)


# ---- layers


class Fp8DotGeneralBase(Module):
    """The scales and histories of one product.

    Args:
        amax_history_length: The number of steps that a scale looks back.
        e4m3_dtype: The type of operands.
        e5m2_dtype: The type of gradients.
    """

    amax_history_length: int = 1024
    e4m3_dtype: Dtype = jnp.float8_e4m3fn
    e5m2_dtype: Dtype = jnp.float8_e5m2

    def setup(self) -> None:
        """Makes the variables."""

        def history(name: str) -> Any:
            shape = (self.amax_history_length,)
            return self.variable(
                OVERWRITE_WITH_GRADIENT, name, jnp.zeros, shape, jnp.float32
            )

        def scale(name: str) -> Any:
            return self.variable(
                OVERWRITE_WITH_GRADIENT, name, jnp.ones, (1,), jnp.float32
            )

        self.input_amax_history = history("input_amax_history")
        self.kernel_amax_history = history("kernel_amax_history")
        self.output_grad_amax_history = history("output_grad_amax_history")
        self.input_scale = scale("input_scale")
        self.kernel_scale = scale("kernel_scale")
        self.output_grad_scale = scale("output_grad_scale")

    @nowrap
    def _scaled_dot(self, compute_dtype: Any) -> Any:
        return functools.partial(
            fp8_scaled_dot_general,
            lhs_scale=self.input_scale.value,
            rhs_scale=self.kernel_scale.value,
            grad_scale=self.output_grad_scale.value,
            lhs_amax_history=self.input_amax_history.value,
            rhs_amax_history=self.kernel_amax_history.value,
            grad_amax_history=self.output_grad_amax_history.value,
            quantize_compute_type=compute_dtype,
        )


def _operands(args: tuple[Any, ...]) -> tuple[Array, Array, Any]:
    """(input in the type of the kernel, kernel, dimension numbers)."""
    assert len(args) == 3, (
        f"This product takes an input, a kernel and dimension numbers by position, "
        f"not {len(args)} arguments."
    )
    x, kernel, dimension_numbers = args
    return jnp.asarray(x, kernel.dtype), kernel, dimension_numbers


class Fp8DotGeneralOp(Fp8DotGeneralBase):
    """A product of operands that are rounded to 8-bit floats.

    XLA finds the pattern, and uses 8-bit units where there are some.

    Example:
        >>> from linnet.compat.flax import linen as nn
        >>> layer = nn.Dense(16, dot_general_cls=nn.NANOOFp8DotGeneralOp)
        >>> variables = layer.init(jax.random.key(0), jnp.ones((8, 32)))
        >>> sorted(variables)
        ['_overwrite_with_gradient', 'params']
    """

    def __post_init__(self) -> None:
        if type(self) is Fp8DotGeneralOp:
            warnings.warn(
                "The Fp8DotGeneralOp is deprecated: Fp8DirectDotGeneralOp and "
                "Fp8Einsum compute in 8-bit floats themselves.",
                DeprecationWarning,
                stacklevel=2,
            )
        super().__post_init__()

    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        """`(input, kernel, dimension_numbers)`, as `lax.dot_general` takes them."""
        x, kernel, dimension_numbers = _operands(args)
        dtype = kernel.dtype
        x = in_qdq(
            dtype,
            self.e4m3_dtype,
            x,
            self.input_scale.value,
            self.input_amax_history.value,
        )
        kernel = in_qdq(
            dtype,
            self.e4m3_dtype,
            kernel,
            self.kernel_scale.value,
            self.kernel_amax_history.value,
        )
        return out_qdq(
            dtype,
            self.e5m2_dtype,
            dot_general_with_precision(x, kernel, dimension_numbers),
            self.output_grad_scale.value,
            self.output_grad_amax_history.value,
        )


class Fp8DirectDotGeneralOp(Fp8DotGeneralBase):
    """A product of operands in 8-bit floats."""

    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        """`(input, kernel, dimension_numbers)`, as `lax.dot_general` takes them."""
        x, kernel, dimension_numbers = _operands(args)
        return self._scaled_dot(kernel.dtype)(
            x, kernel, dimension_numbers, preferred_element_type=x.dtype
        )


Fp8DotGeneral = Fp8DirectDotGeneralOp


class NANOOFp8DotGeneralOp(Fp8DotGeneralOp):
    """The same in the types of 8-bit floats without infinities and minus zero."""

    e4m3_dtype: Dtype = jnp.float8_e4m3fnuz
    e5m2_dtype: Dtype = jnp.float8_e5m2fnuz


class Fp8Einsum(Fp8DotGeneralBase):
    """`jnp.einsum` of two operands in 8-bit floats."""

    def __call__(
        self,
        eqn: str,
        lhs: jax.Array,
        rhs: jax.Array,
        precision: lax.Precision | None = None,
        preferred_element_type: Dtype | None = None,
    ) -> jax.Array:
        """Computes an equation.

        Args:
            eqn: The equation, such as `"bqd,bkd->bqk"`.
            lhs: The first operand.
            rhs: The second operand.
            precision: Of no effect.
            preferred_element_type: The type of the result.
        """
        lhs, rhs = promote_dtype(lhs, rhs)
        return jnp.einsum(
            eqn,
            lhs,
            rhs,
            preferred_element_type=preferred_element_type,
            _dot_general=self._scaled_dot(lhs.dtype),
        )
