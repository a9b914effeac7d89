"""The static half of a module, interned, so that comparing two is an identity test."""

import threading
import weakref
from collections.abc import Mapping
from typing import Any

from linnet.core._path import Path
from linnet.core._role import Declared
from linnet.core._value import ReadOnlyDict, by_name, identity, restored

_lock = threading.RLock()
_table: weakref.WeakValueDictionary[Any, "Spec"] = weakref.WeakValueDictionary()


class Spec:
    """What a module is, apart from its arrays.

    Attributes:
        cls: The module's class.
        names: Names of the data attributes, in the order of the children.
        static: The other attributes.
        leaves: For each declared array its path within the module and declaration.
        wrapped: Data attributes whose containers hold static values as well.
        ties: `(target, source, function)` for each tied array below this module.
        eager: Some name is a class attribute too, so that attributes must be put in
            place at once: Python would find the class's first.
        veiled: Names computed at each access: cast arrays, and children with ties.
    """

    __slots__ = (
        "__weakref__",
        "_key",
        "cls",
        "eager",
        "index",
        "leaves",
        "names",
        "static",
        "ties",
        "veiled",
        "wrapped",
    )

    cls: type
    names: tuple[str, ...]
    static: Mapping[str, Any]
    leaves: Mapping[Path, Declared]
    wrapped: frozenset[str]
    ties: tuple[tuple[Path, Path, Any], ...]
    eager: bool
    index: dict[str, int]
    veiled: frozenset[str]
    _key: Any

    def __reduce__(self) -> tuple[Any, ...]:
        return _interned, (
            self.cls,
            self.names,
            by_name(ReadOnlyDict(self.static)),
            dict(self.leaves),
            self.wrapped,
            self.ties,
        )

    def __deepcopy__(self, memo: Any) -> "Spec":
        return self

    def replace(self, **changes: Any) -> "Spec":
        """The spec with some parts changed."""
        parts = ("cls", "names", "static", "leaves", "wrapped", "ties")
        return intern(**{part: getattr(self, part) for part in parts} | changes)


def intern(
    cls: type,
    names: tuple[str, ...],
    static: Mapping[str, Any],
    leaves: Mapping[Path, Declared],
    wrapped: frozenset[str] = frozenset(),
    ties: tuple[tuple[Path, Path, Any], ...] = (),
) -> Spec:
    """The one spec with these parts."""
    leaves = {path: leaf.replace(value=None) for path, leaf in leaves.items()}
    key = (
        cls,
        names,
        frozenset((name, identity(value)) for name, value in static.items()),
        frozenset(leaves.items()),
        wrapped,
        tuple((target, source, identity(fn)) for target, source, fn in ties),
    )
    with _lock:
        found = _table.get(key)
        if found is None:
            found = _table[key] = _make(key, cls, names, static, leaves, wrapped, ties)
    return found


def _interned(
    cls: type, names: Any, static: Any, leaves: Any, wrapped: Any, ties: Any
) -> Spec:
    return intern(cls, names, dict(restored(static)), leaves, wrapped, ties)


def _make(
    key: Any,
    cls: type,
    names: tuple[str, ...],
    static: Mapping[str, Any],
    leaves: Mapping[Path, Declared],
    wrapped: frozenset[str],
    ties: tuple[tuple[Path, Path, Any], ...],
) -> Spec:
    spec = Spec()
    spec.cls, spec.names, spec.wrapped, spec.ties = cls, names, wrapped, ties
    spec.static, spec.leaves = dict(static), leaves
    spec.index = {name: i for i, name in enumerate(names)}
    spec.eager = any(hasattr(cls, name) for name in (*names, *static))
    spec.veiled = _computed_at_access(leaves, ties)
    spec._key = key
    return spec


def _computed_at_access(
    leaves: Mapping[Path, Declared], ties: tuple[tuple[Path, Path, Any], ...]
) -> frozenset[str]:
    cast = {p[0].name for p, leaf in leaves.items() if leaf.compute_dtype is not None}
    return frozenset(cast | {target[0].name for target, _, _ in ties})
