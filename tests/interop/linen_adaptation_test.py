"""Adapted layers against the published formulas in float64, and Flax's fp8."""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import normal
from interop.parity import SPREAD, assert_agrees, made
from linnet import functional as F
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


def test_fp8_dense():
    x, weight = normal((5, 6)), normal((5, 4), 1)
    layer = made(nn.Fp8Dense(4, bias_init=SPREAD), x)
    _, layer = nn.training(layer)(x)
    sx, sk = map(F.fp8_scale, (layer.x_amax_history, layer.kernel_amax_history))
    kinds = (jnp.float8_e4m3fn, jnp.float8_e4m3fn, jnp.float8_e5m2)
    sg = jnp.abs(weight).max() / 57344

    def rounded(array, kind, scale):
        return wide(flax.linen.fp8_ops.qdq(array, kind, scale, jnp.float32))

    pairs = zip((x, layer.kernel, weight), kinds, (sx, sk, sg), strict=True)
    xq, kq, gq = (rounded(*pair) for pair in pairs)
    names = ("Fp8Dense", "flax.linen.fp8_ops.qdq")
    assert_agrees(*names, "values", layer(x), xq @ kq + wide(layer.bias))
    grads, grad_x = jax.grad(lambda m, x: (m(x) * weight).sum(), (0, 1))(layer, x)
    ours = [grads.kernel, grads.bias, grad_x]
    assert_agrees(
        *names, "gradients", ours, [xq.T @ gq, wide(weight).sum(0), gq @ kq.T]
    )
