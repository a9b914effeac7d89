"""What is known about each leaf of a tree of models: path, role, owners, stacks."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.tree_util import GetAttrKey

from linnet.core._node import Node, is_declared
from linnet.core._path import Path, path_text
from linnet.core._role import Declared


class Entry(NamedTuple):
    """What is known about one leaf, apart from its value.

    Attributes:
        path: Key entries from the root.
        text: The path as text, `blocks/3/kernel`.
        declared: How the array was declared, or None outside of modules.
        owners: Classes of the modules around it, outermost first.
        stack: `(axis name, size)` for each stack around it, outermost first.
    """

    path: Path
    text: str
    declared: Declared | None
    owners: tuple[type, ...]
    stack: tuple[tuple[str, int], ...]

    @property
    def role(self) -> type | None:
        """The role, or None outside of modules."""
        return None if self.declared is None else self.declared.role

    def axes(self, ndim: int) -> tuple[str | None, ...]:
        """A name, or `None`, for each axis of an array here, those of stacks in front.

        Args:
            ndim: Its number of axes. With another one than was declared, as what some
                optimisers put in an array's place, there are no names.
        """
        own = None if self.declared is None else self.declared.axes
        names = (*(name for name, _ in self.stack), *(own or ()))
        return (None,) * ndim if own is None or len(names) != ndim else names


@functools.lru_cache(maxsize=2048)
def table(treedef: Any) -> tuple[Entry, ...]:
    """An entry for each leaf of a tree with this structure."""
    numbered = treedef.unflatten(range(treedef.num_leaves))
    entries: list[Any] = [None] * treedef.num_leaves
    for leaf, entry in _visit(numbered, (), (), ()):
        entries[leaf] = entry
    return tuple(entries)


def _is_node(value: Any) -> bool:
    return isinstance(value, Node)


def _visit(
    tree: Any, path: Path, owners: Any, stack: Any
) -> Iterator[tuple[Any, Entry]]:
    if not isinstance(tree, Node):
        items, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_node)
        for keys, leaf in items:
            if isinstance(leaf, Node):
                yield from _visit(leaf, (*path, *keys), owners, stack)
            else:
                inside = (*path, *keys)
                yield leaf, Entry(inside, path_text(inside), None, owners, stack)
        return
    children, spec = tree._node
    owners = (*owners, spec.cls)
    below = (*stack, *stack_of(tree))
    for name, child in zip(spec.names, children, strict=True):
        items, _ = jax.tree_util.tree_flatten_with_path(child, is_leaf=_is_node)
        for keys, leaf in items:
            local = (GetAttrKey(name), *keys)
            inside = (*path, *local)
            if isinstance(leaf, Node):
                yield from _visit(leaf, inside, owners, below)
            else:
                declared = _nearest(spec.leaves, local)
                yield leaf, Entry(inside, path_text(inside), declared, owners, stack)


def stack_of(module: Node) -> tuple[tuple[str, int], ...]:
    """The axis that a stack adds to every array below it."""
    axis = getattr(module._spec.cls, "_stack_axis", None)
    return () if axis is None else ((axis, module._spec.static["size"]),)


def _nearest(leaves: Any, path: Path) -> Declared | None:
    """The declaration at a path, also where a tree was put in an array's place."""
    for end in range(len(path), 0, -1):
        if path[:end] in leaves:
            return leaves[path[:end]]  # type: ignore[no-any-return]
    return None


def slots(tree: Any) -> tuple[list[Any], Any, tuple[Entry, ...]]:
    """The arrays of a tree and the declarations of those still missing, as leaves."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_declared)
    return leaves, treedef, table(treedef)


def modules(tree: Any) -> Iterator[tuple[Path, Node]]:
    """Every closed module of a tree with its path, parents first."""
    items, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_node)
    for path, module in items:
        if isinstance(module, Node):
            yield from _modules(module, path)


def _modules(module: Node, path: Path) -> Iterator[tuple[Path, Node]]:
    yield path, module
    children, spec = module._node
    for name, child in zip(spec.names, children, strict=True):
        for keys, inside in modules(child):
            yield (*path, GetAttrKey(name), *keys), inside
