"""The sharding of every array of a tree, and a report on them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from linnet._typing import PyTree
from linnet.core._table import slots
from linnet.core._tree import refuse_described
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
        InitError: A model is described only.

    Example:
        >>> mesh = parallel.make_mesh(data=-1)
        >>> model = nn.abstract(nn.Dense(512), jnp.ones((1, 256)))
        >>> parallel.shardings(model, mesh, parallel.fsdp()).kernel.spec[1]
        'data'
    """
    __tracebackhide__ = True
    found = [one.sharding for one in placed(tree, placement_of(mesh, rules), axes)]
    return jax.tree.unflatten(jax.tree.structure(tree), found)


class Placed(NamedTuple):
    """An array of a tree, and where it goes."""

    path: str
    shape: tuple[int, ...]
    itemsize: int
    axes: tuple[str | None, ...]
    sharding: NamedSharding

    @property
    def part(self) -> int:
        """Bytes on one device."""
        return math.prod(self.sharding.shard_shape(self.shape)) * self.itemsize


def placed(
    tree: PyTree, placement: Placement, axes: tuple[str | None, ...] = ()
) -> list[Placed]:
    """Where each array of a tree goes."""
    __tracebackhide__ = True
    refuse_described(tree)
    found = []
    leaves, _, entries = slots(tree)
    for leaf, entry in zip(leaves, entries, strict=True):
        shape = tuple(np.shape(leaf))
        is_declared = entry.declared is not None
        names = entry.axes(len(shape)) if is_declared else axes
        names = (*names, *(None,) * len(shape))[: len(shape)]
        path = entry.text or "tree"
        spec = placement.spec(path, shape, names, is_declared=is_declared)
        sharding = NamedSharding(placement.mesh, spec)
        found.append(Placed(path, shape, _itemsize(leaf), names, sharding))
    return found


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
        InitError: A model is described only.

    Example:
        >>> mesh = parallel.make_mesh(data=-1)
        >>> model = nn.abstract(nn.Dense(512), jnp.ones((1, 256)))
        >>> parallel.report(model, mesh, parallel.fsdp()).total
        526336
    """
    __tracebackhide__ = True
    placement = placement_of(mesh, rules)
    found = placed(tree, placement, axes)
    seen = {name for one in found for name in one.axes}
    seen |= {"batch", "length"} - set(axes)  # of activations, which are in no tree
    return Report(
        rows=tuple((o.path, o.shape, o.sharding.spec, o.part) for o in found),
        total=sum(math.prod(one.shape) * one.itemsize for one in found),
        per_device=sum(one.part for one in found),
        unused=tuple(name for name, _ in placement.rules.axes if name not in seen),
        replicated=tuple(
            one.path
            for one in found
            if placement.is_large(one.shape, one.axes) and not any(one.sharding.spec)
        ),
    )


def _itemsize(leaf: Any) -> int:
    dtype = jax.dtypes.result_type(leaf)
    if not jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        return int(dtype.itemsize)
    words = jax.eval_shape(jax.random.key_data, leaf)
    return math.prod(words.shape[leaf.ndim :]) * int(words.dtype.itemsize)


def _spec_text(spec: Any) -> str:
    parts = [str(p) if p is None or isinstance(p, str) else "+".join(p) for p in spec]
    return f"({', '.join(parts)})" if parts else "replicated"
