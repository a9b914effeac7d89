"""Scopes: named places in a tree of variables, for functions of variables.

A `Scope` holds the part of each collection below one path, and the random streams of
that path. Every other part of this package stands on it: modules keep one, and lifted
transforms hand the variables of scopes through JAX's transforms.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp

from linnet.compat.flax import errors
from linnet.compat.flax.configurations import config
from linnet.compat.flax.core import meta, partial_eval
from linnet.compat.flax.core._filter import (
    CollectionFilter,
    DenyList,
    Filter,
    PRNGSequenceFilter,
    filter_to_set,
    group_collections,
    in_filter,
    intersect_filters,
    is_filter_empty,
    subtract_filters,
    union_filters,
)
from linnet.compat.flax.core._initial import initial, shapes_of
from linnet.compat.flax.core._rng import LazyRng, PRNGFoldable
from linnet.compat.flax.core._traced import kind_of_keys
from linnet.compat.flax.core.frozen_dict import FrozenDict, freeze, unfreeze
from linnet.compat.flax.ids import uuid

T = TypeVar("T")
Array = Any
PRNGKey = jax.Array
RNGSequences = dict[str, jax.Array]
Collection = Mapping[str, Any]
MutableCollection = dict[str, Any]
VariableDict = Mapping[str, Mapping[str, Any]]
FrozenVariableDict = FrozenDict[str, Mapping[str, Any]]
MutableVariableDict = dict[str, dict[str, Any]]

__all__ = [
    "CollectionFilter",
    "DenyList",
    "Filter",
    "FrozenDict",
    "LazyRng",
    "PRNGFoldable",
    "PRNGSequenceFilter",
    "Scope",
    "Variable",
    "apply",
    "bind",
    "child_rng_token",
    "filter_to_set",
    "freeze",
    "group_collections",
    "in_filter",
    "init",
    "intersect_filters",
    "is_filter_empty",
    "lazy_init",
    "no_flag",
    "subtract_filters",
    "unfreeze",
    "union_filters",
    "uuid",
]


class _ChildRNGSentinel:
    """Marks the counts of children among the counts of random streams."""


class _DefaultSentinel:
    """Marks that no default was given."""


child_rng_token = _ChildRNGSentinel()
no_flag = _DefaultSentinel()
_NOTHING: Mapping[str, Any] = FrozenDict({})


class Variable(Generic[T]):
    """A reference to one variable of a scope: read and set its `value`.

    Args:
        scope: Where it lives.
        collection: Its collection.
        name: Its name there.
        unbox: Whether `value` is the array without the metadata around it.
    """

    def __init__(self, scope: "Scope", collection: str, name: str, unbox: bool):
        self._id = uuid()
        self.scope = scope
        self.collection = collection
        self.name = name
        self.unbox = unbox

    @property
    def value(self) -> T:
        """The value, which can be set where the collection is mutable."""
        value = self.scope.get_variable(self.collection, self.name)
        return meta.unbox(value) if self.unbox else value

    @value.setter
    def value(self, value: T) -> None:
        if self.unbox:
            old = self.scope.get_variable(self.collection, self.name)
            value = meta.replace_boxed(old, value)
        self.scope.put_variable(self.collection, self.name, value)

    def is_mutable(self) -> bool:
        """Whether its collection is mutable."""
        return self.scope.is_mutable_collection(self.collection)


class Scope:
    """A place in a tree of variables.

    Args:
        variables: The collections at this place.
        rngs: Random streams by name.
        name: The last part of the path.
        mutable: The collections that may be changed.
        parent: The scope above.
        path: The names from the root.
        debug_path: The path that errors show, with the transforms passed through.
        flags: Settings that all scopes below see.
    """

    reservations: dict[str, set[str | None]]

    def __init__(
        self,
        variables: MutableVariableDict,
        rngs: Mapping[str, Any] | None = None,
        name: str | None = None,
        mutable: CollectionFilter = False,
        parent: "Scope | None" = None,
        path: Iterable[str] = (),
        debug_path: Iterable[str] = (),
        flags: Mapping[str, Any] | None = None,
    ):
        self._variables = variables
        self.parent = parent
        self.name = name
        self.path = tuple(path)
        self.debug_path = tuple(debug_path) or self.path
        self.rngs = {k: LazyRng.create(v) for k, v in rngs.items()} if rngs else {}
        self.mutable = mutable
        self.flags = flags if isinstance(flags, FrozenDict) else FrozenDict(flags or {})
        self._root = parent.root if parent else None
        self.rng_counters: dict[Any, Any] = dict.fromkeys(self.rngs, 0)
        self.reservations = {}
        self._invalid = False

    def __eq__(self, other: object) -> bool:
        """Whether both stand for the same place of the same variables."""
        if not isinstance(other, Scope):
            return False
        if self is other:
            return True
        return (
            self.root._variables is other.root._variables
            and self.path == other.path
            and self.rng_counters is other.rng_counters
        )

    def __hash__(self) -> int:
        return hash((id(self.root._variables), self.path, id(self.rng_counters)))

    # ---- where

    @property
    def root(self) -> "Scope":
        """The scope at the top."""
        return self._root or self

    @property
    def path_text(self) -> str:
        """The path as errors show it: `/encoder/layer_0`."""
        return "/" + "/".join(self.debug_path)

    @property
    def invalid(self) -> bool:
        """Whether the scope has ended."""
        return self._invalid

    def _check_valid(self) -> None:
        if self._invalid:
            raise errors.InvalidScopeError(str(self.name))

    @contextlib.contextmanager
    def temporary(self) -> Iterator["Scope"]:
        """A context at whose end the scope ends."""
        try:
            yield self
        finally:
            self.invalidate()

    def invalidate(self) -> None:
        """Ends the scope: it can no longer be used."""
        self._invalid = True

    # ---- names

    def reserve(self, name: str, col: str | None = None) -> None:
        """Takes a name, for a collection or (`None`) for a child.

        Raises:
            ValueError: The name is taken.
        """
        if not isinstance(name, str):
            raise TypeError(
                f"A name has to be a string. {name!r} (a {type(name).__name__}) was "
                f"given in {self.path_text}."
            )
        if self.name_reserved(name, col):
            raise ValueError(f'Duplicate use of scope name: "{name}"')
        self.reservations.setdefault(name, set()).add(col)

    def name_reserved(self, name: str, col: str | None = None) -> bool:
        """Whether the name is taken: in that collection, or by a child."""
        taken = self.reservations.get(name)
        if not taken:
            return False
        return col is None or None in taken or col in taken

    def default_name(self, prefix: str) -> str:
        """The first free name of `prefix0`, `prefix1`, ..."""
        i = 0
        while self.name_reserved(f"{prefix}{i}"):
            i += 1
        return f"{prefix}{i}"

    # ---- children

    def push(
        self, name: str | None = None, prefix: str = "", reuse: bool = False
    ) -> "Scope":
        """The scope of a child.

        Args:
            name: Its name; by default the first free one of `prefix`.
            prefix: What a default name starts with.
            reuse: Whether the name may be in use.
        """
        self._check_valid()
        if name is None:
            name = self.default_name(prefix)
        if not reuse:
            self.reserve(name)
        rngs = {
            key: LazyRng(rng.rng, (*rng.suffix, name)) for key, rng in self.rngs.items()
        }
        child = Scope(
            {},
            name=name,
            rngs=rngs,
            parent=self,
            mutable=self.mutable,
            path=(*self.path, name),
            debug_path=(*self.debug_path, name),
            flags=self.flags,
        )
        # A child that is entered again goes on with its counts.
        child.rng_counters = self.rng_counters.setdefault(
            (child_rng_token, name), child.rng_counters
        )
        return child

    def child(
        self,
        fn: Callable[..., Any],
        name: str | None = None,
        prefix: str | None = None,
        named_call: bool = True,
        **partial_kwargs: Any,
    ) -> Callable[..., Any]:
        """`fn` in the scope of a child, as a function of the other arguments."""
        if name is None:
            fn_name = getattr(fn, "__name__", None)
            prefix = f"{fn_name}_" if prefix is None and fn_name else prefix or ""
            name = self.default_name(prefix)
        scope = self.push(name)
        if named_call:
            from linnet.compat.flax.core import lift

            fn = lift.named_call(fn, name)

        @functools.wraps(fn)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return fn(scope.rewound(), *args, **partial_kwargs, **kwargs)

        return wrapper

    def rewound(self, rewind_rngs: bool = False) -> "Scope":
        """The same place with no name taken yet.

        Args:
            rewind_rngs: Whether random streams start again, too.
        """
        self._check_valid()
        scope = Scope(
            self._variables,
            self.rngs,
            self.name,
            self.mutable,
            self.parent,
            path=self.path,
            debug_path=self.debug_path,
            flags=self.flags,
        )
        if not rewind_rngs:
            scope.rng_counters = self.rng_counters
        return scope

    # ---- collections

    def is_mutable_collection(self, col: str) -> bool:
        """Whether variables of the collection may be made and changed."""
        return in_filter(self.mutable, col)

    def is_collection_empty(self, col: str) -> bool:
        """Whether the collection has nothing below the root."""
        return not self.root._collection(col)

    def _collection(self, col: str) -> Mapping[str, Any]:
        """What the collection holds at this place."""
        found = self._variables.get(col)
        if found is not None:
            return found
        if self.parent is None:
            return _NOTHING
        above = self.parent._collection(col)
        if self.name not in above:
            return _NOTHING
        here = above[self.name]  # type: ignore[index]
        self._variables[col] = here
        return here

    def _mutable_collection(self, col: str) -> MutableCollection:
        """What the mutable collection holds here; an empty one is made if need be."""
        found = self._variables.get(col)
        if found is not None:
            return found
        if self.parent is None:
            self._variables[col] = {}
        else:
            above = self.parent._mutable_collection(col)
            if self.name not in above:
                above[self.name] = {}  # type: ignore[index]
            self._variables[col] = above[self.name]  # type: ignore[index]
        return self._variables[col]

    def variables(self) -> VariableDict:
        """All collections at this place."""
        self._populate()
        return (
            freeze(self._variables)
            if config.flax_return_frozendict
            else self._variables
        )

    def mutable_variables(self) -> VariableDict:
        """The mutable collections at this place."""
        self._populate()
        found = {
            col: xs
            for col, xs in self._variables.items()
            if in_filter(self.mutable, col)
        }
        return freeze(found) if config.flax_return_frozendict else found

    def _populate(self) -> None:
        for col in self.root._variables:
            self._collection(col)

    # ---- variables

    def has_variable(self, col: str, name: str) -> bool:
        """Whether the variable exists."""
        return name in self._collection(col)

    def get_variable(self, col: str, name: str, default: Any = None) -> Any:
        """The value of a variable, with the metadata around it."""
        return self._collection(col).get(name, default)

    def put_variable(self, col: str, name: str, value: Any) -> None:
        """Sets a variable of a mutable collection.

        Raises:
            ModifyScopeVariableError: The collection is not mutable.
        """
        self._check_valid()
        if not self.is_mutable_collection(col):
            raise errors.ModifyScopeVariableError(col, name, self.path_text)
        _put(self._mutable_collection(col), name, value)

    def variable(
        self,
        col: str,
        name: str,
        init_fn: Callable[..., T] | None = None,
        *init_args: Any,
        unbox: bool = True,
        **init_kwargs: Any,
    ) -> Variable[T]:
        """A reference to a variable, made by `init_fn` if it does not exist.

        Raises:
            ScopeCollectionNotFound: Nothing is in the collection, and nothing may be.
            ScopeVariableNotFoundError: The collection has no such variable.
        """
        self.reserve(name, col)
        if not self.has_variable(col, name):
            if not self.is_mutable_collection(col) or init_fn is None:
                if self.is_collection_empty(col):
                    raise errors.ScopeCollectionNotFound(col, name, self.path_text)
                raise errors.ScopeVariableNotFoundError(name, col, self.path_text)
            self.put_variable(col, name, init_fn(*init_args, **init_kwargs))
        return Variable(self, col, name, unbox=unbox)

    def param(
        self,
        name: str,
        init_fn: Callable[..., T],
        *init_args: Any,
        unbox: bool = True,
        **init_kwargs: Any,
    ) -> T:
        """A parameter, made by `init_fn(key, *init_args)` if it does not exist.

        Raises:
            ScopeCollectionNotFound: No parameter exists.
            ScopeParamNotFoundError: This one does not exist.
            ScopeParamShapeError: It exists with another shape than `init_fn` makes.
        """
        self.reserve(name, "params")
        if self.has_variable("params", name):
            value = self.get_variable("params", name)
            made = shapes_of(init_fn, init_args, init_kwargs)
            for val, shape in zip(jax.tree.leaves(value), made, strict=False):
                if jnp.shape(val) != shape:
                    raise errors.ScopeParamShapeError(
                        name, self.path_text, jnp.shape(val), shape
                    )
        else:
            if not self.is_mutable_collection("params"):
                if self.is_collection_empty("params"):
                    raise errors.ScopeCollectionNotFound("params", name, self.path_text)
                raise errors.ScopeParamNotFoundError(name, self.path_text)
            value = initial(init_fn, self.next_rng("params"), *init_args, **init_kwargs)
            self.put_variable("params", name, value)
        return meta.unbox(value) if unbox else value

    # ---- random streams

    def has_rng(self, name: str) -> bool:
        """Whether the random stream exists."""
        return name in self.rngs

    def make_rng(self, name: str = "params") -> jax.Array:
        """A fresh key of a random stream, `params` standing in for a missing one.

        Raises:
            InvalidRngError: Neither stream exists.
        """
        return self.next_rng(name).as_jax_rng()

    def next_rng(self, name: str) -> LazyRng:
        """As `make_rng`, with path and count still to be folded in."""
        if not self.has_rng(name):
            if not self.has_rng("params"):
                raise errors.InvalidRngError(f'{self.name} needs PRNG for "{name}"')
            name = "params"
        self._check_valid()
        self.rng_counters[name] += 1
        return LazyRng.create(self.rngs[name], self.rng_counters[name])

    # ---- flags and checks

    def has_flag(self, key: str) -> bool:
        """Whether the flag is set."""
        return key in self.flags

    def get_flag(self, key: str, default: Any = no_flag) -> Any:
        """The value of a flag.

        Raises:
            ValueError: It is not set, and no default is given.
        """
        if key not in self.flags and default is no_flag:
            raise ValueError(f"Flag {key} not present on scope.")
        return self.flags.get(key, default)


def _put(target: MutableCollection, name: str, value: Any) -> None:
    if isinstance(target.get(name), dict) and isinstance(value, Mapping):
        for key, item in value.items():
            _put(target[name], key, item)
    else:
        target[name] = value


# ---- functions of scopes as pure functions of variables


def _unfreeze_variables(variables: Any, mutable: CollectionFilter) -> dict[str, Any]:
    return {
        col: unfreeze(xs) if in_filter(mutable, col) else xs
        for col, xs in variables.items()
    }


def bind(
    variables: VariableDict,
    rngs: RNGSequences | None = None,
    mutable: CollectionFilter = False,
    flags: Mapping[str, Any] | None = None,
) -> Scope:
    """A scope at the root of given variables.

    Raises:
        ApplyScopeInvalidVariablesTypeError: `variables` is not a dict of collections.
        InvalidRngError: `rngs` is not a dict of keys.
    """
    if not _is_valid_variables(variables):
        raise errors.ApplyScopeInvalidVariablesTypeError()
    if rngs is not None and not _is_valid_rngs(rngs):
        raise errors.InvalidRngError(
            "rngs should be a dictionary mapping strings to `jax.PRNGKey`."
        )
    return Scope(
        _unfreeze_variables(variables, mutable), rngs=rngs, mutable=mutable, flags=flags
    )


def apply(
    fn: Callable[..., Any],
    mutable: CollectionFilter = False,
    flags: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """`fn(scope, ...)` as a function of variables: `(variables, *args, rngs=None)`.

    Returns:
        A function whose result is that of `fn`, with the mutable collections as they
        were left if `mutable` names any.
    """

    @functools.wraps(fn)
    def wrapper(
        variables: VariableDict,
        *args: Any,
        rngs: RNGSequences | None = None,
        **kwargs: Any,
    ) -> Any:
        if (
            "params" in variables
            and isinstance(variables["params"], dict | FrozenDict)
            and "params" in variables["params"]
        ):
            raise errors.ApplyScopeInvalidVariablesStructureError(variables)
        if rngs is not None and not _is_valid_rngs(rngs):
            raise ValueError(
                "The ``rngs`` argument passed to an apply function should be a "
                "``jax.PRNGKey`` or a dictionary mapping strings to ``jax.PRNGKey``."
            )
        with bind(variables, rngs=rngs, mutable=mutable, flags=flags).temporary() as s:
            y = fn(s, *args, **kwargs)
        return y if mutable is False else (y, s.mutable_variables())

    return wrapper


def init(
    fn: Callable[..., Any],
    mutable: CollectionFilter = True,
    flags: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """`fn(scope, ...)` as a function of keys that makes its variables.

    Returns:
        A function `(rngs, *args)` to (what `fn` returns, the variables made).
    """

    @functools.wraps(fn)
    def wrapper(rngs: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_valid_rng(rngs) and not _is_valid_rngs(rngs):
            raise ValueError(
                "First argument passed to an init function should be a "
                "``jax.PRNGKey`` or a dictionary mapping strings to ``jax.PRNGKey``."
            )
        if not isinstance(rngs, Mapping):
            rngs = {"params": rngs}
        run = apply(fn, mutable=mutable, flags={**(flags or {}), "initializing": True})
        return run({}, *args, rngs=rngs, **kwargs)

    return wrapper


def lazy_init(
    fn: Callable[..., Any],
    mutable: CollectionFilter = True,
    flags: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """`init` without the work that no variable needs; inputs may be shapes alone."""
    return partial_eval.lazy_init(
        lambda *args, **kwargs: init(fn, mutable, flags)(*args, **kwargs)[1]
    )


def _is_valid_collection(col: Any) -> bool:
    return isinstance(col, Mapping) and all(isinstance(name, str) for name in col)


def _is_valid_variables(variables: Any) -> bool:
    return all(
        isinstance(name, str) and _is_valid_collection(xs)
        for name, xs in variables.items()
    )


def _is_valid_rng(rng: Any) -> bool:
    if isinstance(rng, LazyRng):
        return True
    if not isinstance(rng, jax.Array) and not hasattr(rng, "dtype"):
        return False
    if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):
        return rng.shape == ()
    return rng.shape == _key_shape(kind_of_keys()) and rng.dtype == jnp.uint32


@functools.lru_cache
def _key_shape(kind: str) -> tuple[int, ...]:
    return jax.eval_shape(lambda: jax.random.PRNGKey(0, impl=kind)).shape


def _is_valid_rngs(rngs: Any) -> bool:
    return isinstance(rngs, Mapping) and all(
        isinstance(name, str) and _is_valid_rng(rng) for name, rng in rngs.items()
    )
