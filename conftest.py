"""What tests and doctests share: the devices, and the names a doctest may use."""

import os

# Read once, when JAX is imported: four CPU devices, so that sharding can be tested.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
    ]
).strip()

# The programs of tests are tiny: compiling them fast matters more than running them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")

import jax
import jax.numpy as jnp
import pytest


@pytest.fixture(autouse=True)
def _names_for_doctests(request):
    if isinstance(request.node, pytest.DoctestItem):
        import numpy as np
        import optax

        from linnet import nn, parallel, training

        names = request.getfixturevalue("doctest_namespace")
        names.update(jax=jax, jnp=jnp, np=np, nn=nn, optax=optax)
        names.update(parallel=parallel, training=training)
