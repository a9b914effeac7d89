"""Layers that are linear in their state, and so parallel in time."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from linnet import functional as F
from linnet._errors import ConfigError, ShapeError, describe
from linnet._typing import Array, ArrayLike, DType, Initializer, Key, Shape
from linnet.core import Module, param
from linnet.core._check import check_positive, check_size
from linnet.functional._dtype import inexact_dtype, widened
from linnet.functional._shape import align
from linnet.functional.initializers import (
    constant,
    lecun_normal,
    normal,
    variance_scaling,
    zeros,
)
from linnet.nn._carry import CarryCache, steps_taken
from linnet.nn._kernel import bias_param
from linnet.nn._place import placed

KERNEL_INIT = lecun_normal(batch_axis=0)
COMPLEX_INIT = variance_scaling(0.5, "fan_in", "normal")
SKIP_INIT = normal(1.0)


class _LinearRecurrence(Module):
    """States h = a * h + b, of terms that the inputs give, and what is read of them."""

    reverse: bool
    return_carry: bool
    cache: Any

    def _terms(self, x: ArrayLike) -> tuple[Array, Array]:
        """`a` and `b`, of as many axes as `x`."""
        raise NotImplementedError

    def _readout(self, h: Array, x: ArrayLike) -> Array:
        raise NotImplementedError

    def _width(self) -> int:
        """The features of `x`."""
        raise NotImplementedError

    def __call__(
        self,
        x: ArrayLike,
        carry: ArrayLike | None = None,
        *,
        resets: ArrayLike | None = None,
    ) -> Any:
        """Applies the layer to all times together.

        Args:
            x: `[..., T, D]`, floating.
            carry: The state before the first time. `None` is zero.
            resets: `[..., T]`, booleans: `True` where a sequence starts, which forgets
                what came before it.

        Returns:
            `[..., T, D]`, or with `return_carry` the last state and this.
        """
        self.check_input(x, min_ndim=2, dtype="floating")
        a, b = self._terms(x)
        cache = None if self.initializing else self.cache
        if cache is not None:
            counts = steps_taken(self, x, resets=resets)[..., None]
            a, b = jnp.where(counts, a, 1), jnp.where(counts, b, 0)
            carry = cache.carry if carry is None else carry
        if carry is None:
            carry = jnp.zeros((*b.shape[:-2], b.shape[-1]), b.dtype)
        with placed(self):
            _require_state(carry, (*b.shape[:-2], b.shape[-1]))
            h = F.linear_recurrence(a, b, carry, reverse=self.reverse, resets=resets)
            y = self._readout(h, x)
        last = h[..., 0 if self.reverse else -1, :] if h.shape[-2] else carry
        if cache is not None:
            cache.carry = last
        return (last, y) if self.return_carry else y

    def initial_carry(self, x: Any) -> Array:
        """Zeros, for the batch of `x`.

        Args:
            x: `[..., D]`: the input at one time, or a `jax.ShapeDtypeStruct` like it.
        """
        raise NotImplementedError

    def with_cache(
        self, batch_size: int, max_length: int, dtype: DType | None = None
    ) -> Self:
        """The layer with a state that it keeps. Backwards it cannot be called so.

        `nn.with_cache` calls it on every layer of a model.

        Args:
            batch_size: Number B of sequences.
            max_length: Not used here: a state has no end.
            dtype: Likewise: a state is in float32 or wider.
        """
        now = jax.ShapeDtypeStruct((batch_size, self._width()), jnp.float32)
        return self.replace(cache=CarryCache(self.initial_carry(now), batch_size))

    def step(self, carry: ArrayLike, x: ArrayLike) -> tuple[Array, Array]:
        """Applies the layer to one time.

        Args:
            carry: The state of the time before, or `initial_carry(x)`.
            x: `[..., D]`, floating: the input at this time.

        Returns:
            The state of this time, and the output `[..., D]`.
        """
        self.check_input(x, min_ndim=1, dtype="floating")
        a, b = self._terms(x)
        with placed(self):
            _require_state(carry, b.shape)
            h = a * jnp.asarray(carry, b.dtype) + b
            return h, self._readout(h, x)


def _require_state(carry: ArrayLike, shape: tuple[int, ...]) -> None:
    if carry.shape != shape:
        raise ShapeError(
            f"`carry` is {describe(carry)}, but {list(shape)} is needed.",
            code="LN-SHAPE-01",
            why="A state has the batch axes of the input, and no time.",
            fixes=[("the sequence starts here", f"carry = jnp.zeros({shape})")],
        )


@dataclasses.dataclass(frozen=True)
class decay_between:
    """The logit of numbers whose power is uniform between two others."""

    low: float
    high: float
    exponent: float

    def __call__(self, key: Key, shape: Shape, dtype: DType) -> Array:
        power = jax.random.uniform(key, shape, widened(dtype), self.low, self.high)
        log_a = jnp.log(power) / self.exponent
        return (log_a - jnp.log(-jnp.expm1(log_a))).astype(dtype)


@dataclasses.dataclass(frozen=True)
class log_uniform:
    """The logarithm of numbers that are uniform in it."""

    low: float
    high: float

    def __call__(self, key: Key, shape: Shape, dtype: DType) -> Array:
        low, high = math.log(self.low), math.log(self.high)
        return jax.random.uniform(key, shape, widened(dtype), low, high).astype(dtype)


def hippo_frequencies(key: Key, shape: Shape, dtype: DType) -> Array:
    """The positive imaginary parts of the poles of HiPPO-N, ascending. No draw."""
    root = np.sqrt(np.arange(2 * shape[0]) + 0.5)
    lower = np.tril(np.outer(root, root), -1)
    frequencies = np.linalg.eigvalsh(1j * (lower - lower.T))
    return jnp.asarray(frequencies[shape[0] :], dtype)


class RGLRU(_LinearRecurrence):
    r"""A real-gated linear recurrent unit: each feature decays, as fast as a gate says.

    $h_t = a_t \odot h_{t-1} + \sqrt{1 - a_t^2} \odot i_t \odot x_t$ with $a_t =
    \sigma(\mathrm{decay})^{c\,r_t}$ and the gates $(r_t, i_t) = \sigma(x_t \cdot
    \mathrm{kernel} + \mathrm{bias})$. All times are computed together, by an
    associative scan. The state is in float32 or wider.

    Args:
        features: Size D of the last axis of `x`. `None` infers it at `nn.init`.
        num_blocks: Number B of blocks of features that share no gate.
        exponent: The largest power c.
        reverse: Whether to go from the last time to the first.
        return_carry: Whether a call returns the last state as well.
        use_bias: Whether the gates have a bias.
        dtype: Of the product and the result. `None` takes the one to which `x` and
            the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the product, as in `jax.lax.dot_general`.
        kernel_init: Initialiser of `kernel`.
        bias_init: Initialiser of `bias`.
        decay_init: Initialiser of `decay`. `None` makes $\sigma(\mathrm{decay})^c$
            uniform between 0.9 and 0.999.

    Parameters:
        kernel: `[B, D / B, 2D / B]`, r and then i. Logical axes
            `(None, "in", "out")`.
        bias: `[B, 2D / B]`, starts at zero. Logical axes `(None, "out")`.
        decay: `[D]`. Logical axes `("features",)`.
        cache: The state, where `nn.with_cache` put one.

    Shapes:
        x: `[..., T, D]`  ->  `[..., T, D]`

    Raises:
        ConfigError: A size is no positive integer, or B does not divide D.
        DTypeError: `x` holds no floating numbers.
        ShapeError: The last axis of `x` is not D, or the carry does not fit.

    Example:
        >>> x = jnp.ones((8, 5, 4))
        >>> layer = nn.init(nn.RGLRU(), jax.random.key(0), x)
        >>> layer(x).shape
        (8, 5, 4)
        >>> carry, y = layer.step(layer.initial_carry(x[:, 0]), x[:, 0])
        >>> bool(jnp.allclose(y, layer(x)[:, 0]))
        True

    Differs from: RecurrentGemma, whose input enters unscaled at the first time. Flax
    Linen and PyTorch have none.
    Source: De et al., "Griffin", 2024, eq. 1 to 4, arXiv:2402.19427.
    """

    def __init__(
        self,
        features: int | None = None,
        *,
        num_blocks: int = 1,
        exponent: float = 8.0,
        reverse: bool = False,
        return_carry: bool = False,
        use_bias: bool = True,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = KERNEL_INIT,
        bias_init: Initializer = zeros,
        decay_init: Initializer | None = None,
    ) -> None:
        size = check_size(self, "features", features, allow_none=True)
        blocks = check_size(self, "num_blocks", num_blocks)
        with placed(self):
            _check_blocks(size, blocks)
        self.num_blocks = blocks
        self.exponent = check_positive(self, "exponent", exponent)
        self.reverse = reverse
        self.return_carry = return_carry
        self.cache = None
        with placed(self):
            self.dtype = None if dtype is None else inexact_dtype(dtype)
        self.precision = precision
        width = None if size is None else size // blocks
        gates = None if width is None else 2 * width
        shape = (blocks, width, gates)
        self.kernel = param(kernel_init, shape, param_dtype, axes=(None, "in", "out"))
        self.bias = bias_param(
            use_bias, bias_init, (blocks, gates), param_dtype, (None, "out")
        )
        start = decay_init or decay_between(0.9, 0.999, self.exponent)
        self.decay = param(start, (size,), param_dtype, axes=("features",))

    def initial_carry(self, x: Any) -> Array:
        """Zeros, for the batch of `x`.

        Args:
            x: `[..., D]`: the input at one time, or a `jax.ShapeDtypeStruct` like it.
        """
        return jnp.zeros(x.shape, jnp.float32)

    def _terms(self, x: ArrayLike) -> tuple[Array, Array]:
        size, blocks = x.shape[-1], self.num_blocks
        with placed(self):
            _check_blocks(size, blocks)
        width = size // blocks
        self.expect(
            kernel=(blocks, width, 2 * width), bias=(blocks, 2 * width), decay=(size,)
        )
        with placed(self):
            return F.rg_lru_terms(
                x,
                self.kernel,
                self.bias,
                self.decay,
                exponent=self.exponent,
                dtype=self.dtype,
                precision=self.precision,
            )

    def _width(self) -> int:
        return int(self.decay.shape[0])

    def _readout(self, h: Array, x: ArrayLike) -> Array:
        return h.astype(self.dtype or jnp.result_type(x.dtype, self.kernel.dtype))


class S5(_LinearRecurrence):
    r"""A diagonal state-space layer: damped oscillators that the input drives.

    $h_t = a \odot h_{t-1} + rac{a - 1}{\lambda} \odot (x_t \cdot \mathrm{kernel})$
    and $y_t = 2\,\mathrm{Re}(h_t \cdot \mathrm{out\_kernel}) + \mathrm{skip} \odot
    x_t$, with $a = e^{\lambda \Delta}$, $\lambda = -e^{\mathrm{log\_decay}} +
    i\,\mathrm{frequency}$ and $\Delta = e^{\mathrm{log\_step}}$: a linear differential
    equation whose input is constant in a step. All times are computed together, by an
    associative scan. The state is in complex64 or wider.

    Args:
        state_features: Number N of complex numbers of the state; each stands for a
            conjugate pair, so the system has 2N.
        features: Size D of the last axis of `x`. `None` infers it at `nn.init`.
        step_range: Between which times the steps start, in the unit of the poles.
        reverse: Whether to go from the last time to the first.
        return_carry: Whether a call returns the last state as well.
        dtype: Of the products and the result. `None` takes the one to which `x` and
            the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the products, as in `jax.lax.dot_general`.
        kernel_init: Initialiser of `kernel`.
        out_kernel_init: Initialiser of `out_kernel`.
        skip_init: Initialiser of `skip`.

    Parameters:
        kernel: `[D, 2N]`, the real parts and then the imaginary ones. Logical axes
            `("in", "out")`.
        out_kernel: `[2N, D]`, likewise. Logical axes `("in", "out")`.
        skip: `[D]`. Logical axes `("features",)`.
        log_decay: `[N]`, starts at the logarithm of 1/2. Logical axes `("out",)`.
        frequency: `[N]`, starts at those of HiPPO-N. Logical axes `("out",)`.
        log_step: `[N]`, starts uniform. Logical axes `("out",)`.
        cache: The state, where `nn.with_cache` put one.

    Shapes:
        x: `[..., T, D]`  ->  `[..., T, D]`

    Raises:
        ConfigError: A size is no positive integer, or a step not positive.
        DTypeError: `x` holds no floating numbers.
        ShapeError: The last axis of `x` is not D, or the carry does not fit.

    Example:
        >>> x = jnp.ones((8, 5, 4))
        >>> layer = nn.init(nn.S5(16), jax.random.key(0), x)
        >>> layer(x).shape
        (8, 5, 4)
        >>> carry, y = layer.step(layer.initial_carry(x[:, 0]), x[:, 0])
        >>> bool(jnp.allclose(y, layer(x)[:, 0], atol=1e-6))
        True

    Differs from: The authors' code, in which the real part of a pole is a parameter
    itself, and may become positive unless it is clipped. Flax Linen and PyTorch have
    none.
    Source: Smith, Warrington and Linderman, "Simplified state space layers for
    sequence modeling", 2023, arXiv:2208.04933. In the basis of the poles a real
    normal input kernel is a complex normal one, hence the start of `kernel`.
    """

    def __init__(
        self,
        state_features: int,
        *,
        features: int | None = None,
        step_range: tuple[float, float] = (0.001, 0.1),
        reverse: bool = False,
        return_carry: bool = False,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = COMPLEX_INIT,
        out_kernel_init: Initializer = COMPLEX_INIT,
        skip_init: Initializer = SKIP_INIT,
    ) -> None:
        size = check_size(self, "features", features, allow_none=True)
        self.state_features = check_size(self, "state_features", state_features)
        self.step_range = _checked_range(step_range)
        self.reverse = reverse
        self.return_carry = return_carry
        self.cache = None
        with placed(self):
            self.dtype = None if dtype is None else inexact_dtype(dtype)
        self.precision = precision
        states, both = (self.state_features,), 2 * self.state_features

        def declared(
            init: Initializer, shape: tuple[int | None, ...], *axes: str
        ) -> Any:
            return param(init, shape, param_dtype, axes=axes)

        self.kernel = declared(kernel_init, (size, both), "in", "out")
        self.out_kernel = declared(out_kernel_init, (both, size), "in", "out")
        self.skip = declared(skip_init, (size,), "features")
        self.log_decay = declared(constant(math.log(0.5)), states, "out")
        self.frequency = declared(hippo_frequencies, states, "out")
        self.log_step = declared(log_uniform(*self.step_range), states, "out")

    def initial_carry(self, x: Any) -> Array:
        """Zeros, for the batch of `x`.

        Args:
            x: `[..., D]`: the input at one time, or a `jax.ShapeDtypeStruct` like it.
        """
        return jnp.zeros((*x.shape[:-1], self.state_features), jnp.complex64)

    def _terms(self, x: ArrayLike) -> tuple[Array, Array]:
        size, both = x.shape[-1], 2 * self.state_features
        self.expect(kernel=(size, both), out_kernel=(both, size), skip=(size,))
        wide = widened(self.log_decay.dtype)
        decay, frequency, log_step = (
            array.astype(wide)
            for array in (self.log_decay, self.frequency, self.log_step)
        )
        with placed(self):
            a, b = F.s5_terms(
                x,
                self.kernel,
                lax.complex(-jnp.exp(decay), frequency),
                jnp.exp(log_step),
                dtype=self.dtype,
                precision=self.precision,
            )
        return align(a, b.ndim, (b.ndim - 1,)), b

    def _width(self) -> int:
        return int(self.skip.shape[0])

    def _readout(self, h: Array, x: ArrayLike) -> Array:
        dtype = self.dtype or jnp.result_type(x.dtype, self.kernel.dtype)
        y = F.s5_readout(h, self.out_kernel, dtype=dtype, precision=self.precision)
        skip = align(self.skip.astype(dtype), y.ndim, (y.ndim - 1,))
        return y + skip * jnp.asarray(x, dtype)


def _check_blocks(size: int | None, blocks: int) -> None:
    if size is not None and size % blocks:
        raise ConfigError(
            f"`features` is {size}, which `num_blocks={blocks}` does not divide.",
            code="LN-VALUE-06",
            fixes=[("there is one block", "num_blocks = 1")],
        )


def _checked_range(step_range: Any) -> tuple[float, float]:
    if not isinstance(step_range, list | tuple) or len(step_range) != 2:
        raise ConfigError(
            f"`step_range` is {step_range!r}, but it must be a pair, least and most.",
            code="LN-VALUE-04",
            at="S5",
            fixes=[("the usual one will do", "step_range = (0.001, 0.1)")],
        )
    low, high = (check_positive("S5", "step_range", step) for step in step_range)
    return low, high
