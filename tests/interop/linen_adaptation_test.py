"""Adapted layers against the published formulas, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import normal
from interop.parity import SPREAD, assert_agrees, made
from linnet import nn

ORACLE = "NumPy float64"


def wide(x):
    return np.asarray(x, np.float64)


def spread(model):
    return nn.select(model, nn.LoRAParam).map(
        lambda path, x: normal(x.shape, len(path)), with_path=True
    )


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 3)])
def test_lora(shape):
    names = ("lora", ORACLE)
    x, weight = normal(shape), normal((*shape[:-1], 4), 1)
    model = made(nn.Dense(4, bias_init=SPREAD), x)
    model = spread(nn.lora(model, nn.Dense, 2, 3.0, jax.random.key(1)))
    k, a, b = map(wide, (model.base.kernel, model.lora_a, model.lora_b))
    rows, out = wide(x).reshape(-1, 3), wide(weight).reshape(-1, 4)
    values = rows @ (k + 1.5 * a @ b) + wide(model.base.bias)
    assert_agrees(*names, "values", model(x), values.reshape(weight.shape))
    grads = nn.grad(lambda m: (m(x) * weight).sum(), wrt=nn.LoRAParam)(model)
    grad_x = jax.grad(lambda x: (model(x) * weight).sum())(x)
    ours = [grads.lora_a, grads.lora_b, grad_x]
    theirs = [
        1.5 * rows.T @ out @ b.T,
        1.5 * (rows @ a).T @ out,
        (out @ (k + 1.5 * a @ b).T).reshape(shape),
    ]
    assert_agrees(*names, "gradients", ours, theirs)


def test_merge_lora():
    x = normal((5, 3))
    model = made(nn.Dense(4), x)
    model = spread(nn.lora(model, nn.Dense, 2, 3.0, jax.random.key(1)))
    k, a, b = map(wide, (model.base.kernel, model.lora_a, model.lora_b))
    merged = nn.merge_lora(model)
    values = k + 1.5 * a @ b
    assert_agrees("merge_lora", ORACLE, "values", merged.kernel, values)
    assert jnp.array_equal(merged.bias, model.base.bias)
