"""Helpers for loops over several devices."""

from typing import Any

import jax
import jax.numpy as jnp

from linnet.compat.flax import jax_utils

__all__ = ["get_metrics", "onehot", "shard", "shard_prng_key", "stack_forest"]


def shard(xs: Any) -> Any:
    """Arrays with their first axis divided among the local devices."""
    count = jax.local_device_count()
    return jax.tree.map(lambda x: x.reshape((count, -1, *x.shape[1:])), xs)


def shard_prng_key(prng_key: Any) -> Any:
    """A key for each local device."""
    return jax.random.split(prng_key, num=jax.local_device_count())


def stack_forest(forest: Any) -> Any:
    """A list of trees as a tree of arrays with one more axis in front."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *forest)


def get_metrics(device_metrics: Any) -> Any:
    """Metrics of steps, of which each device has a copy, stacked."""
    return stack_forest(jax.device_get(jax_utils.unreplicate(device_metrics)))


def onehot(
    labels: Any, num_classes: int, on_value: float = 1.0, off_value: float = 0.0
) -> Any:
    """Classes as vectors: `[...]` to `[..., num_classes]`."""
    x = labels[..., None] == jnp.arange(num_classes).reshape((1,) * labels.ndim + (-1,))
    on, off = jnp.full(x.shape, on_value), jnp.full(x.shape, off_value)
    return jax.lax.select(x, on, off).astype(jnp.float32)
