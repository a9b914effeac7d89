"""Programs of others, written for Linen: `make test-compat` installs what they need."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

PROGRAMS = pathlib.Path(__file__).parent / "programs"
pytestmark = pytest.mark.slow


def needs(package):
    is_missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(is_missing, reason=f"{package}: see `make test-compat`")


def output(name, with_ours=True):
    ours = ["-m", "linnet.compat.flax"] if with_ours else []
    command = [sys.executable, *ours, str(PROGRAMS / name)]
    # Without what the tests set for themselves, as several simulated devices.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    env |= {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@needs("netket")
def test_netket_finds_a_ground_state():
    assert float(output("ground_state.py").splitlines()[-1]) < 1e-3


@needs("brax")
def test_brax_trains_as_with_flax():
    ours = output("control.py").splitlines()[-1]
    theirs = output("control.py", with_ours=False).splitlines()[-1]
    assert ours == theirs
    first, *_, last = map(float, ours.split())
    assert last > first


@needs("clu")
def test_clu_shows_what_it_shows_with_flax():
    assert output("metrics.py") == output("metrics.py", with_ours=False)


@needs("numpyro")
def test_numpyro_fits_a_curve_as_with_flax():
    ours = output("regression.py")
    assert ours == output("regression.py", with_ours=False)
    first, last = map(float, ours.splitlines()[1].split())
    assert last < first
