"""A hook that saves checkpoints, and does so before a machine is taken away."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from linnet._errors import ConfigError
from linnet.training._checkpoint import Checkpoints
from linnet.training._every import Every
from linnet.training._fit import Run


class Save(Every):
    """Saves checkpoints: every so many steps, at the end, and when asked to end.

    Its turn is after all other hooks, wherever it is among them: it saves what they
    logged at this step, and nothing where one of them raised an error.

    SIGTERM, by which clusters announce that a machine is taken away, ends the run after
    the step under way, and the state is saved first. Of several processes any one may
    be asked: JAX has all of them end and save at the same step, a few later.

    Args:
        checkpoints: Where to.
        every: Steps.
        data: An iterator with `get_state()`, which is saved with the state. It is the
            one from which `fit` takes batches.
        config: What JSON holds.
        metrics: Names of logged values that are saved too, for `keep_best`.

    Raises:
        ConfigError: `data` has no state that could be saved.
    """

    comes_last = True

    def __init__(
        self,
        checkpoints: Checkpoints,
        every: int,
        *,
        data: Any = None,
        config: Any = None,
        metrics: Sequence[str] = (),
    ) -> None:
        __tracebackhide__ = True
        super().__init__(every)
        if data is not None and not _has_state(data):
            raise _no_state(data, self.every)
        self.checkpoints, self.data, self.config = checkpoints, data, config
        self.names = metrics
        self.values: dict[str, float] = {}
        self._before: Any = None

    def on_start(self, run: Run) -> None:
        """Listens for SIGTERM."""
        super().on_start(run)
        self._is_asked_to_end = self._listen()

    def on_log(self, run: Run, values: Mapping[str, Any]) -> None:
        """Remembers the values that are saved."""
        self.values |= {n: float(values[n]) for n in self.names if n in values}

    def on_step(self, run: Run) -> None:
        """Saves, if it is time."""
        if self._is_asked_to_end(run.step):
            run.stop("SIGTERM")
            self._act_once(run)
            self.checkpoints.wait()  # there may be no time for what other hooks do yet
        super().on_step(run)

    def on_end(self, run: Run) -> None:
        """Waits until all is written."""
        self.checkpoints.wait()
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def _act(self, run: Run) -> None:
        self.checkpoints.save(
            run.step,
            run.state,
            data=None if self.data is None else self.data.get_state(),
            config=self.config,
            metrics=dict(self.values) or None,
        )

    def _listen(self) -> Callable[[int], bool]:
        """Whether the run is to end, as a function to be called at each step."""
        if jax.process_count() > 1:  # JAX listens, and its own handler must stay
            from jax.experimental import multihost_utils

            if not jax.config.jax_enable_preemption_service:  # type: ignore[attr-defined]
                return lambda step: False
            return multihost_utils.reached_preemption_sync_point
        signals: list[int] = []
        try:
            self._before = signal.signal(
                signal.SIGTERM, lambda number, frame: signals.append(number)
            )
        except ValueError:  # not in the main thread
            pass
        return lambda step: bool(signals)


def _has_state(data: Any) -> bool:
    return hasattr(data, "get_state") and data.get_state() is not None


def _no_state(data: Any, every: int) -> ConfigError:
    is_dataset = hasattr(data, "__iter__") and _has_state(iter(data))
    fix = (
        ("it is what the iterator is made of", "batches = iter(batches)")
        if is_dataset
        else ("they can be read by index", "batches = iter(training.loader(source, 2))")
    )
    return ConfigError(
        f"`data` is a {type(data).__name__}, which has no state to be saved.",
        code="LN-DATA-03",
        at="Save",
        why="The place in the data is that of the iterator that `fit` takes them from.",
        fixes=[
            fix,
            (
                "a run that goes on may begin with any batch",
                f"save = training.Save(checkpoints, {every})",
            ),
        ],
    )
