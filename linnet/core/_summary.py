"""A table of a model: types, shapes, parameters, bytes, state and FLOPs."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from linnet._errors import describe as array_text
from linnet._typing import PyTree
from linnet.core._call import stateful
from linnet.core._init import abstract
from linnet.core._node import Node
from linnet.core._open import close_module, open_module
from linnet.core._path import Path, dotted
from linnet.core._role import Param, State
from linnet.core._scope import Scope
from linnet.core._table import modules, stack_of, table


@dataclasses.dataclass(frozen=True)
class Row:
    """One module of a summary; counts include everything below it.

    Attributes:
        path: Of the module; empty for the model itself.
        type: Name of its class.
        output: Shape and dtype of its result, or "-" where it was not called.
        parameters: Number of trained values.
        parameter_bytes: Bytes of those.
        state_bytes: Bytes of its state.
        forward_flops: Of all its calls in one prediction, by XLA's cost analysis.
        backward_flops: Of the gradient by parameters and inputs, beyond the forward.
    """

    path: str
    type: str
    output: str
    parameters: int
    parameter_bytes: int
    state_bytes: int
    forward_flops: float
    backward_flops: float


@dataclasses.dataclass(frozen=True)
class Summary:
    """A table that prints; `rows` holds its numbers."""

    rows: tuple[Row, ...]
    folded: int = 0

    def __str__(self) -> str:
        head = (
            "path",
            "type",
            "output",
            "params",
            "bytes",
            "state",
            "forward",
            "backward",
        )
        body = [
            (
                row.path or "(model)",
                row.type,
                row.output,
                f"{row.parameters:,}",
                _scaled(row.parameter_bytes, 1024, "B"),
                _scaled(row.state_bytes, 1024, "B") if row.state_bytes else "-",
                _scaled(row.forward_flops, 1000, ""),
                _scaled(row.backward_flops, 1000, ""),
            )
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        lines = [_line(cells, widths) for cells in (head, *body)]
        lines.insert(1, "-" * len(lines[0]))
        if self.folded:
            lines.append(f"({self.folded} deeper modules are folded)")
        return "\n".join(lines)

    __repr__ = __str__


def _line(cells: Iterable[str], widths: list[int]) -> str:
    padded = [
        cell.ljust(width) if i < 3 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _scaled(number: float, base: int, unit: str) -> str:
    if number < base:
        return f"{number:.0f} {unit}".strip()
    power = min(int(math.log(number, base)), 5)
    infix = "i" if base == 1024 else ""
    return f"{number / base**power:.3g} {' KMGTP'[power]}{infix}{unit}"


def summary(
    model: Any,
    *sample: Any,
    depth: int | None = None,
    flops: bool = True,
    method: Any = None,
    **kwargs: Any,
) -> Summary:
    """A table of the modules of a model. Nothing is computed on arrays.

    Args:
        model: A module, described or initialised.
        *sample: Arguments of the call, or their shapes.
        depth: Levels of modules to show; all by default.
        flops: Whether to count floating-point operations, which lowers each module.
        method: What is called; `__call__` by default.
        **kwargs: More arguments of the call.

    Raises:
        InitError: The sample did not reach a parameter.

    Example:
        >>> x = jax.ShapeDtypeStruct((8, 4), jnp.float32)
        >>> table = nn.summary(nn.Dense(2), x)
        >>> table.rows[0].parameters, table.rows[0].forward_flops
        (10, 144.0)
    """
    __tracebackhide__ = True
    shapes = abstract(model, *sample, method=method, **kwargs)
    calls = _recorded(shapes, sample, kwargs, method)
    rows, folded = [], 0
    for path, module in modules(shapes):
        if depth is not None and _level(shapes, path) > depth:
            folded += 1
            continue
        rows.append(_row(shapes, path, module, calls.get(path, []), flops))
    return Summary(tuple(rows), folded)


def _level(model: Any, path: Path) -> int:
    """How many modules are around the one at a path."""
    return sum(p != path and path[: len(p)] == p for p, _ in modules(model))


@dataclasses.dataclass(frozen=True)
class _Recorded:
    module: Any
    args: Any
    kwargs: Any
    output: Any


class _Recorder:
    """Stands where taps stand, and notes the shapes of each call."""

    def __init__(self) -> None:
        self.calls: dict[Path, list[_Recorded]] = {}

    def tapped(self, cls: type) -> type:
        return _recording(cls)

    def fork(self) -> "_Recorder":
        return self

    def records(self) -> list[Any]:
        return []

    def absorb(self, records: list[Any]) -> None:
        del records

    def observe(self, scope: Any, path: Path, module: Any, value: Any) -> Any:
        del scope, path, module
        return value


@functools.cache
def _recording(cls: Any) -> type:
    call = getattr(cls, "__call__", None)  # noqa: B004 (the function is wanted)
    if not inspect.isfunction(call):
        return cls  # type: ignore[no-any-return]

    def __call__(self: Node, *args: Any, **kwargs: Any) -> Any:
        opened = self.__dict__["_open"]
        module = close_module(self, fill=True)
        out = call(self, *args, **kwargs)
        noted = _Recorded(*map(_shapes, (module, args, kwargs, out)))
        opened.scope.taps.calls.setdefault(opened.path, []).append(noted)
        return out

    names = {
        "__call__": __call__,
        "__init__": cls.__init__,
        "__module__": cls.__module__,
    }
    return type(cls)(cls.__name__, (cls,), names)  # type: ignore[no-any-return]


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if hasattr(x, "dtype") else x,
        tree,
    )


def _recorded(
    shapes: Any, sample: Any, kwargs: Any, method: Any
) -> dict[Path, list[_Recorded]]:
    from linnet.core._init import bound_method

    recorder = _Recorder()
    leaves, treedef = jax.tree.flatten((sample, kwargs))
    arrays = [leaf if hasattr(leaf, "dtype") else None for leaf in leaves]

    def run(model: Any, arrays: Any) -> None:
        filled = [b if a is None else a for a, b in zip(arrays, leaves, strict=True)]
        args, kwargs = treedef.unflatten(filled)
        keys = {"default": jax.random.key(0)}
        scope = Scope(writable=True, keys=keys, taps=recorder)
        bound_method(open_module(model, scope), method)(*args, **kwargs)

    jax.eval_shape(run, shapes, arrays)
    return recorder.calls


def _row(
    model: Any, path: Path, module: Node, calls: list[_Recorded], flops: bool
) -> Row:
    treedef = jax.tree.structure(module)
    leaves = list(zip(jax.tree.leaves(module), table(treedef), strict=True))
    trained = [x for x, entry in leaves if entry.role and issubclass(entry.role, Param)]
    states = [x for x, entry in leaves if entry.role and issubclass(entry.role, State)]
    copies = _copies_around(model, path)
    forward = backward = 0.0
    for call in calls if flops else []:
        one, both = _flops(call)
        forward, backward = forward + copies * one, backward + copies * (both - one)
    return Row(
        path=dotted(path),
        type=type(module).__name__,
        output=_output_text(calls[-1].output) if calls else "-",
        parameters=sum(math.prod(x.shape) for x in trained),
        parameter_bytes=sum(_bytes(x) for x in trained),
        state_bytes=sum(_bytes(x) for x in states),
        forward_flops=forward,
        backward_flops=max(backward, 0.0),
    )


def _bytes(x: Any) -> int:
    return math.prod(x.shape) * x.dtype.itemsize  # type: ignore[no-any-return]


def _output_text(output: Any) -> str:
    leaves = jax.tree.leaves(output)
    more = f" + {len(leaves) - 1}" if len(leaves) > 1 else ""
    return (array_text(leaves[0]) if leaves else "-") + more


def _copies_around(model: Any, path: Path) -> int:
    """How many times a recorded call runs: once for each layer of the stacks around."""
    sizes = [
        size
        for outer, module in modules(model)
        if outer != path and path[: len(outer)] == outer
        for _, size in stack_of(module)
    ]
    return math.prod(sizes)


def _flops(call: _Recorded) -> tuple[float, float]:
    """FLOPs of a call, and of the call with its gradient."""
    leaves, treedef = jax.tree.flatten((call.module, call.args, call.kwargs))
    arrays = {i: leaf for i, leaf in enumerate(leaves) if hasattr(leaf, "dtype")}

    def forward(arrays: dict[int, Any]) -> Any:
        full = [arrays.get(i, leaf) for i, leaf in enumerate(leaves)]
        module, args, kwargs = treedef.unflatten(full)
        call = stateful(_unrolled(module), rngs=jax.random.key(0), update=False)
        return call(*args, **kwargs)

    def floats(wanted: dict[int, Any], rest: dict[int, Any]) -> Any:
        out = jax.tree.leaves(forward({**wanted, **rest}))
        return [x for x in out if jnp.issubdtype(x.dtype, jnp.floating)]

    def both_ways(wanted: dict[int, Any], rest: dict[int, Any], back: Any) -> Any:
        out, pull_back = jax.vjp(lambda wanted: floats(wanted, rest), wanted)
        return out, pull_back(back)

    wanted = {i: x for i, x in arrays.items() if jnp.issubdtype(x.dtype, jnp.floating)}
    rest = {i: x for i, x in arrays.items() if i not in wanted}
    one = _cost(forward, arrays)
    back = jax.eval_shape(floats, wanted, rest)
    return one, _cost(both_ways, wanted, rest, back) if wanted else one


def _cost(f: Any, *args: Any) -> float:
    analysis = jax.jit(f).lower(*args).cost_analysis()
    return max(0.0, float((analysis or {}).get("flops", 0.0)))


def _unrolled(module: Any) -> Any:
    """The module with its stacks unrolled: XLA counts the body of a loop once."""
    from linnet.core._select import rebuilt

    def visit(module: Any, path: Path) -> Any:
        module = rebuilt(module, path, visit)
        if "unroll" in module._spec.static and stack_of(module):
            return module.replace(unroll=True)
        return module

    return visit(module, ())
