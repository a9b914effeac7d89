"""What is known about the arrays of a checkpoint, beside the arrays."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import jax
import numpy as np

from linnet import nn
from linnet._typing import Array, PyTree
from linnet.core._path import path_text
from linnet.core._table import modules
from linnet.training._checksum import checksums
from linnet.training._layered import layered_names

FORMAT = 1


def flattened(state: PyTree) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of a tree by path, keys as numbers; and what is known about each.

    An array that is tied to another is stored as well, for models that do not tie it.
    """
    names = layered_names(state)
    arrays, about = {}, {}
    for path, value in (nn.to_paths(state) | (tied := _tied(state))).items():
        row: dict[str, Any] = {"name": names.get(path, path)}
        if path in tied:
            row["tied"] = True
        if is_key(value):
            row["key"] = str(jax.random.key_impl(value))
            value = jax.random.key_data(value)
        value = value if isinstance(value, jax.Array) else np.asarray(value)
        row |= {"shape": list(value.shape), "dtype": str(value.dtype)}
        about[path] = row
        if value.size:  # Orbax stores no array without entries
            arrays[path] = value
    sums = checksums(arrays)
    for path, pair in sums.items():
        about[path]["checksum"] = sum_text(pair)
    return arrays, about


def sum_text(pair: Any) -> str:
    """A checksum in hexadecimal digits."""
    first, second = (int(word) for word in np.asarray(pair))
    return f"{first:08x}{second:08x}"


def is_key(value: Any) -> bool:
    """Whether this is an array of keys, or the shape of one."""
    return jax.dtypes.issubdtype(getattr(value, "dtype", None), jax.dtypes.prng_key)


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """The content with a digest of its text."""
    return {"content": content, "digest": _digest(content)}


def unsealed(document: Any) -> dict[str, Any] | None:
    """The content, or `None` if it is not the one that was sealed."""
    if not isinstance(document, dict) or "content" not in document:
        return None
    content: dict[str, Any] = document["content"]
    return content if document.get("digest") == _digest(content) else None


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _tied(state: PyTree) -> dict[str, Array]:
    """The arrays that are computed from others, by path."""
    found = {}
    for path, module in modules(state):
        for target, _, _ in module._spec.ties:
            value: Any = module
            for key in target:
                value = (
                    getattr(value, key.name)
                    if hasattr(key, "name")
                    else value[getattr(key, "idx", getattr(key, "key", None))]
                )
            if hasattr(value, "dtype"):
                found[path_text((*path, *target))] = value
    return found
