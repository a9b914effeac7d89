r"""Linear recurrences, as arrays: parallel in time.

T time  D features  N complex numbers of a state  B blocks of features
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from linnet._errors import DTypeError, ShapeError, describe
from linnet._typing import Array, ArrayLike, DType
from linnet.functional._dtype import as_array, inexact, promoted, widened
from linnet.functional._shape import align, axes_of, require_shape


def linear_recurrence(
    a: ArrayLike,
    b: ArrayLike,
    initial: ArrayLike | None = None,
    *,
    axis: int = -2,
    reverse: bool = False,
    resets: ArrayLike | None = None,
) -> Array:
    r"""Every state of $h_t = a_t \odot h_{t-1} + b_t$, in logarithmic time.

    The steps are joined by an associative scan, and so are those of the derivative,
    which is a recurrence of the same kind.

    Args:
        a: As many axes as `b`, each of its size or 1; floating or complex.
        b: `[..., T, D]`, floating or complex.
        initial: `[..., D]`, the state before the first time. `None` is zero.
        axis: Where the time is.
        reverse: Whether to go from the last time to the first.
        resets: Booleans of the shape of `b` up to and with the time: `True` where a
            sequence starts, which forgets what came before it.

    Returns:
        `[..., T, D]`, in the dtype to which the arrays promote together.

    Raises:
        DTypeError: `a` or `b` holds integers or booleans, or `resets` others.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> F.linear_recurrence(jnp.full((4, 1), 0.5), jnp.ones((4, 1)))[:, 0]
        Array([1.   , 1.5  , 1.75 , 1.875], dtype=float32)

    Source: Blelloch, "Prefix sums and their applications", 1990, section 1.4; Martin
    and Cundy, "Parallelizing linear recurrent neural nets over sequence length",
    2018, arXiv:1709.04057.
    """
    a, b, _ = promoted(None, a, b, names=("a", "b"))
    if a.ndim != b.ndim or any(
        m not in (1, n) for m, n in zip(a.shape, b.shape, strict=True)
    ):
        raise _misfit(a, b)
    (axis,) = axes_of(b.ndim, axis)
    if b.shape[axis] == 0:
        return b
    if resets is not None:
        a = _forgetting(a, resets, b.shape, axis)
    elif a.shape[axis] != b.shape[axis]:
        a = jnp.repeat(a, b.shape[axis], axis)
    if initial is not None:
        b = _started(a, b, inexact(initial, "initial").astype(b.dtype), axis, reverse)
    states: Array = _states(axis, reverse, a, b)
    return states


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _scanned(axis: int, reverse: bool, a: Array, b: Array) -> Array:
    def joined(
        first: tuple[Array, Array], then: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        return first[0] * then[0], then[0] * first[1] + then[1]

    _, states = lax.associative_scan(joined, (a, b), reverse=reverse, axis=axis)
    return states  # type: ignore[no-any-return]


def _scanned_jvp(
    axis: int,
    reverse: bool,
    primals: tuple[Array, Array],
    tangents: tuple[Array, Array],
) -> tuple[Array, Array]:
    (a, b), (da, db) = primals, tangents
    h = _scanned(axis, reverse, a, b)
    time = h.shape[axis]
    none = jnp.zeros_like(lax.slice_in_dim(h, 0, 1, axis=axis))
    if reverse:
        parts = [lax.slice_in_dim(h, 1, time, axis=axis), none]
    else:
        parts = [none, lax.slice_in_dim(h, 0, time - 1, axis=axis)]
    before = lax.concatenate(parts, axis)
    return h, _scanned(axis, reverse, a, da * before + db)


_scanned.defjvp(_scanned_jvp)
# Outside of `jax.jit` the many small steps of a scan become one program.
_states = jax.jit(_scanned, static_argnums=(0, 1))


def _started(a: Array, b: Array, initial: Array, axis: int, reverse: bool) -> Array:
    """`b` with what the first state has from the one before it."""
    shape = (*b.shape[:axis], *b.shape[axis + 1 :])
    require_shape(initial, shape, "initial", "It is the state at one time.")
    first, rest = (-1, slice(0, -1)) if reverse else (0, slice(1, None))
    index = (slice(None),) * axis
    start = b[(*index, first)] + a[(*index, first)] * initial
    parts = [jnp.expand_dims(start, axis), b[(*index, rest)]]
    return jnp.concatenate(parts[::-1] if reverse else parts, axis)


def _forgetting(
    a: Array, resets: ArrayLike, shape: tuple[int, ...], axis: int
) -> Array:
    resets = as_array(resets)
    if resets.dtype != bool:
        raise DTypeError(
            f"`resets` is {describe(resets)}, but booleans are needed.",
            code="LN-DTYPE-01",
            fixes=[("one marks a start", "resets = resets == 1")],
        )
    require_shape(resets, shape[: axis + 1], "resets", "Each time starts or does not.")
    sizes = [max(m, n) for m, n in zip(a.shape, resets.shape, strict=False)]
    full = (*sizes, *a.shape[axis + 1 :])
    starts = jnp.broadcast_to(align(resets, a.ndim, tuple(range(resets.ndim))), full)
    return jnp.where(starts, jnp.zeros((), a.dtype), jnp.broadcast_to(a, full))


def _misfit(a: Array, b: Array) -> ShapeError:
    missing = b.ndim - a.ndim
    pairs = zip(a.shape[::-1], b.shape[::-1], strict=False)
    if missing > 0 and all(m in (1, n) for m, n in pairs):
        text = "`a` is the same in all of the first axes"
        fix = text, f"a = a.reshape({(1,) * missing + a.shape})"
    else:
        fix = "one factor is for all", f"a = jnp.full({(1,) * b.ndim}, 0.5)"
    return ShapeError(
        f"`a` is {describe(a)}, which does not fit `b`, {describe(b)}.",
        code="LN-SHAPE-01",
        why="They have as many axes, and each of `a` has the size of that of `b` or 1.",
        fixes=[fix],
    )


def rg_lru_terms(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None,
    decay: ArrayLike,
    *,
    exponent: float = 8.0,
    dtype: DType | None = None,
    precision: lax.PrecisionLike = None,
) -> tuple[Array, Array]:
    r"""What a real-gated linear recurrent unit multiplies its state by, and adds.

    $a_t = \sigma(\mathrm{decay})^{c\,r_t}$ and $b_t = \sqrt{1 - a_t^2} \odot i_t
    \odot x_t$, with the gates $(r_t, i_t) = \sigma(x_t \cdot \mathrm{kernel} +
    \mathrm{bias})$ and the exponent $c$. States are $h_t = a_t \odot h_{t-1} + b_t$.

    Args:
        x: `[..., D]`, floating.
        kernel: `[B, D / B, 2D / B]`: in each of B blocks, r and then i.
        bias: `[B, 2D / B]`, or `None` for none.
        decay: `[D]`.
        exponent: The largest power c.
        dtype: Of the product. `None` takes the one to which `x`, `kernel` and `bias`
            promote together. The rest is computed in float32 or wider.
        precision: Of the product, as in `jax.lax.dot_general`.

    Returns:
        `a` and `b`, both `[..., D]`, in float32 or wider.

    Raises:
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> a, b = F.rg_lru_terms(jnp.ones(1), jnp.zeros((1, 1, 2)), None, jnp.ones(1))
        >>> a.round(2), b.round(2)  # sigmoid(1) ** (8 / 2), sqrt(1 - a ** 2) / 2
        (Array([0.29], dtype=float32), Array([0.48], dtype=float32))

    Source: De et al., "Griffin", 2024, eq. 1 to 4, arXiv:2402.19427.
    """
    x, kernel, bias = promoted(dtype, x, kernel, bias)
    size = x.shape[-1] if x.ndim else 0
    blocks = kernel.shape[0] if kernel.ndim else 0
    if kernel.ndim != 3 or blocks * kernel.shape[1] != size:
        raise _unfit_blocks(x, kernel)
    width = size // blocks
    require_shape(kernel, (blocks, width, 2 * width), "kernel", "It makes two gates.")
    require_shape(bias, (blocks, 2 * width), "bias", "Each gate has a bias.")
    require_shape(as_array(decay), (size,), "decay", "Each feature has its own.")
    parts = x.reshape(*x.shape[:-1], blocks, width)
    gates = jnp.einsum("...bi,bio->...bo", parts, kernel, precision=precision)
    if bias is not None:
        gates = gates + jnp.broadcast_to(
            align(bias, gates.ndim, (gates.ndim - 2, gates.ndim - 1)), gates.shape
        )
    wide = widened(x.dtype)
    r, i = jnp.split(jax.nn.sigmoid(gates.astype(wide)), 2, -1)  # [..., B, D / B]
    rate = exponent * jax.nn.log_sigmoid(inexact(decay, "decay").astype(wide))
    log_a = r.reshape(x.shape) * jnp.broadcast_to(rate, x.shape)
    # 1 - a ** 2 without cancellation; at zero the square root has no derivative.
    rest = jnp.maximum(-jnp.expm1(2 * log_a), jnp.finfo(wide).tiny)  # type: ignore[no-untyped-call]
    return jnp.exp(log_a), jnp.sqrt(rest) * i.reshape(x.shape) * x.astype(wide)


def _unfit_blocks(x: Array, kernel: Array) -> ShapeError:
    return ShapeError(
        f"`x` is {describe(x)}, which `kernel`, {describe(kernel)}, does not take.",
        code="LN-SHAPE-01",
        why="The first two axes of `kernel`, blocks and features of a block, make up "
        "the last axis of `x`.",
        fixes=[("there is one block", "kernel = kernel[None]")]
        if kernel.ndim == 2 and x.ndim and kernel.shape[0] == x.shape[-1]
        else [
            ("`x` has these features", f"x = x[..., :{math.prod(kernel.shape[:2])}]")
        ],
    )


def zero_order_hold(poles: ArrayLike, step: ArrayLike) -> tuple[Array, Array]:
    r"""The recurrence of $h'(t) = \lambda h(t) + u(t)$, with $u$ constant in a step.

    $h_k = a h_{k-1} + g u_k$ with $a = e^{\lambda \Delta}$ and $g = (a - 1) /
    \lambda$, which is $\Delta$ where $\lambda$ is zero.

    Args:
        poles: The numbers $\lambda$, any shape, floating or complex.
        step: The time $\Delta$ of a step, of the shape of `poles`.

    Returns:
        `a` and `g`, of the shape of `poles`.

    Raises:
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes differ.

    Example:
        >>> from linnet import functional as F
        >>> a, g = F.zero_order_hold(jnp.array([-1.0, 0.0]), jnp.array([1.0, 0.5]))
        >>> a.round(2), g.round(2)
        (Array([0.37, 1.  ], dtype=float32), Array([0.63, 0.5 ], dtype=float32))

    Source: Smith, Warrington and Linderman, "Simplified state space layers for
    sequence modeling", 2023, eq. 6, arXiv:2208.04933.
    """
    poles, step, _ = promoted(None, poles, step, names=("poles", "step"))
    require_shape(step, poles.shape, "step", "Each pole has its own step.")
    is_zero = poles == 0
    divisor = jnp.where(is_zero, jnp.ones_like(poles), poles)
    change = jnp.expm1(poles * step)
    return change + 1, jnp.where(is_zero, step, change / divisor)


def s5_terms(
    x: ArrayLike,
    kernel: ArrayLike,
    poles: ArrayLike,
    step: ArrayLike,
    *,
    dtype: DType | None = None,
    precision: lax.PrecisionLike = None,
) -> tuple[Array, Array]:
    r"""What a diagonal state-space layer multiplies its state by, and adds.

    $a = e^{\lambda \Delta}$ and $b_t = (a - 1) / \lambda \odot (x_t \cdot
    \mathrm{kernel})$: `zero_order_hold` of the input. States are $h_t = a \odot
    h_{t-1} + b_t$.

    Args:
        x: `[..., D]`, floating.
        kernel: `[D, 2N]`, the real parts and then the imaginary ones.
        poles: `[N]`, the complex numbers $\lambda$.
        step: `[N]`, the times $\Delta$, positive.
        dtype: Of the product. `None` takes the one to which `x` and `kernel` promote
            together. The rest is computed in complex64 or wider.
        precision: Of the product, as in `jax.lax.dot_general`.

    Returns:
        `a`, `[N]`, and `b`, `[..., N]`, both complex.

    Raises:
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> poles, step = jnp.array([-1.0 + 0j]), jnp.array([1.0])
        >>> a, b = F.s5_terms(jnp.ones((5, 1)), jnp.ones((1, 2)), poles, step)
        >>> b[0].round(2)
        Array([0.63+0.63j], dtype=complex64)

    Source: Smith, Warrington and Linderman, "Simplified state space layers for
    sequence modeling", 2023, section 3.1 and eq. 6, arXiv:2208.04933.
    """
    x, kernel, _ = promoted(dtype, x, kernel)
    a, gain = zero_order_hold(poles, step)
    size = x.shape[-1] if x.ndim else 0
    require_shape(
        kernel,
        (size, 2 * a.shape[-1]),
        "kernel",
        "It maps the features of `x` to the real and imaginary parts of a state.",
    )
    u = jnp.matmul(x, kernel, precision=precision)  # [..., 2N]
    re, im = jnp.split(u.astype(widened(u.dtype)), 2, -1)
    u = lax.complex(re, im)
    return a, jnp.broadcast_to(gain, u.shape) * u


def s5_readout(
    h: ArrayLike,
    kernel: ArrayLike,
    *,
    dtype: DType | None = None,
    precision: lax.PrecisionLike = None,
) -> Array:
    r"""The real output of complex states that stand for conjugate pairs.

    $y = 2\,\mathrm{Re}(h \cdot \mathrm{kernel})$

    Args:
        h: `[..., N]`, complex.
        kernel: `[2N, D]`, the real parts and then the imaginary ones.
        dtype: Of the product and the result. `None` is that of `kernel`.
        precision: Of the product, as in `jax.lax.dot_general`.

    Returns:
        `[..., D]`.

    Raises:
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> F.s5_readout(jnp.array([3.0 + 1j]), jnp.array([[1.0], [1.0]]))
        Array([4.], dtype=float32)

    Source: Smith, Warrington and Linderman, "Simplified state space layers for
    sequence modeling", 2023, appendix B.1, arXiv:2208.04933.
    """
    h, kernel = inexact(h, "h"), inexact(kernel, "kernel")
    kernel = kernel.astype(kernel.dtype if dtype is None else dtype)
    require_shape(
        kernel,
        (2 * h.shape[-1], *kernel.shape[1:2]),
        "kernel",
        "It takes the real and the imaginary parts of a state.",
    )
    parts = jnp.concatenate([h.real, -h.imag], -1).astype(kernel.dtype)  # [..., 2N]
    return 2 * jnp.matmul(parts, kernel, precision=precision)
