"""Names of arrays that do not depend on whether layers are stacked.

`nn.Stack`, `nn.Sequential` and a list hold the layers of a network under different
paths. Here `blocks/block/kernel` of a stack is `blocks/*/kernel`, whose first axis is
that of the layers, and `blocks/layers/3/kernel` and `blocks/3/kernel` are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from linnet import nn
from linnet._typing import PyTree, Shape
from linnet.core._path import path_text
from linnet.core._table import Entry, modules, slots


def layered_names(tree: PyTree) -> dict[str, str]:
    """For the path of each array its name, by layers."""
    kinds = {path: type(module) for path, module in modules(tree)}
    _, _, entries = slots(tree)
    return {entry.text: _name(entry, kinds) for entry in entries}


def _name(entry: Entry, kinds: Mapping[Any, type]) -> str:
    words = []
    for i, key in enumerate(entry.path):
        owner = kinds.get(entry.path[:i], object)
        if issubclass(owner, nn.Stack) and path_text((key,)) == "block":
            words.append("*")
        elif not (issubclass(owner, nn.Sequential) and path_text((key,)) == "layers"):
            words.append(path_text((key,)))
    return "/".join(words)


class Found(NamedTuple):
    """How an array comes from those that are stored.

    Attributes:
        sources: The names that are read, each with an index of its stack or `None`.
        value: The array, given those of these names.
    """

    sources: tuple[tuple[str, int | None], ...]
    value: Callable[[Mapping[str, Any]], Any]

    @property
    def is_whole(self) -> bool:
        """Whether it is stored as it is."""
        return len(self.sources) == 1 and self.sources[0][1] is None


def find(name: str, shape: Shape | None, stored: Mapping[str, Shape]) -> Found | None:
    """How an array comes from those that are stored, or `None`.

    Args:
        name: Its name, by layers.
        shape: Its shape, whose leading axes are those of the stacks in its name; `None`
            if it is not to be put together of layers.
        stored: The names that there are, with their shapes.
    """
    if name in stored:
        return Found(((name, None),), lambda arrays: arrays[name])
    words = name.split("/")
    if "*" in words and shape:
        place = words.index("*")
        names = [_with(words, place, str(i)) for i in range(shape[0])]
        layers = [find(name, shape[1:], stored) for name in names]
        parts = [part for part in layers if part is not None]
        if parts and len(parts) == len(layers):
            return Found(
                tuple(source for part in parts for source in part.sources),
                lambda arrays: jnp.stack([part.value(arrays) for part in parts]),
            )
    for place, word in enumerate(words):
        whole = _with(words, place, "*")
        axis, size = words[:place].count("*"), stored.get(whole, ())
        if word.isdigit() and axis < len(size) and int(word) < size[axis]:
            return _layer(whole, axis, int(word))
    return None


def _layer(stack: str, axis: int, i: int) -> Found:
    index = (slice(None),) * axis + (i,)
    return Found(((stack, i),), lambda arrays: arrays[stack][index])


def unused_layers(
    found: Iterable[Found], stored: Mapping[str, Shape]
) -> Iterator[tuple[str, str, int]]:
    """Layers of stored stacks that nothing reads: name of the layer, stack, index."""
    read: dict[str, set[int | None]] = {}
    for source, index in (pair for one in found for pair in one.sources):
        read.setdefault(source, set()).add(index)
    for source, indices in read.items():
        words = source.split("/")
        if None in indices or "*" not in words:
            continue
        for i in sorted(set(range(stored[source][0])) - indices):
            yield _with(words, words.index("*"), str(i)), source, i


def _with(words: Sequence[str], place: int, word: str) -> str:
    return "/".join([*words[:place], word, *words[place + 1 :]])
