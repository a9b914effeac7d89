"""Positions against their formulas in float64, where no other library has them."""

import jax
import jax.numpy as jnp
import numpy as np

from helpers import normal
from interop.parity import assert_agrees, made
from linnet import nn

ORACLE = "NumPy float64"


def assert_linear(name, layer, x, expected, adjoint):
    """Values, and the gradient of a layer that is linear in its input."""
    weight = normal(expected.shape, 1)
    grad = jax.grad(lambda x: (layer(x) * weight).sum())(x)
    assert_agrees(name, ORACLE, "values", layer(x), expected)
    assert_agrees(name, ORACLE, "gradients", grad, adjoint(np.asarray(weight)))


def test_rotary():
    x = normal((2, 64, 2, 8))
    angles = np.arange(64)[:, None, None] * 10_000.0 ** (-np.arange(4) / 4)

    def turned(x, sign):
        x = x.astype(np.float64)
        pairs = (x[..., :4] + 1j * x[..., 4:]) * np.exp(sign * 1j * angles)
        return np.concatenate([pairs.real, pairs.imag], -1)

    expected = turned(np.asarray(x), 1)
    assert_linear("Rotary", nn.Rotary(), x, expected, lambda w: turned(w, -1))


def test_alibi():
    logits = normal((2, 4, 6, 6))
    slopes = np.array([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8])[:, None, None]
    distance = np.abs(np.arange(6)[:, None] - np.arange(6))
    expected = np.asarray(logits, np.float64) - slopes * distance
    assert_linear("ALiBi", nn.ALiBi(), logits, expected, lambda w: w)


def test_relative_bias():
    logits = normal((2, 3, 24, 24))
    layer = made(nn.RelativeBias(3, num_buckets=8, max_distance=16), logits)
    offsets = np.arange(24) - np.arange(24)[:, None]
    distance = np.maximum(np.abs(offsets), 1)
    shared = 2 + np.floor(np.log(distance / 2) / np.log(8) * 2 + 1e-9)
    bucket = np.where(np.abs(offsets) < 2, np.abs(offsets), np.minimum(shared, 3))
    bucket = (bucket + 4 * (offsets > 0)).astype(int)
    table = np.asarray(layer.embedding, np.float64)
    expected = np.asarray(logits, np.float64) + np.moveaxis(table[bucket], -1, 0)
    assert_linear("RelativeBias", layer, logits, expected, lambda w: w)

    weight = normal(logits.shape, 1)
    grads = jax.grad(lambda m: (m(logits) * weight).sum())(layer).embedding
    summed = np.zeros((8, 3))
    for head in range(3):
        totals = np.asarray(weight, np.float64)[:, head].sum(0)
        np.add.at(summed[:, head], bucket, totals)
    assert_agrees("RelativeBias", ORACLE, "gradients", grads, summed)


def test_learned_position():
    x, weight = normal((2, 5, 4)), normal((2, 5, 4), 1)
    layer = made(nn.LearnedPosition(7), x)
    table = np.asarray(layer.embedding, np.float64)
    expected = np.asarray(x, np.float64) + table[:5]
    assert_linear("LearnedPosition", layer, x, expected, lambda w: w)
    grads = jax.grad(lambda m: (m(x) * weight).sum())(layer).embedding
    summed = np.zeros((7, 4))
    summed[:5] = np.asarray(weight, np.float64).sum(0)
    assert_agrees("LearnedPosition", ORACLE, "gradients", grads, summed)


def test_sinusoidal_position():
    x = jnp.zeros((64, 8))
    angles = np.arange(64)[:, None] * 10_000.0 ** (-np.arange(4) / 4)
    expected = np.stack([np.sin(angles), np.cos(angles)], -1).reshape(64, 8)
    layer = nn.SinusoidalPosition()
    assert_linear("SinusoidalPosition", layer, x, expected, lambda w: w)
