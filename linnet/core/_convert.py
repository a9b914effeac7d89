"""Making a module into one of another class, and what that needs to know of it."""

from collections.abc import Mapping
from typing import Any

from jax.tree_util import GetAttrKey

from linnet.core._node import Node, is_declared, unflatten
from linnet.core._role import Declared


def declaration(module: Node, name: str) -> Declared:
    """How an array of a closed module was declared, without the axes of stacks."""
    return module._spec.leaves[(GetAttrKey(name),)]


def stored(module: Node, name: str) -> Any:
    """An array of a closed module as the tree holds it: not cast, not tied."""
    return module._children[module._spec.index[name]]


def own_shape(module: Node, name: str) -> tuple[Any, ...]:
    """The shape of an array, without the axes of stacks in front."""
    declared, array = declaration(module, name), stored(module, name)
    if array is None or is_declared(array):
        return declared.shape
    return tuple(array.shape[array.ndim - declared.ndim :])


def converted(
    module: Node,
    cls: type,
    arrays: Mapping[str, tuple[Declared, Any] | None],
    **static: Any,
) -> Any:
    """The module as one of another class, with the rest of its configuration.

    Args:
        module: A closed module.
        cls: The other class.
        arrays: From a name to the declaration and value of an array that is new or
            changes, or to `None` for one that goes.
        **static: Configuration that is new; `None` for what goes.
    """
    children, spec = module._node
    data = dict(zip(spec.names, children, strict=True))
    leaves = dict(spec.leaves)
    for name, new in arrays.items():
        path = (GetAttrKey(name),)
        if new is None:
            del data[name], leaves[path]
        else:
            leaves[path], data[name] = new
    settings = {**spec.static, **static}
    settings = {k: v for k, v in settings.items() if k not in static or v is not None}
    changed = spec.replace(cls=cls, names=tuple(data), static=settings, leaves=leaves)
    return unflatten(changed, tuple(data.values()))
