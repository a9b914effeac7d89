"""The training loop as one function, with hooks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from linnet._errors import ConfigError
from linnet._typing import PyTree
from linnet.core._check import check_size
from linnet.training._metric import is_metric

Step = Callable[[Any, Any], tuple[Any, Any]]
MOMENTS = ("on_start", "on_step", "on_log", "on_finish", "on_end")


class Run:
    """What hooks see of a run, and how they act on it. `fit` makes it.

    Args:
        state: The present state.
        step: How many steps are done, those before this call included.
        steps: At which step the run ends.

    Attributes:
        batch: The last batch.
        metrics: What the last step returned, still on the device.
        reason: Why the run is to end early, or `None`.
    """

    def __init__(self, state: PyTree, step: int, steps: int) -> None:
        self.state, self.step, self.steps = state, step, steps
        self.batch: Any = None
        self.metrics: Any = None
        self.reason: str | None = None
        self._listeners: list[Callable[[Run, Mapping[str, Any]], None]] = []

    def stop(self, reason: str) -> None:
        """Ends the run after this step. Of several processes all must call it.

        Args:
            reason: In words.
        """
        self.reason = self.reason or reason

    def log(self, values: Mapping[str, Any]) -> None:
        """Hands values to every hook that has `on_log`.

        Args:
            values: Numbers by name.
        """
        for listen in self._listeners:
            listen(self, values)

    @property
    def is_last(self) -> bool:
        """Whether no step follows, as far as is known: a later hook may end the run."""
        return self.step >= self.steps or self.reason is not None


class Hook(Protocol):
    """What may be done around the steps of a run. A hook has any of these methods.

    Hooks are called in the order in which they are given, after each step; those with
    the attribute `comes_last`, as `Save`, after the others. A step that was dispatched
    may still be running: to read `run.state` or `run.metrics` waits for it, so hooks do
    that at some steps only.
    """

    def on_start(self, run: Run) -> None:
        """Before the first step."""

    def on_step(self, run: Run) -> None:
        """After each step."""

    def on_log(self, run: Run, values: Mapping[str, Any]) -> None:
        """With values: means over the steps since the last time, or an evaluation's."""

    def on_finish(self, run: Run) -> None:
        """After the last step, whichever hook made it the last; not after an error."""

    def on_end(self, run: Run) -> None:
        """At the very end, and when the run ends by an error."""


def fit(
    state: PyTree,
    step: Step,
    batches: Iterable[Any],
    *,
    steps: int,
    hooks: Sequence[Any] = (),
    log_every: int = 100,
    start: int | None = None,
) -> PyTree:
    """Trains: calls `state, metrics = step(state, batch)`, and the hooks in between.

    It is this loop, and no more:

        for batch in batches:
            state, metrics = step(state, batch)

    The loop does not wait for the device. Metrics are fetched every `log_every` steps,
    with the throughput, and given to the hooks that have `on_log`.

    Args:
        state: Any pytree; where the step donates it, it is gone afterwards.
        step: Usually compiled, with `donate_argnums=0`. It returns the state and a
            mapping of names to arrays or metrics.
        batches: At least as many as there are steps to do.
        steps: At which step the run ends, those before this call included.
        hooks: See `Hook`.
        log_every: Steps from one `on_log` to the next.
        start: How many steps were done before; by default `state.step`, or 0.

    Returns:
        The state after the last step.

    Raises:
        ConfigError: There are too few batches, or a hook has no method of one.

    Example:
        >>> @jax.jit
        ... def step(state, x):
        ...     return state + x, {"loss": 1 / (state + 1)}
        >>> training.fit(jnp.float32(0), step, iter([1.0, 2.0, 3.0]), steps=3)
        Array(6., dtype=float32)
    """
    __tracebackhide__ = True
    steps = check_size("fit", "steps", steps)
    log_every = check_size("fit", "log_every", log_every)
    done = int(getattr(state, "step", 0)) if start is None else start
    run = Run(state, done, steps)
    on_start, on_step, run._listeners, on_finish, on_end = _methods(hooks)
    for call in on_start:
        call(run)
    try:
        _loop(run, step, iter(batches), on_step, log_every)
        for call in on_finish:
            call(run)
    finally:
        for call in on_end:
            call(run)
    return run.state


def _loop(
    run: Run, step: Step, batches: Any, on_step: list[Any], log_every: int
) -> None:
    __tracebackhide__ = True
    window = _Window(run)
    while not run.is_last:
        try:
            batch = next(batches)
        except StopIteration:
            raise _too_few(run) from None
        run.batch = batch
        run.state, run.metrics = step(run.state, batch)
        run.step += 1
        window.metrics.append(run.metrics)
        if run.step % log_every == 0 or run.step >= run.steps:
            window.log()
        for call in on_step:
            call(run)
    window.log()


class _Window:
    """The steps since values were last handed on."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.metrics: list[Any] = []
        self.since = time.perf_counter()

    def log(self) -> None:
        count = len(self.metrics)
        if not count:
            return
        rows, self.metrics = _fetched(self.metrics), []
        now = time.perf_counter()
        rate, self.since = count / max(now - self.since, 1e-9), now
        values = _together(rows) if isinstance(rows[0], Mapping) else {}
        self.run.log(values | {"steps_per_second": rate})


def _fetched(tree: PyTree) -> PyTree:
    """The tree with arrays of NumPy, which takes a tenth of `jax.device_get`'s time."""
    leaves, treedef = jax.tree.flatten(tree)
    if jax.default_backend() != "cpu":  # copies from a device take long, but overlap
        for leaf in leaves:
            if isinstance(leaf, jax.Array):
                leaf.copy_to_host_async()
    return treedef.unflatten(map(_on_host, leaves))


def _on_host(x: Any) -> np.ndarray:
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        if not x.is_fully_replicated:  # parts of it are on other processes
            from jax.experimental import multihost_utils

            x = multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)


def _together(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The metrics of several steps: merged, or the mean."""
    values = {}
    for name in rows[0]:
        column = [row[name] for row in rows]
        if is_metric(column[0]):
            whole = column[0]
            for metric in column[1:]:
                whole = whole.merge(metric)
            values[name] = whole.compute()
        else:
            mean = np.mean(np.asarray(column, np.float64), axis=0)
            values[name] = mean.item() if mean.ndim == 0 else mean
    return values


def _methods(hooks: Sequence[Any]) -> tuple[list[Any], ...]:
    """For each moment the methods that are called then."""
    for hook in hooks:
        if isinstance(hook, type) or not any(hasattr(hook, name) for name in MOMENTS):
            name = hook.__name__ if isinstance(hook, type) else type(hook).__name__
            raise ConfigError(
                f"{name} is no hook: it has none of {', '.join(MOMENTS)}.",
                code="LN-FIT-01",
                at="fit",
                fixes=[
                    (
                        "something is to be done after each step",
                        "class Report:\n"
                        "    def on_step(self, run):\n"
                        "        print(run.step)\n"
                        "hooks = [Report()]",
                    )
                ],
            )
    in_order = sorted(hooks, key=lambda hook: getattr(hook, "comes_last", False))
    return tuple(
        [getattr(hook, name) for hook in in_order if hasattr(hook, name)]
        for name in MOMENTS
    )


def _too_few(run: Run) -> ConfigError:
    return ConfigError(
        f"the batches ended after step {run.step} of {run.steps}.",
        code="LN-FIT-02",
        at="fit",
        fixes=[
            (
                "they are to be taken again and again",
                "batches = itertools.cycle(batches)",
            ),
            ("that is enough", f"steps = {run.step}"),
        ],
    )
