"""Where the arrays of a state lie, and that no memory is in it twice."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from linnet._typing import PyTree


def placed_with(model: PyTree, rest: PyTree) -> PyTree:
    """The rest of a state on the devices of its model.

    What has no place yet, as the count of steps, is copied to all of them: a compiled
    step gives it back there, and would be compiled again for it.

    Args:
        model: Whose arrays may be on a mesh.
        rest: Arrays, of which those that belong to one of the model lie beside it.
    """
    mesh = _mesh(model)
    if mesh is None:
        return rest
    everywhere = NamedSharding(mesh, PartitionSpec())

    def place(x: Any) -> Any:
        if _is_array(x) and not isinstance(x.sharding, NamedSharding):
            return jax.device_put(x, everywhere)
        return x

    return jax.tree.map(place, rest)


def unshared(tree: PyTree) -> PyTree:
    """The tree with a copy in each place but the first of an array that has several."""
    seen: set[int] = set()

    def own(x: Any) -> Any:
        if not _is_array(x):
            return x
        if id(x) in seen:
            return jnp.copy(x)
        seen.add(id(x))
        return x

    return jax.tree.map(own, tree)


def _mesh(tree: PyTree) -> Any:
    for x in jax.tree.leaves(tree):
        if _is_array(x) and isinstance(x.sharding, NamedSharding):
            return x.sharding.mesh
    return None


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
