"""Tables of the modules that a call uses."""

import contextlib
import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import jax

from linnet._extra import require
from linnet.compat.flax.core import meta
from linnet.compat.flax.core.frozen_dict import unfreeze
from linnet.compat.flax.core.scope import CollectionFilter, DenyList, LazyRng
from linnet.compat.flax.linen._adopt import is_module
from linnet.compat.flax.linen._context import context
from linnet.compat.flax.typing import (
    Array,
    FrozenVariableDict,
    LogicalNames,
    MutableVariableDict,
    PRNGKey,
    RNGSequences,
    SizeBytes,
    has_shape_dtype,
)

__all__ = [
    "Array",
    "CollectionFilter",
    "DenyList",
    "FrozenVariableDict",
    "LazyRng",
    "LogicalNames",
    "MutableVariableDict",
    "PRNGKey",
    "RNGSequences",
    "Row",
    "Table",
    "tabulate",
    "unfreeze",
]


# The names of these two are those of Flax: other libraries ask for them.


@dataclasses.dataclass
class _ArrayRepresentation:
    """An array in a table."""

    shape: tuple[int, ...]
    dtype: Any

    def render(self) -> str:
        """The text of a cell."""
        return _text(self)


@dataclasses.dataclass
class _ObjectRepresentation:
    """What else is in a table."""

    obj: Any

    def render(self) -> str:
        """The text of a cell."""
        return _text(self)


@dataclasses.dataclass
class Row:
    """One call of a module.

    Args:
        path: Its path.
        module_copy: The module.
        method: The method that was called.
        inputs: What it was given: shapes, and other objects.
        outputs: What it returned, likewise.
        module_variables: Its own variables.
        counted_variables: Those that no other row counts.
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

    def size_and_bytes(self, collections: Iterable[str]) -> dict[str, tuple[int, int]]:
        """The number of values and of bytes of variables, by collection."""
        sizes = {
            name: SizeBytes.from_any(self.counted_variables.get(name, {}))
            for name in collections
        }
        return {name: (size.size, size.bytes) for name, size in sizes.items()}


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
    module: Any
    path: tuple[str, ...]
    method: str
    args: Any
    kwargs: Any
    outputs: Any = None

    @property
    def inputs(self) -> Any:
        """The arguments, those by keyword as one dict at the end."""
        inputs = (*self.args, self.kwargs) if self.kwargs else self.args
        return inputs[0] if len(inputs) == 1 else inputs


class _Calls:
    """Records calls in their order."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []

    def start(
        self, module: Any, method: str, args: Any, kwargs: Any
    ) -> Callable[[Any], None]:
        """Notes that a method is called; the result takes what it returns."""
        args, kwargs = _shapes((args, kwargs))
        path = module.scope.path
        call = _Call(module.clone(), path, method, args, kwargs)
        self.calls.append(call)

        def end(outputs: Any) -> None:
            call.outputs = _shapes(outputs)

        return end


def _shapes(tree: Any) -> Any:
    def shape(x: Any) -> Any:
        if has_shape_dtype(x):
            dtype = jax.dtypes.canonicalize_dtype(x.dtype, allow_extended_dtype=True)
            return jax.ShapeDtypeStruct(x.shape, dtype)
        return x

    return jax.tree.map(shape, tree)


def _represented(tree: Any) -> Any:
    """A tree of shapes and other objects, as rows hold it."""

    def of(x: Any) -> Any:
        if has_shape_dtype(x):
            return _ArrayRepresentation(tuple(x.shape), x.dtype)
        return _ObjectRepresentation(x)

    return jax.tree.map(of, tree, is_leaf=lambda x: x is None)


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
        collections: tuple[str, ...] = ()

        def run() -> Any:
            nonlocal collections
            variables = module.init(rngs, *args, **kwargs)
            collections = tuple(variables)
            return variables

        with _recording(calls):
            variables = jax.eval_shape(run)
        rows: list[Row] = []
        seen: set[tuple[str, ...]] = set()
        shown = [
            call for call in calls.calls if depth is None or len(call.path) <= depth
        ]
        paths = {call.path for call in shown}
        every_path = {call.path for call in calls.calls}
        for call in shown:
            if call.path in seen and not show_repeated:
                continue
            is_first = call.path not in seen
            seen.add(call.path)
            of_module = _below(variables, call.path)
            flops = vjp_flops = -1
            if compute_flops or compute_vjp_flops:
                mutable = kwargs.get("mutable", DenyList("intermediates"))
                flops, vjp_flops = _flops(call, rngs, mutable, compute_vjp_flops)
            rows.append(
                Row(
                    call.path,
                    call.module,
                    call.method,
                    _represented(call.inputs),
                    _represented(call.outputs),
                    _own(of_module, call.path, every_path) if is_first else {},
                    _own(of_module, call.path, paths) if is_first else {},
                    flops if compute_flops else -1,
                    vjp_flops if compute_vjp_flops else -1,
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


def _own(
    variables: Mapping[str, Any], path: tuple[str, ...], paths: set[tuple[str, ...]]
) -> dict[str, Any]:
    """The variables of a module, without those of the modules at `paths`."""

    def own(tree: Any, at: tuple[str, ...]) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        return {
            key: own(value, (*at, key))
            for key, value in tree.items()
            if (*at, key) not in paths
        }

    return {name: own(tree, path) for name, tree in variables.items()}


def _flops(
    call: _Call, rngs: Any, mutable: CollectionFilter, with_vjp: bool
) -> tuple[int, int]:
    """The operations of a call, and of it with its backward pass."""
    leaves, tree = jax.tree.flatten((call.args, call.kwargs))
    places = [i for i, leaf in enumerate(leaves) if has_shape_dtype(leaf)]
    arrays = [leaves[i] for i in places]

    def given(arrays: Any) -> Any:
        filled = list(leaves)
        for i, array in zip(places, arrays, strict=True):
            filled[i] = array
        return tree.unflatten(filled)

    def make(arrays: Any) -> Any:
        args, kwargs = given(arrays)
        return call.module.init(rngs, *args, method=call.method, **kwargs)

    def forward(variables: Any, arrays: Any) -> Any:
        args, kwargs = given(arrays)
        options = {"rngs": rngs, "method": call.method, "mutable": mutable, **kwargs}
        return call.module.apply(variables, *args, **options)

    def both(variables: Any, arrays: Any) -> Any:
        y, backward = jax.vjp(forward, variables, arrays)
        return y, backward(y)  # Ones would be folded, and not be counted.

    # Not those of the whole model: a module may use layers that are not within it.
    variables = jax.eval_shape(make, arrays)

    def count(fn: Any) -> int:
        cost = jax.jit(fn).lower(variables, arrays).cost_analysis()
        return int(cost.get("flops", 0)) if cost else 0

    return count(forward), count(both) if with_vjp else 0


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
    rich_text = require("rich.text", "compat", "a table of modules")
    console_module = require("rich.console", "compat", "a table of modules")
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
        inputs = "" if row.inputs == () else _text(row.inputs)
        module = type(row.module_copy).__name__
        if row.method != "__call__":
            module += f" [dim]({row.method})[/dim]"
        cells = ["/".join(row.path), module, inputs, _text(row.outputs)]
        cells += [str(row.flops)] if with_flops else []
        cells += [str(row.vjp_flops)] if with_vjp_flops else []
        for name, pair in row.size_and_bytes(table.collections).items():
            size = SizeBytes(*pair)
            totals[name] += size
            own = row.module_variables.get(name, {})
            parts = [_text(own) if own else "", _bold(_size_text(size))]
            cells.append("\n\n".join(part for part in parts if part))
        shown.add_row(*cells)
    first = len(columns) - len(totals)
    shown.columns[first - 1].footer = rich_text.Text("Total", justify="right")
    for i, size in enumerate(totals.values()):
        shown.columns[first + i].footer = _bold(_size_text(size))
    total = _size_text(sum(totals.values(), SizeBytes(0, 0)))
    shown.caption_style = "bold"
    shown.caption = f"\nTotal Parameters: {total}"
    console = console_module.Console(**{"force_terminal": True, **console_kwargs})
    with console.capture() as capture:
        console.print(shown)
    return "\n" + capture.get() + "\n"


def _size_text(size: SizeBytes) -> str:
    if not size:
        return ""
    number, _, rest = repr(size).partition(" [")
    return f"{number} [dim]({rest[:-1]})[/dim]"


def _bold(text: str) -> str:
    return f"[bold]{text}[/bold]" if text else ""


def _text(tree: Any) -> str:
    """A tree of shapes, one entry on each line, nested ones indented as in YAML."""
    tree = _fields_of(tree)
    if isinstance(tree, Mapping):
        return "\n".join(_entry(_key(key), tree[key]) for key in sorted(tree, key=_key))
    if isinstance(tree, tuple | list):
        return "\n".join("- " + _item(item).replace("\n", "\n  ") for item in tree)
    if isinstance(tree, meta.Partitioned):
        names = ", ".join(map(str, tree.names))
        comma = "," if len(tree.names) == 1 else ""
        return f"{_text(tree.value)} [dim]P[/dim]({names}{comma})"
    if meta.is_axis_metadata(tree):
        return _text(meta.unbox(tree))
    if has_shape_dtype(tree):
        return f"[dim]{tree.dtype}[/dim][{','.join(map(str, tree.shape))}]"
    if is_module(tree):
        return type(tree).__name__
    return str(tree)


def _fields_of(x: Any) -> Any:
    """The fields of a dataclass as a dict; what is shown in one line as it is."""
    if isinstance(x, _ObjectRepresentation):
        x = x.obj
    if not dataclasses.is_dataclass(x) or has_shape_dtype(x) or isinstance(x, type):
        return x
    if is_module(x) or isinstance(x, meta.AxisMetadata):
        return x
    return {field.name: getattr(x, field.name) for field in dataclasses.fields(x)}


def _item(value: Any) -> str:
    """The text of what is inside of something: there, what is empty is shown."""
    if isinstance(value, Mapping | tuple | list) and not value:
        return "{}" if isinstance(value, Mapping) else "[]"
    return _text(value)


def _entry(key: str, value: Any) -> str:
    value = _fields_of(value)
    text = _item(value)
    if isinstance(value, Mapping) and value:
        return f"{key}:\n  " + text.replace("\n", "\n  ")
    if isinstance(value, tuple | list) and value:
        return f"{key}:\n{text}"
    return f"{key}: {text}"


def _key(key: Any) -> str:
    return str(key.value) if isinstance(key, enum.Enum) else str(key)
