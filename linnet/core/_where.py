"""Selecting arrays: by role, by path pattern, by module type or by predicate."""

from typing import Any

from linnet._errors import ConfigError
from linnet.core._node import Node
from linnet.core._path import no_match, path_matches
from linnet.core._role import Role
from linnet.core._table import Entry

Where = Any


def selected(where: Where, entries: tuple[Entry, ...], leaves: list[Any]) -> list[bool]:
    """For each leaf whether `where` selects it.

    Args:
        where: A role, a type of module, a pattern such as `"encoder/**/kernel"`, a
            predicate `f(path, array)`, or a tuple of these, any of which may hold.
        entries: What is known about the leaves.
        leaves: The leaves.

    Raises:
        PathError: A pattern matches nothing.
        ConfigError: `where` is none of these.
    """
    if isinstance(where, tuple | list):
        parts = [selected(part, entries, leaves) for part in where]
        return [any(hits) for hits in zip(*parts, strict=True)] or [False] * len(leaves)
    if isinstance(where, str):
        hits = [path_matches(where, entry.text) for entry in entries]
        if not any(hits):
            raise no_match(where, (entry.text for entry in entries))
        return hits
    if isinstance(where, type) and issubclass(where, Role):
        return [e.role is not None and issubclass(e.role, where) for e in entries]
    if isinstance(where, type) and issubclass(where, Node):
        return [any(issubclass(c, where) for c in e.owners) for e in entries]
    if callable(where):
        return [bool(where(e.text, x)) for e, x in zip(entries, leaves, strict=True)]
    raise ConfigError(
        f"{where!r} is no role, pattern, type of module or predicate.",
        code="LN-WHERE-01",
        fixes=[
            ("a role is meant", "where = nn.Param"),
            ("a path or pattern is meant", 'where = "**/kernel"'),
            ("a type of module is meant", "where = nn.Dense"),
        ],
    )
