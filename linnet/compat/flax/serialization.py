"""State dicts: nested dicts with string keys, to store and to restore objects."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax

from . import _msgpack

__all__ = [
    "MAX_CHUNK_SIZE",
    "current_path",
    "from_bytes",
    "from_state_dict",
    "is_serializable",
    "msgpack_restore",
    "msgpack_serialize",
    "register_serialization_state",
    "to_bytes",
    "to_state_dict",
]

MAX_CHUNK_SIZE = 2**30  # bytes; MessagePack ends at 2**32 - 1

_ToState = Callable[[Any], Any]
_FromState = Callable[[Any, Any], Any]
_STATE_DICT_REGISTRY: dict[type, tuple[_ToState, _FromState]] = {}


class _Place(threading.local):
    """Where in the tree `from_state_dict` is at work."""

    def __init__(self) -> None:
        self.path: list[str] = []


_place = _Place()


@contextlib.contextmanager
def _at(name: str) -> Iterator[None]:
    _place.path.append(name)
    try:
        yield
    finally:
        _place.path.pop()


def current_path() -> str:
    """The path that is being restored, such as `./params/kernel`."""
    return "/".join(_place.path)


def _handlers(x: Any) -> tuple[_ToState, _FromState] | None:
    kind = _NamedTuple if _is_namedtuple(x) else type(x)
    return _STATE_DICT_REGISTRY.get(kind)


class _NamedTuple:
    """Under this type, all named tuples are registered."""


def _is_namedtuple(x: Any) -> bool:
    return isinstance(x, tuple) and hasattr(x, "_fields")


def from_state_dict(target: Any, state: dict[str, Any], name: str = ".") -> Any:
    """Restores an object from its state dict.

    Args:
        target: An object of the structure that is wanted; its leaves are replaced.
        state: As `to_state_dict` gave it.
        name: What errors call the target.

    Returns:
        An object like `target`. What has no registered type is the state itself.

    Raises:
        ValueError: The state has other keys or another length than the target.
    """
    handlers = _handlers(target)
    if handlers is None:
        return state
    with _at(name):
        return handlers[1](target, state)


def to_state_dict(target: Any) -> dict[str, Any]:
    """The state of an object as nested dicts with string keys.

    Args:
        target: Of a registered type, such as dicts, lists, tuples and dataclasses of
            `flax.struct`. Anything else is returned as it is.
    """
    handlers = _handlers(target)
    if handlers is None:
        return target
    state = handlers[0](target)
    for key in state if isinstance(state, dict) else ():
        if not isinstance(key, str):
            raise AssertionError(
                f"A state dict must only have string keys, but that of "
                f"{type(target).__name__} has the key {key!r}. "
                "Return `str(key)` from the function that was registered for it."
            )
    return state


def is_serializable(target: Any) -> bool:
    """Whether the type of an object, or a type, is registered.

    Args:
        target: An object or a type.
    """
    return (
        target if isinstance(target, type) else type(target)
    ) in _STATE_DICT_REGISTRY


def register_serialization_state(
    ty: type,
    ty_to_state_dict: _ToState,
    ty_from_state_dict: _FromState,
    override: bool = False,
) -> None:
    """Says how objects of a type become state dicts and come back.

    Args:
        ty: The type itself; subclasses are registered on their own.
        ty_to_state_dict: From the object to nested dicts with string keys.
        ty_from_state_dict: From a target of the type and its state to a new object.
        override: Whether to replace what was registered.

    Raises:
        ValueError: The type is registered already.
    """
    if ty in _STATE_DICT_REGISTRY and not override:
        raise ValueError(
            f'a serialization handler for "{ty.__name__}" is already registered. '
            "Pass `override=True` to replace it."
        )
    _STATE_DICT_REGISTRY[ty] = ty_to_state_dict, ty_from_state_dict


# ---- the types of Python


def _wrong_state(target: Any, state: Any, error: type[Exception]) -> Exception:
    return error(
        f"at path {current_path()} the target is a {type(target).__name__}, whose "
        f"state is a dict, but the state is a {type(state).__name__}. "
        "The state was written from an object of another structure."
    )


def _mismatch(what: str, hint: str) -> ValueError:
    """An error whose text programs may know by heart; the hint stands below it."""
    error = ValueError(f"{what} at path {current_path()}")
    error.add_note(hint)
    return error


def _list_to_state(xs: list[Any] | tuple[Any, ...]) -> dict[str, Any]:
    return {str(index): to_state_dict(x) for index, x in enumerate(xs)}


def _restored_items(xs: list[Any] | tuple[Any, ...], state: Any) -> list[Any]:
    if not hasattr(state, "keys"):
        raise _wrong_state(xs, state, TypeError)
    if len(state) != len(xs):
        raise _mismatch(
            "The size of the list and the state dict do not match, got "
            f"{len(xs)} and {len(state)}",
            "Make the target with as many items as were stored.",
        )
    keys = map(str, range(len(xs)))
    return [from_state_dict(x, state[k], k) for x, k in zip(xs, keys, strict=True)]


def _dict_state_dict(xs: dict[Any, Any]) -> dict[str, Any]:
    state = {str(key): to_state_dict(value) for key, value in xs.items()}
    if len(state) != len(xs):
        raise ValueError(
            "Dict keys do not have a unique string representation: "
            f"{sorted(map(repr, xs))} become {sorted(state)}. Rename one of them."
        )
    return state


def _restore_dict(xs: dict[Any, Any], state: Any) -> dict[Any, Any]:
    if not hasattr(state, "keys"):
        raise _wrong_state(xs, state, AttributeError)
    missing = set(map(str, xs)) - set(state)
    if missing:
        raise _mismatch(
            "The target dict keys and state dict keys do not match, target dict "
            f"contains keys {missing} which are not present in state dict",
            f"Was it stored from another model? It has {sorted(map(str, state))}.",
        )
    return {k: from_state_dict(v, state[str(k)], str(k)) for k, v in xs.items()}


def _namedtuple_to_state(xs: Any) -> dict[str, Any]:
    return {name: to_state_dict(getattr(xs, name)) for name in xs._fields}


def _namedtuple_from_state(xs: Any, state: Any) -> Any:
    if not hasattr(state, "keys"):
        raise _wrong_state(xs, state, AttributeError)
    if set(state) == {"name", "fields", "values"}:  # Flax before 2020
        count = range(len(state["fields"]))
        state = {state["fields"][str(i)]: state["values"][str(i)] for i in count}
    if set(state) != set(xs._fields):
        raise _mismatch(
            "The field names of the state dict and the named tuple do not match, got "
            f"{set(state)} and {set(xs._fields)}",
            "Was it stored from another optimizer, or by another version of it?",
        )
    return type(xs)(**{k: from_state_dict(getattr(xs, k), state[k], k) for k in state})


def _partial_to_state(x: Any) -> dict[str, Any]:
    return {"args": to_state_dict(x.args), "keywords": to_state_dict(x.keywords)}


def _partial_from_state(x: Any, state: Any) -> Any:
    args = from_state_dict(x.args, state["args"], "args")
    keywords = from_state_dict(x.keywords, state["keywords"], "keywords")
    return jax.tree_util.Partial(x.func, *args, **keywords)


register_serialization_state(dict, _dict_state_dict, _restore_dict)
register_serialization_state(list, _list_to_state, _restored_items)
register_serialization_state(
    tuple, _list_to_state, lambda xs, state: tuple(_restored_items(xs, state))
)
register_serialization_state(_NamedTuple, _namedtuple_to_state, _namedtuple_from_state)
register_serialization_state(
    jax.tree_util.Partial, _partial_to_state, _partial_from_state
)


# ---- bytes


def msgpack_serialize(pytree: Any, in_place: bool = False) -> bytes:
    """The bytes of a state dict as MessagePack.

    Args:
        pytree: Dicts and lists of arrays, numbers, texts, bytes and None.
        in_place: Whether dicts may be changed, which saves a copy of them.

    Raises:
        TypeError: Something else is among the leaves; `to_bytes` converts the types
            that are registered.
    """
    tree = pytree if in_place else jax.tree.map(lambda leaf: leaf, pytree)
    return _msgpack.packed(_chunk_array_leaves_in_place(tree))


def msgpack_restore(encoded_pytree: bytes) -> Any:
    """The state dict that these bytes hold, with NumPy arrays.

    Args:
        encoded_pytree: As `msgpack_serialize` gave it.
    """
    return _unchunk_array_leaves_in_place(_msgpack.unpacked(encoded_pytree))


def to_bytes(target: Any) -> bytes:
    """The state of an object as bytes.

    Args:
        target: Of a registered type, such as a train state.

    Example:
        >>> data = to_bytes({"step": 3})
        >>> from_bytes({"step": 0}, data)
        {'step': 3}
    """
    return msgpack_serialize(to_state_dict(target), in_place=True)


def from_bytes(target: Any, encoded_bytes: bytes) -> Any:
    """Restores an object from its bytes.

    Args:
        target: An object of the structure that is wanted, or None for a state dict.
        encoded_bytes: As `to_bytes` gave it.
    """
    return from_state_dict(target, msgpack_restore(encoded_bytes))


# ---- kept for the code that imports them

_msgpack_ext_pack = _msgpack.encoded
_msgpack_ext_unpack = _msgpack.decoded
_ndarray_to_bytes = _msgpack.array_bytes
_ndarray_from_bytes = _msgpack.array


def _chunk_array_leaves_in_place(d: Any) -> Any:
    return _msgpack.with_chunks(d, MAX_CHUNK_SIZE)


def _unchunk_array_leaves_in_place(d: Any) -> Any:
    return _msgpack.without_chunks(d)
