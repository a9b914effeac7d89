"""Recurrent cells and their runs over time against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import normal
from interop.parity import SPREAD, assert_agrees, copy, made, tensor
from linnet import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

SIZE, WIDTH = 3, 4
CELLS = {
    "LSTMCell": (nn.LSTMCell, torch.nn.LSTMCell, torch.nn.LSTM),
    "GRUCell": (nn.GRUCell, torch.nn.GRUCell, torch.nn.GRU),
    "SimpleCell": (nn.SimpleCell, torch.nn.RNNCell, torch.nn.RNN),
}


def copy_cell(cell, theirs, suffix=""):
    """Our parameters in PyTorch's; where it has two biases for our one, half each."""
    copy(getattr(theirs, "weight_ih" + suffix), cell.kernel.T)
    copy(getattr(theirs, "weight_hh" + suffix), cell.recurrent_kernel.T)
    one, other = split_bias(cell)
    copy(getattr(theirs, "bias_ih" + suffix), one)
    copy(getattr(theirs, "bias_hh" + suffix), other)


def split_bias(cell):
    if isinstance(cell, nn.GRUCell):
        halves = cell.bias.at[: 2 * WIDTH].divide(2)
        return halves, halves.at[2 * WIDTH :].set(cell.recurrent_bias)
    return cell.bias / 2, cell.bias / 2


def parameters(theirs, suffix=""):
    """PyTorch's gradients, as the parameters of our cell are laid out."""
    kernel = getattr(theirs, "weight_ih" + suffix).grad.numpy().T
    recurrent = getattr(theirs, "weight_hh" + suffix).grad.numpy().T
    return kernel, recurrent, getattr(theirs, "bias_ih" + suffix).grad.numpy()


def ours(cell):
    return cell.kernel, cell.recurrent_kernel, cell.bias


def to_torch(carry):
    """Ours is (c, h), PyTorch's (h, c)."""
    return jax.tree.map(tensor, carry[::-1] if isinstance(carry, tuple) else carry)


def numbers(carry):
    """The reverse."""
    carry = carry[::-1] if isinstance(carry, tuple) else carry
    return jax.tree.map(lambda x: x.detach().numpy(), carry)


def gradients(carry):
    carry = carry[::-1] if isinstance(carry, tuple) else carry
    return jax.tree.map(lambda x: x.grad.numpy(), carry)


def start_like(cell, batch):
    zeros = cell.initial_carry(jnp.zeros((*batch, SIZE)))
    return jax.tree.map(lambda a: normal(a.shape, a.ndim), zeros)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("batch", [(), (5,)])
def test_cell(name, batch):
    make, oracle, _ = CELLS[name]
    names = (name, f"torch.nn.{oracle.__name__}")
    x, weight = normal((*batch, SIZE)), normal((*batch, WIDTH), 1)
    carry = start_like(make(WIDTH), batch)
    model = made(make(WIDTH, bias_init=SPREAD), carry, x)
    theirs = oracle(SIZE, WIDTH)
    copy_cell(model, theirs)
    their_carry, their_x = to_torch(carry), tensor(x)
    their_next = theirs(their_x, their_carry)
    y = their_next[0] if isinstance(their_next, tuple) else their_next
    (y * tensor(weight, False)).sum().backward()

    def loss(model, carry, x):
        return (model(carry, x)[1] * weight).sum()

    assert_agrees(*names, "values", model(carry, x)[0], numbers(their_next))
    grads = jax.grad(loss, (0, 1, 2))(model, carry, x)
    desired = parameters(theirs), gradients(their_carry), their_x.grad.numpy()
    assert_agrees(*names, "gradients", (ours(grads[0]), *grads[1:]), desired)


def their_run(module, x, lengths, carry=None):
    """PyTorch's outputs, zero after the lengths, and its last carry."""
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x, torch.tensor(lengths), batch_first=True, enforce_sorted=False
    )
    y, last = module(packed, carry)
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(
        y, batch_first=True, total_length=x.shape[1]
    )
    return y, last


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("lengths", [[6, 6, 6], [2, 6, 5]])
def test_rnn(name, lengths):
    make, _, oracle = CELLS[name]
    names = (f"RNN({name})", f"torch.nn.{oracle.__name__}")
    x, weight = normal((3, 6, SIZE)), normal((3, 6, WIDTH), 1)
    rnn = made(nn.RNN(make(WIDTH, bias_init=SPREAD), return_carry=True), x)
    start = start_like(rnn.cell, (3,))
    theirs = oracle(SIZE, WIDTH, batch_first=True)
    copy_cell(rnn.cell, theirs, "_l0")
    their_x = tensor(x)
    their_start = jax.tree.map(lambda c: c[None], to_torch(start))
    y, last = their_run(theirs, their_x, lengths, their_start)
    (y * tensor(weight, False)).sum().backward()
    counts = jnp.array(lengths)

    def loss(rnn, x):
        return (rnn(x, start, lengths=counts)[1] * weight).sum()

    found = rnn(x, start, lengths=counts)
    last = jax.tree.map(lambda c: c[0], numbers(last))
    assert_agrees(*names, "values", found, (last, y.detach().numpy()))
    grads, grad_x = jax.grad(loss, (0, 1))(rnn, x)
    desired = *parameters(theirs, "_l0"), their_x.grad.numpy()
    assert_agrees(*names, "gradients", (*ours(grads.cell), grad_x), desired)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("lengths", [[5, 5], [2, 5]])
def test_bidirectional(name, lengths):
    make, _, oracle = CELLS[name]
    names = (f"Bidirectional({name})", f"torch.nn.{oracle.__name__}")
    x, weight = normal((2, 5, SIZE)), normal((2, 5, 2 * WIDTH), 1)
    cell = make(WIDTH, bias_init=SPREAD)
    both = made(nn.Bidirectional(cell, return_carry=True), x)
    theirs = oracle(SIZE, WIDTH, batch_first=True, bidirectional=True)
    copy_cell(both.forward.cell, theirs, "_l0")
    copy_cell(both.backward.cell, theirs, "_l0_reverse")
    their_x = tensor(x)
    y, last = their_run(theirs, their_x, lengths)
    (y * tensor(weight, False)).sum().backward()
    counts = jnp.array(lengths)

    def loss(both, x):
        return (both(x, lengths=counts)[1] * weight).sum()

    found = both(x, lengths=counts)
    last = numbers(last)
    ends = tuple(jax.tree.map(lambda c, i=i: c[i], last) for i in range(2))
    assert_agrees(*names, "values", found, (ends, y.detach().numpy()))
    grads, grad_x = jax.grad(loss, (0, 1))(both, x)
    one, two = grads.forward.cell, grads.backward.cell
    desired = (
        *parameters(theirs, "_l0"),
        *parameters(theirs, "_l0_reverse"),
        their_x.grad.numpy(),
    )
    assert_agrees(*names, "gradients", (*ours(one), *ours(two), grad_x), desired)


def test_two_layers():
    x = normal((2, 5, SIZE))
    model = made(
        nn.Sequential([nn.RNN(nn.LSTMCell(WIDTH)), nn.RNN(nn.LSTMCell(WIDTH))]), x
    )
    theirs = torch.nn.LSTM(SIZE, WIDTH, num_layers=2, batch_first=True)
    for i in range(2):
        copy_cell(model[i].cell, theirs, f"_l{i}")
    names = ("RNN(LSTMCell)", "torch.nn.LSTM")
    desired = theirs(tensor(x))[0].detach().numpy()
    assert_agrees(*names, "values", model(x), desired)
    assert np.abs(desired).max() > 0
