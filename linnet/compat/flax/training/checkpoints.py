"""Checkpoints: files of msgpack, or folders of Orbax, one for each step."""

import concurrent.futures
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax

from linnet._extra import require
from linnet.compat.flax import errors, io, serialization
from linnet.compat.flax.configurations import config
from linnet.compat.flax.core.frozen_dict import FrozenDict, freeze, unfreeze

PyTree = Any
MultiprocessArrayType = Any
SIGNED_FLOAT_RE = re.compile(r"([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)")
UNSIGNED_FLOAT_RE = re.compile(r"[-+]?((?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)")
MODULE_NUM_RE = re.compile(r"(.*)_\d+$")
SCHEME_RE = re.compile("^(?P<scheme>[a-z][a-z0-9.+-]+://)?(?P<path>.*)", re.I)
MP_ARRAY_POSTFIX = "_gda"
MP_ARRAY_PH = "//GDAPlaceholder:"
COMMIT_SUCCESS_FILE = "commit_success.txt"
ORBAX_CKPT_FILENAME = "checkpoint"
ORBAX_MANIFEST_OCDBT = "manifest.ocdbt"
ORBAX_METADATA_FILENAME = "_METADATA"

__all__ = [
    "COMMIT_SUCCESS_FILE",
    "MODULE_NUM_RE",
    "MP_ARRAY_PH",
    "MP_ARRAY_POSTFIX",
    "ORBAX_CKPT_FILENAME",
    "ORBAX_MANIFEST_OCDBT",
    "ORBAX_METADATA_FILENAME",
    "SCHEME_RE",
    "SIGNED_FLOAT_RE",
    "UNSIGNED_FLOAT_RE",
    "AsyncManager",
    "MultiprocessArrayType",
    "PyTree",
    "available_steps",
    "config",
    "convert_pre_linen",
    "latest_checkpoint",
    "natural_sort",
    "restore_checkpoint",
    "safe_normpath",
    "save_checkpoint",
    "save_checkpoint_multiprocess",
]


class AsyncManager:
    """Writes checkpoints in a thread, one after the other.

    Args:
        max_workers: The number of threads.
    """

    def __init__(self, max_workers: int = 1):
        self.executor = concurrent.futures.ThreadPoolExecutor(max_workers)
        self.save_future: concurrent.futures.Future[Any] | None = None

    def wait_previous_save(self) -> None:
        """Waits for the one that is being written, and raises what went wrong."""
        if self.save_future is not None:
            self.save_future.result()

    def save_async(self, task: Callable[[], Any]) -> None:
        """Writes one more, after the one before."""
        self.wait_previous_save()
        self.save_future = self.executor.submit(task)


def natural_sort(file_list: Sequence[str], signed: bool = True) -> list[str]:
    """Names in the order of the numbers in them.

    Args:
        file_list: The names.
        signed: Whether a sign belongs to a number.
    """
    pattern = SIGNED_FLOAT_RE if signed else UNSIGNED_FLOAT_RE

    def parts(text: str) -> list[Any]:
        return [_number_or_text(part) for part in pattern.split(text)]

    return sorted(file_list, key=parts)


def _number_or_text(text: str) -> Any:
    try:
        return (0, float(text), "")
    except ValueError:
        return (1, 0.0, text)


def safe_normpath(path: str) -> str:
    """The path without detours; a scheme in front stays."""
    found = SCHEME_RE.match(path)
    assert found is not None
    return (found["scheme"] or "") + os.path.normpath(found["path"])


def _path(ckpt_dir: Any, prefix: str, step: Any) -> str:
    return os.path.join(os.fspath(ckpt_dir), f"{prefix}{step}")


def _all(ckpt_dir: Any, prefix: str) -> list[str]:
    """Paths of complete checkpoints, the earliest first."""
    base = os.path.basename(prefix)
    folder = os.path.dirname(_path(ckpt_dir, prefix, ""))
    if not io.isdir(folder):
        return []
    names = [
        name
        for name in io.listdir(folder)
        if name.startswith(base)
        and not name.endswith(("tmp", MP_ARRAY_POSTFIX))
        and ".orbax-checkpoint-tmp" not in name
    ]
    return [os.path.join(folder, name) for name in natural_sort(names)]


def latest_checkpoint(ckpt_dir: Any, prefix: str = "checkpoint_") -> str | None:
    """The path of the latest checkpoint, or None."""
    found = _all(ckpt_dir, prefix)
    return found[-1] if found else None


def available_steps(
    ckpt_dir: Any, prefix: str = "checkpoint_", step_type: type = int
) -> list[Any]:
    """The steps of which there are checkpoints, the earliest first."""
    base = os.path.basename(prefix)
    return [
        step_type(os.path.basename(path)[len(base) :])
        for path in _all(ckpt_dir, prefix)
    ]


def _check_step(
    ckpt_dir: Any, prefix: str, step: Any, overwrite: bool, by_orbax: bool
) -> tuple[str, list[str]]:
    """(where to write, checkpoints of later steps that go)."""
    path = _path(ckpt_dir, prefix, step)
    before = _all(ckpt_dir, prefix)
    if not before:
        return path, []
    ordered = natural_sort([*(p for p in before if p != path), path])
    later = ordered[ordered.index(path) + 1 :]
    if overwrite:
        return path, later
    if by_orbax:
        return path, []  # It says itself if the path is in use.
    if later or path in before:
        raise errors.InvalidCheckpointError(path, step)
    return path, []


def _remove(path: str) -> None:
    if io.isdir(path):
        io.rmtree(path)
    else:
        io.remove(path)


def _tidy(
    ckpt_dir: Any,
    prefix: str,
    keep: int,
    keep_every_n_steps: int | None,
) -> None:
    """Removes old checkpoints, but for those that are kept for good."""
    found = _all(ckpt_dir, prefix)
    base = os.path.basename(prefix)
    kept = -float("inf")
    for path in found[:-keep] if keep else []:
        if keep_every_n_steps:
            step = float(os.path.basename(path)[len(base) :])
            if step and step - kept >= keep_every_n_steps:  # Never step 0, as Flax.
                kept = step
                continue
        _remove(path)


def save_checkpoint(
    ckpt_dir: Any,
    target: PyTree,
    step: Any,
    prefix: str = "checkpoint_",
    keep: int = 1,
    overwrite: bool = False,
    keep_every_n_steps: int | None = None,
    async_manager: AsyncManager | None = None,
    orbax_checkpointer: Any = None,
) -> str:
    """Writes a checkpoint, whole or not at all.

    With Orbax (the default, see `flax_use_orbax_checkpointing`) it is a folder, without
    a file of msgpack.

    Args:
        ckpt_dir: The folder of checkpoints.
        target: A tree.
        step: Its step, the latest.
        prefix: What names start with.
        keep: How many of the latest are kept.
        overwrite: Whether one of the same or a later step may be overwritten.
        keep_every_n_steps: Of those that would go, one in so many steps stays.
        async_manager: Writes files of msgpack in a thread.
        orbax_checkpointer: Writes with Orbax.

    Returns:
        The path.

    Raises:
        InvalidCheckpointError: There is a file of the same or a later step.
        ValueError: With Orbax: there is one of the same step, or the tree is a leaf.
    """
    ckpt_dir = safe_normpath(os.fspath(ckpt_dir))
    if async_manager is not None:
        async_manager.wait_previous_save()
    by_orbax = orbax_checkpointer is not None or config.flax_use_orbax_checkpointing
    path, later = _check_step(ckpt_dir, prefix, step, overwrite, by_orbax)
    io.makedirs(os.path.dirname(path))
    if by_orbax:
        if jax.tree.structure(target).num_nodes == 1:
            raise ValueError(
                f"Orbax backend only accept pytree as save target, and this is a "
                f"{type(target).__name__}. Put it into a dict: {{'value': ...}}."
            )
        checkpointer = orbax_checkpointer or _orbax().PyTreeCheckpointer()
        checkpointer.save(os.path.abspath(path), target, force=overwrite)
        _after(ckpt_dir, prefix, path, later, keep, keep_every_n_steps)
        return path
    if any(map(_is_divided, jax.tree.leaves(target))):
        raise errors.MPACheckpointingRequiredError(path, step)
    data = serialization.to_bytes(target)

    def write() -> None:
        partial = os.path.join(os.path.dirname(path), f"{os.path.basename(path)}tmp")
        with io.GFile(partial, "wb") as file:
            file.write(data)
        io.rename(partial, path, overwrite=overwrite)
        _after(ckpt_dir, prefix, path, later, keep, keep_every_n_steps)

    if async_manager is None:
        write()
    else:
        async_manager.save_async(write)
    return path


def _after(
    ckpt_dir: str,
    prefix: str,
    path: str,
    later: list[str],
    keep: int,
    keep_every_n_steps: int | None,
) -> None:
    for other in later:
        if other != path:
            _remove(other)
    _tidy(ckpt_dir, prefix, keep, keep_every_n_steps)


def save_checkpoint_multiprocess(
    ckpt_dir: Any,
    target: PyTree,
    step: Any,
    prefix: str = "checkpoint_",
    keep: int = 1,
    overwrite: bool = False,
    keep_every_n_steps: int | None = None,
    async_manager: AsyncManager | None = None,
    gda_manager: Any = None,
    orbax_checkpointer: Any = None,
) -> str:
    """`save_checkpoint` of all processes together: each calls it, Orbax writes."""
    del gda_manager
    if jax.process_count() > 1 and orbax_checkpointer is None:
        orbax_checkpointer = _orbax().PyTreeCheckpointer()
    return save_checkpoint(
        ckpt_dir,
        target,
        step,
        prefix,
        keep,
        overwrite,
        keep_every_n_steps,
        async_manager,
        orbax_checkpointer,
    )


def _is_divided(x: Any) -> bool:
    return isinstance(x, jax.Array) and not x.is_fully_addressable


def _orbax() -> Any:
    return require("orbax.checkpoint", "compat", "a checkpoint of Orbax")


def _is_orbax(path: str) -> bool:
    return io.isdir(path) and any(
        io.exists(os.path.join(path, name))
        for name in (ORBAX_CKPT_FILENAME, ORBAX_MANIFEST_OCDBT, ORBAX_METADATA_FILENAME)
    )


def restore_checkpoint(
    ckpt_dir: Any,
    target: Any,
    step: Any = None,
    prefix: str = "checkpoint_",
    parallel: bool = True,
    gda_manager: Any = None,
    allow_partial_mpa_restoration: bool = False,
    orbax_checkpointer: Any = None,
    orbax_transforms: Any = None,
) -> Any:
    """The tree of a checkpoint; `target` itself if there is none.

    Args:
        ckpt_dir: The folder of checkpoints, or the path of one.
        target: A tree of the same structure; None for the state dict.
        step: The step; by default the latest.
        prefix: What names start with.
        parallel: Accepted for the sake of older code.
        gda_manager: Likewise.
        allow_partial_mpa_restoration: Likewise.
        orbax_checkpointer: Reads with Orbax.
        orbax_transforms: Of Orbax.

    Raises:
        ValueError: There is no checkpoint of that step.
    """
    del parallel, gda_manager, allow_partial_mpa_restoration
    ckpt_dir = safe_normpath(os.fspath(ckpt_dir))
    if step is not None:
        path = _path(ckpt_dir, prefix, step)
        if not io.exists(path):
            raise ValueError(f"Matching checkpoint not found: {path}")
    elif not io.exists(ckpt_dir):
        return target
    elif io.isdir(ckpt_dir) and not _is_orbax(ckpt_dir):
        found = latest_checkpoint(ckpt_dir, prefix)
        if found is None:
            return target
        path = found
    else:
        path = ckpt_dir
    if _is_orbax(path):
        return _restored_by_orbax(path, target, orbax_checkpointer, orbax_transforms)
    with io.GFile(path, "rb") as file:
        state = serialization.msgpack_restore(file.read())
    return state if target is None else serialization.from_state_dict(target, state)


def _restored_by_orbax(
    path: str, target: Any, checkpointer: Any, transforms: Any
) -> Any:
    from linnet.compat.flax.training import orbax_utils

    checkpointer = checkpointer or _orbax().PyTreeCheckpointer()
    path = os.path.abspath(path)
    if target is None:
        return serialization.to_state_dict(checkpointer.restore(path))
    restored = checkpointer.restore(
        path,
        item=target,
        restore_args=orbax_utils.restore_args_from_target(target),
        # Even without any, the target may have more or less than the file.
        transforms=transforms or {},
    )
    # Dicts in the order of the target, where Orbax sorts their keys.
    return serialization.from_state_dict(target, serialization.to_state_dict(restored))


def convert_pre_linen(params: Any) -> Any:
    """Parameters of the time before Linen, with modules numbered from 0 by kind.

    Args:
        params: A nested dict, or a `FrozenDict`, whose keys are `Dense_0`, ...
    """
    if isinstance(params, FrozenDict):
        return freeze(convert_pre_linen(unfreeze(params)))
    if not hasattr(params, "items"):
        return params
    renamed, counts = {}, dict[str, int]()
    for name in natural_sort(list(params)):
        value = params[name]
        match = MODULE_NUM_RE.match(name)
        if match:
            kind = match[1]
            name = f"{kind}_{counts.get(kind, 0)}"
            counts[kind] = counts.get(kind, 0) + 1
        renamed[name] = convert_pre_linen(value)
    return renamed
