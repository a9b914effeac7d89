"""Arguments by which Orbax writes and reads trees."""

from typing import Any

import jax
import numpy as np

from linnet._extra import require

PyTree = Any

__all__ = [
    "PyTree",
    "is_multi_device_array",
    "maybe_construct_transformations",
    "restore_args_from_target",
    "save_args_from_target",
]


def is_multi_device_array(value: Any) -> bool:
    """Whether the value is an array on several devices."""
    return isinstance(value, jax.Array) and not value.is_fully_replicated


def save_args_from_target(target: Any) -> Any:
    """How each leaf is written."""
    orbax = require("orbax.checkpoint", "compat", "a checkpoint of Orbax")
    return jax.tree.map(lambda x: orbax.SaveArgs(), target)


def maybe_construct_transformations(target: Any, transforms: Any) -> Any:
    """The transformations given; without a target, none."""
    if transforms is not None:
        return transforms
    return {} if target is not None else None


def restore_args_from_target(target: Any, mesh: Any = None) -> Any:
    """How each leaf is read: as the array in its place, and where that lies.

    Args:
        target: A tree of arrays or other values.
        mesh: A mesh for arrays that have no sharding.
    """
    orbax = require("orbax.checkpoint", "compat", "a checkpoint of Orbax")

    def of(x: Any) -> Any:
        sharding = getattr(x, "sharding", None)
        if isinstance(x, jax.Array | jax.ShapeDtypeStruct) and sharding is not None:
            return orbax.ArrayRestoreArgs(
                restore_type=jax.Array, sharding=sharding, dtype=x.dtype
            )
        if isinstance(x, jax.Array | jax.ShapeDtypeStruct) and mesh is not None:
            whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
            return orbax.ArrayRestoreArgs(restore_type=jax.Array, sharding=whole)
        if isinstance(x, np.ndarray):
            return orbax.RestoreArgs(restore_type=np.ndarray)
        return orbax.RestoreArgs()

    return jax.tree.map(of, target)
