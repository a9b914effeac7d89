"""Strictness, in one place. Warnings are errors by pyproject.toml."""

import gc

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

# The same examples on every run and machine; compilation makes the first one slow.
hypothesis.settings.register_profile("linnet", deadline=None, derandomize=True)
hypothesis.settings.load_profile("linnet")


@pytest.fixture(autouse=True, scope="module")
def _programs_are_dropped():
    """Thousands of compiled programs would exhaust the memory maps of a process."""
    yield
    jax.clear_caches()


# Tracing leaves little to collect: with the usual thresholds a tenth of the time goes
# into looking for it.
gc.set_threshold(50_000, 20, 20)
