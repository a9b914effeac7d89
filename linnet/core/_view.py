"""Arrays that are computed when they are read: tied ones, and cast ones."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from linnet._typing import ArrayLike
from linnet.core._node import Node, shown, stop_at_modules, unflatten
from linnet.core._path import Path
from linnet.core._role import Declared


def computed(module: Node, name: str) -> Any:
    """An attribute of a closed module that is not simply stored."""
    children, spec = module._node
    value = children[spec.index[name]]
    for target, source, fn in spec.ties:
        if target[0].name == name:
            tied = tied_value(at(module, source), fn)
            value = put(value, target[1:], tied)
    value = cast(spec.leaves, (jax.tree_util.GetAttrKey(name),), value)
    return shown(value) if name in spec.wrapped else value


def tied_value(source: Any, fn: Any) -> Any:
    """What a tied array is, or its source's declaration while there is no array."""
    return source if type(source) is Declared else fn(source)


def cast(leaves: Mapping[Path, Declared], path: Path, value: Any) -> Any:
    """An array, or a container of them, in the dtype that `nn.cast` asked for."""
    if not isinstance(value, ArrayLike | Node | Declared | None):
        return jax.tree_util.tree_map_with_path(
            lambda keys, leaf: (
                cast(leaves, (*path, *keys), leaf)
                if isinstance(leaf, ArrayLike)
                else leaf
            ),
            value,
            is_leaf=stop_at_modules,
        )
    declared = leaves.get(path)
    if declared is None or declared.compute_dtype is None:
        return value
    if not isinstance(value, ArrayLike) or not jnp.issubdtype(
        value.dtype, jnp.floating
    ):
        return value
    return value.astype(declared.compute_dtype)


def children_of(tree: Any) -> tuple[list[tuple[Path, Any]], Any]:
    """The children of one pytree node with their keys, and how to put them back."""
    items, treedef = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=lambda value: value is not tree
    )
    return items, treedef


def at(tree: Any, path: Path) -> Any:
    """What is at a path of a closed tree, arrays before any cast.

    Raises:
        KeyError: There is nothing at this path.
    """
    for i, key in enumerate(path):
        if isinstance(tree, Node):
            children, spec = tree._node
            if getattr(key, "name", None) not in spec.index:
                raise KeyError(path[: i + 1])
            tree = children[spec.index[key.name]]
            continue
        found = [child for (k, *_), child in children_of(tree)[0] if k == key]
        if not found:
            raise KeyError(path[: i + 1])
        tree = found[0]
    return tree


def edit(tree: Any, path: Path, fn: Callable[[Any], Any]) -> Any:
    """The tree with `fn` applied at a path."""
    if not path:
        return fn(tree)
    head, rest = path[0], path[1:]
    if isinstance(tree, Node):
        children, spec = tree._node
        i = spec.index[head.name]
        changed = edit(children[i], rest, fn)
        return unflatten(spec, (*children[:i], changed, *children[i + 1 :]))
    items, treedef = children_of(tree)
    return treedef.unflatten(
        [edit(child, rest, fn) if keys[0] == head else child for keys, child in items]
    )


def put(tree: Any, path: Path, value: Any) -> Any:
    """The tree with something else at a path."""
    return edit(tree, path, lambda _: value)
