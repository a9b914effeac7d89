"""Models as flat dicts of path to array, and back."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linnet._errors import PathError, TreeError, describe
from linnet._typing import Array, PyTree
from linnet.core._node import Node, is_declared
from linnet.core._path import no_match, path_matches, path_text
from linnet.core._table import Entry, modules, slots

Patterns = str | tuple[str, ...]


def to_paths(model: PyTree) -> dict[str, Array]:
    """The arrays of a model by their path.

    A tied array is stored once, under its source.

    Args:
        model: An initialised module, or a pytree of modules.

    Raises:
        PathError: Two arrays have the same path, by a dict key with a slash in it.

    Example:
        >>> model = nn.init(nn.Dense(3), jax.random.key(0), jnp.ones((1, 2)))
        >>> {path: array.shape for path, array in nn.to_paths(model).items()}
        {'kernel': (2, 3), 'bias': (3,)}
    """
    leaves, _, entries = slots(model)
    flat: dict[str, Any] = {}
    for leaf, entry in zip(leaves, entries, strict=True):
        if entry.text in flat:
            raise PathError(
                f"two arrays have the path {entry.text!r}.",
                code="LN-PATH-02",
                why="A key of a dict has a slash in it.",
                fixes=[("the key may change", "key = key.replace('/', '_')")],
            )
        if not is_declared(leaf):
            flat[entry.text] = leaf
    return flat


def from_paths(
    model: PyTree,
    mapping: Mapping[str, Any],
    *,
    missing: Patterns = (),
    unexpected: Patterns = (),
    shape: Patterns = (),
    dtype: Patterns = (),
    tied: Patterns = (),
) -> PyTree:
    """The model with its arrays taken from a flat dict.

    Strict: each tolerance is asked for by path pattern.

    Args:
        model: A module, initialised or only described, or a pytree of modules.
        mapping: Arrays by path.
        missing: Arrays that the mapping may lack. They stay as they are.
        unexpected: Paths of the mapping that the model may lack.
        shape: Arrays whose shape may differ. They stay as they are.
        dtype: Arrays whose dtype may differ. They are converted to the model's.
        tied: Paths of tied arrays that the mapping may hold as well.

    Raises:
        TreeError: Something does not fit; one report of all of it.
        PathError: A pattern matches nothing.

    Example:
        >>> x = jnp.ones((1, 2))
        >>> model = nn.init(nn.Dense(3), jax.random.key(0), x)
        >>> nn.from_paths(nn.Dense(3), nn.to_paths(model)) == model
        True
    """
    __tracebackhide__ = True
    leaves, treedef, entries = slots(model)
    ties = _tied_paths(model)
    allowed = {
        "missing": _patterns(missing),
        "unexpected": _patterns(unexpected),
        "shape": _patterns(shape),
        "dtype": _patterns(dtype),
        "tied": _patterns(tied),
    }
    _check_patterns(allowed, [e.text for e in entries], [*mapping], ties)
    report: dict[str, list[str]] = {kind: [] for kind in allowed}
    filled = [
        _taken(leaf, entry, mapping, allowed, report)
        for leaf, entry in zip(leaves, entries, strict=True)
    ]
    known = {entry.text for entry in entries}
    for text in mapping:
        if text in known:
            continue
        kind = "tied" if text in ties else "unexpected"
        if not _any_match(allowed[kind], text):
            report[kind].append(text)
    if any(report.values()):
        raise _does_not_fit(model, report)
    return treedef.unflatten(filled)


def _taken(
    leaf: Any,
    entry: Entry,
    mapping: Mapping[str, Any],
    allowed: dict[str, tuple[str, ...]],
    report: dict[str, list[str]],
) -> Any:
    text = entry.text
    if text not in mapping:
        if not _any_match(allowed["missing"], text):
            report["missing"].append(text)
        return leaf
    value = mapping[text]
    if not hasattr(value, "dtype"):
        value = np.asarray(value)
    if not _fits(leaf, entry, value):
        if not _any_match(allowed["shape"], text):
            report["shape"].append(f"{text} ({_kind(leaf, entry)}, {describe(value)})")
        return leaf
    if value.dtype != leaf.dtype:
        if not _any_match(allowed["dtype"], text):
            report["dtype"].append(f"{text} ({leaf.dtype}, given {value.dtype})")
            return leaf
    return _as_array(value, leaf.dtype)


def _as_array(value: Any, dtype: Any) -> Any:
    if isinstance(value, jax.Array | jax.ShapeDtypeStruct) and value.dtype == dtype:
        return value
    return jnp.asarray(value, dtype)


def _fits(leaf: Any, entry: Entry, value: Any) -> bool:
    wanted = tuple(leaf.shape)
    if is_declared(leaf):
        wanted = (*(size for _, size in entry.stack), *wanted)
    return len(wanted) == len(value.shape) and all(
        size is None or size == given
        for size, given in zip(wanted, value.shape, strict=True)
    )


def _kind(leaf: Any, entry: Entry) -> str:
    if not is_declared(leaf) or not entry.stack:
        return describe(leaf)
    sizes = ", ".join(str(size) for _, size in entry.stack)
    return describe(leaf).replace("[", f"[{sizes}, ", 1)


def _tied_paths(model: PyTree) -> set[str]:
    return {
        path_text((*path, *target))
        for path, module in modules(model)
        for target, _, _ in _ties(module)
    }


def _ties(module: Node) -> Any:
    return module._spec.ties


def _patterns(patterns: Patterns) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _any_match(patterns: tuple[str, ...], text: str) -> bool:
    return any(path_matches(pattern, text) for pattern in patterns)


def _check_patterns(
    allowed: dict[str, tuple[str, ...]],
    own: list[str],
    given: list[str],
    ties: set[str],
) -> None:
    __tracebackhide__ = True
    texts = {"unexpected": given, "tied": [*ties]}
    for kind, patterns in allowed.items():
        for pattern in patterns:
            among = texts.get(kind, own)
            if not any(path_matches(pattern, text) for text in among):
                raise no_match(pattern, among)


_KINDS = {
    "missing": "missing from the mapping",
    "unexpected": "not in the model",
    "shape": "of another shape (model, given)",
    "dtype": "of another dtype (model, given)",
    "tied": "tied in the model, so not stored",
}


def _does_not_fit(model: Any, report: dict[str, list[str]]) -> TreeError:
    found = {kind: items for kind, items in report.items() if items}
    facts = {}
    for kind, items in found.items():
        more = f" and {len(items) - 3} more" if len(items) > 3 else ""
        facts[_KINDS[kind]] = f"{len(items)}: {', '.join(items[:3])}{more}"
    tolerances = ", ".join(
        f'{kind}="{items[0].split(" ")[0] if len(items) == 1 else "**"}"'
        for kind, items in found.items()
    )
    return TreeError(
        f"the mapping does not fit the model: {', '.join(found)}.",
        code="LN-PATHS-01",
        at=type(model).__name__,
        facts=facts,
        why="What is not said to be tolerated is taken for a mistake.",
        fixes=[
            (
                "these differences are meant",
                f"model = nn.from_paths(model, mapping, {tolerances})",
            )
        ],
    )
