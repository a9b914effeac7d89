"""The sharding of every array of a tree, and a report on them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from linnet._typing import PyTree
from linnet.core._node import is_declared
from linnet.core._table import Entry, slots
from linnet.parallel._placement import Placement, placement_of
from linnet.parallel._rules import Rules


def shardings(
    tree: PyTree,
    mesh: Any = None,
    rules: Rules | None = None,
    *,
    axes: tuple[str | None, ...] = (),
) -> PyTree:
    """The sharding of every array of a tree, as `jax.device_put` and `jax.jit` take it.

    Arrays of models are placed by the names that their declarations give to their
    axes. So are those of any tree that has models in it: the state of an optimiser, of
    a training run, or a model with caches.

    Args:
        tree: Models, arrays, shapes (`nn.abstract`), or what has them in it.
        mesh: A mesh; by default the one of `parallel.use`.
        rules: By default those of `parallel.use`.
        axes: Names of the leading axes of arrays that are in no model, as
            `("batch", "length")` for a batch of tokens. By default these arrays are
            on every device.

    Returns:
        A tree like `tree` with a `NamedSharding` for each array. `parallel.report`
        prints it.

    Raises:
        ConfigError: The rules do not fit the mesh or an array, or there are none.

    Example:
        >>> mesh = parallel.make_mesh(data=-1)
        >>> model = nn.abstract(nn.Dense(512), jnp.ones((1, 256)))
        >>> parallel.shardings(model, mesh, parallel.fsdp()).kernel.spec[1]
        'data'
    """
    __tracebackhide__ = True
    placement = placement_of(mesh, rules)
    _, treedef, _ = slots(tree)
    return treedef.unflatten([s for _, _, s in _placed(tree, placement, axes)])


def _placed(
    tree: PyTree, placement: Placement, axes: tuple[str | None, ...]
) -> Iterator[tuple[Entry, Any, NamedSharding]]:
    """Each array with what is known about it, and its sharding."""
    leaves, _, entries = slots(tree)
    for entry, leaf in zip(entries, leaves, strict=True):
        shape = tuple(np.shape(leaf)) if not is_declared(leaf) else leaf.shape
        if entry.declared is None:
            names = (*axes, *(None,) * len(shape))[: len(shape)]
            spec = placement.spec(entry.text or "tree", shape, names)
            yield entry, leaf, NamedSharding(placement.mesh, spec)
            continue
        names = _axes_of(entry, len(shape))
        whole = entry.declared.replace(shape=shape, axes=names)
        yield entry, leaf, placement.of_array(entry.text, whole)


def _axes_of(entry: Entry, ndim: int) -> tuple[str | None, ...]:
    """Names for all axes, those of stacks in front."""
    assert entry.declared is not None
    own = entry.declared.axes
    names = (*(name for name, _ in entry.stack), *(own or ()))
    if own is None or len(names) != ndim:
        return (None,) * ndim  # a tree in the place of an array, as in some optimisers
    return names


@dataclasses.dataclass(frozen=True)
class Report:
    """How a tree lies on a mesh. It prints as a table.

    Args:
        rows: For each array its path, shape, spec, and bytes on one device.
        total: Bytes of the whole tree.
        per_device: Bytes on each device.
        unused: Logical axes of rules that no array has.
        replicated: Paths of large arrays that are whole on every device.
    """

    rows: tuple[tuple[str, tuple[int, ...], Any, int], ...]
    total: int
    per_device: int
    unused: tuple[str, ...]
    replicated: tuple[str, ...]

    def __str__(self) -> str:
        head = ("path", "shape", "spec", "bytes per device")
        body = [(p, str(list(s)), _spec_text(c), f"{b:,}") for p, s, c, b in self.rows]
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]

        def line(cells: tuple[str, ...]) -> str:
            *texts, number = cells
            left = [t.ljust(w) for t, w in zip(texts, widths, strict=False)]
            return "  ".join([*left, number.rjust(widths[-1])])

        lines = [line(head), *map(line, body)]
        lines.append(f"{self.per_device:,} of {self.total:,} bytes on each device")
        if self.unused:
            lines.append(f"rules that match nothing: {', '.join(self.unused)}")
        if self.replicated:
            lines.append(f"large and on every device: {', '.join(self.replicated)}")
        return "\n".join(lines)

    __repr__ = __str__


def report(
    tree: PyTree,
    mesh: Any = None,
    rules: Rules | None = None,
    *,
    axes: tuple[str | None, ...] = (),
) -> Report:
    """What `shardings` gives, as a table with paths, shapes, specs and bytes.

    Args:
        tree: As for `shardings`.
        mesh: As for `shardings`.
        rules: As for `shardings`.
        axes: As for `shardings`.

    Raises:
        ConfigError: The rules do not fit the mesh or an array, or there are none.

    Example:
        >>> mesh = parallel.make_mesh(data=-1)
        >>> model = nn.abstract(nn.Dense(512), jnp.ones((1, 256)))
        >>> parallel.report(model, mesh, parallel.fsdp()).total
        526336
    """
    __tracebackhide__ = True
    placement = placement_of(mesh, rules)
    rows, large, seen = [], [], set()
    total = 0
    for entry, leaf, sharding in _placed(tree, placement, axes):
        shape = tuple(leaf.shape)
        itemsize = _itemsize(leaf)
        part = math.prod(sharding.shard_shape(shape)) * itemsize
        rows.append((entry.text, shape, sharding.spec, part))
        total += math.prod(shape) * itemsize
        if entry.declared is not None:
            seen |= set(_axes_of(entry, len(shape)))
        else:
            seen |= set(axes[: len(shape)])
        if math.prod(shape) >= placement.rules.min_size and not any(sharding.spec):
            large.append(entry.text)
    known = {"batch", "length"} - set(axes)  # of activations, which are in no tree
    unused = [n for n, _ in placement.rules.axes if n not in seen and n not in known]
    per_device = sum(row[-1] for row in rows)
    return Report(tuple(rows), total, per_device, tuple(unused), tuple(large))


def _itemsize(leaf: Any) -> int:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return (
            math.prod(jax.eval_shape(jax.random.key_data, leaf).shape[leaf.ndim :]) * 4
        )
    return int(np.dtype(leaf.dtype).itemsize)


def _spec_text(spec: Any) -> str:
    parts = [str(p) if p is None or isinstance(p, str) else "+".join(p) for p in spec]
    return f"({', '.join(parts)})" if parts else "replicated"
