"""Filters: which collections, or which random streams, are meant.

A filter is `True` (all), `False` (none), a name, a collection of names, or a
`DenyList` of one of these. Sums and differences are worked out on one normal form:
a finite set of names, or all but a finite set.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Union

from linnet.compat.flax import errors


@dataclasses.dataclass(frozen=True, eq=True)
class DenyList:
    """All names but those that `deny` matches."""

    deny: Union[bool, str, Collection[str], "DenyList"]


Filter = bool | str | Collection[str] | DenyList
CollectionFilter = Filter
PRNGSequenceFilter = Filter

# The usual ones first: an abstract class takes long to answer.
_COLLECTIONS = (set, frozenset, tuple, list, Collection)


def _normal(of: Filter) -> tuple[bool, frozenset[str]]:
    """(whether it is all but the names, the names)."""
    if isinstance(of, bool):
        return of, frozenset()
    if isinstance(of, str):
        return False, frozenset((of,))
    if isinstance(of, DenyList):
        all_but, names = _normal(of.deny)
        return not all_but, names
    if isinstance(of, _COLLECTIONS):
        return False, frozenset(of)
    raise errors.InvalidFilterError(of)


def _filter(all_but: bool, names: frozenset[str]) -> Filter:
    return DenyList(set(names)) if all_but else set(names)


def filter_to_set(x: Filter) -> set[str]:
    """The names of a filter that holds finitely many."""
    all_but, names = _normal(x)
    assert not all_but, "Infinite set"
    return set(names)


def is_filter_empty(filter_like: Filter) -> bool:
    """Whether nothing can match."""
    all_but, names = _normal(filter_like)
    return not all_but and not names


def in_filter(filter_like: Filter, col: str) -> bool:
    """Whether the filter matches the name."""
    if filter_like is True or filter_like is False:
        return filter_like
    if isinstance(filter_like, str):
        return col == filter_like
    if isinstance(filter_like, DenyList):
        return not in_filter(filter_like.deny, col)
    if isinstance(filter_like, _COLLECTIONS):
        return col in filter_like
    raise errors.InvalidFilterError(filter_like)


def union_filters(a: Filter, b: Filter) -> Filter:
    """A filter for what `a` or `b` matches."""
    if a is True or b is True:
        return True
    (not_a, of_a), (not_b, of_b) = _normal(a), _normal(b)
    if not_a and not_b:
        return _filter(True, of_a & of_b)
    if not_a or not_b:
        return _filter(True, of_a - of_b if not_a else of_b - of_a)
    return _filter(False, of_a | of_b)


def subtract_filters(a: Filter, b: Filter) -> Filter:
    """A filter for what `a` matches and `b` does not."""
    if b is True:
        return False
    if a is True:
        return DenyList(b)
    return _common(_normal(a), _complement(_normal(b)))


def intersect_filters(a: Filter, b: Filter) -> Filter:
    """A filter for what `a` and `b` both match."""
    if a is True or b is True:
        return b if a is True else a
    return _common(_normal(a), _normal(b))


def _common(a: tuple[bool, frozenset[str]], b: tuple[bool, frozenset[str]]) -> Filter:
    (not_a, of_a), (not_b, of_b) = a, b
    if not_a and not_b:
        return _filter(True, of_a | of_b)
    if not_a or not_b:
        return _filter(False, of_b - of_a if not_a else of_a - of_b)
    return _filter(False, of_a & of_b)


def _complement(a: tuple[bool, frozenset[str]]) -> tuple[bool, frozenset[str]]:
    all_but, names = a
    return not all_but, names


def group_collections(
    xs: Mapping[str, Any], col_filters: Collection[Filter]
) -> tuple[dict[str, Any], ...]:
    """Divides collections among filters; each goes to the first that matches."""
    groups: tuple[dict[str, Any], ...] = tuple({} for _ in col_filters)
    for name, x in xs.items():
        for group, of in zip(groups, col_filters, strict=True):
            if in_filter(of, name):
                group[name] = x
                break
    return groups
