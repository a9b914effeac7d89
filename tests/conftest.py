"""Strictness, in one place. Warnings are errors by pyproject.toml."""

import gc
import pathlib

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

# The same examples on every run and machine; compilation makes the first one slow.
hypothesis.settings.register_profile("linnet", deadline=None, derandomize=True)
hypothesis.settings.load_profile("linnet")

MANY_MAPS = 20_000  # Linux gives a process 65,530, and each program takes some


@pytest.fixture(autouse=True, scope="module")
def _programs_are_dropped():
    """Thousands of compiled programs would use up the memory maps of a process."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MANY_MAPS:
        jax.clear_caches()


SLOW = pathlib.Path(__file__).with_name("slow.txt").read_text().splitlines()


def pytest_collection_modifyitems(items):
    """Marks the tests that are listed as slow, so that the default run is short."""
    listed = set(SLOW)
    for item in items:
        if item.nodeid in listed:
            item.add_marker("slow")


# Tracing makes many small objects that live on: looking through them seldom pays.
gc.set_threshold(50_000, 20, 20)
