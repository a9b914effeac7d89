"""Several processes as one JAX program."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any

import jax

from linnet._errors import ConfigError, ScopeError

VARIABLES = {
    "coordinator_address": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}
LOST = (
    "If this is about a connection or a collective, another of the {} processes died "
    "first: its output tells why."
)


class _Start:
    """What happened to this process so far.

    Attributes:
        is_made: Whether `initialize` was called.
        is_failing: Whether an exception is about to end it.
    """

    is_made = False
    is_failing = False


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: int = 100,
    **options: Any,
) -> None:
    """Joins this process to the others, so that `jax.devices()` are those of all.

    It comes first in a program, before anything runs on a device. Without arguments
    JAX finds the others itself under Slurm, Kubernetes, Open MPI and on Cloud TPU, and
    so are those found that `parallel.launch` starts. Where there are none the process
    stays alone: the same script runs on a laptop. Further calls do nothing.

    If a process dies, the others end as well, with an error on their standard error
    output that says so. A process in which an exception is not caught ends at once,
    without waiting for the others.

    Args:
        coordinator_address: Host and port of process 0, the same in all processes.
            This and the two below may also be the environment variables
            `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`.
        num_processes: How many there are.
        process_id: The number of this one, counted from 0.
        timeout: Seconds after which a process that does not answer is taken for dead,
            and for which one that has ended waits for the others.
        **options: Others of `jax.distributed.initialize`.

    Raises:
        ConfigError: Some of the first three arguments are missing.
        ScopeError: JAX has used the devices already.

    Example:
        This starts two processes with four devices each:

        >>> program = '''
        ... import jax
        ... from linnet import parallel
        ... parallel.initialize()
        ... print(jax.process_index(), jax.device_count())
        ... '''
        >>> outputs = parallel.launch(["-c", program], 2, devices=4, echo=False)
        >>> [text.splitlines()[-1] for text in outputs]
        ['0 8', '1 8']

    Differs from: `jax.distributed.initialize`, which needs a cluster or all arguments,
    and may be called once. There a process that fails waits for the others for five
    minutes.
    """
    __tracebackhide__ = True
    if _Start.is_made or jax.distributed.is_initialized():
        return
    found = _found(coordinator_address, num_processes, process_id)
    limits = {"heartbeat_timeout_seconds": timeout, "shutdown_timeout_seconds": timeout}
    try:
        jax.distributed.initialize(**found, **{**limits, **options})
    except ValueError as error:
        if len(found) == len(VARIABLES):
            raise
        if found or options:  # else there is no cluster, and nobody claimed one
            raise _incomplete(found) from error
    except RuntimeError as error:
        if type(error) is not RuntimeError:  # an error of the connection itself
            raise
        raise _too_late() from error
    else:
        _end_at_once_on_errors()
    _Start.is_made = True


def _found(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> dict[str, Any]:
    """What is known, from the arguments or else from the environment."""
    given = {
        "coordinator_address": coordinator_address,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    for name, variable in VARIABLES.items():
        text = os.environ.get(variable)
        if given[name] is None and text:
            given[name] = text if name == "coordinator_address" else int(text)
    return {name: value for name, value in given.items() if value is not None}


def _end_at_once_on_errors() -> None:
    """Keeps a process with an uncaught exception from waiting for the others.

    JAX would have it wait until all have ended, and they wait for it in a collective.
    """
    previous = sys.excepthook

    def hook(kind: Any, error: BaseException, traceback: Any) -> None:
        _Start.is_failing = True
        if isinstance(error, jax.errors.JaxRuntimeError):
            error.add_note(LOST.format(jax.process_count()))
        previous(kind, error, traceback)

    def end() -> None:
        if _Start.is_failing:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)

    sys.excepthook = hook
    atexit.register(end)  # runs before that of JAX, which came first


def _incomplete(found: dict[str, Any]) -> ConfigError:
    missing = [f"`{name}`" for name in VARIABLES if name not in found]
    whole = {"coordinator_address": "10.0.0.1:1234", "num_processes": 2} | found
    given = ", ".join(f"{name}={value!r}" for name, value in found.items())
    each = ", ".join(repr(whole[name]) for name in list(VARIABLES)[:2])
    return ConfigError(
        f"{' and '.join(missing)} {'are' if missing[1:] else 'is'} not known to this "
        "process.",
        code="LN-PROCESS-01",
        facts={"given": given or "nothing"},
        why="JAX found no cluster that would tell the rest.",
        fixes=[
            (
                "the processes are started by hand, each with its own number",
                f"parallel.initialize({each}, process_id=number)",
            ),
            ("there is one process, or a cluster knows all", "parallel.initialize()"),
        ],
    )


def _too_late() -> ScopeError:
    return ScopeError(
        "`parallel.initialize` was called after JAX had used the devices.",
        code="LN-PROCESS-02",
        why="Which devices there are is settled when the first of them is used: by a "
        "computation, `jax.devices()` or a mesh.",
        fixes=[
            (
                "the script begins with it",
                "from linnet import parallel\n\nparallel.initialize()",
            )
        ],
    )
