"""The programs are many and small: compiling them is all that they cost."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def _compiles_quickly():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
