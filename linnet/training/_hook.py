"""Hooks for `fit`: showing, evaluating, stopping, profiling."""

from __future__ import annotations

import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from linnet._errors import ConfigError
from linnet._extra import require
from linnet.core._check import check_size
from linnet.training._every import Every
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


class Evaluate(Every):
    """Calls a function of the state every so many steps, and at the end.

    Args:
        every: Steps.
        function: From the state to numbers by name, which are handed to `on_log`.
    """

    def __init__(
        self, every: int, function: Callable[[Any], Mapping[str, Any]]
    ) -> None:
        super().__init__(every)
        self.function = function

    def _act(self, run: Run) -> None:
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
