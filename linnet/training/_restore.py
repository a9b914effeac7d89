"""Reading a checkpoint into a tree."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linnet import nn
from linnet._errors import CheckpointError, TreeError
from linnet._typing import Array, PyTree, Shape
from linnet.core._ambient import ambient
from linnet.core._node import is_declared
from linnet.core._path import path_text
from linnet.core._table import Entry, modules, slots
from linnet.training._checksum import checksums
from linnet.training._layered import find, layered_names, unused_layers
from linnet.training._manifest import sum_text

DAMAGED = "LN-CKPT-03"
CALL = "found = checkpoints.restore(state"


class Stored:
    """A checkpoint on disk.

    Args:
        folder: Of the run.
        step: Of the checkpoint.
        content: Of its manifest.
        orbax: The module.
    """

    def __init__(
        self, folder: pathlib.Path, step: int, content: dict[str, Any], orbax: Any
    ) -> None:
        self.folder, self.step, self.content = folder, step, content
        self.about: dict[str, dict[str, Any]] = content["arrays"]
        self._orbax = orbax

    @staticmethod
    def damaged(folder: pathlib.Path, step: int, what: str) -> CheckpointError:
        """The error for a part that is not what was written."""
        return CheckpointError(
            f"the checkpoint of step {step} in {folder} is damaged: {what} is not what "
            "was written.",
            code=DAMAGED,
            why="Checksums of names and contents are stored with a checkpoint.",
            fixes=[("an older one will do", "found = checkpoints.restore(state)")],
        )

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes by path; of keys those of the keys."""
        return {path: self._shape(path) for path in self.about}

    def read(self, shardings: Mapping[str, Any]) -> dict[str, Array]:
        """Arrays by path, whose checksums are right.

        Args:
            shardings: For each path that is read where it goes; `None` for one device.

        Raises:
            CheckpointError: An array is not what was written.
        """
        shapes = {path: self._raw_shape(path, s) for path, s in shardings.items()}
        wanted = {path: shape for path, shape in shapes.items() if shape.size}
        found = {
            p: jnp.zeros(s.shape, s.dtype) for p, s in shapes.items() if not s.size
        }
        found |= self._read(wanted) if wanted else {}
        return {path: self._whole(path, array) for path, array in found.items()}

    def _read(self, wanted: dict[str, jax.ShapeDtypeStruct]) -> dict[str, Array]:
        """Arrays as they are stored."""
        orbax = self._orbax
        arrays = orbax.checkpoint_utils.construct_restore_args(wanted)
        args = orbax.args.PyTreeRestore(
            item=wanted, restore_args=arrays, partial_restore=True
        )
        try:
            with orbax.Checkpointer(orbax.PyTreeCheckpointHandler()) as checkpointer:
                place = self.folder / str(self.step) / "arrays"
                found: dict[str, Any] = checkpointer.restore(place, args=args)
        except Exception as error:  # of Orbax, TensorStore or the system
            raise self.damaged(self.folder, self.step, "an array") from error
        for path, array in found.items():
            if not isinstance(array, jax.Array):
                raise self.damaged(self.folder, self.step, f"`{path}`")
        sums = checksums(found)
        for path, pair in sums.items():
            if sum_text(pair) != self.about[path]["checksum"]:
                raise self.damaged(self.folder, self.step, f"`{path}`")
        return found

    def _whole(self, path: str, array: Array) -> Array:
        kind = self.about[path].get("key")
        return array if kind is None else jax.random.wrap_key_data(array, impl=kind)

    def _raw_shape(self, path: str, sharding: Any) -> jax.ShapeDtypeStruct:
        row = self.about[path]
        if sharding is None or "key" in row:
            sharding = _everywhere()
        dtype = jnp.dtype(row["dtype"])
        return jax.ShapeDtypeStruct(tuple(row["shape"]), dtype, sharding=sharding)

    def _shape(self, path: str) -> jax.ShapeDtypeStruct:
        row = self.about[path]
        shape = jax.ShapeDtypeStruct(tuple(row["shape"]), jnp.dtype(row["dtype"]))
        if "key" not in row:
            return shape
        return jax.eval_shape(
            lambda data: jax.random.wrap_key_data(data, impl=row["key"]), shape
        )


def _everywhere() -> jax.sharding.Sharding:
    """Whole on every device of the mesh in force, or of all processes."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty and jax.process_count() == 1:
        return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    if mesh.empty:
        mesh = jax.make_mesh((jax.device_count(),), ("all",))
    return jax.sharding.NamedSharding(mesh, jax.P())


def fill(
    like: PyTree,
    stored: Stored,
    at: str,
    rename: Mapping[str, str],
    tolerances: Mapping[str, Any],
) -> PyTree:
    """The tree with the arrays of a checkpoint.

    Args:
        like: The tree.
        stored: The checkpoint.
        at: The path of what is wanted.
        rename: From a path in the checkpoint, below `at`, to one in the tree.
        tolerances: Of `nn.from_paths`.

    Raises:
        CheckpointError: It is damaged.
        TreeError: Something does not fit.
    """
    __tracebackhide__ = True
    there = _renamed(stored.about, at, rename)  # path in `like` -> path in checkpoint
    about = stored.about
    names = {_moved(about[old]["name"], at, rename): old for old in there.values()}
    shapes = {name: tuple(about[old]["shape"]) for name, old in names.items()}
    leaves, _, entries = slots(like)
    wanted = layered_names(like)
    found = {}
    for leaf, entry in zip(leaves, entries, strict=True):
        sizes = (*(size for _, size in entry.stack), *_shape_of(leaf, entry))
        one = find(wanted[entry.text], sizes, shapes)
        if one is not None:
            found[entry.text] = one
    direct = {}
    for leaf, entry in zip(leaves, entries, strict=True):
        one = found.get(entry.text)
        if one is not None and one.is_whole:
            (name, _), *_ = one.sources
            direct[names[name]] = _sharding_of(leaf, entry, shapes[name])
    read = {names[s]: None for one in found.values() for s, _ in one.sources} | direct
    arrays = stored.read(read)
    by_name = {name: arrays[old] for name, old in names.items() if old in arrays}
    mapping = {text: one.value(by_name) for text, one in found.items()}
    for text, source, i in unused_layers(found.values(), shapes):
        mapping[text] = by_name[source][i]
    known, same = stored.shapes(), _tied_in_both(like, stored, there)
    for text, old in there.items():
        if old not in read and text not in same:
            mapping[text] = known[old]  # it is only named in the report
    try:
        filled = nn.from_paths(like, mapping, **tolerances)
    except TreeError as error:
        raise _does_not_fit(error, stored.step) from None
    return _placed(filled, like)


def _does_not_fit(error: TreeError, step: int) -> TreeError:
    """The error of `nn.from_paths`, in the words of a checkpoint."""
    fixes = [
        (when, code.replace("model = nn.from_paths(model, mapping", CALL))
        for when, code in error.fixes
    ]
    return TreeError(
        error.what.replace("the mapping", f"the checkpoint of step {step}"),
        code=error.code,
        at=error.at,
        facts=error.facts,
        why=error.why,
        fixes=fixes,
    )


def _renamed(
    paths: Iterable[str], at: str, rename: Mapping[str, str]
) -> dict[str, str]:
    inside = f"{at}/" if at else ""
    return {_moved(p, at, rename): p for p in paths if p.startswith(inside) or p == at}


def _moved(path: str, at: str, rename: Mapping[str, str]) -> str:
    path = path[len(at) :].lstrip("/") if at else path
    for old, new in rename.items():
        if path == old or path.startswith(f"{old}/"):
            return f"{new}{path[len(old) :]}".lstrip("/")
    return path


def _shape_of(leaf: Any, entry: Entry) -> tuple[Any, ...]:
    shape = tuple(np.shape(leaf)) if not is_declared(leaf) else tuple(leaf.shape)
    return shape if is_declared(leaf) else shape[len(entry.stack) :]


def _sharding_of(leaf: Any, entry: Entry, shape: Shape) -> Any:
    """Where an array of the tree, of this shape, is to go, or `None`."""
    if not is_declared(leaf):
        sharding = getattr(leaf, "sharding", None)
        return sharding if isinstance(sharding, jax.sharding.NamedSharding) else None
    placement = ambient()
    if placement is None or len(shape) != leaf.ndim + len(entry.stack):
        return None
    names = tuple(name for name, _ in entry.stack)
    axes = (*names, *(leaf.axes or (None,) * leaf.ndim))
    return placement.of_array(entry.text, leaf.replace(shape=shape, axes=axes))


def _placed(tree: PyTree, like: PyTree) -> PyTree:
    """The tree with its arrays where those of `like` are to be."""
    leaves, treedef, _ = slots(tree)
    wanted, _, entries = slots(like)

    def place(x: Any, leaf: Any, entry: Entry) -> Any:
        if not isinstance(x, jax.Array):
            return x
        sharding = _sharding_of(leaf, entry, x.shape)
        is_there = sharding is None or x.sharding == sharding
        return x if is_there else jax.device_put(x, sharding)

    return treedef.unflatten(map(place, leaves, wanted, entries))


def _tied_in_both(like: PyTree, stored: Stored, there: Mapping[str, str]) -> set[str]:
    """Paths that are tied in the tree, and were in the one that was saved."""
    tied = {
        path_text((*path, *target))
        for path, module in modules(like)
        for target, _, _ in module._spec.ties
    }
    return {p for p in tied if p in there and stored.about[there[p]].get("tied")}
