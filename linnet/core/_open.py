"""Opening a model for one call, closing it, and finding one's way in it."""

from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import GetAttrKey

from linnet.core._node import (
    Node,
    is_declared,
    is_open,
    shown,
    stop_at_modules,
    unflatten,
)
from linnet.core._path import Path
from linnet.core._role import State
from linnet.core._scope import Opened, Scope, opened_of, tied_array
from linnet.core._view import cast, put

_new = object.__new__


def open_module(module: Node, scope: Scope, path: Path = ()) -> Any:
    """An open copy of a closed module and of all below it."""
    children, spec = module._node
    cls = spec.cls if scope.taps is None else scope.taps.tapped(spec.cls)
    copy = _new(cls)
    state = Opened(module, path, scope)
    attributes = copy.__dict__
    attributes.update(spec.static)
    attributes["_open"] = state
    for target, source, fn in spec.ties:
        scope.ties[(*path, *target)] = copy, source, fn
    for name, child in zip(spec.names, children, strict=True):
        if isinstance(child, Node):
            attributes[name] = open_module(child, scope, (*path, GetAttrKey(name)))
        elif isinstance(child, jax.Array):
            if name not in spec.veiled:
                attributes[name] = child
        elif not is_declared(child) and child is not None:
            _open_container(state, attributes, name, child)
        elif child is None and (*path, GetAttrKey(name)) not in scope.ties:
            attributes[name] = None
    return copy


def _open_container(
    state: Opened, attributes: dict[str, Any], name: str, child: Any
) -> None:
    path = (*state.path, GetAttrKey(name))
    items, treedef = jax.tree_util.tree_flatten_with_path(
        child, is_leaf=stop_at_modules
    )
    leaves = [
        open_module(leaf, state.scope, (*path, *keys))
        if isinstance(leaf, Node)
        else leaf
        for keys, leaf in items
    ]
    if any(isinstance(leaf, Node) for leaf in leaves):
        state.parts[name] = leaves, treedef
    if any(map(is_declared, leaves)) or state.tied_in(path, child):
        return  # made at each access
    whole = cast(
        state.origin._spec.leaves, (GetAttrKey(name),), treedef.unflatten(leaves)
    )
    attributes[name] = shown(whole)


def close_module(module: Node, *, fill: bool = False) -> Any:
    """The closed value of an open module; the very original where nothing changed.

    Args:
        module: An open module.
        fill: Put tied arrays in their places, for a part that leaves the module which
            ties them.
    """
    closed = _closed(module)
    state = opened_of(module)
    if fill:
        for path, (owner, _, _) in state.scope.ties.items():
            here = len(state.path)
            if path[:here] == state.path and len(opened_of(owner).path) < here:
                closed = put(closed, path[here:], tied_array(state.scope, path))
    return closed


def _closed(module: Node) -> Any:
    state = opened_of(module)
    children, spec = state.origin._node
    closed = []
    for name, child in zip(spec.names, children, strict=True):
        if isinstance(child, Node):
            child = _closed(module.__dict__[name])
        elif name in state.parts:
            child = _closed_container(child, *state.parts[name])
        elif name in state.written:
            child = state.written[name]
        closed.append(child)
    if all(new is old for new, old in zip(closed, children, strict=True)):
        return state.origin
    return unflatten(spec, tuple(closed))


def _closed_container(child: Any, leaves: list[Any], treedef: Any) -> Any:
    closed = [_closed(x) if is_open(x) else x for x in leaves]
    originals = [opened_of(x).origin if is_open(x) else x for x in leaves]
    if all(new is old for new, old in zip(closed, originals, strict=True)):
        return child
    return treedef.unflatten(closed)


def descend(module: Node, path: Path) -> Any:
    """The open module at a path below an open module."""
    while path:
        name = path[0].name
        inside = module.__dict__.get(name)
        if isinstance(inside, Node):
            module, path = inside, path[1:]
            continue
        state = opened_of(module)
        leaves, treedef = state.parts[name]
        keyed, _ = jax.tree_util.tree_flatten_with_path(
            treedef.unflatten(range(len(leaves)))
        )
        keys, i = next((k, i) for k, i in keyed if path[1 : 1 + len(k)] == k)
        module, path = leaves[i], path[1 + len(keys) :]
    return module


def open_modules_below(module: Node) -> list[Node]:
    """An open module and all open modules below it."""
    state = opened_of(module)
    found = [module]
    for name in state.origin._spec.names:
        inside = module.__dict__.get(name)
        if isinstance(inside, Node):
            found += open_modules_below(inside)
        elif name in state.parts:
            for leaf in state.parts[name][0]:
                if is_open(leaf):
                    found += open_modules_below(leaf)
    return found


def states_of(
    module: Node, keep: Callable[[Node, str], bool] = lambda module, name: True
) -> dict[tuple[Path, str], Any]:
    """The states at and below an open module, by path and name."""
    found = {}
    for part in open_modules_below(module):
        state = opened_of(part)
        for path, leaf in state.origin._spec.leaves.items():
            name = path[0].name
            if issubclass(leaf.role, State) and keep(part, name):
                found[state.path, name] = state.raw(part, name)
    return found
