"""Dropout as a function of a scope."""

import jax.numpy as jnp
from jax import lax, random

from linnet.compat.flax.core.scope import Array, Scope

__all__ = ["dropout", "jnp", "lax", "random"]


def dropout(
    scope: Scope,
    inputs: Array,
    rate: float,
    deterministic: bool = False,
    rng: Array | None = None,
) -> Array:
    """Sets entries to zero by chance, and scales the others up.

    Args:
        scope: Its stream `dropout` is used, unless a key is given.
        inputs: The array.
        rate: The chance of an entry to become zero.
        deterministic: Whether nothing is dropped.
        rng: A key.
    """
    if rate == 0.0 or deterministic:
        return inputs
    keep_prob = 1.0 - rate
    keep = random.bernoulli(
        scope.make_rng("dropout") if rng is None else rng, keep_prob, inputs.shape
    )
    return lax.select(keep, inputs / keep_prob, jnp.zeros_like(inputs))
