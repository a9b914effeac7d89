"""Hooks for `fit`: showing, evaluating, stopping, saving."""

from __future__ import annotations

import json
import math
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from linnet._errors import ConfigError
from linnet._extra import require
from linnet.core._check import check_size
from linnet.training._checkpoint import Checkpoints
from linnet.training._fit import Run


class Progress:
    """Shows how far a run is: a bar on a terminal, plain lines elsewhere.

    Both have the rate, the time that is left, and the values of the last `on_log`.

    Args:
        names: Of the values that are shown; all by default.
    """

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self.names = names
        self._bar: Any = None

    def on_start(self, run: Run) -> None:
        """Draws the bar."""
        self._since, self._first = time.perf_counter(), run.step
        if sys.stdout.isatty():
            rich = require("rich.progress", "logging", "`Progress` on a terminal")
            columns = (
                rich.BarColumn(20),
                rich.MofNCompleteColumn(),
                rich.TimeRemainingColumn(),
                rich.TextColumn("{task.description}"),
            )
            self._bar = rich.Progress(*columns)
            self._task = self._bar.add_task("compiling", total=run.steps)
            self._bar.start()

    def on_step(self, run: Run) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=run.step)

    def on_log(self, run: Run, values: Mapping[str, Any]) -> None:
        """Shows the values."""
        text = "  ".join(
            f"{name} {_short(value)}"
            for name, value in values.items()
            if self.names is None or name in self.names
        )
        if self._bar is not None:
            self._bar.update(self._task, description=text)
            return
        seconds = time.perf_counter() - self._since
        left = seconds / max(run.step - self._first, 1) * (run.steps - run.step)
        print(f"step {run.step}/{run.steps}  {text}  {_clock(left)} left", flush=True)

    def on_end(self, run: Run) -> None:
        """Ends the bar, and says why the run ended early."""
        if self._bar is not None:
            self._bar.stop()
        if run.reason is not None:
            print(f"stopped after step {run.step}: {run.reason}")


class JsonLines:
    """Writes values to a file, a JSON object a line, with the step and the time.

    Args:
        path: Of the file; lines are added to it. Only the first process writes.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)

    def on_log(self, run: Run, values: Mapping[str, Any]) -> None:
        """Writes a line."""
        if jax.process_index():
            return
        row = {"step": run.step, "time": time.time()}
        row |= {name: _json(value) for name, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class TensorBoard:
    """Writes values as event files for TensorBoard.

    Args:
        folder: Of the files. Only the first process writes.

    Raises:
        ExtraError: tensorboardX is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        package = require("tensorboardX", "logging", "`training.TensorBoard`")
        self._writer = (
            package.SummaryWriter(str(folder)) if not jax.process_index() else None
        )

    def on_log(self, run: Run, values: Mapping[str, Any]) -> None:
        """Writes the numbers among the values."""
        if self._writer is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(name, value, run.step)

    def on_end(self, run: Run) -> None:
        """Ends the file."""
        if self._writer is not None:
            self._writer.close()


class Evaluate:
    """Calls a function of the state every so many steps, and at the end.

    Args:
        every: Steps.
        function: From the state to numbers by name, which are handed to `on_log`.
    """

    def __init__(
        self, every: int, function: Callable[[Any], Mapping[str, Any]]
    ) -> None:
        self.every = check_size("Evaluate", "every", every)
        self.function = function

    def on_step(self, run: Run) -> None:
        """Evaluates, if it is time."""
        if run.step % self.every == 0 or run.is_last:
            run.log(self.function(run.state))


class EarlyStop:
    """Ends a run when a value has not become better for a while.

    Args:
        name: Of the value.
        patience: How many times in a row it may fail to become better.
        mode: "min" if smaller is better, "max" if larger is.
        least: By how much it has to become better.
    """

    def __init__(
        self, name: str, patience: int, *, mode: str = "min", least: float = 0.0
    ) -> None:
        if mode not in ("min", "max"):
            raise ConfigError(
                f"`mode` is {mode!r}, not 'min' or 'max'.",
                code="LN-VALUE-04",
                at="EarlyStop",
                fixes=[("smaller is better", 'mode = "min"')],
            )
        self.name, self.least = name, least
        self.patience = check_size("EarlyStop", "patience", patience)
        self.sign = 1 if mode == "min" else -1
        self.best, self.failures = math.inf, 0

    def on_log(self, run: Run, values: Mapping[str, Any]) -> None:
        """Looks at the value, if it is there."""
        if self.name not in values:
            return
        value = self.sign * float(values[self.name])
        if value < self.best - self.least:
            self.best, self.failures = value, 0
            return
        self.failures += 1
        if self.failures >= self.patience:
            best = self.sign * self.best
            run.stop(f"{self.name} is not better than {_short(best)}")


class Save:
    """Saves checkpoints: every so many steps, at the end, and when asked to end.

    SIGTERM, by which clusters announce that a machine is taken away, ends the run after
    the step under way, and the state is saved first.

    Args:
        checkpoints: Where to.
        every: Steps.
        data: An iterator with `get_state()`, which is saved with the state.
        config: What JSON holds.
        metrics: Names of logged values that are saved too, for `keep_best`.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        every: int,
        *,
        data: Any = None,
        config: Any = None,
        metrics: Sequence[str] = (),
    ) -> None:
        self.checkpoints, self.data, self.config = checkpoints, data, config
        self.every = check_size("Save", "every", every)
        self.names = metrics
        self.values: dict[str, float] = {}
        self._before: Any = None

    def on_start(self, run: Run) -> None:
        """Listens for SIGTERM."""
        self._asked = False

        def ask(*_: Any) -> None:
            self._asked = True

        try:
            self._before = signal.signal(signal.SIGTERM, ask)
        except ValueError:  # not in the main thread
            self._before = None

    def on_log(self, run: Run, values: Mapping[str, Any]) -> None:
        """Remembers the values that are saved."""
        self.values |= {n: float(values[n]) for n in self.names if n in values}

    def on_step(self, run: Run) -> None:
        """Saves, if it is time."""
        if self._asked:
            run.stop("SIGTERM")
        if run.step % self.every == 0 or run.is_last:
            get_state = getattr(self.data, "get_state", None)
            self.checkpoints.save(
                run.step,
                run.state,
                data=get_state() if get_state else None,
                config=self.config,
                metrics=dict(self.values) or None,
            )

    def on_end(self, run: Run) -> None:
        """Waits until all is written."""
        self.checkpoints.wait()
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)


class Profile:
    """Records some steps with JAX's profiler, for TensorBoard, XProf or Perfetto.

    Args:
        folder: Of the trace.
        first: Step before which it starts; not 0, so that compilation is left out.
        steps: How many.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, first: int = 10, steps: int = 5
    ) -> None:
        self.folder = str(folder)
        self.first = check_size("Profile", "first", first)
        self.steps = check_size("Profile", "steps", steps)
        self._is_on = False

    def on_step(self, run: Run) -> None:
        """Starts or ends the recording."""
        if run.step == self.first:
            jax.block_until_ready(run.metrics)
            jax.profiler.start_trace(self.folder)
            self._is_on = True
        elif self._is_on and run.step >= self.first + self.steps:
            self.on_end(run)

    def on_end(self, run: Run) -> None:
        """Ends the recording."""
        if self._is_on:
            jax.block_until_ready(run.metrics)
            jax.profiler.stop_trace()
            self._is_on = False


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _json(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
