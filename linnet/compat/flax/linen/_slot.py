"""Modules on their way through a transform: out of arguments, and back with new scopes.

Modules are no pytrees. Before a transform each module (and variable) in the arguments
is replaced by a slot without leaves; inside, copies with the scopes of the inside are
put in their places.
"""

from typing import Any

import jax

from linnet.compat.flax.core.scope import Scope, Variable
from linnet.compat.flax.linen._adopt import is_module


@jax.tree_util.register_static
class Slot:
    """The place of a module or variable in a tree.

    Args:
        index: Which one.
    """

    def __init__(self, index: int):
        self.index = index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slot) and self.index == other.index

    def __hash__(self) -> int:
        return hash(self.index)


def _is_slot(x: Any) -> bool:
    return isinstance(x, Slot)


def _is_taken(x: Any) -> bool:
    return is_module(x) or isinstance(x, Variable)


class Slots:
    """The modules and variables in some trees, and their scopes."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.fields: list[dict[str, Any]] = []
        self.states: list[Any] = []
        self.scopes: list[Scope] = []
        self._slot_of: dict[int, int] = {}
        self.places: list[int | None] = []

    def take(self, tree: Any) -> Any:
        """The tree with slots in the places of bound modules and variables."""
        if is_module(tree):
            return self._slot(tree)
        leaves, structure = jax.tree.flatten(tree, is_leaf=_is_taken)
        if not any(map(_is_taken, leaves)):
            return tree
        return structure.unflatten(self._slot(x) if _is_taken(x) else x for x in leaves)

    def _slot(self, x: Any) -> Any:
        if id(x) in self._slot_of:
            return Slot(self._slot_of[id(x)])
        if x.scope is None and not _holds_bound(x):
            return x
        index = len(self.taken)
        self._slot_of[id(x)] = index
        self.taken.append(x)
        self.fields.append({})
        self.states.append(x._state.export() if is_module(x) else None)
        self.places.append(None)
        if x.scope is not None:
            self.places[index] = len(self.scopes)
            self.scopes.append(x.scope)
        if is_module(x):
            self.fields[index] = {
                name: self.take(value)
                for name, value in module_fields(x)
                if _holds_bound_tree(value)
            }
        return Slot(index)

    def put(self, tree: Any, scopes: list[Scope], made: dict[int, Any]) -> Any:
        """The tree with copies, which have other scopes, in the places of slots."""
        if isinstance(tree, Slot):
            return self._copy(tree.index, scopes, made)
        leaves, structure = jax.tree.flatten(tree, is_leaf=_is_slot)
        if not any(map(_is_slot, leaves)):
            return tree
        return structure.unflatten(
            self._copy(x.index, scopes, made) if _is_slot(x) else x for x in leaves
        )

    def _copy(self, index: int, scopes: list[Scope], made: dict[int, Any]) -> Any:
        if index in made:
            return made[index]
        x = self.taken[index]
        place = self.places[index]
        scope = None if place is None else scopes[place]
        if isinstance(x, Variable):
            assert scope is not None
            made[index] = Variable(scope, x.collection, x.name, x.unbox)
            return made[index]
        fields = {
            name: self.put(value, scopes, made)
            for name, value in self.fields[index].items()
        }
        copy = x.clone(parent=None, **fields)
        object.__setattr__(copy, "_id", x._id)
        if scope is not None:
            type(copy).parent.__set__(copy, scope)
            object.__setattr__(copy, "scope", scope)
            object.__setattr__(copy, "_state", self.states[index].export())
        made[index] = copy
        return copy


def module_fields(module: Any) -> list[tuple[str, Any]]:
    """The fields of a module, without `parent` and `name`."""
    values = vars(module)
    return [
        (name, values[name])
        for name in type(module).__dataclass_fields__
        if name not in ("parent", "name") and name in values
    ]


def _holds_bound(module: Any) -> bool:
    return is_module(module) and any(
        _holds_bound_tree(value) for _, value in module_fields(module)
    )


def _holds_bound_tree(value: Any) -> bool:
    if value is None or isinstance(value, str | int | float | type):
        return False
    return any(
        _is_taken(x) and (x.scope is not None or _holds_bound(x))
        for x in jax.tree.leaves(value, is_leaf=_is_taken)
    )
