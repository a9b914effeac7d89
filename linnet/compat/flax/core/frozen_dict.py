"""A dict that cannot be changed, and is a pytree."""

import types
from collections.abc import Hashable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, TypeVar

import jax

from .. import serialization

__all__ = [
    "FrozenDict",
    "FrozenKeysView",
    "FrozenValuesView",
    "K",
    "V",
    "copy",
    "freeze",
    "pop",
    "pretty_repr",
    "unfreeze",
]

K = TypeVar("K")
V = TypeVar("V")


class FrozenKeysView(KeysView[Any]):
    """The keys of a `FrozenDict`, shown as a list."""

    def __repr__(self) -> str:
        return f"frozen_dict_keys({list(self)})"


class FrozenValuesView(ValuesView[Any]):
    """The values of a `FrozenDict`, shown as a list."""

    def __repr__(self) -> str:
        return f"frozen_dict_values({list(self)})"


@jax.tree_util.register_pytree_with_keys_class
class FrozenDict(Mapping[K, V]):
    """A dict that cannot be changed; dicts inside it are frozen as well.

    Inside, nested dicts are plain ones, and become a `FrozenDict` when they are
    taken out: a tree map sees one node of this type, and plain dicts below it.

    Args:
        *args: As for `dict`. Nested dicts are copied.
        **kwargs: As for `dict`.

    Example:
        >>> variables = FrozenDict({"params": {"kernel": 1}})
        >>> variables.copy({"step": 2})
        FrozenDict({
            params: {
                kernel: 1,
            },
            step: 2,
        })
    """

    __slots__ = ("_dict", "_hash")

    _dict: dict[K, V]
    _hash: int | None

    def __init__(
        self, *args: Any, __unsafe_skip_copy__: bool = False, **kwargs: Any
    ) -> None:
        given = dict(*args, **kwargs)
        self._dict = given if __unsafe_skip_copy__ else _thaw(given)
        self._hash = None

    def __getitem__(self, key: K) -> Any:
        value = self._dict[key]
        return _view(value) if isinstance(value, dict) else value

    def __setitem__(self, key: K, value: V) -> None:
        raise ValueError(
            f"a FrozenDict cannot be changed, and so the key {key!r} not be set. "
            f"FrozenDict is immutable: `copy({{{key!r}: ...}})` makes a changed copy, "
            "and `unfreeze()` a dict."
        )

    def __contains__(self, key: object) -> bool:
        return key in self._dict

    def __iter__(self) -> Iterator[K]:
        return iter(self._dict)

    def __len__(self) -> int:
        return len(self._dict)

    def __repr__(self) -> str:
        return self.pretty_repr()

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = 0
            for item in self.items():
                self._hash ^= hash(item)  # the order of the keys does not count
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (self.unfreeze(),)

    def pretty_repr(self, num_spaces: int = 4) -> str:
        """The text of the dict, one line per leaf.

        Args:
            num_spaces: By which a level is indented.
        """
        return f"FrozenDict({_pretty(self._dict, num_spaces)})"

    def keys(self) -> FrozenKeysView:
        """The keys."""
        return FrozenKeysView(self)

    def values(self) -> FrozenValuesView:
        """The values; dicts among them are frozen."""
        return FrozenValuesView(self)

    def items(self) -> Any:
        """Yields keys and values; dicts among them are frozen."""
        for key in self._dict:
            yield key, self[key]

    def copy(
        self, add_or_replace: Mapping[K, V] = types.MappingProxyType({})
    ) -> "FrozenDict[K, V]":
        """A copy with other or additional items.

        Args:
            add_or_replace: The items.
        """
        return type(self)({**self, **unfreeze(add_or_replace)})  # type: ignore[arg-type]

    def pop(self, key: K) -> tuple["FrozenDict[K, V]", V]:
        """The dict without a key, and the key's value.

        Args:
            key: It must be there.
        """
        value = self[key]
        rest = {k: v for k, v in self._dict.items() if k != key}
        return type(self)(rest), value

    def unfreeze(self) -> dict[K, V]:
        """A copy as a plain dict, with its keys sorted."""
        return unfreeze(self)

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, ...], Hashable]:
        """The children with their keys as JAX names them, and the sorted keys."""
        keys = tuple(sorted(self._dict))  # type: ignore[type-var]
        return tuple((jax.tree_util.DictKey(k), self._dict[k]) for k in keys), keys

    @classmethod
    def tree_unflatten(cls, keys: Any, values: Any) -> "FrozenDict[Any, Any]":
        """The dict of these keys and values, which are not copied.

        Args:
            keys: As `tree_flatten_with_keys` gives them.
            values: One for each key.
        """
        return cls(dict(zip(keys, values, strict=True)), __unsafe_skip_copy__=True)


def _view(nested: dict[Any, Any]) -> FrozenDict[Any, Any]:
    """The frozen face of a dict that nobody else holds: nothing is copied."""
    frozen: FrozenDict[Any, Any] = object.__new__(FrozenDict)
    frozen._dict = nested
    frozen._hash = None
    return frozen


def _thaw(x: Any) -> Any:
    """Copies of the dicts, frozen or not, at the top of a tree; leaves as they are."""
    if isinstance(x, FrozenDict):
        x = x._dict
    return {key: _thaw(v) for key, v in x.items()} if isinstance(x, dict) else x


def _pretty(x: Any, num_spaces: int) -> str:
    if not isinstance(x, dict):
        return repr(x)
    if not x:
        return "{}"
    lines = "".join(f"{key}: {_pretty(x[key], num_spaces)},\n" for key in x)
    margin = " " * num_spaces
    return "{\n" + "".join(margin + line for line in lines.splitlines(True)) + "}"


def pretty_repr(x: Any, num_spaces: int = 4) -> str:
    """The text of a dict or `FrozenDict`, one line per leaf; `repr` of others.

    Args:
        x: Anything.
        num_spaces: By which a level is indented.
    """
    if isinstance(x, FrozenDict):
        return x.pretty_repr(num_spaces)
    return _pretty(x, num_spaces)


def freeze(xs: Mapping[Any, Any]) -> FrozenDict[Any, Any]:
    """Makes a mapping immutable.

    Args:
        xs: It is copied, and so are dicts inside it.
    """
    return FrozenDict(xs)


def unfreeze(x: FrozenDict[Any, Any] | dict[str, Any]) -> dict[Any, Any]:
    """A plain dict, with plain dicts inside: a copy that may be changed.

    Args:
        x: A `FrozenDict`, or a dict with some inside. Anything else is returned.
    """
    if isinstance(x, FrozenDict):
        return jax.tree.map(lambda leaf: leaf, x._dict)
    if isinstance(x, dict):
        return {key: unfreeze(value) for key, value in x.items()}
    return x


def copy(
    x: FrozenDict[Any, Any] | dict[str, Any],
    add_or_replace: (FrozenDict[str, Any] | dict[str, Any]) = FrozenDict({}),  # noqa: B008  (immutable)
) -> FrozenDict[Any, Any] | dict[str, Any]:
    """A copy with other or additional items, frozen if the original is.

    Args:
        x: A `FrozenDict` or dict.
        add_or_replace: The items.

    Raises:
        TypeError: `x` is something else.
    """
    if isinstance(x, FrozenDict):
        return x.copy(add_or_replace)
    if not isinstance(x, dict):
        raise _no_dict("copy", x)
    changed = jax.tree.map(lambda leaf: leaf, x)
    changed.update(add_or_replace)
    return changed


def pop(
    x: FrozenDict[Any, Any] | dict[str, Any], key: str
) -> tuple[FrozenDict[Any, Any] | dict[str, Any], Any]:
    """A copy without a key, and the key's value; `x` itself stays as it is.

    Args:
        x: A `FrozenDict` or dict.
        key: It must be there.

    Raises:
        TypeError: `x` is something else.
        KeyError: The key is not there.
    """
    if isinstance(x, FrozenDict):
        return x.pop(key)
    if not isinstance(x, dict):
        raise _no_dict("pop", x)
    rest = jax.tree.map(lambda leaf: leaf, x)
    return rest, rest.pop(key)


def _no_dict(function: str, x: Any) -> TypeError:
    return TypeError(
        f"Expected FrozenDict or dict, got {type(x)}: `{function}` of "
        "`flax.core` works on those two only."
    )


def _restore(target: FrozenDict[Any, Any], state: dict[str, Any]) -> Any:
    return FrozenDict(serialization.from_state_dict(target._dict, state))


serialization.register_serialization_state(
    FrozenDict, lambda x: serialization.to_state_dict(x._dict), _restore
)
