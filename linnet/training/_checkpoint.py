"""Checkpoints: the state of a training run, stored by path with Orbax."""

from __future__ import annotations

import json
import os
import pathlib
import types
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from linnet._errors import CheckpointError, ConfigError
from linnet._extra import require
from linnet._typing import Array, PyTree
from linnet.core._check import check_size
from linnet.core._path import path_matches
from linnet.core._paths import Patterns
from linnet.training._manifest import FORMAT, flattened, sealed, unsealed
from linnet.training._restore import Stored, fill


class Restored(NamedTuple):
    """What `Checkpoints.restore` returns.

    Attributes:
        state: The tree that was asked for, with the arrays of the checkpoint.
        step: Of the checkpoint.
        data: The state of the data iterator that was saved, or `None`.
        config: The configuration that was saved, or `None`.
    """

    state: PyTree
    step: int
    data: Any
    config: Any


class Checkpoints:
    """The checkpoints of a run, in a folder.

    Saving is asynchronous: `save` returns when the arrays are copied from the devices,
    and they are written while training goes on. A checkpoint is there as a whole or not
    at all, whenever the process ends. Each array is stored under its path, with a
    checksum: moving classes between files changes nothing, layers may be stacked or
    not, and any number of devices and processes reads what any other number wrote.

    Args:
        folder: Of the checkpoints; it is made if need be.
        keep_last: Number of newest checkpoints that are kept.
        keep_best: `(metric, "min" or "max", count)`: as many of the best are kept too,
            by a metric that `save` is given.
        is_async: Whether to write while training goes on.

    Raises:
        ConfigError: An option has a value that cannot be used.
        ExtraError: Orbax is not installed.

    Example:
        >>> import tempfile
        >>> x = jnp.ones((1, 2))
        >>> model = nn.init(nn.Dense(3), jax.random.key(0), x)
        >>> with training.Checkpoints(tempfile.mkdtemp()) as checkpoints:
        ...     checkpoints.save(10, model, config={"features": 3})
        ...     found = checkpoints.restore(nn.abstract(nn.Dense(3), x))
        >>> found.state == model, found.step, found.config
        (True, 10, {'features': 3})
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep_last: int = 3,
        keep_best: tuple[str, str, int] | None = None,
        is_async: bool = True,
    ) -> None:
        self.folder = pathlib.Path(folder).absolute()
        keep_last = check_size("Checkpoints", "keep_last", keep_last)
        self._orbax = require("orbax.checkpoint", "checkpoint", "`Checkpoints`")
        managers = self._orbax.checkpoint_managers
        policies = [managers.LatestN(keep_last)]
        if keep_best is not None:
            metric, mode, count = _checked_best(keep_best)
            policies.append(
                managers.BestN(
                    get_metric_fn=lambda metrics: metrics[metric],
                    reverse=mode == "min",
                    n=count,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._manager = self._orbax.CheckpointManager(
            self.folder,
            options=self._orbax.CheckpointManagerOptions(
                preservation_policy=managers.AnyPreservationPolicy(policies),
                enable_async_checkpointing=is_async,
                cleanup_tmp_directories=True,
            ),
        )

    def save(
        self,
        step: int,
        state: PyTree,
        *,
        data: Any = None,
        config: Any = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Saves a checkpoint.

        Args:
            step: Its number; each may be saved once.
            state: Any pytree of models and arrays, as a `TrainState`.
            data: The state of a data iterator: what JSON holds, or bytes. Each process
                saves its own.
            config: What JSON holds.
            metrics: For `keep_best`.

        Raises:
            CheckpointError: There is a checkpoint of this step.
        """
        __tracebackhide__ = True
        step = int(step)
        if step in self.steps():
            raise CheckpointError(
                f"{self.folder} has a checkpoint of step {step}.",
                code="LN-CKPT-01",
                why="A checkpoint is never written over: it might be the only one.",
                fixes=[
                    ("the run goes on from it", "found = checkpoints.restore(state)"),
                    ("it is another run", "checkpoints = training.Checkpoints(other)"),
                ],
            )
        arrays, about = flattened(state)
        content = {"format": FORMAT, "arrays": about, "config": config}
        content["data"] = _gathered(data)
        args = self._orbax.args
        self._manager.save(
            step,
            args=args.Composite(
                arrays=args.PyTreeSave(arrays), manifest=args.JsonSave(sealed(content))
            ),
            metrics=metrics and {name: float(v) for name, v in metrics.items()},
        )

    def restore(
        self,
        like: PyTree,
        step: int | None = None,
        *,
        at: str = "",
        rename: Mapping[str, str] = types.MappingProxyType({}),
        missing: Patterns = (),
        unexpected: Patterns = (),
        shape: Patterns = (),
        dtype: Patterns = (),
        tied: Patterns = (),
    ) -> Restored:
        """The newest checkpoint, or that of a step.

        Strict: whatever does not fit is in one report, and each tolerance is asked for
        by path pattern. Arrays go where those of `like` are, if it says so: where its
        arrays lie, where `nn.abstract` under `parallel.use` puts them, or else on one
        device.

        A checkpoint that is damaged is named in a warning, and the one before it is
        taken; if it was asked for by its step, that is an error.

        Args:
            like: A tree like the one that was saved: initialised, described, or of
                shapes alone (`nn.abstract`).
            step: Of the checkpoint.
            at: The path in the checkpoint of what is wanted: "model" for the model
                of a `TrainState`.
            rename: From a path in the checkpoint to one in `like`, for all below it.
            missing: Arrays that the checkpoint may lack. They stay as they are.
            unexpected: Paths of the checkpoint that `like` may lack.
            shape: Arrays whose shape may differ. They stay as they are.
            dtype: Arrays whose dtype may differ. They are converted to that of `like`.
            tied: Arrays that are tied in `like`, whose stored values may be left out.

        Raises:
            CheckpointError: There is none, or it is damaged.
            PathError: A pattern matches nothing.
            TreeError: Something does not fit.
        """
        __tracebackhide__ = True
        self.wait()
        tolerances = {
            "missing": missing,
            "unexpected": unexpected,
            "shape": shape,
            "dtype": dtype,
            "tied": tied,
        }
        for number in [step] if step is not None else reversed(self.steps()):
            try:
                stored = self._stored(number)
                state = fill(like, stored, at.strip("/"), rename, tolerances)
            except CheckpointError as error:
                if step is not None:
                    raise
                warnings.warn(f"{error.what} The one before it is taken.", stacklevel=2)
                continue
            content = stored.content
            return Restored(state, number, _own(content["data"]), content["config"])
        raise CheckpointError(
            f"{self.folder} has no checkpoint that can be restored.",
            code="LN-CKPT-02",
            fixes=[
                (
                    "the run starts here",
                    "if checkpoints.latest() is not None:\n"
                    "    state = checkpoints.restore(state).state",
                )
            ],
        )

    def steps(self) -> list[int]:
        """The steps of the checkpoints that are there as a whole, in order."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The step of the newest checkpoint, or `None`."""
        return self._manager.latest_step()

    def paths(self, step: int | None = None) -> dict[str, jax.ShapeDtypeStruct]:
        """The paths of a checkpoint with shapes and dtypes. No array is read.

        Args:
            step: Of the checkpoint; the newest by default.

        Raises:
            CheckpointError: There is none, or it is damaged.
        """
        return self._stored(self._number(step)).shapes()

    def config(self, step: int | None = None) -> Any:
        """The configuration of a checkpoint. No array is read.

        Args:
            step: Of the checkpoint; the newest by default.

        Raises:
            CheckpointError: There is none, or it is damaged.
        """
        return self._stored(self._number(step)).content["config"]

    def read(self, pattern: str = "**", step: int | None = None) -> dict[str, Array]:
        """Arrays of a checkpoint by path, without the classes that made it.

        Args:
            pattern: Of paths, as "model/encoder/**".
            step: Of the checkpoint; the newest by default.

        Raises:
            CheckpointError: There is none, or it is damaged.
        """
        stored = self._stored(self._number(step))
        return stored.read(
            {path: None for path in stored.about if path_matches(pattern, path)}
        )

    def wait(self) -> None:
        """Waits until everything that was saved is written."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and lets the folder go."""
        self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _number(self, step: int | None) -> int:
        self.wait()
        number = self.latest() if step is None else step
        return -1 if number is None else number

    def _stored(self, step: int) -> Stored:
        if step not in self.steps():
            there = ", ".join(map(str, self.steps())) or "none"
            raise CheckpointError(
                f"{self.folder} has no checkpoint of step {step}.",
                code="LN-CKPT-02",
                facts={"steps": there},
                fixes=[
                    ("the newest one is meant", "found = checkpoints.restore(state)")
                ],
            )
        args = self._orbax.args
        try:
            found = self._manager.restore(
                step, args=args.Composite(manifest=args.JsonRestore())
            )
            content = unsealed(found["manifest"])
        except Exception as error:  # of Orbax, TensorStore, JSON or the system
            raise Stored.damaged(self.folder, step, "its manifest") from error
        if content is None:
            raise Stored.damaged(self.folder, step, "its manifest")
        return Stored(self.folder, step, content, self._orbax)


def _checked_best(best: tuple[str, str, int]) -> tuple[str, str, int]:
    if isinstance(best, tuple) and len(best) == 3 and best[1] in ("min", "max"):
        return best[0], best[1], check_size("Checkpoints", "keep_best[2]", best[2])
    raise ConfigError(
        f"`keep_best` is {best!r}, not a metric, 'min' or 'max', and a number.",
        code="LN-VALUE-04",
        at="Checkpoints",
        fixes=[("the smallest loss is best", 'keep_best = ("loss", "min", 1)')],
    )


def _gathered(data: Any) -> list[Any]:
    """What each process saves, as JSON."""
    text = json.dumps({"bytes": data.hex()} if isinstance(data, bytes) else data)
    if jax.process_count() == 1:
        return [json.loads(text)]
    from jax.experimental import multihost_utils

    raw = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(raw)]))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(raw)] = raw
    rows = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    pairs = zip(rows, np.ravel(sizes), strict=True)
    return [json.loads(row[:size].tobytes()) for row, size in pairs]


def _own(rows: list[Any]) -> Any:
    """What this process saved, or `None` if another number of them did."""
    if len(rows) != jax.process_count():
        return None
    row = rows[jax.process_index()]
    is_bytes = isinstance(row, dict) and row.keys() == {"bytes"}
    return bytes.fromhex(row["bytes"]) if is_bytes else row
