"""Several processes on this machine: for laptops and tests."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from linnet._errors import ProcessError
from linnet.core._check import check_positive, check_size
from linnet.parallel._distributed import VARIABLES

SHOWN, WIDTH = 8, 200  # of what a process printed last: lines, and letters of each
PAUSE, READING = 0.02, 5.0  # seconds
DEVICES = re.compile(r"--xla_force_host_platform_device_count=\S*")


def launch(
    command: Sequence[str],
    processes: int,
    *,
    devices: int = 1,
    timeout: float | None = None,
    grace: float = 5.0,
    echo: bool = True,
) -> list[str]:
    r"""Runs a Python program as several processes on this machine's CPU, and waits.

    The program calls `parallel.initialize()`, and its processes then make up one JAX
    program. `python -m linnet.parallel 4 train.py --steps 100` is the same from a
    shell. What a process prints is shown behind its number. When one fails, the others
    are ended.

    Args:
        command: Arguments of Python: a script and its own, `-m` and a module, or `-c`
            and a program.
        processes: How many.
        devices: Simulated devices of each.
        timeout: Seconds after which all are ended; `None` waits for ever.
        grace: Seconds that the others have, when one has failed, between being asked to
            end and being killed.
        echo: Whether to show what they print while they run.

    Returns:
        What each of them printed, on both outputs.

    Raises:
        ConfigError: A number is not positive.
        ProcessError: A process failed, or the time is over.

    Example:
        >>> parallel.launch(["-c", "print('here')"], 2, echo=False)
        ['here\n', 'here\n']
    """
    __tracebackhide__ = True
    check_size("launch", "processes", processes)
    check_size("launch", "devices", devices)
    if timeout is not None:
        check_positive("launch", "timeout", timeout)
    shared = _environment(processes, devices)
    deadline = None if timeout is None else time.monotonic() + timeout
    running: list[_Process] = []
    failed, is_over = None, False
    try:
        running.extend(_Process(command, i, shared, echo) for i in range(processes))
        failed, is_over = _watched(running, deadline)
    finally:
        _end(running, grace)
    if failed is not None:
        raise _failed(failed, processes)
    if timeout is not None and is_over:
        raise _over(running, timeout)
    return [one.text for one in running]


class _Process:
    """One of the processes, and a thread that reads what it prints."""

    def __init__(
        self,
        command: Sequence[str],
        number: int,
        environment: Mapping[str, str],
        echo: bool,
    ) -> None:
        self.number = number
        self.was_ended = False
        self._echo = echo
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-u", *command],
            env={**environment, VARIABLES["process_id"]: str(number)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
            if self._echo:
                print(f"[{self.number}] {line}", end="", flush=True)

    @property
    def code(self) -> int | None:
        """Its exit code, or `None` while it runs."""
        return self._process.poll()

    @property
    def text(self) -> str:
        """All that it printed."""
        return "".join(self._lines)

    def end(self, with_signal: int) -> None:
        """Sends a signal, if it runs."""
        if self.code is None:
            self.was_ended = True
            self._process.send_signal(with_signal)

    def close(self) -> None:
        """Waits for its end, and for the last of what it printed."""
        self._process.wait()
        self._reader.join(READING)  # a process that it started could hold it open
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()


def _environment(processes: int, devices: int) -> dict[str, str]:
    """That of this process, and what `initialize` and JAX are to find in it."""
    environment = dict(os.environ)
    flags = DEVICES.sub("", environment.get("XLA_FLAGS", "")).strip()
    environment.update(
        XLA_FLAGS=flags, JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES=str(devices)
    )
    # Found like this the port could be taken before it is used; that it is shown by
    # an error at once, and seldom happens, is worth more than a protocol.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    values = (address, str(processes))
    environment.update(zip(VARIABLES.values(), values, strict=False))
    return environment


def _watched(
    running: Sequence[_Process], deadline: float | None
) -> tuple[_Process | None, bool]:
    """Waits for all, for the first that fails, or for the deadline.

    Returns:
        The process that failed, and whether time is over.
    """
    while deadline is None or time.monotonic() < deadline:
        codes = [one.code for one in running]
        for one, code in zip(running, codes, strict=True):
            if code:
                return one, False
        if None not in codes:
            return None, False
        time.sleep(PAUSE)
    return None, True


def _end(running: Sequence[_Process], grace: float) -> None:
    """Asks those that run to end, and kills those that do not."""
    for one in running:
        one.end(signal.SIGTERM)
    patience = time.monotonic() + grace
    while any(one.code is None for one in running) and time.monotonic() < patience:
        time.sleep(PAUSE)
    for one in running:
        one.end(signal.SIGKILL)
        one.close()


def _failed(failed: _Process, count: int) -> ProcessError:
    code = failed.code or 1
    name = signal.Signals(-code).name if code < 0 else ""
    how = f"was killed by {name}" if name else f"ended with exit code {code}"
    error = ProcessError(
        f"process {failed.number} of {count} {how}.",
        code="LN-PROCESS-03",
        facts={"last lines": _last_lines(failed)},
        why="The processes work together, so the others were ended too.",
        fixes=[("it is to be seen whether one alone fails as well", "processes = 1")],
    )
    error.exit_code = 128 - code if code < 0 else code
    return error


def _over(running: Sequence[_Process], timeout: float) -> ProcessError:
    late = [one for one in running if one.was_ended]
    numbers = ", ".join(str(one.number) for one in late)
    return ProcessError(
        f"after {timeout:g} seconds process{'es' * (len(late) > 1)} {numbers} of "
        f"{len(running)} still ran.",
        code="LN-PROCESS-04",
        facts={"last lines": _last_lines(late[0])},
        fixes=[("they need longer", f"timeout = {10 * timeout:g}")],
    )


def _last_lines(one: _Process) -> str:
    """What it printed last, without the addresses of functions of an abort."""
    lines = [line for line in one.text.splitlines() if not line.startswith("    @ ")]
    shown = [line[:WIDTH] for line in lines[-SHOWN:]] or ["(none)"]
    return ("\n" + " " * 16).join(shown)
