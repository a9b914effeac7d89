"""Putting other layers in the place of those that are selected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from linnet._errors import ConfigError
from linnet._typing import PyTree
from linnet.core import Module, select
from linnet.core._path import Path, no_match, path_matches, path_text
from linnet.core._select import patterns_of, rebuilt
from linnet.core._table import modules
from linnet.core._where import Where
from linnet.nn._weight_norm import SpectralNorm, WeightNorm

Make = Callable[[str, Any], Module]


def swapped(
    model: PyTree,
    where: Where,
    makers: Mapping[type, Make],
    verb: str,
    *,
    wrappers: type | tuple[type, ...] = (),
    undo: str = "",
    keeps_arrays: bool = False,
) -> PyTree:
    """The model with other layers in the place of those that `where` selects.

    Where a selected module is none of the kinds that can be replaced, but has such
    layers inside, it stands for all of these.

    Args:
        model: A module or a pytree of modules.
        where: Selects modules, as for `nn.select`.
        makers: From the exact class of a layer to what makes the other layer of its
            path and itself. A subclass may compute something else.
        verb: What is done to the layers, as a participle, for messages.
        wrappers: Classes of modules that must not be found at or around a layer: it
            was done before.
        undo: Code that takes these away again.
        keeps_arrays: Whether the other layers have the arrays of the old, under the
            same names, so that they may be tied or computed by a wrapper.

    Raises:
        PathError: `where` selects nothing.
        ConfigError: It selects what is no such layer, or was replaced before.
    """
    __tracebackhide__ = True
    paths = [path_text(path) for path, _ in modules(model)]
    for pattern in patterns_of(where):
        if not any(path_matches(pattern, path, whole=True) for path in paths):
            raise no_match(pattern, paths)
    done = [path_text(p) for p, m in modules(model) if isinstance(m, wrappers)]
    tied = [] if keeps_arrays else _tied(model)
    computing = [] if keeps_arrays else _computing(model)

    def make(path: str, layer: Any) -> Module:
        __tracebackhide__ = True
        if any(_is_within(array, path) for array in tied):
            raise _left_out(path, layer, verb, "shares an array by `nn.tie`")
        for other, kind in computing:
            if _is_within(path, other):
                raise _left_out(path, layer, verb, f"is inside a {kind}")
        return makers[type(layer)](path, layer)

    def swap(path: str, module: Any) -> Any:
        __tracebackhide__ = True
        if any(_is_within(path, other) for other in done):
            raise _again(path, module, verb, undo)
        found = False

        def visit(inside: Any, way: Path) -> Any:
            nonlocal found
            whole = "/".join(filter(None, (path, path_text(way))))
            if whole in done:
                raise _again(whole, inside, verb, undo)
            if type(inside) in makers:
                found = True
                return make(whole, inside)
            return rebuilt(inside, way, visit)

        changed = visit(module, ())
        if not found:
            raise _cannot(model, path, module, makers, verb)
        return changed

    return select(model, where).map_modules(swap, with_path=True)


def _is_within(path: str, other: str) -> bool:
    return not other or path == other or path.startswith(other + "/")


def _tied(model: PyTree) -> list[str]:
    """The paths of all arrays that are tied, and of those to which they are."""
    return [
        path_text((*path, *end))
        for path, module in modules(model)
        for target, source, _ in module._spec.ties
        for end in (target, source)
    ]


def _computing(model: PyTree) -> list[tuple[str, str]]:
    """The modules that compute the arrays of what they wrap, by path and class."""
    return [
        (path_text(path), type(module).__name__)
        for path, module in modules(model)
        if isinstance(module, WeightNorm | SpectralNorm)
    ]


def _cannot(
    model: PyTree, path: str, module: Any, makers: Mapping[type, Any], verb: str
) -> ConfigError:
    kinds = [c for c in makers if not any(issubclass(c, o) for o in makers if o != c)]
    here = [type(inside) for _, inside in modules(model) if type(inside) in makers]
    fit = [
        f"nn.{kind.__name__}"
        for kind in kinds
        if any(issubclass(cls, kind) for cls in here)
    ]
    holds = any(True for _ in modules(module._children))
    what = "holds no layer that" if holds else "is no layer that"
    fixes = [(f"every `{f}` is meant", f"where = {f}") for f in fit]
    return ConfigError(
        f"`where` selects a {type(module).__name__}, which {what} can be {verb}.",
        code="LN-WHERE-03",
        at=path or type(model).__name__,
        facts={"can be": ", ".join(kind.__name__ for kind in kinds)},
        why="A layer of another class, even of a subclass, may compute something else.",
        fixes=fixes or [("the model has no such layer, and can stay as it is", "pass")],
    )


def _again(path: str, layer: Any, verb: str, undo: str) -> ConfigError:
    return ConfigError(
        f"this {type(layer).__name__} has been {verb} before.",
        code="LN-WHERE-03",
        at=path or type(layer).__name__,
        fixes=[("it should be done afresh", undo)],
    )


def _left_out(path: str, layer: Any, verb: str, because: str) -> ConfigError:
    name = type(layer).__name__
    return ConfigError(
        f"this {name} {because}, so it cannot be {verb}.",
        code="LN-WHERE-03",
        at=path or name,
        why="Its array is computed from, or for, what is elsewhere in the model.",
        fixes=[
            (
                "the others are meant",
                f"where = lambda path, m: isinstance(m, nn.{name}) "
                f'and path != "{path}"',
            )
        ],
    )
