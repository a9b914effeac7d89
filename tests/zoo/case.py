"""A layer in the zoo, and arrays to feed it."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class Case(NamedTuple):
    """A layer, its input, and what `check_layer` is told about it."""

    name: str
    make: Any
    sample: Any
    options: dict[str, Any]

    @property
    def args(self):
        """The arguments of the layer's call."""
        return self.sample if isinstance(self.sample, tuple) else (self.sample,)


def case(name, make, sample, **options):
    return Case(name, make, sample, options)


def sample(*shape):
    """Numbers that are no special case of anything."""
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def ids(*shape):
    return jnp.asarray(np.random.default_rng(0).integers(0, 5, shape), jnp.int32)
