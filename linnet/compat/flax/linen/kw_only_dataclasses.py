"""Dataclasses some of whose fields stand last, after those of subclasses.

Fields made by `field(kw_only=True)` here move behind all others in the constructor of
each subclass, so that `parent` and `name` of a module never get between its own fields.
They can still be given by position, at the end.
"""

import dataclasses
import inspect
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, TypeVar

M = TypeVar("M")
FieldName = str
Annotation = Any
Default = Any

__all__ = ["KW_ONLY", "dataclass", "field"]


class _KwOnlyType:
    """Its annotation marks that the fields after it are keyword-only."""


KW_ONLY = _KwOnlyType()
_NONE = object()


def field(
    *, metadata: Any = None, kw_only: Any = dataclasses.MISSING, **kwargs: Any
) -> Any:
    """`dataclasses.field`, with `kw_only` kept among the metadata."""
    if kw_only is not dataclasses.MISSING and kw_only:
        metadata = {**(metadata or {}), KW_ONLY: True}
    return dataclasses.field(metadata=metadata, **kwargs)


def dataclass(
    cls: type | None = None,
    extra_fields: Sequence[tuple[str, Any, Any]] | None = None,
    **kwargs: Any,
) -> Any:
    """`dataclasses.dataclass` that puts keyword-only fields last.

    Args:
        cls: The class.
        extra_fields: Fields (name, type, default) to add to those of the class.
        **kwargs: As in `dataclasses.dataclass`.
    """
    if cls is None:
        return lambda cls: _process(cls, extra_fields, **kwargs)
    return _process(cls, extra_fields, **kwargs)


def _process(cls: type, extra_fields: Any, **kwargs: Any) -> type:
    annotations = dict(inspect.get_annotations(cls))
    values: dict[str, Any] = {
        name: cls.__dict__[name] for name in annotations if name in cls.__dict__
    }
    last: dict[str, tuple[Any, Any]] = {}
    own: dict[str, Any] = {}
    after_marker = False
    for name, of_type in annotations.items():
        if of_type is KW_ONLY:
            after_marker = True
            continue
        value = values.get(name, dataclasses.MISSING)
        if after_marker and not _is_kw_only(value):
            value = _marked(value)
        if _is_kw_only(value):
            last[name] = (of_type, value)
        else:
            own[name] = of_type
    for name, of_type, value in extra_fields or ():
        last[name] = (of_type, value)
    if any(_has_no_default(value) for _, value in last.values()):
        raise ValueError("Keyword-only fields with no default are not supported.")

    given = set(last)
    inherited = _take_kw_only(cls)
    for _, fields in inherited:
        for name, of in fields.items():
            if name in own:
                value = _marked(values[name]) if name in values else _copied(of)
                last[name] = (own.pop(name), value)
                given.add(name)
            elif name not in given:
                last[name] = (of.type, _copied(of))
    extra = [name for name, _, _ in extra_fields or ()]
    first = [name for _, fields in inherited for name in fields if name not in extra]
    ordered = {k: last[k] for k in (*first, *last) if k not in extra}
    ordered.update({k: last[k] for k in extra})
    for name, (_, value) in ordered.items():
        if value is dataclasses.MISSING:
            if name in cls.__dict__:
                delattr(cls, name)
        else:
            setattr(cls, name, value)
    cls.__annotations__ = {**own, **{k: of_type for k, (of_type, _) in ordered.items()}}
    try:
        made: Any = dataclasses.dataclass(cls, **kwargs)
    finally:
        for base, fields in inherited:
            base.__dataclass_fields__.update(fields)  # type: ignore[attr-defined]
    made.__annotations__ = annotations
    return made


def _is_kw_only(value: Any) -> bool:
    return isinstance(value, dataclasses.Field) and KW_ONLY in value.metadata


def _has_no_default(value: Any) -> bool:
    if not isinstance(value, dataclasses.Field):
        return value is dataclasses.MISSING
    missing = dataclasses.MISSING
    return value.default is missing and value.default_factory is missing


def _marked(value: Any) -> Any:
    if isinstance(value, dataclasses.Field):
        value.metadata = MappingProxyType({**value.metadata, KW_ONLY: True})
        return value
    if value is dataclasses.MISSING:
        return field(kw_only=True)
    return field(default=value, kw_only=True)


def _copied(of: Any) -> Any:
    """A new field like one of a base class."""
    given = {
        "default": of.default,
        "default_factory": of.default_factory,
        "init": of.init,
        "repr": of.repr,
        "hash": of.hash,
        "compare": of.compare,
        "metadata": of.metadata,
        "kw_only": of.kw_only,
    }
    return dataclasses.field(
        **{
            key: value
            for key, value in given.items()
            if value is not dataclasses.MISSING
        }
    )


def _take_kw_only(cls: type) -> list[tuple[type, dict[str, Any]]]:
    """Takes the keyword-only fields out of the base classes, for a while."""
    taken = []
    for base in cls.__mro__[-1:0:-1]:
        fields = base.__dict__.get("__dataclass_fields__", {})
        found = {name: of for name, of in fields.items() if KW_ONLY in of.metadata}
        for name in found:
            del fields[name]
        if found:
            taken.append((base, found))
    return taken
