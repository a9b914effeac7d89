"""Real processes on this machine: the losses of one device, deaths, and going on."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

import house
from helpers import assert_close
from linnet import parallel
from parallel import training_run

PROGRAM = str(pathlib.Path(training_run.__file__))
DEVICES = 8  # of all processes together
KILLED_AFTER, BOUND = 2, 60  # steps; seconds

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _is_found(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{house.ROOT}:{house.ROOT / 'tests'}")


@pytest.fixture(scope="module")
def alone():
    """The losses of one device, by whether there are experts."""
    names = {False: "data", True: "expert"}
    return {
        kind: training_run.losses(training_run.start(name), training_run.TOKENS)
        for kind, name in names.items()
    }


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_twenty_losses_of_each_preset_are_those_of_one_device(
    processes, alone, tmp_path
):
    file = tmp_path / "losses.json"
    command = [PROGRAM, "losses", str(file)]
    parallel.launch(command, processes, devices=DEVICES // processes, echo=False)
    found = json.loads(file.read_text("utf-8"))
    assert set(found) == set(training_run.PRESETS)
    for name, losses in found.items():
        assert_close(losses, alone[name == "expert"], rtol=1e-5, atol=0)
        assert losses[-1] < losses[0] / 2


def test_when_one_is_killed_the_others_end_and_fewer_go_on(alone, tmp_path):
    (tmp_path / "kill").write_text(str(KILLED_AFTER), "utf-8")
    processes = [started(i, 4, tmp_path) for i in range(4)]
    outputs, seconds = ended(processes)
    assert processes[-1].returncode == -9
    assert all(process.returncode for process in processes)
    assert seconds < BOUND
    for text in outputs[:-1]:
        assert "another task died" in text or "another of the 4 processes" in text
    (tmp_path / "kill").unlink()

    losses = []
    for count, steps in ((2, 4), (1, 6)):
        file = tmp_path / "losses.json"
        command = [PROGRAM, "resume", str(file), str(tmp_path), str(steps)]
        parallel.launch(command, count, devices=DEVICES // count, echo=False)
        found = json.loads(file.read_text("utf-8"))
        assert found["first"] == steps - 2
        losses += found["losses"]
    assert_close(losses, alone[False][2:6], rtol=1e-5, atol=0)


def started(number, count, folder):
    """One of the processes, with nobody who ends it when another dies."""
    if number == 0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            started.address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        "XLA_FLAGS": "",
        "JAX_NUM_CPU_DEVICES": str(DEVICES // count),
        "JAX_COORDINATOR_ADDRESS": started.address,
        "JAX_NUM_PROCESSES": str(count),
        "JAX_PROCESS_ID": str(number),
    }
    return subprocess.Popen(
        [sys.executable, PROGRAM, "resume", str(folder / "none"), str(folder), "9"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(processes):
    """What they printed, and how long the others took to end after the last."""
    try:
        processes[-1].wait(200)
        start = time.monotonic()
        outputs = [process.communicate(timeout=BOUND)[0] for process in processes]
        return outputs, time.monotonic() - start
    finally:
        for process in processes:
            process.kill()
