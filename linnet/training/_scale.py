"""Dynamic scaling of the loss, for gradients in float16."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from linnet._typing import Array, PyTree
from linnet.core._check import check_positive, check_size


@dataclasses.dataclass(frozen=True)
class LossScale:
    """A factor on the loss that keeps small gradients above float16's smallest number.

    The factor doubles after `interval` steps with finite gradients, and halves at a
    step with others. `TrainState.apply_gradients` leaves that step out: parameters,
    optimiser state, batch statistics and average stay as they were, and the step is
    counted in `state.step` (a batch was taken) and in `skipped`, not in the optimiser's
    own count, by which schedules go.

    The loss is multiplied inside of the gradient, and the gradient divided outside.
    bfloat16 has the range of float32 and needs none of this.

    Args:
        value: The first factor.
        interval: Steps with finite gradients before the factor grows.
        growth: What it is multiplied by then, above one.
        backoff: What it is multiplied by at a gradient that is not finite, below one.
        least: The factor does not fall below.
        good: Finite steps since the factor last changed.
        skipped: Steps that were left out, in all.

    Raises:
        ConfigError: A number is out of its range.

    Example:
        >>> model = nn.cast(nn.Dense(3), jnp.float16)  # weights stay in float32
        >>> model = nn.init(model, jax.random.key(0), jnp.ones((1, 2)))
        >>> state = training.TrainState.create(
        ...     model, optax.sgd(0.1), jax.random.key(1), scale=training.LossScale()
        ... )
        >>> def loss_fn(model):
        ...     loss = model(jnp.ones((4, 2))).mean().astype(jnp.float32)
        ...     return loss * state.scale.value
        >>> grads = state.scale.unscale(nn.grad(loss_fn)(state.model))
        >>> state = state.apply_gradients(grads)
        >>> int(state.scale.skipped)
        0

    Source: Micikevicius et al., "Mixed Precision Training", 2018, section 3.2,
        arXiv:1710.03740.
    """

    value: Array | float = 2.0**15
    interval: int = 2000
    growth: float = 2.0
    backoff: float = 0.5
    least: float = 1.0
    good: Array | int = 0
    skipped: Array | int = 0

    def unscale(self, grads: PyTree) -> PyTree:
        """The gradient of the loss itself, from that of the loss times `value`.

        Args:
            grads: With `None` anywhere.
        """
        return jax.tree.map(lambda g: (g / self.value).astype(g.dtype), grads)

    def after(self, is_finite: Array) -> LossScale:
        """The scale for the next step.

        Args:
            is_finite: Whether the gradients of this step were.
        """
        grows = is_finite & (self.good + 1 >= self.interval)
        grown = self.value * self.growth
        # A factor that has become infinite would never come back.
        grown = jnp.where(jnp.isfinite(grown), grown, self.value)
        shrunk = jnp.maximum(self.value * self.backoff, self.least)
        kept = jnp.where(grows, grown, self.value)
        return dataclasses.replace(
            self,
            value=jnp.where(is_finite, kept, shrunk),
            good=jnp.where(is_finite & ~grows, self.good + 1, 0),
            skipped=self.skipped + jnp.where(is_finite, 0, 1),
        )


jax.tree_util.register_dataclass(
    LossScale,
    data_fields=["value", "good", "skipped"],
    meta_fields=["interval", "growth", "backoff", "least"],
)


def checked_scale(scale: LossScale) -> LossScale:
    """The scale with its counts as arrays.

    Raises:
        ConfigError: A number is out of its range.
    """
    for name in ("value", "growth", "backoff", "least"):
        check_positive("LossScale", name, getattr(scale, name))
    check_size("LossScale", "interval", scale.interval)
    return dataclasses.replace(
        scale,
        value=jnp.float32(scale.value),
        good=jnp.int32(scale.good),
        skipped=jnp.int32(scale.skipped),
    )


def all_finite(tree: PyTree) -> Array:
    """Whether every number of every array is finite."""
    finite: Any = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(finite))


def chosen(is_first: Array, first: PyTree, second: PyTree) -> PyTree:
    """One of two trees of the same structure, array by array."""
    return jax.tree.map(lambda a, b: jnp.where(is_first, a, b), first, second)
