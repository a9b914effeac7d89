"""The way of variables through JAX's transforms: out of scopes, and back into them.

`pack` turns a function of scopes into a pure function of groups of collections and of
random streams, which a transform can take apart. Inside of it, new scopes stand for
those outside; at its end, what they changed is handed back.
"""

import functools
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from linnet.compat.flax.core._filter import (
    CollectionFilter,
    DenyList,
    PRNGSequenceFilter,
    group_collections,
    in_filter,
    intersect_filters,
    union_filters,
)
from linnet.compat.flax.core._rng import LazyRng
from linnet.compat.flax.core.scope import Scope

Groups = tuple[tuple[dict[str, Any], ...], ...]


def pack(
    fn: Callable[..., Any],
    in_variable_filters: Sequence[CollectionFilter],
    out_variable_filters: Sequence[CollectionFilter],
    rng_filters: Sequence[PRNGSequenceFilter],
    name: str | None = None,
    enable_kwargs: bool = False,
) -> Callable[..., Any]:
    """A function of a tree of scopes, by way of a pure function of their contents.

    Args:
        fn: `fn(scope_fn, repack, variable_groups, rng_groups, *args)` to
            `(result, variable_groups)`. For each filter there is a group: a tuple which
            has, for each scope, the collections (or streams) that match. `scope_fn` of
            two such makes the scopes inside, and `repack` of these makes the groups of
            what they changed, by the filters of what comes out.
        in_variable_filters: The collections that go in, group by group.
        out_variable_filters: The collections that come out, group by group.
        rng_filters: The random streams that go in, group by group.
        name: Of the transform, as paths in errors show it.
        enable_kwargs: Whether keyword arguments are passed on, as one dict.
    """
    filters = in_variable_filters, out_variable_filters, rng_filters
    return packed(fn, *filters, name, enable_kwargs, fold_rngs=False)


def packed(
    fn: Callable[..., Any],
    in_variable_filters: Sequence[CollectionFilter],
    out_variable_filters: Sequence[CollectionFilter],
    rng_filters: Sequence[PRNGSequenceFilter],
    name: str | None,
    enable_kwargs: bool,
    fold_rngs: bool,
) -> Callable[..., Any]:
    """As `pack`.

    With `fold_rngs`, streams inside start from keys drawn outside, so that where the
    scope is makes no difference inside.
    """

    def wrapper(scope_tree: Any, *args: Any, **kwargs: Any) -> Any:
        if not enable_kwargs and kwargs:
            warnings.warn(
                f'kwargs are not supported in {name}, so "{", ".join(kwargs)}" is(are) '
                f"ignored. Pass them by position.",
                RuntimeWarning,
                stacklevel=2,
            )
        leaves, tree = jax.tree.flatten(scope_tree)
        scopes, rebuild = _distinct(leaves)
        for scope in scopes:
            scope._check_valid()
        nothing: CollectionFilter = False
        out_filter = functools.reduce(union_filters, out_variable_filters, nothing)
        inner_scopes: list[Scope] = []
        scope_fn = ScopeFn(scopes, tree, rebuild, inner_scopes, out_filter, name)

        def repack(_: Any) -> Groups:
            changed = [_take(scope) for scope in inner_scopes]
            for scope in inner_scopes:
                scope.invalidate()
            inner_scopes.clear()  # They hold traced values.
            return _by_filter(changed, out_variable_filters)

        variables = [_contents(scope) for scope in scopes]
        rngs = [_drawn(scope) if fold_rngs else scope.rngs for scope in scopes]
        extra = (kwargs,) if enable_kwargs else ()
        try:
            result, out_groups = fn(
                scope_fn,
                repack,
                _by_filter(variables, in_variable_filters),
                _by_filter(rngs, rng_filters),
                *args,
                *extra,
            )
        finally:
            for inner in inner_scopes:
                inner.invalidate()
        for group in out_groups:
            for scope, collections in zip(scopes, group, strict=True):
                _give(scope, collections)
        return result

    return wrapper


class ScopeFn:
    """Makes the scopes inside of a transform, of variables and streams.

    Args:
        scopes: Those outside, which lie within no other.
        tree: The structure of all that are wanted.
        rebuild: Finds all of them from the outermost.
        inner: Where the outermost ones inside are put.
        out_filter: The collections that come out, and so may be changed.
        name: Of the transform.
    """

    def __init__(
        self,
        scopes: list[Scope],
        tree: Any,
        rebuild: "Rebuild",
        inner: list[Scope],
        out_filter: CollectionFilter,
        name: str | None,
    ):
        self.scopes = scopes
        self.tree = tree
        self._rebuild = rebuild
        self._inner = inner
        self._out_filter = out_filter
        self._name = name

    def __call__(self, variable_groups: Groups, rng_groups: Groups) -> Any:
        """The tree of scopes inside."""
        self._inner[:] = [
            _inner(
                scope,
                {k: v for group in variable_groups for k, v in group[i].items()},
                {k: v for group in rng_groups for k, v in group[i].items()},
                self._out_filter,
                self._name,
            )
            for i, scope in enumerate(self.scopes)
        ]
        return self.tree.unflatten(self._rebuild(self._inner))

    def fingerprint(self) -> Any:
        """What a computation inside depends on, besides its arguments and its path.

        Layers alike share a program, as they do in Flax.
        """
        return (
            self.tree,
            self._rebuild.places,
            tuple(
                (
                    frozen(scope.mutable),
                    frozen(scope.flags),
                    frozen(scope.rng_counters),
                )
                for scope in self.scopes
            ),
        )


# Known without asking abstract classes, which take long to answer.
_PLAIN = {type(None), bool, int, str, types.FunctionType}


def frozen(value: Any) -> Any:
    """A value that can be hashed, and is equal to that of equal values only.

    Raises:
        TypeError: The value has no such thing, as an array.
    """
    if type(value) in _PLAIN:
        return type(value), value
    if isinstance(value, tuple | list):
        return type(value), tuple(map(frozen, value))
    if isinstance(value, dict | Mapping):
        return type(value), frozenset((k, frozen(v)) for k, v in value.items())
    if isinstance(value, set | frozenset):
        return type(value), frozenset(map(frozen, value))
    if isinstance(value, DenyList):
        return DenyList, frozen(value.deny)
    hash(value)
    return type(value), value


def _contents(scope: Scope) -> dict[str, Any]:
    scope._populate()
    return dict(scope._variables)


def _drawn(scope: Scope) -> dict[str, LazyRng]:
    return {name: LazyRng.create(scope.make_rng(name)) for name in scope.rngs}


def _by_filter(contents: list[Any], filters: Sequence[CollectionFilter]) -> Groups:
    """For each filter, for each scope, what matches (and no filter before did)."""
    each = [group_collections(of_scope, filters) for of_scope in contents]
    return tuple(tuple(of[i] for of in each) for i in range(len(filters)))


def _inner(
    scope: Scope,
    variables: dict[str, Any],
    rngs: dict[str, Any],
    out_filter: CollectionFilter,
    name: str | None,
) -> Scope:
    mutable = intersect_filters(scope.mutable, out_filter)
    own = {
        col: copied(xs) if in_filter(mutable, col) else xs
        for col, xs in variables.items()
    }
    debug = scope.debug_path
    if name:
        debug = (*debug[:-1], f"{name}({debug[-1]})") if debug else (f"{name}()",)
    inner = Scope(
        own,
        name=scope.name,
        rngs=rngs,
        mutable=mutable,
        parent=None,
        path=scope.path,
        debug_path=debug,
        flags=scope.flags,
    )
    inner.rng_counters = scope.rng_counters
    return inner


def copied(xs: Any) -> Any:
    """A nested dict, copied without its leaves."""
    if isinstance(xs, dict) or hasattr(xs, "unfreeze"):
        return {key: copied(x) for key, x in xs.items()}
    return xs


def _take(scope: Scope) -> dict[str, Any]:
    """The mutable collections of an inner scope."""
    scope._populate()
    return {
        col: xs for col, xs in scope._variables.items() if in_filter(scope.mutable, col)
    }


def _give(scope: Scope, collections: dict[str, Any]) -> None:
    for col, xs in collections.items():
        if not scope.is_mutable_collection(col):
            continue
        for key, value in xs.items():
            scope.put_variable(col, key, value)


def _distinct(leaves: list[Scope]) -> tuple[list[Scope], "Rebuild"]:
    """The scopes that lie within no other, and how to find all again from those."""
    tops: list[Scope] = []
    for scope in leaves:
        above = _chain(scope)
        if any(top in above for top in tops):
            continue
        tops = [top for top in tops if scope not in _chain(top)]
        tops.append(scope)

    def place(scope: Scope) -> tuple[int, tuple[str, ...]]:
        above = _chain(scope)
        for i, top in enumerate(tops):
            if top in above:
                return i, scope.path[len(top.path) :]
        raise AssertionError("each scope lies within one of those kept")

    return tops, Rebuild(tuple(place(scope) for scope in leaves))


class Rebuild:
    """Finds scopes again from those in which they lie.

    Args:
        places: For each the number of the outer one, and the path from there.
    """

    def __init__(self, places: tuple[tuple[int, tuple[str, ...]], ...]):
        self.places = places

    def __call__(self, tops: list[Scope]) -> list[Scope]:
        """The scopes within others."""
        found: dict[tuple[int, tuple[str, ...]], Scope] = {
            (i, ()): scope for i, scope in enumerate(tops)
        }
        for i, path in self.places:
            for depth in range(1, len(path) + 1):
                above, here = (i, path[: depth - 1]), (i, path[:depth])
                if here not in found:
                    found[here] = found[above].push(path[depth - 1])
        return [found[place] for place in self.places]


def _chain(scope: Scope | None) -> list[Scope]:
    """A scope, and those above it."""
    found = []
    while scope is not None:
        found.append(scope)
        scope = scope.parent
    return found
