"""Tables of the modules that a call uses."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from linnet._extra import require
from linnet.compat.flax.core.scope import CollectionFilter, DenyList
from linnet.compat.flax.linen._adopt import is_module
from linnet.compat.flax.linen._context import context
from linnet.compat.flax.typing import SizeBytes, has_shape_dtype

__all__ = ["Row", "Table", "tabulate"]


@dataclasses.dataclass
class Row:
    """One call of a module.

    Args:
        path: Its path.
        module_copy: The module.
        method: The method that was called.
        inputs: What it was given, as shapes.
        outputs: What it returned, as shapes.
        module_variables: All its variables, with those below it.
        counted_variables: Those that no row below counts.
        flops: Operations of the call.
        vjp_flops: Operations of the call and its backward pass.
    """

    path: tuple[str, ...]
    module_copy: Any
    method: str
    inputs: Any
    outputs: Any
    module_variables: dict[str, dict[str, Any]]
    counted_variables: dict[str, dict[str, Any]]
    flops: int
    vjp_flops: int

    def size_and_bytes(self, collections: Iterable[str]) -> dict[str, SizeBytes]:
        """The numbers and bytes of variables, by collection."""
        return {
            name: SizeBytes.from_any(self.counted_variables[name])
            if name in self.counted_variables
            else SizeBytes(0, 0)
            for name in collections
        }


class Table(list[Row]):
    """The rows of a module.

    Args:
        module: The module.
        collections: Names of the collections.
        rows: One for each call.
    """

    def __init__(self, module: Any, collections: Iterable[str], rows: Iterable[Row]):
        super().__init__(rows)
        self.module = module
        self.collections = collections


@dataclasses.dataclass
class _Call:
    index: int
    module: Any
    path: tuple[str, ...]
    method: str
    inputs: Any
    outputs: Any = None
    flops: int = 0
    vjp_flops: int = 0


class _Calls:
    """Records calls in their order."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []

    def start(
        self, module: Any, method: str, args: Any, kwargs: Any
    ) -> Callable[[Any], None]:
        """Notes that a method is called; the result takes what it returns."""
        inputs: Any = (*args, kwargs) if kwargs else args
        call = _Call(
            len(self.calls), module, module.scope.path, method, _shapes(inputs)
        )
        self.calls.append(call)

        def end(outputs: Any) -> None:
            call.outputs = _shapes(outputs)

        return end


def _shapes(tree: Any) -> Any:
    def shape(x: Any) -> Any:
        if has_shape_dtype(x):
            return jax.ShapeDtypeStruct(x.shape, x.dtype)
        return x

    tree = jax.tree.map(shape, tree)
    return tree[0] if isinstance(tree, tuple) and len(tree) == 1 else tree


@contextlib.contextmanager
def _recording(calls: _Calls) -> Any:
    context.call_info_stack.append(calls)
    try:
        yield
    finally:
        context.call_info_stack.pop()


def _get_module_table(
    module: Any,
    depth: int | None,
    show_repeated: bool,
    compute_flops: bool,
    compute_vjp_flops: bool,
) -> Callable[..., Table]:
    """A function of the arguments of `init` that gives the table."""

    def table_of(rngs: Any, *args: Any, **kwargs: Any) -> Table:
        calls = _Calls()

        def run() -> Any:
            return module.init(rngs, *args, **kwargs)

        with _recording(calls):
            variables = jax.eval_shape(run)
        flops: dict[int, tuple[int, int]] = {}
        if compute_flops or compute_vjp_flops:
            flops[0] = _flops(module, rngs, variables, args, kwargs, compute_vjp_flops)
        collections = list(variables)
        rows: list[Row] = []
        seen: set[tuple[str, ...]] = set()
        shown = [
            call for call in calls.calls if depth is None or len(call.path) <= depth
        ]
        paths = {call.path for call in shown}
        for call in shown:
            if call.path in seen and not show_repeated:
                continue
            is_first = call.path not in seen
            seen.add(call.path)
            of_module = _below(variables, call.path)
            counted = _counted(of_module, call.path, paths) if is_first else {}
            forward, both = flops.get(call.index, (0, 0))
            rows.append(
                Row(
                    call.path,
                    call.module.clone(),
                    call.method,
                    call.inputs,
                    call.outputs,
                    of_module,
                    counted,
                    forward if compute_flops else -1,
                    both if compute_vjp_flops else -1,
                )
            )
        return Table(module, collections, rows)

    return table_of


def _below(variables: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for name, tree in variables.items():
        for part in path:
            tree = tree.get(part, {}) if hasattr(tree, "get") else {}
        if tree:
            found[name] = tree
    return found


def _counted(
    variables: Mapping[str, Any], path: tuple[str, ...], paths: set[tuple[str, ...]]
) -> dict[str, Any]:
    """The variables that belong to no other row."""

    def own(tree: Any, at: tuple[str, ...]) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        kept = {
            key: own(value, (*at, key))
            for key, value in tree.items()
            if (*at, key) not in paths
        }
        return {key: value for key, value in kept.items() if value is not None}

    found = {name: own(tree, path) for name, tree in variables.items()}
    return {name: tree for name, tree in found.items() if tree}


def _flops(
    module: Any, rngs: Any, variables: Any, args: Any, kwargs: Any, with_vjp: bool
) -> tuple[int, int]:
    options = {k: v for k, v in kwargs.items() if k != "mutable"}

    def forward(variables: Any, args: Any) -> Any:
        return module.apply(
            variables, *args, rngs=_streams(rngs), mutable=True, **options
        )[0]

    def both(variables: Any, args: Any) -> Any:
        y, backward = jax.vjp(lambda v: forward(v, args), variables)
        return y, backward(jax.tree.map(jnp.ones_like, y))

    def count(fn: Any) -> int:
        cost = jax.jit(fn).lower(variables, args).cost_analysis()
        return int(cost.get("flops", 0)) if cost else 0

    return count(forward), count(both) if with_vjp else 0


def _streams(rngs: Any) -> Any:
    return rngs if isinstance(rngs, Mapping) else {"params": rngs}


# ---- printing


def tabulate(
    module: Any,
    rngs: Any,
    depth: int | None = None,
    show_repeated: bool = False,
    mutable: CollectionFilter = DenyList("intermediates"),  # noqa: B008
    console_kwargs: Mapping[str, Any] | None = None,
    table_kwargs: Mapping[str, Any] = MappingProxyType({}),
    column_kwargs: Mapping[str, Any] = MappingProxyType({}),
    compute_flops: bool = False,
    compute_vjp_flops: bool = False,
    **kwargs: Any,
) -> Callable[..., str]:
    """A function of the inputs of a module that gives a table of its modules.

    Args:
        module: The module.
        rngs: Keys, as for `init`.
        depth: The number of levels; by default all.
        show_repeated: Whether each call of a shared module has a row.
        mutable: The collections that are made.
        console_kwargs: Of `rich.console.Console`.
        table_kwargs: Of `rich.table.Table`.
        column_kwargs: Of each of its columns.
        compute_flops: Whether operations are counted.
        compute_vjp_flops: Whether those of a backward pass are counted.
        **kwargs: What the module takes.
    """

    def text_of(*args: Any, **more: Any) -> str:
        table = _get_module_table(
            module, depth, show_repeated, compute_flops, compute_vjp_flops
        )(rngs, *args, **more, **kwargs, mutable=mutable)
        return _render(
            table,
            console_kwargs or {},
            table_kwargs,
            column_kwargs,
            compute_flops,
            compute_vjp_flops,
        )

    return text_of


def _render(
    table: Table,
    console_kwargs: Mapping[str, Any],
    table_kwargs: Mapping[str, Any],
    column_kwargs: Mapping[str, Any],
    with_flops: bool,
    with_vjp_flops: bool,
) -> str:
    rich_table = require("rich.table", "compat", "a table of modules")
    console_module = require("rich.console", "compat", "a table of modules")
    text_module = require("rich.text", "compat", "a table of modules")
    shown = rich_table.Table(
        show_header=True,
        show_lines=True,
        show_footer=True,
        title=f"{type(table.module).__name__} Summary",
        **table_kwargs,
    )
    columns = ["path", "module", "inputs", "outputs"]
    columns += ["flops"] if with_flops else []
    columns += ["vjp_flops"] if with_vjp_flops else []
    columns += list(table.collections)
    for name in columns:
        shown.add_column(name, **column_kwargs)
    totals = {name: SizeBytes(0, 0) for name in table.collections}
    for row in table:
        cells = [
            "/".join(row.path),
            type(row.module_copy).__name__
            + ("" if row.method == "__call__" else f".{row.method}"),
            _text(row.inputs),
            _text(row.outputs),
        ]
        cells += [str(row.flops)] if with_flops else []
        cells += [str(row.vjp_flops)] if with_vjp_flops else []
        for name, size in row.size_and_bytes(table.collections).items():
            totals[name] += size
            own = row.counted_variables.get(name, {})
            cells.append(f"{_text(own)}\n\n{size}".strip() if size else "")
        shown.add_row(*map(text_module.Text, cells))
    first = len(columns) - len(totals)
    if totals:
        shown.columns[first - 1].footer = text_module.Text("Total", justify="right")
    for i, size in enumerate(totals.values()):
        shown.columns[first + i].footer = str(size)
    total = sum(totals.values(), SizeBytes(0, 0))
    shown.caption = f"\nTotal Parameters: {total}"
    options = {"force_terminal": True, "width": 240, **console_kwargs}
    console = console_module.Console(**options)
    with console.capture() as capture:
        console.print(shown)
    return "\n" + capture.get() + "\n"


def _text(tree: Any) -> str:
    """A tree of shapes, one entry on each line."""
    if isinstance(tree, Mapping):
        return "\n".join(
            f"{key}: {_text(value)}"
            if not isinstance(value, Mapping)
            else f"{key}:\n"
            + "\n".join(f"  {line}" for line in _text(value).split("\n"))
            for key, value in tree.items()
        )
    if isinstance(tree, tuple | list):
        return "\n".join(f"- {_text(item)}" for item in tree)
    if has_shape_dtype(tree):
        return f"{tree.dtype}[{','.join(map(str, tree.shape))}]"
    if is_module(tree):
        return type(tree).__name__
    return str(tree)
