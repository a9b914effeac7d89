"""How a class of modules becomes a dataclass."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from linnet.compat.flax import errors
from linnet.compat.flax.core.scope import Scope
from linnet.compat.flax.linen import kw_only_dataclasses
from linnet.compat.flax.linen._adopt import ModuleBase
from linnet.compat.flax.linen._state import (
    ParentDescriptor,
    _Sentinel,
    _unspecified_parent,
)


def make_dataclass(cls: Any, kw_only: bool) -> None:
    annotations = inspect.get_annotations(cls)
    if "parent" in annotations or "name" in annotations:
        raise errors.ReservedModuleAttributeError(annotations)
    if "__annotations__" not in cls.__dict__:
        cls.__annotations__ = {}
    extra = [
        (
            "parent",
            ModuleBase | Scope | _Sentinel | None,
            kw_only_dataclasses.field(
                repr=False, default=_unspecified_parent, kw_only=True
            ),
        ),
        ("name", str | None, kw_only_dataclasses.field(default=None, kw_only=True)),
    ]
    kw_only_dataclasses.dataclass(
        cls,
        unsafe_hash="__hash__" not in cls.__dict__,
        repr=False,
        kw_only=kw_only,
        extra_fields=extra,
    )
    cls.parent = ParentDescriptor()
    if "__hash__" in cls.__dict__:
        cls.__hash__ = _hash_of_unbound(cls.__hash__)


def _hash_of_unbound(of_fields: Callable[[Any], int]) -> Callable[[Any], int]:
    @functools.wraps(of_fields)
    def __hash__(self: Any) -> int:
        if self.scope is not None:
            raise TypeError("Can't call __hash__ on modules that hold variables.")
        return of_fields(self)

    return __hash__


def init_fields(cls: Any) -> tuple[str, ...]:
    """The fields that the constructor takes, without `parent` and `name`."""
    found = cls.__dict__.get("_init_fields")
    if found is None:
        found = cls._init_fields = tuple(
            name
            for name, of in cls.__dataclass_fields__.items()
            if of.init and name not in ("parent", "name")
        )
    return found
