r"""Recurrent cells, as arrays: one step each.

I features in  H features of the cell  *W spatial axes  *K window

A step takes `projected`, what the input contributes to the gates with the bias
included, since that part can be computed for many time steps at once. The gates
follow one another on its last axis. What a cell adds up over time is computed in
float32 or wider, and a carry keeps the dtypes that it comes with.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linnet._errors import ShapeError, describe
from linnet._typing import Array, ArrayLike
from linnet.functional._conv import conv
from linnet.functional._dtype import inexact, widened
from linnet.functional._shape import align, require_shape
from linnet.functional._window import Padding

Activation = Callable[[Array], Array]

# What gates compute is cheaper to compute again than to keep: for an LSTM of batch 32,
# length 128 and width 256 the backward pass kept 34 MB and not 58, and took 0.9 times
# as long (2 CPU cores, JAX 0.10.2, 2026-11).
_recomputed = functools.partial(jax.checkpoint, prevent_cse=False)


def lstm_step(
    carry: tuple[ArrayLike, ArrayLike],
    projected: ArrayLike,
    recurrent_kernel: ArrayLike,
    *,
    gate_fn: Activation = jax.nn.sigmoid,
    activation_fn: Activation = jnp.tanh,
    precision: lax.PrecisionLike = None,
) -> tuple[tuple[Array, Array], Array]:
    r"""One step of a long short-term memory.

    $c' = f \odot c + i \odot g$ and $h' = o \odot \tanh c'$, with the gates
    $(i, f, g, o) = \mathrm{projected} + h \cdot \mathrm{recurrent\_kernel}$, of
    which $g$ passes through `activation_fn` and the others through `gate_fn`.

    Args:
        carry: `(c, h)`, the memory and the output of the step before, `[..., H]`.
        projected: `[..., 4H]`, floating, in the order i, f, g, o.
        recurrent_kernel: `[H, 4H]`.
        gate_fn: Of the gates i, f and o.
        activation_fn: Of the candidate g, and of the memory.
        precision: Of the product, as in `jax.lax.dot_general`.

    Returns:
        The carry `(c', h')`, and `h'` in the dtype of `projected`.

    Raises:
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> carry = jnp.array([2.0]), jnp.array([0.0])
        >>> opened = jnp.array([9.0, 9.0, 0.5, 9.0])  # all gates
        >>> (c, h), y = F.lstm_step(carry, opened, jnp.zeros((1, 4)))
        >>> c.round(2)
        Array([2.46], dtype=float32)

    Source: Hochreiter and Schmidhuber, "Long short-term memory", 1997; with forget
    gates, Gers, Schmidhuber and Cummins, "Learning to forget", 2000.
    """
    (c, h), projected = _checked_carry(carry, 2, projected, 4)
    gates = projected + _product(h, recurrent_kernel, projected, precision)
    new_c, new_h = _lstm_gates(gate_fn, activation_fn, c, gates)
    y = new_h.astype(projected.dtype)
    return (new_c.astype(c.dtype), y.astype(h.dtype)), y


@functools.partial(_recomputed, static_argnums=(0, 1))
def _lstm_gates(
    gate_fn: Activation, activation_fn: Activation, c: Array, gates: Array
) -> tuple[Array, Array]:
    i, f, g, o = _split(gates, 4)
    c = gate_fn(f) * _wide(c, f) + gate_fn(i) * activation_fn(g)
    return c, gate_fn(o) * activation_fn(c)


def gru_step(
    carry: ArrayLike,
    projected: ArrayLike,
    recurrent_kernel: ArrayLike,
    recurrent_bias: ArrayLike | None = None,
    *,
    gate_fn: Activation = jax.nn.sigmoid,
    activation_fn: Activation = jnp.tanh,
    precision: lax.PrecisionLike = None,
) -> tuple[Array, Array]:
    r"""One step of a gated recurrent unit.

    $h' = (1 - z) \odot n + z \odot h$, with the reset and update gates $r$ and $z$,
    the first two of $\mathrm{projected} + h \cdot \mathrm{recurrent\_kernel}$, and
    the candidate $n = \tanh(\mathrm{projected}_n + r \odot (h \cdot
    \mathrm{recurrent\_kernel}_n + \mathrm{recurrent\_bias}))$.

    Args:
        carry: `h`, the output of the step before, `[..., H]`.
        projected: `[..., 3H]`, floating, in the order r, z, n.
        recurrent_kernel: `[H, 3H]`.
        recurrent_bias: `[H]`, of the candidate alone, or `None` for none.
        gate_fn: Of the gates r and z.
        activation_fn: Of the candidate n.
        precision: Of the product, as in `jax.lax.dot_general`.

    Returns:
        The carry `h'`, and `h'` in the dtype of `projected`.

    Raises:
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> keeps = jnp.array([0.0, 99.0, 0.0])  # the update gate is one
        >>> F.gru_step(jnp.array([0.3]), keeps, jnp.zeros((1, 3)))[1]
        Array([0.3], dtype=float32)

    Source: Cho et al., "Learning phrase representations using RNN
    encoder-decoder", 2014, eq. 5 to 8, arXiv:1406.1078, with the reset gate after
    the product, as in the version 1 of arXiv:1412.3555.
    """
    (h,), projected = _checked_carry((carry,), 1, projected, 3)
    product = _product(h, recurrent_kernel, projected, precision)
    size = h.shape[-1]
    gates = projected[..., : 2 * size] + product[..., : 2 * size]
    inner = _with_bias(product[..., 2 * size :], recurrent_bias)
    outer = projected[..., 2 * size :]
    new = _gru_gates(gate_fn, activation_fn, h, gates, outer, inner)
    return new.astype(h.dtype), new.astype(projected.dtype)


@functools.partial(_recomputed, static_argnums=(0, 1))
def _gru_gates(
    gate_fn: Activation,
    activation_fn: Activation,
    h: Array,
    gates: Array,
    outer: Array,
    inner: Array,
) -> Array:
    r, z = _split(gates, 2)
    n = activation_fn(_wide(outer) + gate_fn(r) * _wide(inner))
    z = gate_fn(z)
    return (1 - z) * n + z * _wide(h, z)


def mgu_step(
    carry: ArrayLike,
    projected: ArrayLike,
    recurrent_kernel: ArrayLike,
    recurrent_bias: ArrayLike | None = None,
    *,
    reset_gate: bool = True,
    gate_fn: Activation = jax.nn.sigmoid,
    activation_fn: Activation = jnp.tanh,
    precision: lax.PrecisionLike = None,
) -> tuple[Array, Array]:
    r"""One step of a minimal gated unit.

    $h' = (1 - f) \odot n + f \odot h$, with the forget gate $f$, the first half of
    $\mathrm{projected} + h \cdot \mathrm{recurrent\_kernel}$, and the candidate $n =
    \tanh(\mathrm{projected}_n + f \odot (h \cdot \mathrm{recurrent\_kernel}_n +
    \mathrm{recurrent\_bias}))$.

    Args:
        carry: `h`, the output of the step before, `[..., H]`.
        projected: `[..., 2H]`, floating, in the order f, n.
        recurrent_kernel: `[H, 2H]`.
        recurrent_bias: `[H]`, of the candidate alone, or `None` for none.
        reset_gate: Whether the gate also multiplies what the candidate sees of `h`.
        gate_fn: Of the gate f.
        activation_fn: Of the candidate n.
        precision: Of the product, as in `jax.lax.dot_general`.

    Returns:
        The carry `h'`, and `h'` in the dtype of `projected`.

    Raises:
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> keeps = jnp.array([99.0, 0.0])
        >>> F.mgu_step(jnp.array([0.3]), keeps, jnp.zeros((1, 2)))[1]
        Array([0.3], dtype=float32)

    Source: Zhou et al., "Minimal gated unit for recurrent neural networks", 2016,
    section 3.2, arXiv:1603.09420; without a reset gate, Heck and Salem, 2017,
    arXiv:1701.03452.
    """
    (h,), projected = _checked_carry((carry,), 1, projected, 2)
    product = _product(h, recurrent_kernel, projected, precision)
    size = h.shape[-1]
    gate = projected[..., :size] + product[..., :size]
    inner = _with_bias(product[..., size:], recurrent_bias)
    outer = projected[..., size:]
    new = _mgu_gates(gate_fn, activation_fn, reset_gate, h, gate, outer, inner)
    return new.astype(h.dtype), new.astype(projected.dtype)


@functools.partial(_recomputed, static_argnums=(0, 1, 2))
def _mgu_gates(
    gate_fn: Activation,
    activation_fn: Activation,
    reset_gate: bool,
    h: Array,
    gate: Array,
    outer: Array,
    inner: Array,
) -> Array:
    f, inner = gate_fn(_wide(gate)), _wide(inner)
    n = activation_fn(_wide(outer) + (f * inner if reset_gate else inner))
    return (1 - f) * n + f * _wide(h, f)


def simple_step(
    carry: ArrayLike,
    projected: ArrayLike,
    recurrent_kernel: ArrayLike,
    *,
    activation_fn: Activation = jnp.tanh,
    precision: lax.PrecisionLike = None,
) -> tuple[Array, Array]:
    r"""One step of an Elman network.

    $h' = \tanh(\mathrm{projected} + h \cdot \mathrm{recurrent\_kernel})$

    Args:
        carry: `h`, the output of the step before, `[..., H]`.
        projected: `[..., H]`, floating.
        recurrent_kernel: `[H, H]`.
        activation_fn: In place of the hyperbolic tangent.
        precision: Of the product, as in `jax.lax.dot_general`.

    Returns:
        The carry `h'`, and `h'` in the dtype of `projected`.

    Raises:
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> F.simple_step(jnp.ones(1), jnp.ones(1), jnp.ones((1, 1)))[1].round(2)
        Array([0.96], dtype=float32)

    Source: Elman, "Finding structure in time", 1990.
    """
    (h,), projected = _checked_carry((carry,), 1, projected, 1)
    y = activation_fn(projected + _product(h, recurrent_kernel, projected, precision))
    return y.astype(h.dtype), y.astype(projected.dtype)


def conv_lstm_step(
    carry: tuple[ArrayLike, ArrayLike],
    projected: ArrayLike,
    recurrent_kernel: ArrayLike,
    *,
    padding: Padding = "SAME",
    gate_fn: Activation = jax.nn.sigmoid,
    activation_fn: Activation = jnp.tanh,
    precision: lax.PrecisionLike = None,
) -> tuple[tuple[Array, Array], Array]:
    """One step of a long short-term memory whose products are convolutions.

    That of `lstm_step`, with `conv(h, recurrent_kernel)` in place of the product.

    Args:
        carry: `(c, h)`, the memory and the output of the step before,
            `[..., *W, H]`.
        projected: `[..., *W, 4H]`, floating, in the order i, f, g, o.
        recurrent_kernel: `[*K, H, 4H]`.
        padding: Of the convolution, one that keeps the spatial sizes.
        gate_fn: Of the gates i, f and o.
        activation_fn: Of the candidate g, and of the memory.
        precision: Of the products, as in `jax.lax.conv_general_dilated`.

    Returns:
        The carry `(c', h')`, and `h'` in the dtype of `projected`.

    Raises:
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> carry = jnp.zeros((5, 2)), jnp.zeros((5, 2))
        >>> carry, y = F.conv_lstm_step(carry, jnp.ones((5, 8)), jnp.ones((3, 2, 8)))
        >>> y.shape
        (5, 2)

    Source: Shi et al., "Convolutional LSTM network", 2015, eq. 3, without the
    peepholes, arXiv:1506.04214.
    """
    (c, h), projected = _checked_carry(carry, 2, projected, 4)
    gates = projected + conv(
        h,
        recurrent_kernel,
        padding=padding,
        dtype=projected.dtype,
        precision=precision,
    )
    new_c, new_h = _lstm_gates(gate_fn, activation_fn, c, gates)
    y = new_h.astype(projected.dtype)
    return (new_c.astype(c.dtype), y.astype(h.dtype)), y


def _split(gates: Array, count: int) -> Sequence[Array]:
    return lax.split(_wide(gates), [gates.shape[-1] // count] * count, gates.ndim - 1)


def _wide(x: Array, like: Array | None = None) -> Array:
    """`x` in the dtype of `like`, or else in its own if that is float32 or wider."""
    return x.astype(widened(x.dtype) if like is None else like.dtype)


def _product(
    h: Array, kernel: ArrayLike, projected: Array, precision: lax.PrecisionLike
) -> Array:
    """`h @ kernel` in the dtype of `projected`, and of its shape."""
    kernel = inexact(kernel, "recurrent_kernel").astype(projected.dtype)
    require_shape(
        kernel,
        (h.shape[-1], projected.shape[-1]),
        "recurrent_kernel",
        "It maps the features of the cell to all gates.",
    )
    h = h.astype(projected.dtype)
    contract = (((h.ndim - 1,), (0,)), ((), ()))
    return lax.dot_general(h, kernel, contract, precision=precision)


def _with_bias(product: Array, bias: ArrayLike | None) -> Array:
    if bias is None:
        return product
    bias = inexact(bias, "recurrent_bias").astype(product.dtype)
    require_shape(
        bias, product.shape[-1:], "recurrent_bias", "Each feature has one bias."
    )
    return product + jnp.broadcast_to(
        align(bias, product.ndim, (product.ndim - 1,)), product.shape
    )


def _checked_carry(
    carry: Any, count: int, projected: ArrayLike, gates: int
) -> tuple[tuple[Array, ...], Array]:
    """The arrays of a carry, of the batch and the features that `projected` has."""
    projected = inexact(projected, "projected")
    if projected.ndim < 1 or projected.shape[-1] % gates:
        raise ShapeError(
            f"`projected` is {describe(projected)}, but its last axis must hold "
            f"{gates} gates of one size.",
            code="LN-SHAPE-01",
            why="A step takes what the input contributes to the gates, with its bias.",
            fixes=[("it is the input itself", "projected = F.dense(projected, kernel)")]
            if projected.ndim
            else [("there is no batch", "projected = projected[None]")],
        )
    shape = (*projected.shape[:-1], projected.shape[-1] // gates)
    is_fit = isinstance(carry, tuple | list) and len(carry) == count
    if not is_fit or any(getattr(part, "shape", ()) != shape for part in carry):
        raise _wrong_carry(carry, count, shape)
    names = ("c", "h")[-count:]
    return tuple(map(inexact, carry, names)), projected


def _wrong_carry(carry: Any, count: int, shape: tuple[int, ...]) -> ShapeError:
    zeros = f"jnp.zeros({shape})"
    if count == 1:
        needed, start, (given,) = f"{list(shape)} is needed", zeros, carry
    else:
        needed = f"a pair `(c, h)` is needed, each {list(shape)}"
        start, given = f"({zeros}, {zeros})", carry
    shown = jax.tree.map(describe, given)
    text = shown if isinstance(shown, str) else f"({', '.join(jax.tree.leaves(shown))})"
    return ShapeError(
        f"`carry` is {text}, but {needed}.",
        code="LN-SHAPE-01",
        why="A carry has the batch axes of the input and the features of the cell.",
        fixes=[("the sequence starts here", f"carry = {start}")],
    )
