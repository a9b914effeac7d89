"""Dense layers and tables against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import normal
from interop.parity import (
    SPREAD,
    assert_agrees,
    assert_same,
    copy,
    made,
    plain,
    same,
    tensor,
)
from linnet import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 3), (0, 3)])
def test_dense(shape):
    x = normal(shape)
    model = made(nn.Dense(4, bias_init=SPREAD), x)
    theirs = torch.nn.Linear(3, 4)
    copy(theirs.weight, model.kernel.T)
    copy(theirs.bias, model.bias)
    pairs = [("kernel", theirs.weight, jnp.transpose), ("bias", theirs.bias, same)]
    assert_same(("Dense", "torch.nn.Linear"), plain, theirs, model, x, pairs)


def test_embed():
    names = ("Embed", "torch.nn.Embedding")
    ids = np.array([[1, 4, 1], [0, 2, 3]])
    model = made(nn.Embed(5, 3), jnp.asarray(ids))
    layer = torch.nn.Embedding(5, 3)
    copy(layer.weight, model.embedding)
    weight = normal((2, 3, 3))
    y = layer(torch.tensor(ids))
    (y * tensor(weight, False)).sum().backward()
    grads = jax.grad(lambda m: (m(jnp.asarray(ids)) * weight).sum())(model)
    assert_agrees(*names, "values", model(jnp.asarray(ids)), y.detach().numpy())
    assert_agrees(*names, "gradients", grads.embedding, layer.weight.grad.numpy())
