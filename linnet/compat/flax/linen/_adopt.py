"""Modules inside the attributes of a module: in lists, dicts, and other trees."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from linnet.compat.flax.core.frozen_dict import FrozenDict
from linnet.compat.flax.core.scope import Scope

_ATOMS = (str, int, float, complex, bool, bytes, type(None), type)


class ModuleBase:
    """What every module is, for those that ask by `isinstance`."""

    scope: Scope | None
    _state: Any
    _parent_ref: Any
    _id: Any


def is_module(x: Any) -> bool:
    """Whether the value is a Linen module."""
    return isinstance(x, ModuleBase)


def map_modules(fn: Callable[[str, Any], Any], value: Any) -> Any:
    """The value with `fn(suffix, module)` for each module in it.

    The suffix tells where in the value the module is: `_0` of a list, `_key` of a dict.
    """
    if is_module(value):
        return fn("", value)
    if isinstance(value, _ATOMS) or not _is_tree(value):
        return value
    leaves, tree = jax.tree_util.tree_flatten_with_path(value)
    if not any(is_module(leaf) for _, leaf in leaves):
        return value
    return tree.unflatten(
        fn("".join(f"_{_name(key)}" for key in path), leaf) if is_module(leaf) else leaf
        for path, leaf in leaves
    )


def _is_tree(value: Any) -> bool:
    return isinstance(value, list | tuple | Mapping) or not jax.tree_util.all_leaves(
        [value]
    )


def _name(key: Any) -> Any:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return key


def frozen(value: Any) -> Any:
    """The value with lists as tuples, and dicts frozen: as modules keep attributes."""
    if isinstance(value, dict | FrozenDict):
        return FrozenDict({key: frozen(item) for key, item in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(frozen, value))
    if isinstance(value, list | tuple):
        return tuple(map(frozen, value))
    return value
