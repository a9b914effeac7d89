"""Static values: what makes two of them the same, and containers nobody can change."""

import dataclasses
import functools
import importlib
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np

from linnet._errors import FrozenError


def identity(value: Any) -> Any:
    """A hashable key that is equal for values that mean the same configuration.

    `1`, `1.0` and `True` are equal in Python and differ here, as do `0.0` and
    `-0.0`. Functions made by the same line with the same closure are the same:
    `normal(0.02)` called once per layer must not make every layer a new kind.

    Raises:
        TypeError: The value cannot be hashed.
    """
    return _identity(value, ())


def _identity(value: Any, seen: tuple[int, ...]) -> Any:
    kind = type(value)
    if kind in (int, bool, str, bytes, types.NoneType):
        return kind, value
    if kind is float:
        return kind, value.hex()
    if isinstance(value, np.generic):
        return kind, value.dtype.str, value.tobytes()
    if kind is complex:
        return kind, value.real.hex(), value.imag.hex()
    if isinstance(value, tuple):
        return kind, *(_identity(item, seen) for item in value)
    if kind is frozenset:
        return kind, frozenset(_identity(item, seen) for item in value)
    if kind is ReadOnlyDict:
        items = ((_identity(k, seen), _identity(v, seen)) for k, v in value.items())
        return kind, *items
    if kind is types.FunctionType:
        return _function_identity(value, seen)
    if kind is functools.partial:
        return (
            kind,
            _identity(value.func, seen),
            _identity(value.args, seen),
            _identity(ReadOnlyDict(value.keywords), seen),
        )
    if _is_plain_frozen_dataclass(kind):
        names = (field.name for field in dataclasses.fields(value))
        return kind, *(_identity(getattr(value, name), seen) for name in names)
    hash(value)
    return kind, value


def _function_identity(fn: types.FunctionType, seen: tuple[int, ...]) -> Any:
    if id(fn) in seen or fn.__dict__:
        return types.FunctionType, fn
    seen = (*seen, id(fn))
    try:
        cells = tuple(_identity(c.cell_contents, seen) for c in fn.__closure__ or ())
        defaults = _identity(fn.__defaults__ or (), seen)
        keywords = _identity(ReadOnlyDict(fn.__kwdefaults__ or {}), seen)
    except (TypeError, ValueError):  # unhashable content, or a cell still empty
        return types.FunctionType, fn
    module = id(fn.__globals__)
    return types.FunctionType, fn.__code__, module, defaults, keywords, cells


def _is_plain_frozen_dataclass(kind: type) -> bool:
    params = getattr(kind, "__dataclass_params__", None)
    return (
        params is not None
        and params.frozen
        and params.eq
        and "__dataclass_fields__" in kind.__dict__
        and getattr(kind.__eq__, "__qualname__", "").endswith("__eq__")
        and kind.__dict__.get("__hash__") is not None
    )


class ReadOnlyDict(dict[Any, Any]):
    """A dict inside a model. Like the model it cannot be changed in place.

    Unlike JAX's own treatment of dicts it keeps its order, so that a loop over a dict
    of layers runs in the order in which they were written, before and after a `jit`.
    """

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise FrozenError(
            "a dict inside a model cannot be changed in place.",
            code="LN-FROZEN-02",
            why="A model is a value: a change would not reach what was made from it.",
            fixes=[
                (
                    "the model should hold another dict",
                    "model = model.replace(heads={**model.heads, 'new': nn.Dense(2)})",
                ),
                ("a copy is enough", "heads = dict(model.heads)"),
            ],
        )

    __setitem__ = __delitem__ = update = pop = popitem = clear = _refuse
    setdefault = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return ReadOnlyDict, (dict(self),)


def _flatten_dict(mapping: ReadOnlyDict) -> tuple[Any, Any]:
    return tuple(mapping.values()), tuple(mapping)


def _flatten_dict_with_keys(mapping: ReadOnlyDict) -> tuple[Any, Any]:
    key = jax.tree_util.DictKey
    return tuple((key(k), value) for k, value in mapping.items()), tuple(mapping)


jax.tree_util.register_pytree_with_keys(
    ReadOnlyDict,
    _flatten_dict_with_keys,
    lambda keys, values: ReadOnlyDict(zip(keys, values, strict=True)),
    _flatten_dict,
)


class Static:
    """A static value inside a container of modules; as a pytree it has no leaves."""

    __slots__ = ("_key", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self._key = identity(value)

    def __eq__(self, other: object) -> bool:
        return type(other) is Static and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Static({self.value!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored_static, (by_name(self.value),)

    def __deepcopy__(self, memo: Any) -> "Static":
        return self


jax.tree_util.register_pytree_node(
    Static, lambda static: ((), static), lambda static, _: static
)


def in_order_of(pattern: Any, value: Any) -> Any:
    """The value with its dicts in the order of those of another one."""
    if isinstance(pattern, ReadOnlyDict) and isinstance(value, ReadOnlyDict):
        if pattern.keys() != value.keys():
            return value
        pairs = ((key, in_order_of(pattern[key], value[key])) for key in pattern)
        return ReadOnlyDict(pairs)
    if type(pattern) is type(value) is tuple and len(pattern) == len(value):
        return tuple(map(in_order_of, pattern, value))
    return value


@dataclasses.dataclass(frozen=True)
class Named:
    """Stands in a pickle for a callable that its module holds under its name."""

    module: str
    name: str


def by_name(value: Any) -> Any:
    """A static value in a form that can be pickled.

    Pickle knows functions by their name, but not what `jax.jit` or `jax.custom_jvp`
    made of them, such as `jnp.tanh` and `jax.nn.relu`.
    """
    if isinstance(value, ReadOnlyDict):
        return ReadOnlyDict({key: by_name(item) for key, item in value.items()})
    if type(value) is tuple:
        return tuple(map(by_name, value))
    if not callable(value) or isinstance(value, type | types.FunctionType):
        return value
    module = str(getattr(value, "__module__", None))
    name = str(getattr(value, "__name__", None))
    if module == "__main__":  # another process has another one
        return value
    is_there = getattr(sys.modules.get(module), name, None) is value
    return Named(module, name) if is_there else value


def restored(value: Any) -> Any:
    """The static value that `by_name` was given."""
    if isinstance(value, ReadOnlyDict):
        return ReadOnlyDict({key: restored(item) for key, item in value.items()})
    if type(value) is tuple:
        return tuple(map(restored, value))
    if isinstance(value, Named):
        return getattr(importlib.import_module(value.module), value.name)
    return value


def _restored_static(value: Any) -> Static:
    return Static(restored(value))


def frozen(value: Any, leaf: Callable[[Any], Any] = lambda x: x) -> Any:
    """Lists as tuples and dicts as read-only ones, all the way down."""
    if type(value) in (list, tuple):
        return tuple(frozen(item, leaf) for item in value)
    if isinstance(value, dict):
        return ReadOnlyDict({key: frozen(item, leaf) for key, item in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(frozen(item, leaf) for item in value))
    return leaf(value)
