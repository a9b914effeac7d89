"""Interleaved timing: in each round every contestant has one turn, in a new order.

Whatever else the machine does then hits all alike, and what is compared is the ratio
of two turns of the same round.
"""

import dataclasses
import gc
import random
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

RAW = "raw JAX"
OURS = "Linnet"
JAX_PEERS = ("Equinox", "Flax NNX", "Flax Linen", "Haiku")
PEERS = (*JAX_PEERS, "PyTorch")

Run = Callable[[], Any]  # one complete call, which waits for its result


class Spread(NamedTuple):
    """A median between its quartiles."""

    low: float
    median: float
    high: float


@dataclasses.dataclass
class Check:
    """A target, and whether it was reached."""

    what: str
    measured: str
    target: str
    met: bool


@dataclasses.dataclass
class Result:
    """What one race found: seconds per call, one number for each round."""

    question: str
    title: str
    times: dict[str, list[float]]
    unit: str = "ms"
    base: str = RAW
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    columns: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    checks: list[Check] = dataclasses.field(default_factory=list)
    note: str = ""

    def spread(self, name: str) -> Spread:
        """Seconds per call."""
        return spread(self.times[name])

    def ratio(self, name: str) -> Spread:
        """Time as a multiple of the base's, round by round."""
        return self.ratio_between(name, self.base)

    def ratio_between(self, name: str, other: str) -> Spread:
        """Time as a multiple of another's, round by round."""
        pairs = zip(self.times[name], self.times[other], strict=True)
        return spread([mine / theirs for mine, theirs in pairs])

    def require(self, what: str, most: float) -> None:
        """Notes the target that Linnet's median ratio has."""
        measured = self.ratio(OURS).median
        self.checks.append(
            Check(what, f"{measured:.2f}", f"{most:.2f}", measured <= most)
        )


def spread(values: list[float]) -> Spread:
    """The median and the quartiles."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


class Field(NamedTuple):
    """Who takes part, who does not and why, and what each one's first call compiled."""

    runs: dict[str, Run]
    left_out: dict[str, str]
    compiled: dict[str, int]


def line_up(builders: dict[str, Callable[..., dict[str, Run]]], *args: Any) -> Field:
    """Builds the contestants, and calls each once with nothing compiled.

    A builder returns one run, or several ways of doing the same. A peer that is not
    installed, or does not work with this JAX, is left out and named.
    """
    field = Field({}, {}, {})
    for library, build in builders.items():
        try:
            for name, run in build(*args).items():
                jax.clear_caches()
                before = compilations()
                run()
                field.compiled[name] = compilations() - before
                field.runs[name] = run
        except Exception as error:
            if library not in PEERS:
                raise
            field.left_out[library] = _reason(error)
    return field


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"


def race(
    runs: dict[str, Run],
    rounds: int,
    *,
    turn: float = 0.0,
    before: Callable[[], Any] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds per call of each contestant, round by round.

    Args:
        runs: The contestants, each called before.
        rounds: How many.
        turn: Seconds that a turn takes at least: short calls are repeated in it.
        before: Called before each turn, outside the time that is taken.
    """
    calls = {name: _calls_in(run, turn) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffle = list(runs), random.Random(0).shuffle
    gc.collect()
    gc.freeze()
    gc.disable()
    for _ in range(rounds):
        shuffle(order)
        gc.collect()
        for name in order:
            before()
            times[name].append(_time(runs[name], calls[name]))
    gc.enable()
    gc.unfreeze()
    return times


def _calls_in(run: Run, turn: float) -> int:
    if not turn:
        return 1
    run()
    return max(1, round(turn / _time(run, 3)))


def _time(run: Run, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


_compiled = [0]


def compilations() -> int:
    """How many programs XLA has compiled so far in this process."""
    return _compiled[0]


def _count(event: str, duration: float, **_: Any) -> None:
    _compiled[0] += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_count)
