"""What a layer's docstring says about shapes, compared with shapes."""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

_ENTRY = re.compile(r"^ {4}(\w+): `\[(.*?)\]`", re.MULTILINE)
_CHANGE = re.compile(r"^ {4}\w+: `\[(.*?)\]`\s+->\s+`\[(.*?)\]`", re.MULTILINE)
_NAME = re.compile(r"^ {4}(\w+):", re.MULTILINE)


def _section(cls: type, title: str) -> str:
    doc = inspect.cleandoc(cls.__doc__ or "") + "\n"
    found = re.search(rf"^{title}:\n((?: +.*\n|\n)*)", doc, re.MULTILINE)
    return found[1] if found else ""


def documented_parameters(cls: type) -> set[str]:
    """The names in the section Parameters."""
    return set(_NAME.findall(_section(cls, "Parameters")))


def shape_complaints(
    cls: type, x: Any, out: Any, arrays: Mapping[str, Any]
) -> Iterator[str]:
    """Where shapes are not what the sections Shapes and Parameters say.

    A letter stands for one size everywhere; `...` and `*W` for any number of axes.
    An expression such as `I / G` is not evaluated.
    """
    sizes: dict[str, int] = {}
    change = _CHANGE.search(_section(cls, "Shapes"))
    pairs = [] if change is None else [("x", change[1], x), ("out", change[2], out)]
    for name, pattern in _ENTRY.findall(_section(cls, "Parameters")):
        if name in arrays:
            pairs.append((name, pattern, arrays[name]))
    for name, pattern, array in pairs:
        if not _fits(pattern, getattr(array, "shape", None), sizes):
            known = ", ".join(f"{k} = {v}" for k, v in sizes.items())
            yield (
                f"`{name}` has shape {getattr(array, 'shape', None)}, but the "
                f"docstring promises [{pattern}] ({known or 'nothing known'})"
            )


def _fits(pattern: str, shape: Any, sizes: dict[str, int]) -> bool:
    """Whether a shape fits, noting the size of each letter met first."""
    if shape is None:
        return False
    words = [word.strip() for word in pattern.split(",") if word.strip()]
    free = [i for i, word in enumerate(words) if word[0] in ".*"]
    if not free:
        return len(words) == len(shape) and _agree(words, shape, sizes)
    before, after = words[: free[0]], words[free[-1] + 1 :]
    return (
        len(before) + len(after) <= len(shape)
        and _agree(before, shape[: len(before)], sizes)
        and _agree(after, shape[len(shape) - len(after) :], sizes)
    )


def _agree(words: list[str], shape: Any, sizes: dict[str, int]) -> bool:
    for word, size in zip(words, shape, strict=True):
        if word.isdigit() and int(word) != size:
            return False
        if word.isidentifier() and sizes.setdefault(word, size) != size:
            return False
    return True
