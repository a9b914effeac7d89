"""Taps: reading and replacing intermediate values without editing the model.

A tapped call opens modules as instances of subclasses whose `__call__` shows its
result to the taps. Calls without taps use the classes themselves and cost nothing.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from linnet._errors import ConfigError, ShapeError, describe
from linnet.core._node import Node
from linnet.core._path import Path, no_match, path_matches, path_text
from linnet.core._value import Static


@dataclasses.dataclass(frozen=True)
class Tap:
    """What to do with values: pairs of a `where` and an action."""

    kind: str  # "capture", "intervene" or "perturb"
    actions: tuple[tuple[Any, Any], ...]


class _Running:
    """A tap during one call: what it recorded, and which patterns matched.

    Args:
        tap: The tap.
        depth: Length of the path of the module that is called. Within an open model
            that is not the root, and patterns begin at the module.
    """

    def __init__(self, tap: Tap, depth: int = 0) -> None:
        self.tap = tap
        self.depth = depth
        self.records: dict[str, list[Any]] = {}
        self.counts: dict[str, int] = {}
        self.seen: dict[str, None] = {}

    def fork(self) -> "_Running":
        copy = _Running(self.tap, self.depth)
        copy.seen, copy.counts = self.seen, dict(self.counts)
        return copy

    def observe(self, scope: Any, path: Path, module: Any, value: Any) -> Any:
        text = path_text(path[self.depth :])
        self.seen[text] = None
        count = self.counts.get(text, 0)
        self.counts[text] = count + 1
        for where, action in self.tap.actions:
            if not matches_value(where, text, module):
                continue
            if self.tap.kind == "capture":
                scope.check_trace(module or text, f"a capture of {text!r}")
                self.records.setdefault(text, []).append(value)
                break
            if self.tap.kind == "perturb":
                by = _of_call(value, action, count)
                value = _perturbed(text, value, _sliced(by, scope.indices))
            else:
                value = _intervened(text, value, action, scope.indices)
        return value

    def finish(self, result: Any) -> Any:
        for pattern in _patterns([where for where, _ in self.tap.actions]):
            if not any(path_matches(pattern, text, whole=True) for text in self.seen):
                raise no_match(pattern, self.seen)
        if self.tap.kind != "capture":
            return result
        once = {k: v[0] if len(v) == 1 else tuple(v) for k, v in self.records.items()}
        return result, once


class Taps:
    """The taps of one call, innermost first, with those of an enclosing call."""

    def __init__(
        self,
        taps: tuple[Tap, ...] = (),
        outer: "Taps | None" = None,
        depth: int = 0,
    ) -> None:
        self.own = [_Running(tap, depth) for tap in taps]
        self.all: list[_Running] = self.own + ([] if outer is None else outer.all)

    def fork(self) -> "Taps":
        """The same taps with nothing recorded, for the inside of a transform."""
        taps = Taps()
        taps.own = taps.all = [running.fork() for running in self.all]
        return taps

    def records(self) -> list[tuple[dict[str, list[Any]], Static]]:
        """What was recorded, as a pytree that can leave a transform."""
        return [(r.records, Static(tuple(r.counts.items()))) for r in self.all]

    def absorb(self, records: list[tuple[dict[str, list[Any]], Static]]) -> None:
        """Adds what was recorded inside a transform."""
        for running, (inside, counts) in zip(self.all, records, strict=True):
            for text, count in counts.value:
                running.counts[text] = max(count, running.counts.get(text, 0))
            for text, values in inside.items():
                running.records.setdefault(text, []).extend(values)

    def observe(self, scope: Any, path: Path, module: Any, value: Any) -> Any:
        """Shows a value to every tap and returns what they made of it."""
        __tracebackhide__ = True
        for running in self.all:
            value = running.observe(scope, path, module, value)
        return value

    def results(self, result: Any, which: slice) -> Any:
        """The result of the call with what each tap adds to it."""
        __tracebackhide__ = True
        for running in self.own[which]:
            result = running.finish(result)
        return result

    def tapped(self, cls: type) -> Any:
        """The class to open modules of `cls` with."""
        return _tapped(cls)


@functools.cache
def _tapped(cls: Any) -> Any:
    call = getattr(cls, "__call__", None)  # noqa: B004 (the function is wanted)
    if not inspect.isfunction(call):
        return cls

    @functools.wraps(call)
    def __call__(self: Node, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        opened = self.__dict__["_open"]
        out = call(self, *args, **kwargs)
        return opened.scope.taps.observe(opened.scope, opened.path, self, out)

    names = {
        "__call__": __call__,
        "__module__": cls.__module__,
        "__init__": cls.__init__,
    }
    subclass = type(cls)(cls.__name__, (cls,), names)
    subclass.__qualname__ = cls.__qualname__
    return subclass


def _patterns(where: Any) -> Iterator[str]:
    """The path patterns of a `where`, which may be a tuple of others."""
    if isinstance(where, str):
        yield where
    elif isinstance(where, tuple | list):
        for part in where:
            yield from _patterns(part)


def _of_call(value: Any, by: Any, count: int) -> Any:
    """What belongs to this call of a module, where it is called more than once."""
    same = jax.tree.structure(value) == jax.tree.structure(by)
    return by[count] if isinstance(by, tuple) and not same and count < len(by) else by


def matches_value(where: Any, text: str, module: Any) -> bool:
    """Whether a tap's `where` selects a value: by pattern, type or predicate."""
    if isinstance(where, tuple | list):
        return any(matches_value(part, text, module) for part in where)
    if isinstance(where, str):
        return path_matches(where, text, whole=True)
    if isinstance(where, type):
        return isinstance(module, where)
    if callable(where):
        return bool(where(text, module))
    raise ConfigError(
        f"{where!r} is no pattern, type of module or predicate.",
        code="LN-WHERE-01",
        fixes=[
            ("a path or pattern is meant", 'where = "**"'),
            ("a type of module is meant", "where = nn.Dense"),
        ],
    )


def _sliced(action: Any, indices: tuple[Any, ...]) -> Any:
    """The part of a stacked value for the layer or step that is running."""

    def part(array: Any) -> Any:
        for index in indices:
            array = jnp.asarray(array)[index]
        return array

    return jax.tree.map(part, action) if indices else action


def _perturbed(text: str, value: Any, by: Any) -> Any:
    _check_like(text, value, by)
    return jax.tree.map(lambda x, p: x + p.astype(x.dtype), value, by)


def _intervened(text: str, value: Any, action: Any, indices: tuple[Any, ...]) -> Any:
    if callable(action):
        if "layer" in _parameters(action):
            layer = indices[-1] if indices else None
            return action(value, layer=layer)
        return action(value)
    new = _sliced(action, indices)
    _check_like(text, value, new)
    return jax.tree.map(lambda x, y: jnp.asarray(y, x.dtype), value, new)


def _parameters(fn: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return {}


def _check_like(text: str, value: Any, new: Any) -> None:
    same_tree = jax.tree.structure(value) == jax.tree.structure(new)
    if same_tree and all(
        jnp.shape(a) == jnp.shape(b)
        for a, b in zip(jax.tree.leaves(value), jax.tree.leaves(new), strict=True)
    ):
        return
    raise ShapeError(
        f"the given value is {describe(new)}, but the model's is {describe(value)}.",
        code="LN-TAP-01",
        at=text,
        why="Inside a stack or scan the value has a leading axis for its layers.",
        fixes=[
            (
                "one of the right shape is needed",
                f'out, values = nn.capture(model, "{text}")(x)\n'
                f'value = jnp.zeros_like(values["{text}"])',
            )
        ],
    )
