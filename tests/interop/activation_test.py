"""PReLU and smoothed labels against PyTorch."""

import jax
import numpy as np
import optax
import pytest

from helpers import normal
from interop.parity import assert_agrees, assert_same, copy, first, made, plain, tensor
from linnet import functional as F
from linnet import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")


@pytest.mark.parametrize("per_feature", [False, True])
def test_prelu(per_feature):
    x = normal((4, 5, 3))
    start = nn.initializers.normal(1.0)
    norm = nn.PReLU(per_feature=per_feature, negative_slope_init=start)
    model = made(norm, x)
    layer = torch.nn.PReLU(3 if per_feature else 1)
    copy(layer.weight, model.negative_slope.reshape(-1))
    pairs = [("negative_slope", layer.weight, lambda g: g.reshape(-1))]
    names = ("PReLU", "torch.nn.PReLU")
    assert_same(names, plain, layer, model, x, pairs, to_torch=first)


def test_label_smoothing():
    names = ("label_smoothing", "torch.nn.CrossEntropyLoss")
    logits, labels = normal((6, 4)), np.arange(6) % 4
    their_logits = tensor(logits)
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    loss = theirs(their_logits, torch.tensor(labels))
    loss.backward()

    def ours(logits):
        smooth = F.label_smoothing(labels, 0.1, num_classes=4)
        return optax.softmax_cross_entropy(logits, smooth).mean()

    assert_agrees(*names, "values", ours(logits), loss.detach().numpy())
    grad = jax.grad(ours)(logits)
    assert_agrees(*names, "gradients", grad, their_logits.grad.numpy())
