"""Learning rates as functions of the step."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

__all__ = [
    "create_constant_learning_rate_schedule",
    "create_cosine_learning_rate_schedule",
    "create_stepped_learning_rate_schedule",
]


def _warmed_up(rate: Any, epoch: Any, warmup_length: float) -> Any:
    return (
        rate * jnp.minimum(1.0, epoch / float(warmup_length)) if warmup_length else rate
    )


def create_constant_learning_rate_schedule(
    base_learning_rate: float, steps_per_epoch: int, warmup_length: float = 0.0
) -> Callable[[Any], Any]:
    """One rate, after a rise over `warmup_length` epochs."""

    def rate(step: Any) -> Any:
        return _warmed_up(base_learning_rate, step / steps_per_epoch, warmup_length)

    return rate


def create_stepped_learning_rate_schedule(
    base_learning_rate: float,
    steps_per_epoch: int,
    lr_sched_steps: Sequence[Sequence[float]],
    warmup_length: float = 0.0,
) -> Callable[[Any], Any]:
    """A rate that changes at some epochs: `[[epoch, factor], ...]`."""
    boundaries = jnp.array([step[0] for step in lr_sched_steps])
    factors = jnp.array([1.0, *(step[1] for step in lr_sched_steps)])

    def rate(step: Any) -> Any:
        epoch = step / steps_per_epoch
        factor = factors[jnp.sum(boundaries <= epoch)]
        return _warmed_up(base_learning_rate * factor, epoch, warmup_length)

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
        return _warmed_up(
            base_learning_rate * factor, step / steps_per_epoch, warmup_length
        )

    return rate
