"""Dropout."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from linnet.compat.flax.linen.module import Module, compact, merge_param
from linnet.compat.flax.typing import Array, PRNGKey

__all__ = ["Dropout"]


class Dropout(Module):
    """Sets some numbers to zero, and scales the others.

    Args:
        rate: The chance of a number to become zero.
        broadcast_dims: Axes along which all numbers share their fate.
        deterministic: Whether nothing is dropped; here or when called.
        rng_collection: The random stream.
    """

    rate: float
    broadcast_dims: Sequence[int] = ()
    deterministic: bool | None = None
    rng_collection: str = "dropout"

    @compact
    def __call__(
        self,
        inputs: Array,
        deterministic: bool | None = None,
        rng: PRNGKey | None = None,
    ) -> Array:
        """Drops numbers of an array of any shape.

        Args:
            inputs: The array.
            deterministic: Whether nothing is dropped.
            rng: A key to use instead of one of the random stream.
        """
        deterministic = merge_param("deterministic", self.deterministic, deterministic)
        if self.rate == 0.0 or deterministic:
            return inputs
        if self.rate == 1.0:
            return jnp.zeros_like(inputs)
        keep_prob = 1.0 - self.rate
        if rng is None:
            rng = self.make_rng(self.rng_collection)
        shape = list(inputs.shape)
        for dim in self.broadcast_dims:
            shape[dim] = 1
        mask = jax.random.bernoulli(rng, p=keep_prob, shape=shape)
        mask = jnp.broadcast_to(mask, inputs.shape)
        return jax.lax.select(mask, inputs / keep_prob, jnp.zeros_like(inputs))
