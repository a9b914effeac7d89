"""How modules print."""

from typing import Any

import jax

from linnet.compat.flax.linen._adopt import is_module


def module_repr(module: Any, num_spaces: int = 4) -> str:
    """The class, the fields and the children of a module, one on each line."""
    indent = " " * num_spaces
    fields = [
        name
        for name, of in type(module).__dataclass_fields__.items()
        if of.repr and of.init and name not in ("parent", "name")
    ]
    children = {
        name: child
        for name, child in module._state.children.items()
        if is_module(child)
    }
    lines = []
    if fields:
        lines.append(f"{indent}# attributes")
        for name in fields:
            value = _value_repr(getattr(module, name), num_spaces)
            lines.append(f"{indent}{name} = {value}")
    if children:
        lines.append(f"{indent}# children")
        for name, child in children.items():
            lines.append(f"{indent}{name} = {_indented(repr(child), num_spaces)}")
    cls = type(module).__name__
    return f"{cls}(\n" + "\n".join(lines) + "\n)" if lines else f"{cls}()"


def _value_repr(value: Any, num_spaces: int) -> str:
    if callable(value) and not is_module(value) and not isinstance(value, dict):
        text = getattr(value, "__name__", None) or repr(value)
    else:
        text = repr(value)
    return _indented(text, num_spaces)


def _indented(text: str, num_spaces: int) -> str:
    return text.replace("\n", "\n" + " " * num_spaces)


def shape_text(x: Any) -> str:
    """`float32[2,3]` for an array, or the value itself."""
    if isinstance(x, jax.Array | jax.ShapeDtypeStruct):
        return f"{x.dtype}[{','.join(map(str, x.shape))}]"
    return repr(x)
