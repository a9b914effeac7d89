"""Changes deep inside an object that cannot be changed, written as assignments."""

import dataclasses
import enum
import operator
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

from .core.frozen_dict import FrozenDict
from .errors import CursorFindError, TraverseTreeError
from .typing import Key

__all__ = [
    "A",
    "AccessType",
    "Cursor",
    "CursorFindError",
    "FrozenDict",
    "Indexable",
    "Key",
    "ParentKey",
    "TraverseTreeError",
    "cursor",
    "is_named_tuple",
]

A = TypeVar("A")


class AccessType(enum.Enum):
    """How a part is taken from its parent."""

    ITEM = enum.auto()
    ATTR = enum.auto()


@dataclasses.dataclass
class ParentKey(Generic[A]):
    """Where a cursor comes from.

    Args:
        parent: The cursor of the parent.
        key: The key, index or name in it.
        access_type: Which of them.
    """

    parent: "Cursor[A]"
    key: Any
    access_type: AccessType


class Indexable(Protocol):
    """What has items."""

    def __getitem__(self, key: Any) -> Any: ...


def is_named_tuple(obj: Any) -> bool:
    """Whether an object is a named tuple.

    Args:
        obj: Anything.
    """
    return isinstance(obj, tuple) and hasattr(obj, "_fields")


class Cursor(Generic[A]):
    """A place in an object, to change a copy of the whole.

    Assignments through it are kept, and `build` makes the changed copy. Operators work
    on what is there: `cursor["step"] += 1`.

    Args:
        obj: What is there.
        parent_key: Where it is. `None` for the whole.
    """

    _obj: A
    _parent_key: ParentKey[Any] | None
    _changes: dict[Any, "Cursor[Any]"]

    def __init__(self, obj: A, parent_key: ParentKey[A] | None) -> None:
        vars(self).update(_obj=obj, _parent_key=parent_key, _changes={})

    @property
    def _root(self) -> "Cursor[Any]":
        return self if self._parent_key is None else self._parent_key.parent._root

    @property
    def _path(self) -> str:
        """The path as Python writes it: `.params['kernel']`."""
        if self._parent_key is None:
            return ""
        key, access = self._parent_key.key, self._parent_key.access_type
        step = f"[{key!r}]" if access is AccessType.ITEM else f".{key}"
        return self._parent_key.parent._path + step

    def _child(self, key: Any, access: AccessType) -> "Cursor[Any]":
        if key not in self._changes:
            item = access is AccessType.ITEM
            obj: Any = self._obj
            value = obj[key] if item else getattr(obj, key)
            self._changes[key] = Cursor(value, ParentKey(self, key, access))
        return self._changes[key]

    def _put(self, key: Any, value: Any, access: AccessType) -> None:
        self._changes[key] = Cursor(value, ParentKey(self, key, access))

    def __getitem__(self, key: Any) -> "Cursor[Any]":
        obj: Any = self._obj
        if key not in self._changes and isinstance(obj, Mapping) and key not in obj:
            raise KeyError(f"Key {key} not found in {obj}")
        return self._child(*self._access(key))

    def __getattr__(self, name: str) -> "Cursor[Any]":
        if name not in self._changes and not hasattr(self._obj, name):
            raise AttributeError(f"Attribute {name} not found in {self._obj}")
        return self._child(name, AccessType.ATTR)

    def __setitem__(self, key: Any, value: Any) -> None:
        key, access = self._access(key)
        self._put(key, value, access)

    def _access(self, key: Any) -> tuple[Any, AccessType]:
        """Key and access of an item; that of a named tuple is known by its name."""
        obj: Any = self._obj
        if is_named_tuple(obj) and isinstance(key, int):
            return obj._fields[key], AccessType.ATTR
        return key, AccessType.ITEM

    def __setattr__(self, name: str, value: Any) -> None:
        self._put(name, value, AccessType.ATTR)

    def set(self, value: Any) -> Any:
        """The whole object, with another value here.

        Args:
            value: The value.
        """
        if self._parent_key is None:
            return value
        where = self._parent_key
        where.parent._put(where.key, value, where.access_type)
        return self._root.build()

    def build(self) -> A:
        """What is here, with the changes made; the original stays as it is."""
        obj: Any = self._obj
        changed = {key: child.build() for key, child in self._changes.items()}
        if isinstance(obj, FrozenDict):
            return obj.copy(changed)  # type: ignore[return-value]
        if is_named_tuple(obj):
            names = {k if isinstance(k, str) else obj._fields[k]: k for k in changed}
            return obj._replace(**{name: changed[k] for name, k in names.items()})
        if isinstance(obj, dict):
            return {**obj, **changed}  # type: ignore[return-value]
        if isinstance(obj, list | tuple):
            items = list(obj)
            for index, value in changed.items():
                items[index] = value
            return items if isinstance(obj, list) else tuple(items)  # type: ignore[return-value]
        if dataclasses.is_dataclass(obj):
            return dataclasses.replace(obj, **changed)  # type: ignore[return-value, type-var]
        return obj

    def apply_update(self, update_fn: Callable[[str, Any], Any]) -> "Cursor[A]":
        """Changes every part that a function changes.

        Args:
            update_fn: Of the path, such as `params/kernel`, and what is there. It
                returns that very object where nothing is to change.

        Returns:
            This cursor. `build` makes the changed copy.
        """
        for step, value in list(_traverse_tree((), self._obj, update_fn=update_fn)):
            *above, (key, access) = step
            self._at(above)._put(key, value, access)
        return self

    def find(self, cond_fn: Callable[[str, Any], bool]) -> "Cursor[Any]":
        """The only part that fulfils a condition.

        Args:
            cond_fn: Of the path, such as `params/kernel`, and what is there.

        Raises:
            CursorFindError: There is none, or there are several.
        """
        found = self.find_all(cond_fn)
        first = next(found, None)
        if first is None:
            raise CursorFindError()
        second = next(found, None)
        if second is not None:
            raise CursorFindError(first, second)
        return first

    def find_all(
        self, cond_fn: Callable[[str, Any], bool]
    ) -> Generator["Cursor[Any]", None, None]:
        """Yields all parts that fulfil a condition; not what is inside such parts.

        Args:
            cond_fn: Of the path, such as `params/kernel`, and what is there.
        """
        for step in list(_traverse_tree((), self._obj, cond_fn=cond_fn)):
            yield self._at(step)

    def _at(self, steps: Any) -> "Cursor[Any]":
        place: Cursor[Any] = self
        for key, access in steps:
            place = place._child(key, access)
        return place

    def _indexed(
        self, method: str, order: Callable[[Any], Any]
    ) -> Iterator["Cursor[Any]"]:
        if not isinstance(self._obj, list | tuple):
            raise NotImplementedError(
                f"{method} method only implemented for tuples and lists, not type "
                f"{type(self._obj)}"
            )
        return (self[index] for index in order(range(len(self._obj))))

    def __iter__(self) -> Iterator["Cursor[Any]"]:
        return self._indexed("__iter__", iter)

    def __reversed__(self) -> Iterator["Cursor[Any]"]:
        return self._indexed("__reversed__", reversed)

    def __len__(self) -> int:
        return len(self._obj)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return str(self._obj)

    def __repr__(self) -> str:
        return self._pretty(0)

    def _pretty(self, margin: int) -> str:
        inside = " " * (margin + 2)
        value = repr(self._obj).replace("\n", f"\n{inside}")
        changes = "{}"
        if self._changes:
            lines = []
            for key, child in self._changes.items():
                head = f"{inside}  {key!r}: "
                lines.append(head + child._pretty(len(head)))
            changes = "{\n" + ",\n".join(lines) + f"\n{inside}}}"
        return (
            f"Cursor(\n{inside}_obj={value},\n{inside}_changes={changes}\n"
            + " " * margin
            + ")"
        )

    def __round__(self, *args: Any) -> Any:
        return round(self._obj, *args)  # type: ignore[call-overload]

    # `==` compares what is there, so that a cursor has no hash.
    __hash__ = None  # type: ignore[assignment]


def _value(x: Any) -> Any:
    return x._obj if isinstance(x, Cursor) else x


def _unary(name: str, function: Callable[[Any], Any]) -> None:
    def method(self: Cursor[Any]) -> Any:
        return function(self._obj)

    method.__name__ = name
    setattr(Cursor, name, method)


def _binary(name: str, function: Callable[[Any, Any], Any], swap: bool) -> None:
    def method(self: Cursor[Any], other: Any) -> Any:
        a, b = self._obj, _value(other)
        return function(b, a) if swap else function(a, b)

    method.__name__ = name
    setattr(Cursor, name, method)


for _name in ("neg", "pos", "abs", "invert"):
    _unary(f"__{_name}__", getattr(operator, f"__{_name}__"))
for _name in ("lt", "le", "eq", "ne", "gt", "ge"):
    _binary(f"__{_name}__", getattr(operator, f"__{_name}__"), swap=False)
for _name in (
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow"),
    *("lshift", "rshift", "and", "xor", "or"),
):
    _function = divmod if _name == "divmod" else getattr(operator, f"__{_name}__")
    _binary(f"__{_name}__", _function, swap=False)
    _binary(f"__r{_name}__", _function, swap=True)


def _parts(obj: Any) -> Iterator[tuple[Any, AccessType, Any]]:
    """Yields key, access and value of the parts of an object that has any."""
    if is_named_tuple(obj):
        yield from ((k, AccessType.ATTR, getattr(obj, k)) for k in obj._fields)
    elif isinstance(obj, dict | FrozenDict):
        yield from ((k, AccessType.ITEM, obj[k]) for k in obj)
    elif isinstance(obj, list | tuple):
        yield from ((i, AccessType.ITEM, value) for i, value in enumerate(obj))
    elif dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        names = [f.name for f in dataclasses.fields(obj)]
        yield from ((k, AccessType.ATTR, getattr(obj, k)) for k in names)


def _traverse_tree(
    path: tuple[Any, ...], obj: Any, *, update_fn: Any = None, cond_fn: Any = None
) -> Iterator[Any]:
    """Yields (steps, value) of parts that change, or steps to those as wanted."""
    if (update_fn is None) == (cond_fn is None):
        raise TraverseTreeError(update_fn, cond_fn)
    for key, access, value in _parts(obj):
        here = (*path, (key, access))
        text = "/".join(str(step[0]) for step in here)
        new = update_fn(text, value) if cond_fn is None else value
        if new is not value or (cond_fn is not None and cond_fn(text, value)):
            yield (here, new) if cond_fn is None else here
        else:
            yield from _traverse_tree(here, value, update_fn=update_fn, cond_fn=cond_fn)


def cursor(obj: A) -> Cursor[A]:
    """A cursor at the whole of an object.

    Args:
        obj: Of dicts, lists, tuples, named tuples and dataclasses.

    Example:
        >>> place = cursor({"a": 1, "b": (2, [3])})
        >>> place["a"] += 10
        >>> place["b"][1][0] = 30
        >>> place.build()
        {'a': 11, 'b': (2, [30])}
    """
    return Cursor(obj, None)
