"""Mixtures of experts against a loop over tokens and experts in float64."""

import jax
import numpy as np
import pytest

from helpers import normal
from interop.parity import SPREAD, assert_agrees, made
from linnet import nn

NAMES = ("MoE", "NumPy float64")


def wide(x):
    return np.asarray(x, np.float64)


def perceptron(parts, e, x):
    """Of expert e, for one token, with its derivative by the token."""
    (w, b), (v, c) = [(wide(p.kernel)[e], wide(p.bias)[e]) for p in parts]
    h = x @ w + b
    return np.tanh(h) @ v + c, w * (1 - np.tanh(h) ** 2) @ v  # [O], [I, O]


def by_hand(model, x, g, capacity):
    """The result, and the gradients of its product with g by x and by the router."""
    router, parts = wide(model.router.kernel), (model.hidden, model.out)
    tokens, number = len(x), router.shape[1]
    logits = x @ router
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    best = np.argsort(-p, -1)[:, : model.top_k]
    y, grad_x = np.zeros_like(g), np.zeros_like(x)
    grad_p, taken = np.zeros_like(p), np.zeros(number, int)
    for k in range(model.top_k):
        for t in range(tokens):
            e, chosen = best[t, k], best[t]
            total = p[t, chosen].sum()
            if capacity is not None and taken[e] >= capacity:
                continue
            taken[e] += 1
            value, slope = perceptron(parts, e, x[t])
            y[t] += p[t, e] / total * value
            grad_x[t] += p[t, e] / total * (slope @ g[t])
            grad_p[t, e] += g[t] @ value / total
            grad_p[t, chosen] -= p[t, e] / total**2 * (g[t] @ value)
    grad_logits = p * (grad_p - (p * grad_p).sum(-1, keepdims=True))
    return y, grad_x + grad_logits @ router.T, x.T @ grad_logits


@pytest.mark.parametrize("capacity_factor", [None, 1.0])
def test_moe(capacity_factor):
    x, g = normal((10, 3)), normal((10, 3), 1)
    layer = nn.MoE(
        4,
        5,
        capacity_factor=capacity_factor,
        activation=jax.numpy.tanh,
        bias_init=SPREAD,
    )
    model = made(layer, x)
    capacity = None if capacity_factor is None else 5
    y, grad_x, grad_router = by_hand(model, wide(x), wide(g), capacity)

    @jax.jit
    def ours(model, x):
        return model(x), jax.grad(lambda m, x: (m(x) * g).sum(), (0, 1))(model, x)

    found, (grads, found_x) = ours(model, x)
    assert_agrees(*NAMES, "values", found, y)
    assert_agrees(*NAMES, "gradients", found_x, grad_x)
    assert_agrees(*NAMES, "gradients", grads.router.kernel, grad_router)
