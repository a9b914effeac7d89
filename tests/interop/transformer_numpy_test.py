"""Parallel blocks and sandwiches against their formulas in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from helpers import normal
from interop.parity import SPREAD, assert_agrees, made
from linnet import nn


def wide(x):
    return np.asarray(x, np.float64)


def norm(part, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return x * wide(part.scale) + wide(part.bias)


def dense(part, x):
    return x @ wide(part.kernel) + wide(part.bias)


def attend(part, x):
    """Causal, of two heads."""
    q, k, v = (
        dense(p, x).reshape(*x.shape[:-1], 2, -1)
        for p in (part.query, part.key, part.value)
    )
    logits = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(q.shape[-1])
    logits = np.where(np.tri(x.shape[1], dtype=bool), logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    y = np.einsum("bhts,bshd->bthd", weights, v)
    return dense(part.out, y.reshape(x.shape))


def feed(part, x):
    return dense(part.out, np.tanh(dense(part.hidden[0], x)))


def parallel(model, x):
    h = norm(model.attention_norm, x)
    return x + attend(model.attention, h) + feed(model.mlp, h)


def sandwich(model, x):
    y = attend(model.attention, norm(model.attention_norm, x))
    x = x + norm(model.attention_out_norm, y)
    y = feed(model.mlp, norm(model.mlp_norm, x))
    return x + norm(model.mlp_out_norm, y)


@pytest.mark.parametrize(
    ("formula", "options"),
    [(parallel, {"parallel": True}), (sandwich, {"placement": "sandwich"})],
)
def test_block(formula, options):
    def made_norm():
        return nn.LayerNorm(scale_init=SPREAD, bias_init=SPREAD)

    x = normal((2, 5, 8))
    block = nn.TransformerBlock(
        nn.Attention(2, causal=True, bias_init=SPREAD),
        nn.MLP(12, activation=jnp.tanh, bias_init=SPREAD),
        norm=made_norm,
        **options,
    )
    model = made(block, x)
    names = (f"TransformerBlock, {formula.__name__}", "NumPy float64")
    assert_agrees(*names, "values", model(x), formula(model, wide(x)))
