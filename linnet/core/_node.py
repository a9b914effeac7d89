"""The bare pytree node under every module: one slot, `(children, spec)`.

JAX flattens a module with a C `attrgetter` of that slot and rebuilds it with one slot
assignment (figures in docs/design). Attributes are put in place at the first access.
"""

import operator
from typing import Any

import jax

from linnet.core._role import Declared
from linnet.core._spec import Spec
from linnet.core._value import Static


class Node:
    """What `nn.Module` is to the files that come before it."""

    __slots__ = ("__dict__", "__weakref__", "_node")

    _node: tuple[tuple[Any, ...], Spec]

    @property
    def _children(self) -> tuple[Any, ...]:
        return self._node[0]

    @property
    def _spec(self) -> Spec:
        return self._node[1]


_new = object.__new__
_slot: Any = Node.__dict__["_node"]
_set_node = _slot.__set__


def unflatten(spec: Spec, children: Any) -> Any:
    """A closed module from its two halves. JAX calls this once per module."""
    module: Any = _new(spec.cls)
    _set_node(module, (children, spec))
    if spec.eager:
        reveal(module)
    return module


flatten = operator.attrgetter("_node")


def flatten_with_keys(module: Node) -> tuple[Any, Spec]:
    """As `flatten`, with the key of each child."""
    children, spec = module._node
    key = jax.tree_util.GetAttrKey
    named = zip(spec.names, children, strict=True)
    return tuple((key(name), child) for name, child in named), spec


def set_node(module: Node, spec: Spec, children: tuple[Any, ...]) -> None:
    """Makes a module under construction a closed one."""
    _set_node(module, (children, spec))
    if spec.eager:
        reveal(module)


def spec_or_none(module: Node) -> Spec | None:
    """The spec, or None while a module is under construction or open."""
    if "_pending" in module.__dict__:
        return module._spec
    try:
        return _slot.__get__(module)[1]  # type: ignore[no-any-return]
    except AttributeError:
        return None


def opened_or_none(module: Node) -> Any:
    """What an open module knows of its call, or None for a closed one."""
    return module.__dict__.get("_open")


def is_module(value: Any) -> bool:
    """Whether a value is a module."""
    return isinstance(value, Node)


def is_open(value: Any) -> bool:
    """Whether a value is a module opened by a call."""
    return isinstance(value, Node) and "_open" in value.__dict__


def is_declared(value: Any) -> bool:
    """Whether a value stands for an array that was not made yet."""
    return type(value) is Declared


def reveal(module: Node) -> None:
    """Puts the attributes in place, but declared arrays and computed ones."""
    children, spec = module._node
    attributes = module.__dict__
    attributes.update(spec.static)
    for name, child in zip(spec.names, children, strict=True):
        if type(child) is not Declared and name not in spec.veiled:
            attributes[name] = shown(child) if name in spec.wrapped else child


def shown(container: Any) -> Any:
    """A container of modules as the user wrote it, with its static values bare."""

    def bare(leaf: Any) -> Any:
        return leaf.value if type(leaf) is Static else leaf

    def is_leaf(value: Any) -> bool:
        return type(value) is Static or is_module(value)

    return jax.tree.map(bare, container, is_leaf=is_leaf)


def stop_at_modules(value: Any) -> bool:
    """An `is_leaf` that stops at modules, declared arrays and static values."""
    return isinstance(value, Node | Declared | Static)
