"""Several processes that start, fail and end; and one that stays alone."""

import os
import subprocess
import sys
import time

import pytest

import house
from linnet import nn, parallel

LOOP = "import time\nwhile True: time.sleep(0.1)"
FAIL = "import os, signal, time\nif os.environ['JAX_PROCESS_ID'] == '1': {}\n" + LOOP


@pytest.fixture(autouse=True)
def _is_found(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(house.ROOT))


def launched(program, *args, **options):
    return parallel.launch(["-c", program, *args], *options.pop("n", [2]), **options)


def test_each_process_knows_its_number_and_shows_what_it_prints(capsys):
    program = "import os, sys\nprint(os.environ['JAX_PROCESS_ID'], sys.argv[1])"
    assert launched(program, "x") == ["0 x\n", "1 x\n"]
    assert sorted(capsys.readouterr().out.splitlines()) == ["[0] 0 x", "[1] 1 x"]


@pytest.mark.parametrize(
    ("failure", "told", "code"),
    [
        ("print('so'); exit(7)", "ended with exit code 7", 7),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL", 137),
    ],
)
def test_when_one_fails_the_others_are_ended(failure, told, code):
    with pytest.raises(parallel.ProcessError, match=f"process 1 of 3 {told}") as caught:
        launched(FAIL.format(failure), n=[3], echo=False)
    assert caught.value.exit_code == code
    assert caught.value.facts["last lines"] in ("so", "(none)")


def test_one_that_does_not_listen_is_killed():
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    start = time.monotonic()
    with pytest.raises(parallel.ProcessError, match="after 1 seconds processes 0, 1"):
        launched(stubborn + LOOP, timeout=1, grace=0.2, echo=False)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("wrong", [{"n": [0]}, {"devices": 0}, {"timeout": -1}])
def test_wrong_numbers_are_refused(wrong):
    with pytest.raises(nn.ConfigError):
        launched("", **wrong)


def test_the_command_line_ends_as_the_first_that_fails(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(sys.argv[1:])\nexit(3)", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "linnet.parallel", "1", script, "--steps", "4"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "[0] ['--steps', '4']\n")
    assert done.stderr.startswith("process 0 of 1 ended with exit code 3.")


ALONE = """
from linnet import parallel
parallel.initialize()
import jax
print(jax.process_count(), jax.device_count())
parallel.initialize()
"""


def test_without_others_a_process_stays_alone_and_asking_again_does_nothing():
    variables = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        env=variables | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1 1\n"


TOGETHER = """
from linnet import parallel
parallel.initialize()
parallel.initialize()
import jax, jax.numpy as jnp
mesh = parallel.make_mesh(data=-1)
x = jax.device_put(jnp.arange(8.0), jax.NamedSharding(mesh, jax.P("data")))
total = jax.jit(jnp.sum)(x)
if jax.process_index():
    raise ValueError(f"{jax.process_count()} {jax.local_device_count()} {total}")
jax.block_until_ready(jax.jit(lambda x: x * x.sum())(x))
"""


@pytest.mark.slow
def test_processes_share_an_array_and_one_that_raises_ends_at_once():
    start = time.monotonic()
    with pytest.raises(parallel.ProcessError, match="process 1 of 2") as caught:
        launched(TOGETHER, devices=4, echo=False)
    assert caught.value.facts["last lines"].endswith("ValueError: 2 4 28.0")
    assert time.monotonic() - start < 60
