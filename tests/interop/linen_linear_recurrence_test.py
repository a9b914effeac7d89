"""Layers that neither PyTorch nor Flax has, against their formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from helpers import normal
from interop.parity import SPREAD, assert_agrees, made
from linnet import nn

ORACLE = "NumPy float64"


def wide(x):
    return np.asarray(x, np.float64)


def test_rg_lru():
    x = normal((2, 9, 4))
    layer = made(nn.RGLRU(bias_init=SPREAD), x)
    r, i = np.split(expit(wide(x) @ wide(layer.kernel[0]) + wide(layer.bias[0])), 2, -1)
    a = expit(wide(layer.decay)) ** (8 * r)
    b = np.sqrt(1 - a**2) * i * wide(x)
    h, out = np.zeros((2, 4)), []
    for t in range(9):
        h = a[:, t] * h + b[:, t]
        out.append(h)
    assert_agrees("RGLRU", ORACLE, "values", layer(x), np.stack(out, 1))


def test_s5():
    x = normal((2, 9, 4))
    layer = made(nn.S5(3), x)
    poles = -np.exp(wide(layer.log_decay)) + 1j * wide(layer.frequency)
    a = np.exp(poles * np.exp(wide(layer.log_step)))
    kernel, out_kernel = wide(layer.kernel), wide(layer.out_kernel)
    kernel = kernel[:, :3] + 1j * kernel[:, 3:]
    out_kernel = out_kernel[:3] + 1j * out_kernel[3:]
    h, out = np.zeros((2, 3)), []
    for t in range(9):
        h = a * h + (a - 1) / poles * (wide(x)[:, t] @ kernel)
        out.append(2 * (h @ out_kernel).real + wide(layer.skip) * wide(x)[:, t])
    assert_agrees("S5", ORACLE, "values", layer(x), np.stack(out, 1))


def test_gradients_of_rg_lru():
    assert_gradient_agrees("RGLRU", nn.RGLRU(bias_init=SPREAD))


def test_gradients_of_s5():
    assert_gradient_agrees("S5", nn.S5(3))


def assert_gradient_agrees(name, layer):
    """Derivatives through the associative scan, and through single steps."""
    x, weight = normal((2, 9, 4)), normal((2, 9, 4), 1)
    layer = made(layer, x)

    def whole(layer, x):
        return (layer(x) * weight).sum()

    def stepwise(layer, x):
        carry, out = layer.initial_carry(x[:, 0]), []
        for t in range(9):
            carry, y = layer.step(carry, x[:, t])
            out.append(y)
        return (jnp.stack(out, 1) * weight).sum()

    with jax.enable_x64(True):
        precise = jax.tree.map(lambda a: a.astype(jnp.float64), layer)
        desired = jax.grad(stepwise, (0, 1))(precise, x.astype(jnp.float64))
        desired = jax.tree.map(np.asarray, desired)
    found = jax.grad(whole, (0, 1))(layer, x)
    assert_agrees(name, ORACLE, "gradients", found, desired)
