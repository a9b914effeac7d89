"""What a module keeps besides its fields: its parent, and how far its work has come."""

import enum
import weakref
from typing import Any

from linnet.compat.flax.linen._adopt import is_module


class _Sentinel:
    """Marks that no parent is given: it is the module at work."""

    def __copy__(self) -> "_Sentinel":
        return self

    def __deepcopy__(self, memo: Any) -> "_Sentinel":
        return self

    def __reduce__(self) -> Any:
        return _unspecified_sentinel, ()


def _unspecified_sentinel() -> _Sentinel:
    return _unspecified_parent


_unspecified_parent = _Sentinel()


class SetupState(enum.IntEnum):
    """How far the set-up of a module has come."""

    NEW = 0
    TRANSFORMED = 1
    DONE = 2


class _State:
    """What a module keeps besides its fields."""

    __slots__ = (
        "autoname_cursor",
        "children",
        "in_compact_method",
        "in_setup",
        "is_initialized",
        "setup_called",
    )

    def __init__(self) -> None:
        self.in_compact_method = False
        self.in_setup = False
        self.setup_called = SetupState.NEW
        self.is_initialized = False
        self.autoname_cursor: dict[str, int] = {}
        self.children: dict[str, Any] = {}

    def reset(self) -> None:
        """The state after a compact method or a set-up."""
        self.in_compact_method = False
        self.in_setup = False
        self.autoname_cursor = {}

    def export(self) -> "_State":
        """The state for the clone of a module inside a transform."""
        state = _State()
        state.in_compact_method = self.in_compact_method
        state.in_setup = self.in_setup
        state.is_initialized = self.is_initialized
        state.autoname_cursor = dict(self.autoname_cursor)
        if self.setup_called != SetupState.NEW:
            state.setup_called = SetupState.TRANSFORMED
        return state

    def key(self) -> Any:
        """What a call can depend on."""
        return (
            self.in_compact_method,
            self.in_setup,
            self.is_initialized,
            self.setup_called,
            frozenset(self.autoname_cursor.items()),
        )

    def reimport(self, other: "_State") -> None:
        """Takes over the state of such a clone."""
        self.in_compact_method = other.in_compact_method
        self.in_setup = other.in_setup
        self.is_initialized = other.is_initialized
        self.autoname_cursor = dict(other.autoname_cursor)


_class_state = _State()


class ParentDescriptor:
    """The parent of a module, held weakly."""

    def __get__(self, obj: Any, objtype: Any = None) -> Any:
        """The parent; of the class, the descriptor itself."""
        if obj is None:
            return self
        parent = obj.__dict__.get("_parent_ref", _unspecified_parent)
        return parent() if isinstance(parent, weakref.ReferenceType) else parent

    def __set__(self, obj: Any, value: Any) -> None:
        """Sets the parent."""
        if is_module(value):
            value = weakref.ref(value)
        obj.__dict__["_parent_ref"] = value
