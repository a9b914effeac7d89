"""RGLRU and S5: steps, starts, carries, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, DTypeError, ShapeError

KEY = jax.random.key(0)
LAYERS = {"RGLRU": lambda **o: nn.RGLRU(**o), "S5": lambda **o: nn.S5(3, **o)}


def made(layer, x):
    return nn.init(layer, KEY, x)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("batch", [(), (2,), (0,)])
def test_all_times_together_are_one_after_another(name, reverse, batch):
    x = normal((*batch, 6, 4))
    layer = made(LAYERS[name](reverse=reverse, return_carry=True), x)
    start = layer.initial_carry(x[..., 0, :])
    carry = start = start + normal(start.shape, 1)
    out = {}
    for t in range(6)[:: -1 if reverse else 1]:
        carry, out[t] = layer.step(carry, x[..., t, :])
    expected = carry, jnp.stack([out[t] for t in range(6)], -2)
    assert_close(layer(x, start), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_a_reset_starts_another_sequence(name):
    x = normal((2, 6, 4))
    layer = made(LAYERS[name](), x)
    resets = jnp.broadcast_to(jnp.arange(6)[None] == 4, (2, 6))
    y = layer(x, resets=resets)
    assert_close(y[:, :4], layer(x[:, :4]), atol=1e-5)
    assert_close(y[:, 4:], layer(x[:, 4:]), atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_no_time_leaves_the_carry(name):
    layer = made(LAYERS[name](return_carry=True), normal((2, 3, 4)))
    start = layer.initial_carry(jnp.zeros((2, 4))) + 1
    carry, y = layer(jnp.zeros((2, 0, 4)), start)
    assert y.shape == (2, 0, 4)
    assert_close(carry, start)


@pytest.mark.parametrize("name", LAYERS)
def test_the_state_is_wide_in_low_precision(name):
    x = normal((2, 3, 4), dtype=jnp.bfloat16)
    layer = made(LAYERS[name](return_carry=True, dtype=jnp.bfloat16), x)
    carry, y = layer(x)
    assert y.dtype == jnp.bfloat16
    assert carry.dtype == layer.initial_carry(x[:, 0]).dtype
    assert carry.dtype in (jnp.float32, jnp.complex64)


def test_decays_start_between_those_of_the_paper():
    layer = made(nn.RGLRU(), jnp.ones((1, 1000)))
    slowest = jax.nn.sigmoid(layer.decay) ** 8
    assert slowest.min() >= 0.9 - 1e-5
    assert slowest.max() <= 0.999 + 1e-5
    assert_close(slowest.mean(), (0.9 + 0.999) / 2, rtol=1e-2)


def test_gates_of_different_blocks_share_nothing():
    x = normal((5, 4))
    layer = made(nn.RGLRU(num_blocks=2), x)
    grad = jax.grad(lambda x: layer(x)[:, :2].sum())(x)
    assert_close(grad[:, 2:], np.zeros((5, 2)))
    assert (grad[:, :2] != 0).all()


def test_poles_start_at_those_of_hippo():
    layer = made(nn.S5(4), jnp.ones((1, 2)))
    n = np.arange(8) + 0.5
    matrix = np.sqrt(np.outer(n, n))
    matrix = -np.tril(matrix, -1) + np.triu(matrix, 1) - np.eye(8) / 2
    poles = np.linalg.eigvals(matrix)
    found = -jnp.exp(layer.log_decay) + 1j * layer.frequency
    found = np.concatenate([found, found.conj()])
    assert_close(np.sort_complex(found.imag), np.sort_complex(poles.imag), rtol=1e-4)
    assert_close(found.real, np.full(8, -0.5))
    steps = np.exp(made(nn.S5(500), jnp.ones((1, 2))).log_step)
    assert steps.min() >= 0.001 - 1e-6
    assert steps.max() <= 0.1 + 1e-6


@pytest.mark.parametrize("name", LAYERS)
def test_wrong_inputs_are_refused_and_the_fix_works(name):
    x = normal((2, 3, 4))
    layer = made(LAYERS[name](), x)
    with pytest.raises(ShapeError, match=r"`carry` is .*LN-SHAPE-01") as caught:
        layer(x, jnp.zeros((5, 4)))
    scope = {"jnp": jnp}
    exec(caught.value.fixes[0][1], scope)
    assert layer(x, scope["carry"]).shape == x.shape
    with pytest.raises(ShapeError, match=f"^\\({name}\\): `carry` is"):
        layer.step(jnp.zeros((3, 1)), x[:, 0])
    with pytest.raises(ShapeError, match="`kernel` is float32"):
        layer(normal((2, 3, 6)))
    with pytest.raises(ShapeError, match="`x` has 1 axes"):
        layer(normal(4))
    with pytest.raises(DTypeError, match="floating values are needed"):
        layer(jnp.ones((3, 4), jnp.int32))


def test_wrong_options_are_refused_and_the_fix_works():
    with pytest.raises(ConfigError, match="`features` is 5, which `num_b") as caught:
        nn.RGLRU(5, num_blocks=2)
    scope = {}
    exec(caught.value.fixes[0][1], scope)
    assert nn.RGLRU(5, **{"num_blocks": scope["num_blocks"]}).num_blocks == 1
    with pytest.raises(ConfigError, match=r"\(RGLRU\): `features` is 3"):
        made(nn.RGLRU(num_blocks=2), normal((4, 3)))
    with pytest.raises(ConfigError, match="`state_features` is 0"):
        nn.S5(0)
    with pytest.raises(ConfigError, match="`step_range` is -1"):
        nn.S5(3, step_range=(-1, 0.1))
