"""Paths: where something is in a model, and patterns that select by them.

A path is a tuple of JAX's own key entries. It prints as `encoder.blocks[3].kernel`,
and as text for patterns and files it is `encoder/blocks/3/kernel`.
"""

import difflib
import fnmatch
import functools
import hashlib
import re
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey

from linnet._errors import PathError
from linnet._typing import Key

Path = tuple[Any, ...]


def path_text(path: Path) -> str:
    """`blocks/3/kernel`: the form used in files and patterns."""
    return str(jax.tree_util.keystr(path, simple=True, separator="/"))


def dotted(path: Path) -> str:
    """`blocks[3].kernel`: the form used in messages."""
    return str(jax.tree_util.keystr(path)).lstrip(".")


def path_words(path: Path, *more: Any) -> tuple[np.uint32, np.uint32]:
    """Two 32-bit words that depend on the path and nothing else.

    Every entry is written with its kind and its length, so that no two different
    paths read the same: `ab/cdef` and `abc/def` differ.
    """
    digest = hashlib.blake2b(digest_size=8)
    for entry in (*path, *more):
        text = _entry_text(entry)
        digest.update(f"{len(text)}:{text};".encode())
    first, second = np.frombuffer(digest.digest(), "<u4")
    return first, second


def key_of(key: Key, words: tuple[Any, Any]) -> Key:
    """The key of a path, by its two words."""
    key = _folded(key, *words)
    return key


@jax.jit
def _folded(key: Key, first: Any, second: Any) -> Key:
    """One equation in a trace, instead of two for each word."""
    return jax.random.fold_in(jax.random.fold_in(key, first), second)


def _entry_text(entry: Any) -> str:
    match entry:
        case GetAttrKey(name=name):
            return f".{name}"
        case SequenceKey(idx=index):
            return f"[{index}]"
        case DictKey(key=key):
            return f"{{{type(key).__name__}:{key!r}}}"
        case FlattenedIndexKey(key=key):
            return f"<{key}>"
        case _:
            return f"={type(entry).__name__}:{entry!r}"


def _segments(text: str) -> tuple[str, ...]:
    plain = re.sub(r"""\[['"]?([^\]'"]*)['"]?\]""", r"/\1", text).replace(".", "/")
    return tuple(part for part in plain.split("/") if part)


@functools.lru_cache(maxsize=65536)
def path_matches(pattern: str, text: str, *, whole: bool = False) -> bool:
    """Whether a pattern selects a path.

    `*` stands for anything within one part, `**` for any number of parts. A pattern
    that ends early selects everything below, unless `whole` is set.
    """
    return _match(_segments(pattern), _segments(text), whole)


def _match(pattern: tuple[str, ...], path: tuple[str, ...], whole: bool) -> bool:
    if not pattern:
        return not path or not whole
    head, rest = pattern[0], pattern[1:]
    if head == "**":
        return any(_match(rest, path[i:], whole) for i in range(len(path) + 1))
    return (
        bool(path)
        and fnmatch.fnmatchcase(path[0], head)
        and _match(rest, path[1:], whole)
    )


def no_match(pattern: str, texts: Iterable[str]) -> PathError:
    """The error for a pattern that selects nothing."""
    texts = [text for text in dict.fromkeys(texts) if text]
    close = difflib.get_close_matches(pattern, texts, n=3, cutoff=0.4) or texts[:3]
    such = f", such as {', '.join(map(repr, close))}" if close else ""
    return PathError(
        f"the pattern {pattern!r} matches nothing.",
        code="LN-PATH-01",
        facts={"paths": f"{len(texts) or 'none'}{such}"},
        why="A pattern that selects nothing is a typing mistake more often than not.",
        fixes=[(f"{text!r} is meant", f"pattern = {text!r}") for text in close[:2]]
        or [("everything is meant", "pattern = '**'")],
    )
