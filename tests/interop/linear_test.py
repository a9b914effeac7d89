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


@pytest.mark.parametrize("batch", [(5,), (2, 3), (0,)])
def test_bilinear(batch):
    names = ("Bilinear", "torch.nn.Bilinear")
    x, y, weight = normal((*batch, 3)), normal((*batch, 4), 1), normal((*batch, 2), 2)
    model = made(nn.Bilinear(2, bias_init=SPREAD), x, y)
    layer = torch.nn.Bilinear(3, 4, 2)
    copy(layer.weight, jnp.moveaxis(model.kernel, -1, 0))
    copy(layer.bias, model.bias)
    their_x, their_y = tensor(x), tensor(y)
    z = layer(their_x, their_y)
    (z * tensor(weight, False)).sum().backward()

    def loss(model, x, y):
        return (model(x, y) * weight).sum()

    grads, *inputs = jax.grad(loss, (0, 1, 2))(model, x, y)
    assert_agrees(*names, "values", model(x, y), z.detach().numpy())
    expected = [t.grad.numpy() for t in (their_x, their_y, layer.weight, layer.bias)]
    found = [*inputs, jnp.moveaxis(grads.kernel, -1, 0), grads.bias]
    assert_agrees(*names, "gradients", found, expected)
