"""Agreement with Flax Linen, where PyTorch has no such layer."""

import jax

from helpers import normal
from interop.parity import assert_agrees, same
from linnet import nn


def assert_same(names, model, theirs, x, layout=same):
    """Values, and gradients with respect to parameters and input.

    `layout` turns our parameters by path, or their gradients, into Linen's.
    """
    arrays = layout(_present(nn.params(model)))
    weight = normal(model(x).shape, 1)

    def our_loss(model, x):
        return (model(x) * weight).sum()

    def their_loss(params, x):
        return (theirs.apply({"params": params}, x) * weight).sum()

    grads = _present(nn.grad(our_loss)(model, x))
    grad_x = jax.grad(our_loss, 1)(model, x)
    expected, expected_x = jax.grad(their_loss, (0, 1))(arrays, x)
    assert_agrees(*names, "values", model(x), theirs.apply({"params": arrays}, x))
    assert_agrees(*names, "gradients", grad_x, expected_x)
    assert_agrees(*names, "gradients", layout(grads), expected)


def _present(tree):
    """The arrays that are there, by path."""
    return {path: a for path, a in nn.to_paths(tree).items() if a is not None}
