"""What `nn.init` learns about the arrays of a model while it runs."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from linnet._errors import InitError, RoleError, ShapeError
from linnet._errors import describe as array_text
from linnet._typing import Key
from linnet.core._check import constructor_text, state_text
from linnet.core._locate import locate
from linnet.core._node import Node
from linnet.core._path import Path, dotted, key_of, path_words
from linnet.core._role import Declared, State, completed, from_data
from linnet.core._scope import Scope
from linnet.core._trace import current_trace


class Registry:
    """What is learned about the arrays while a model is run to initialise it.

    The first run is abstract and collects shapes. Where arrays start from data there
    is a second one, on the sample itself, with the other arrays in place.
    """

    def __init__(self, values: dict[Path, Any] | None = None, key: Any = None) -> None:
        self.shapes: dict[Path, Any] = {}
        self.reached: set[Path] = set()
        self.values = values
        self.key = key
        self.assigned: dict[tuple[Path, tuple[Any, ...]], Any] = {}
        # From a key, or None for shapes, to the module that a growing one becomes.
        self.grown: dict[Path, Callable[[Any], Any]] = {}

    @property
    def is_abstract(self) -> bool:
        """Whether this is the first run."""
        return self.values is None

    def rng(self, path: Path, stream: str) -> Key:
        """A key for modules that draw while initialising."""
        key = jax.random.key(0) if self.key is None else self.key
        return key_of(key, path_words(path, stream, "init"))

    def infer(self, module: Node, path: Path, declared: Declared, shape: Any) -> None:
        """Notes the shape that the input needs."""
        __tracebackhide__ = True
        known = self.shapes.get(path, declared.shape)
        shape = completed(shape, known)
        fits = len(known) == len(shape) and all(
            a is None or a == b for a, b in zip(known, shape, strict=True)
        )
        if not fits:
            raise _contradiction(module, path, declared, known, shape)
        self.shapes[path] = shape
        self.reached.add(path)

    def read(self, module: Node, path: Path, declared: Declared, indices: Any) -> Any:
        """The array in this run: zeros of its shape, or what was made."""
        __tracebackhide__ = True
        self.reached.add(path)
        from_sample = declared.init is from_data
        if self.is_abstract:
            shape = self.shapes.get(path, declared.shape)
            if None in shape:
                raise _unknown_shape(module, path, declared)
            if from_sample and (path, ()) not in self.assigned:
                raise _unassigned(module, path)
            return jnp.zeros(shape, declared.dtype)
        if from_sample:
            return self.assigned[path, indices]
        assert self.values is not None
        value = self.values[path]
        for index in indices:
            value = value[index]
        return value

    def assign(
        self, module: Node, path: Path, declared: Declared, value: Any, scope: Scope
    ) -> None:
        """Takes a first value that the module computed from the sample."""
        __tracebackhide__ = True
        if declared.init is not from_data:
            if issubclass(declared.role, State):
                return  # initialising is a dry run: state keeps its first value
            raise _not_from_data(module, path, declared)
        value = jnp.asarray(value, declared.dtype)
        self.infer(module, path, declared, value.shape)
        if self.is_abstract:
            self.assigned[path, ()] = None
        else:
            if current_trace() != scope.trace:
                raise _data_in_transform(module, path)
            self.assigned.setdefault((path, scope.indices), value)


def _contradiction(
    module: Node, path: Path, declared: Declared, known: Any, shape: Any
) -> ShapeError:
    name = path[-1].name
    return ShapeError(
        f"`{name}` is declared as {array_text(declared)}, but the sample needs "
        f"[{', '.join(map(str, shape))}].",
        code="LN-SHAPE-03",
        at=locate(module),
        facts={"known": str(tuple(known)), "needed": str(tuple(shape))},
        why="A size given to a constructor, or found at an earlier call of the same "
        "module, holds.",
        fixes=_contradiction_fixes(module, known, shape),
    )


def _contradiction_fixes(module: Node, known: Any, shape: Any) -> list[tuple[str, str]]:
    fixes = []
    wrong = [a for a, b in zip(known, shape, strict=False) if a not in (None, b)]
    if len(wrong) == 1 and len(known) == len(shape):
        code = f"x = jnp.zeros((*x.shape[:-1], {wrong[0]}))"
        fixes.append(("the sample should have the declared width", code))
    if (text := constructor_text(module)) is not None:
        fixes.append(("the size should follow the sample", text))
    return fixes


def _unknown_shape(module: Node, path: Path, declared: Declared) -> InitError:
    name = getattr(path[-1], "name", dotted(path))
    sizes = _tuple_text("x.shape[-1]" if n is None else n for n in declared.shape)
    known = _tuple_text("features" if n is None else n for n in declared.shape)
    return InitError(
        f"`{name}` was read before its shape {array_text(declared)} was known.",
        code="LN-INIT-05",
        at=locate(module),
        fixes=[
            (
                "the input decides (in `__call__`, before it is read)",
                f"self.expect({name}={sizes})",
            ),
            (
                "the size is known (in `__init__`)",
                f"self.{name} = nn.param(nn.initializers.zeros, {known})",
            ),
        ],
    )


def _tuple_text(items: Iterable[Any]) -> str:
    items = list(items)
    return f"({', '.join(map(str, items))}{',' if len(items) == 1 else ''})"


def _unassigned(module: Node, path: Path) -> InitError:
    name = path[-1].name
    return InitError(
        f"`{name}` starts from data, and was read before it was assigned.",
        code="LN-INIT-06",
        at=locate(module),
        fixes=[
            (
                "the module computes it from its input (before it is read)",
                f"if self.initializing:\n    self.{name} = 1 / x.std(0)",
            )
        ],
    )


def _not_from_data(module: Node, path: Path, declared: Declared) -> RoleError:
    name = path[-1].name
    return RoleError(
        f"`{name}` was assigned while initialising, but has an initialiser.",
        code="LN-INIT-08",
        at=locate(module),
        why="What `nn.init` makes comes from the initialiser, unless that is "
        "`nn.from_data`.",
        fixes=[
            (
                "the sample decides (in `__init__`)",
                f"self.{name} = nn.param(nn.from_data, {declared.shape})",
            ),
            (
                "each stateful call writes it (in `__init__`)",
                f"self.{name} = {state_text(declared)}",
            ),
        ],
    )


def _data_in_transform(module: Node, path: Path) -> InitError:
    return InitError(
        f"`{path[-1].name}` cannot start from data inside a JAX transform.",
        code="LN-INIT-09",
        at=locate(module),
        why="Its value would not leave the transform. `nn.Stack`, `nn.Ensemble`, "
        "`nn.remat` and `nn.scan` over modules carry it out.",
        fixes=[("the transform is rematerialisation", "y = nn.remat(self.block)(x)")],
    )
