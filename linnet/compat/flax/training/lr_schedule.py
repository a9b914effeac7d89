"""Learning rates as functions of the step."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

__all__ = [
    "create_constant_learning_rate_schedule",
    "create_cosine_learning_rate_schedule",
    "create_stepped_learning_rate_schedule",
]


def _warmed_up(rate: Any, step: Any, steps_per_epoch: int, warmup_length: float) -> Any:
    if not warmup_length:
        return rate
    epoch = step / float(steps_per_epoch)
    return rate * jnp.minimum(1.0, epoch / float(warmup_length))


def create_constant_learning_rate_schedule(
    base_learning_rate: float, steps_per_epoch: int, warmup_length: float = 0.0
) -> Callable[[Any], Any]:
    """One rate, after a rise over `warmup_length` epochs."""

    def rate(step: Any) -> Any:
        return _warmed_up(base_learning_rate, step, steps_per_epoch, warmup_length)

    return rate


def create_stepped_learning_rate_schedule(
    base_learning_rate: float,
    steps_per_epoch: int,
    lr_sched_steps: Sequence[Sequence[float]],
    warmup_length: float = 0.0,
) -> Callable[[Any], Any]:
    """A rate that changes after some epochs: `[[epoch, factor], ...]`."""
    boundaries = jnp.array([step[0] * steps_per_epoch for step in lr_sched_steps])
    factors = [1.0, *(step[1] for step in lr_sched_steps)]
    rates = jnp.array([base_learning_rate * factor for factor in factors])

    def rate(step: Any) -> Any:
        reached = rates[jnp.sum(boundaries < step)]
        return _warmed_up(reached, step, steps_per_epoch, warmup_length)

    return rate


def create_cosine_learning_rate_schedule(
    base_learning_rate: float,
    steps_per_epoch: int,
    halfcos_epochs: int,
    warmup_length: float = 0.0,
) -> Callable[[Any], Any]:
    """A rate that falls to zero over `halfcos_epochs`, as half a cosine."""
    steps = halfcos_epochs * steps_per_epoch

    def rate(step: Any) -> Any:
        factor = jnp.maximum(0.5 * (1.0 + jnp.cos(jnp.pi * step / steps)), 0.0)
        scaled = base_learning_rate * factor
        return _warmed_up(scaled, step, steps_per_epoch, warmup_length)

    return rate
