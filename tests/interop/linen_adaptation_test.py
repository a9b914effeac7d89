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


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn"])
@pytest.mark.parametrize("block_size", [None, 2])
def test_quantize(dtype, block_size):
    names = ("quantize", ORACLE)
    x, weight = normal((5, 6)), normal((5, 4), 1)
    model = made(nn.Dense(4, bias_init=SPREAD), x)
    small = nn.quantize(model, nn.Dense, dtype, block_size=block_size)
    blocks = wide(model.kernel).reshape(-1, block_size or 6, 4)
    largest = {"int8": 127, "float8_e4m3fn": 448}[dtype]
    scale = (np.abs(blocks).max(1, keepdims=True) / largest).astype(np.float32)
    scaled = np.clip(blocks.astype(np.float32) / scale, -largest, largest)
    steps = np.rint(scaled) if dtype == "int8" else scaled.astype(jnp.dtype(dtype))
    kernel = (wide(steps) * wide(scale)).reshape(6, 4)
    assert_agrees(*names, "values", small(x), wide(x) @ kernel + wide(model.bias))
    grad_x = jax.grad(lambda x: (small(x) * weight).sum())(x)
    assert_agrees(*names, "gradients", grad_x, wide(weight) @ kernel.T)
