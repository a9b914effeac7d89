"""ActNorm against its formula, as neither PyTorch nor Flax has it."""

import jax
import numpy as np

from helpers import normal
from interop.parity import assert_agrees, made
from linnet import nn


def test_act_norm():
    names = ("ActNorm", "NumPy float64")
    x, weight = 5 + 3 * normal((6, 3)), normal((6, 3), 1)
    model = made(nn.ActNorm(), x)
    wide, w = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    scale, bias = 1 / np.sqrt(wide.var(0) + 1e-6), -wide.mean(0)
    y, log_det = model.forward_and_log_det(x)
    log_dets = np.full(6, np.log(scale).sum())
    assert_agrees(*names, "values", (y, log_det), ((wide + bias) * scale, log_dets))
    grads, grad_x = jax.grad(lambda m, x: (m(x) * weight).sum(), (0, 1))(model, x)
    found = (grads.scale, grads.bias, grad_x)
    expected = ((w * (wide + bias)).sum(0), w.sum(0) * scale, w * scale)
    assert_agrees(*names, "gradients", found, expected)
