"""Scaling of the loss for training in half precision."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from linnet.compat.flax import struct
from linnet.compat.flax.typing import Array

__all__ = ["Array", "DynamicScale", "DynamicScaleResult"]


class DynamicScaleResult(NamedTuple):
    """What the gradient function of a `DynamicScale` returns.

    Args:
        dynamic_scale: The scale to use next.
        finite: Whether all gradients are finite.
        aux: The loss, or (loss, aux).
        grad: The gradients, without the scale.
    """

    dynamic_scale: "DynamicScale"
    finite: Array
    aux: Any
    grad: Any


class DynamicScale(struct.PyTreeNode):
    """A factor of the loss that grows while gradients are finite, and shrinks if not.

    Args:
        growth_factor: By how much it grows.
        backoff_factor: By how much it shrinks.
        growth_interval: After how many finite steps it grows.
        fin_steps: How many there were.
        scale: The factor.
        minimum_scale: The least factor.
    """

    growth_factor: float = struct.field(pytree_node=False, default=2.0)
    backoff_factor: float = struct.field(pytree_node=False, default=0.5)
    growth_interval: int = struct.field(pytree_node=False, default=2000)
    fin_steps: int = 0
    scale: float = 65536.0
    minimum_scale: float | None = struct.field(
        pytree_node=False, default=np.finfo(np.float32).tiny
    )

    def value_and_grad(
        self,
        fun: Callable[..., Any],
        argnums: int | Sequence[int] = 0,
        has_aux: bool = False,
        axis_name: str | None = None,
    ) -> Callable[..., DynamicScaleResult]:
        """`jax.value_and_grad` of a function whose loss is scaled.

        Args:
            fun: From parameters and more to the loss.
            argnums: As in `jax.value_and_grad`.
            has_aux: As in `jax.value_and_grad`.
            axis_name: Devices over which gradients are averaged.
        """

        @functools.wraps(fun)
        def scaled(*args: Any) -> Any:
            loss = fun(*args)
            if has_aux:
                return (self.scale * loss[0], loss[1])
            return self.scale * loss

        grad_fn = jax.value_and_grad(scaled, argnums, has_aux)

        def unscaled(*args: Any) -> DynamicScaleResult:
            aux, grad = grad_fn(*args)
            aux = (aux[0] / self.scale, aux[1]) if has_aux else aux / self.scale
            grad = jax.tree.map(
                lambda g: jnp.asarray(g, jnp.float32) / self.scale, grad
            )
            if axis_name is not None:
                grad = lax.pmean(grad, axis_name)
            finite = jnp.array(True)
            for g in jax.tree.leaves(grad):
                finite &= jnp.all(lax.is_finite(g))
            grow = self.fin_steps == self.growth_interval
            larger = jnp.where(
                grow & finite,
                jnp.minimum(
                    self.scale * self.growth_factor, jnp.finfo(jnp.float32).max
                ),
                self.scale,
            )
            smaller: Any = self.scale * self.backoff_factor
            if self.minimum_scale is not None:
                smaller = jnp.maximum(smaller, self.minimum_scale)
            steps = jnp.where(grow | ~finite, 0, self.fin_steps + 1)
            scale = self.replace(
                fin_steps=steps, scale=jnp.where(finite, larger, smaller)
            )
            return DynamicScaleResult(scale, finite, aux, grad)

        return unscaled
