"""How a model prints: short, with shapes instead of numbers."""

import inspect
from typing import Any

import jax
import numpy as np

from linnet._errors import describe
from linnet.core._node import (
    Node,
    is_declared,
    is_open,
    opened_or_none,
    shown,
    spec_or_none,
)
from linnet.core._value import Static

_WIDTH = 88
_MAX_LINES = 40
_MAX_PARTS = 24


def show(module: Any) -> str:
    """The model as text. Equal neighbours are counted, deep parts are folded."""
    for depth in range(8, 0, -1):
        text = _show(module, "", depth, 0)
        if text.count("\n") < _MAX_LINES:
            return text
    return text


def _show(value: Any, indent: str, depth: int, lead: int) -> str:
    """The value as text, where `lead` characters of its first line are taken."""
    if isinstance(value, Node):
        return _show_module(value, indent, depth, lead)
    if isinstance(value, Static):
        return _short(value.value)
    if is_declared(value):
        return repr(value)
    if isinstance(value, dict):
        items = [f"{key!r}: " for key in value]
        return _group("{", items, list(value.values()), "}", indent, depth, lead)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        names = [f"{name}=" for name in value._fields]
        head = f"{type(value).__name__}("
        return _group(head, names, list(value), ")", indent, depth, lead)
    if isinstance(value, list | tuple):
        if not any(isinstance(x, Node | jax.Array) or is_declared(x) for x in value):
            return _short(value)
        ends = "[]" if isinstance(value, list) else "()"
        heads = [""] * len(value)
        return _group(ends[0], heads, list(value), ends[1], indent, depth, lead)
    return _short(value)


def _show_module(module: Node, indent: str, depth: int, lead: int) -> str:
    name = type(module).__name__
    opened = opened_or_none(module)
    if opened is not None:
        return f"<open {name} at {module.path or 'the root'}>"  # type: ignore[attr-defined]
    spec = spec_or_none(module)
    if spec is None:
        return f"<{name} under construction>"
    if depth <= 0:
        return f"{name}(...)"
    values = {k: v for k, v in spec.static.items() if not _is_default(module, k, v)}
    values |= zip(spec.names, module._children, strict=True)
    heads = [f"{key}=" for key in values]
    parts = list(values.values())
    return _group(f"{name}(", heads, parts, ")", indent, depth, lead)


def _is_default(module: Node, name: str, value: Any) -> bool:
    """Options that were left at their default say nothing."""
    defaults = _defaults(type(module))
    if name not in defaults:
        return False
    return bool(Static(value) == Static(defaults[name]))


def _defaults(cls: type) -> dict[str, Any]:
    try:
        parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    except (TypeError, ValueError):
        return {}
    found = {}
    for name, parameter in parameters.items():
        try:
            hash(parameter.default)
        except TypeError:
            continue
        if parameter.default is not parameter.empty:
            found[name] = parameter.default
    return found


def _group(
    start: str,
    heads: list[str],
    values: list[Any],
    end: str,
    indent: str,
    depth: int,
    lead: int,
) -> str:
    inner = indent + "  "
    parts: list[str] = []
    count = 1
    previous: str | None = None
    for head, value in zip(heads, values, strict=True):
        text = _show(value, inner, depth - 1, len(head) + 1)
        if head == "" and text == previous:
            count += 1
            parts[-1] = f"{count} x {text}"
            continue
        previous, count = (text, 1) if head == "" else (None, 1)
        parts.append(head + text)
    if len(parts) > _MAX_PARTS:
        left_out = f"... {len(parts) - _MAX_PARTS + 1} more"
        parts = [*parts[: _MAX_PARTS - 4], left_out, *parts[-3:]]
    line = start + ", ".join(parts) + end
    if "\n" not in line and len(indent) + lead + len(line) <= _WIDTH:
        return line
    body = "".join(f"{inner}{part},\n" for part in parts)
    return f"{start}\n{body}{indent}{end}"


def _short(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return describe(value)
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, np.dtype):
        return value.name
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def treescope_repr(module: Any, path: Any, subtree_renderer: Any) -> Any:
    """How treescope shows a module in a notebook: foldable, arrays as pictures."""
    from treescope import repr_lib

    if is_open(module):
        return NotImplemented
    spec = module._spec
    attributes = {k: v for k, v in spec.static.items() if not _is_default(module, k, v)}
    attributes |= {
        name: shown(child) if name in spec.wrapped else child
        for name, child in zip(spec.names, module._children, strict=True)
    }
    return repr_lib.render_object_constructor(
        object_type=type(module),
        attributes=attributes,
        path=path,
        subtree_renderer=subtree_renderer,
        roundtrippable=False,
    )
