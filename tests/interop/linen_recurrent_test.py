"""The recurrent cells that PyTorch does not have, against Flax Linen."""

import flax.linen
import jax
import jax.numpy as jnp
import pytest

from helpers import normal
from interop.parity import SPREAD, assert_agrees, made
from linnet import nn


def assert_cell_agrees(names, cell, linen, variables, carry, x, layout):
    """Values, and the gradients of every parameter, of the carry and of `x`."""
    weight = normal(cell(carry, x)[1].shape, 7)

    def theirs(variables, carry, x):
        carry, y = linen.apply(variables, carry, x)
        return (y * weight).sum(), (carry, y)

    def ours(cell, carry, x):
        carry, y = cell(carry, x)
        return (y * weight).sum(), (carry, y)

    desired, values = jax.grad(theirs, (0, 1, 2), has_aux=True)(variables, carry, x)
    found, out = jax.grad(ours, (0, 1, 2), has_aux=True)(cell, carry, x)
    assert_agrees(*names, "values", out, values)
    assert_agrees(*names, "gradients", layout(found[0]), desired[0])
    assert_agrees(*names, "gradients", found[1:], desired[1:])


@pytest.mark.parametrize("reset_gate", [True, False])
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_mgu_cell(batch, reset_gate):
    x, carry = normal((*batch, 3)), normal((*batch, 4), 1)
    cell = nn.MGUCell(4, bias_init=SPREAD, reset_gate=reset_gate)
    cell = made(cell, carry, x)
    linen = flax.linen.MGUCell(4, reset_gate=reset_gate)
    shapes = jax.eval_shape(linen.init, jax.random.key(0), carry, x)

    def layout(cell):
        inner = {"bias": cell.recurrent_bias} if reset_gate else {}
        inputs = jnp.split(cell.kernel, 2, 1)
        recurrent, bias = jnp.split(cell.recurrent_kernel, 2, 1), cell.bias
        tree = {
            "if": {"kernel": inputs[0], "bias": bias[:4]},
            "in": {"kernel": inputs[1], "bias": bias[4:]},
            "hf": {"kernel": recurrent[0]},
            "hn": {"kernel": recurrent[1]} | inner,
        }
        return {"params": tree}

    variables = layout(cell)
    assert jax.tree.structure(variables) == jax.tree.structure(shapes)
    names = ("MGUCell", "flax.linen.MGUCell")
    assert_cell_agrees(names, cell, linen, variables, carry, x, layout)


@pytest.mark.parametrize(
    ("window", "shape"), [((3,), (2, 5)), ((3, 2), (2, 5, 4)), ((3, 3), (5, 4))]
)
def test_conv_lstm_cell(window, shape):
    x, c, h = normal((*shape, 3)), normal((*shape, 4), 1), normal((*shape, 4), 2)
    cell = made(nn.ConvLSTMCell(4, window, bias_init=SPREAD), (c, h), x)
    linen = flax.linen.ConvLSTMCell(4, window)
    by_linen = jnp.array([0, 2, 1, 3])  # i, g, f, o

    def ordered(kernel):
        gates = jnp.stack(jnp.split(kernel, 4, -1))[by_linen]
        return jnp.concatenate(list(gates), -1)

    def layout(cell, forget_bias=0.0):
        bias = cell.bias.at[4:8].add(-forget_bias)
        tree = {
            "ih": {"kernel": ordered(cell.kernel), "bias": ordered(bias)},
            "hh": {"kernel": ordered(cell.recurrent_kernel), "bias": ordered(bias)},
        }
        return {"params": tree}

    variables = layout(cell, 1.0)
    variables["params"]["hh"]["bias"] *= 0
    names = ("ConvLSTMCell", "flax.linen.ConvLSTMCell")
    assert_cell_agrees(names, cell, linen, variables, (c, h), x, layout)
