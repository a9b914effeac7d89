"""sinusoidal_position: its definition and what it refuses."""

import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close
from linnet import functional as F
from linnet._errors import ConfigError, DTypeError


def waves(positions, size, base=10_000.0):
    """Entry by entry, as the paper writes it."""
    out = np.zeros((*np.shape(positions), size))
    for index in np.ndindex(np.shape(positions)):
        for i in range(size // 2):
            angle = np.asarray(positions, np.float64)[index] / base ** (2 * i / size)
            out[(*index, 2 * i)] = np.sin(angle)
            out[(*index, 2 * i + 1)] = np.cos(angle)
    return out


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,)])
@pytest.mark.parametrize("size", [2, 6])
def test_it_is_the_formula_of_the_paper(shape, size):
    positions = np.random.default_rng(0).integers(0, 200, shape)
    y = F.sinusoidal_position(positions, size)
    assert y.dtype == jnp.float32
    assert_close(y, waves(positions, size), atol=1e-4)


def test_sines_may_come_before_all_cosines():
    positions = jnp.arange(4)
    y = F.sinusoidal_position(positions, 6, base=50.0, interleaved=False)
    expected = waves(positions, 6, 50.0)
    assert_close(y, np.concatenate([expected[:, ::2], expected[:, 1::2]], -1))


def test_positions_between_the_whole_ones_are_fine():
    assert_close(F.sinusoidal_position(jnp.array(0.5), 2), waves(0.5, 2))


@pytest.mark.parametrize("features", [0, 1, 5])
def test_an_odd_number_of_features_is_refused(features):
    with pytest.raises(ConfigError, match="must be even"):
        F.sinusoidal_position(jnp.arange(3), features)


@pytest.mark.parametrize("dtype", [jnp.bool_, jnp.complex64])
def test_what_is_no_position_is_refused(dtype):
    with pytest.raises(DTypeError, match="LN-DTYPE-01"):
        F.sinusoidal_position(jnp.ones(3, dtype), 4)
