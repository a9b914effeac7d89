"""Dataclasses that cannot be changed, and are pytrees."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import jax

from . import serialization

__all__ = ["PyTreeNode", "TNode", "dataclass", "field"]

_T = TypeVar("_T")
TNode = TypeVar("TNode", bound="PyTreeNode")


def field(
    pytree_node: bool = True, *, metadata: dict[str, Any] | None = None, **kwargs: Any
) -> Any:
    """A field of a dataclass, as `dataclasses.field`.

    Args:
        pytree_node: Whether it holds a child of the pytree. If not, it belongs to the
            tree's structure: it is compared and hashed, never traced.
        metadata: Of the field; `pytree_node` is added.
        **kwargs: As for `dataclasses.field`.
    """
    metadata = {**(metadata or {}), "pytree_node": pytree_node}
    return dataclasses.field(metadata=metadata, **kwargs)


@dataclass_transform(field_specifiers=(field,))
def dataclass(clz: _T | None = None, **kwargs: Any) -> _T | Callable[[_T], _T]:
    """Makes a class a frozen dataclass and a pytree, with a method `replace`.

    Args:
        clz: The class. Without it, a decorator is returned.
        **kwargs: As for `dataclasses.dataclass`; `frozen` is True unless given.

    Example:
        >>> from linnet.compat.flax import struct
        >>> @struct.dataclass
        ... class Model:
        ...     params: float
        ...     name: str = struct.field(pytree_node=False, default="mlp")
        >>> jax.tree.map(lambda p: 2 * p, Model(3.0)).replace(name="cnn")
        Model(params=6.0, name='cnn')
    """
    if clz is None:
        return functools.partial(dataclass, **kwargs)  # type: ignore[return-value]
    cls: Any = clz
    if "_flax_dataclass" in cls.__dict__:
        return cls
    cls = dataclasses.dataclass(**{"frozen": True, **kwargs})(cls)
    fields = dataclasses.fields(cls)
    leads = [f.metadata.get("pytree_node", True) for f in fields if f.init]
    names = [f.name for f in fields if f.init]
    data = [name for name, lead in zip(names, leads, strict=True) if lead]
    meta = [name for name, lead in zip(names, leads, strict=True) if not lead]

    def replace(self: Any, **updates: Any) -> Any:
        """A copy with other values in some fields."""
        return dataclasses.replace(self, **updates)

    cls.replace = replace
    jax.tree_util.register_dataclass(cls, data, meta)
    serialization.register_serialization_state(
        cls,
        lambda x: {k: serialization.to_state_dict(getattr(x, k)) for k in data},
        functools.partial(_restored, data),
    )
    cls._flax_dataclass = True
    return cls


def _restored(names: list[str], target: Any, state: Any) -> Any:
    """The dataclass with its children from a state dict."""
    name, path = type(target).__name__, serialization.current_path()
    if not hasattr(state, "keys"):
        raise AttributeError(
            f"the state of {name} at path {path} is a {type(state).__name__}, not a "
            "dict. Was it stored from an object of another type?"
        )
    for key in names:
        if key not in state:
            raise ValueError(
                f"Missing field {key} in state dict while restoring an instance of "
                f"{name}, at path {path}. It holds {sorted(state)}."
            )
    unknown = [key for key in state if key not in names]
    if unknown:
        raise ValueError(
            f'Unknown field(s) "{",".join(unknown)}" in state dict while restoring an '
            f"instance of {name} at path {path}. Its fields are {names}."
        )
    restore = serialization.from_state_dict
    return target.replace(
        **{key: restore(getattr(target, key), state[key], key) for key in names}
    )


@dataclass_transform(field_specifiers=(field,))
class PyTreeNode:
    """Base of classes that are dataclasses and pytrees, as `dataclass` makes them.

    Options of `dataclass` are given to the class statement:
    `class State(PyTreeNode, kw_only=True)`.

    Args:
        *args: The fields, as subclasses state them.
        **kwargs: The fields, as subclasses state them.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__()
        dataclass(cls, **kwargs)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            "PyTreeNode has no fields itself. Derive a class from it that has."
        )

    def replace(self: TNode, **overrides: Any) -> TNode:
        """A copy with other values in some fields.

        Args:
            **overrides: The new values by name.
        """
        raise NotImplementedError("subclasses replace it: please report this.")
