"""What the recurrent cells have in common."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._typing import Array, ArrayLike, DType, Initializer, Key, Shape
from linnet.core import Module, param
from linnet.core._check import check_size
from linnet.functional._dtype import inexact_dtype, widened
from linnet.functional.initializers import lecun_normal, orthogonal
from linnet.nn._kernel import bias_param
from linnet.nn._place import placed

KERNEL_INIT = lecun_normal()
RECURRENT_INIT = orthogonal()


class Cell(Module):
    """A cell whose gates come from one product with `x` and one with `h`.

    Subclasses say how many gates there are, and what a step does.
    """

    _gates: int
    _carries: int  # how many arrays the carry has; of two the first is a memory
    num_feature_axes = 1

    def _declare(
        self,
        features: int,
        in_features: int | None,
        *,
        use_bias: bool,
        dtype: DType | None,
        param_dtype: DType,
        precision: lax.PrecisionLike,
        kernel_init: Initializer,
        recurrent_kernel_init: Initializer,
        bias_init: Initializer,
        window: tuple[int, ...] = (),
    ) -> None:
        size_in = check_size(self, "in_features", in_features, allow_none=True)
        self.features = check_size(self, "features", features)
        with placed(self):
            self.dtype = None if dtype is None else inexact_dtype(dtype)
        self.param_dtype = param_dtype
        self.precision = precision
        size_out = self._gates * self.features
        axes = (*(None for _ in window), "in", "out")
        self.kernel = param(
            per_gate(kernel_init, self._gates),
            (*window, size_in, size_out),
            param_dtype,
            axes=axes,
        )
        self.recurrent_kernel = param(
            per_gate(recurrent_kernel_init, self._gates),
            (*window, self.features, size_out),
            param_dtype,
            axes=axes,
        )
        self.bias = bias_param(use_bias, bias_init, (size_out,), param_dtype)

    def __call__(self, carry: Any, x: ArrayLike) -> tuple[Any, Array]:
        """Takes one step.

        Args:
            carry: That of the step before, or `initial_carry(x)`.
            x: `[..., I]`, floating: the input at one time.

        Returns:
            The next carry, and the output `[..., H]`.
        """
        return self.step(carry, self.project(x))

    def initial_carry(self, x: Any) -> Any:
        """Zeros, for the batch of `x`.

        Args:
            x: The input at one time, or a `jax.ShapeDtypeStruct` like it.
        """
        shape = (*x.shape[:-1], self.features)
        dtype = jnp.result_type(x.dtype, self.param_dtype)
        dtype = jnp.dtype(dtype if self.dtype is None else self.dtype)
        wide = jnp.zeros(shape, widened(dtype))
        return wide if self._carries == 1 else (wide, jnp.zeros(shape, dtype))

    def project(self, x: ArrayLike) -> Array:
        """What the input contributes to the gates, at one time or at many.

        Args:
            x: `[..., I]`, floating.
        """
        self.check(x)
        return F.dense(
            x, self.kernel, self.bias, dtype=self.dtype, precision=self.precision
        )

    def check(self, x: ArrayLike) -> None:
        """Refuses an input of another kind or width, at one time or at many.

        Args:
            x: `[..., I]`, floating.
        """
        self.check_input(x, min_ndim=1, dtype="floating")
        size_out = self._gates * self.features
        self.expect(kernel=(x.shape[-1], size_out), bias=(size_out,))

    def step(self, carry: Any, projected: Array) -> tuple[Any, Array]:
        """The rest of a call: `cell(carry, x)` is `step(carry, project(x))`.

        Args:
            carry: That of the step before.
            projected: What `project` gave for this time.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class per_gate:
    """Draws each gate by itself, as if it had a kernel of its own."""

    init: Initializer
    gates: int

    def __call__(self, key: Key, shape: Shape, dtype: DType) -> Array:
        shape = (*shape[:-1], shape[-1] // self.gates)
        keys = jax.random.split(key, self.gates)
        return jnp.concatenate([self.init(k, shape, dtype) for k in keys], -1)


@dataclasses.dataclass(frozen=True)
class shifted:
    """Adds a number to one gate of a bias."""

    init: Initializer
    gates: int
    index: int
    by: float

    def __call__(self, key: Key, shape: Shape, dtype: DType) -> Array:
        gate = jnp.arange(shape[0]) // (shape[0] // self.gates)
        added = jnp.where(gate == self.index, self.by, 0.0).astype(dtype)
        return self.init(key, shape, dtype) + added
