"""RNN and Bidirectional: time, lengths, carries, cells of one's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, DTypeError, ShapeError

KEY = jax.random.key(0)


def made(layer, *sample):
    return nn.init(layer, KEY, *sample)


def stepwise(cell, x, carry=None, reverse=False):
    """One call per time."""
    carry = cell.initial_carry(x[..., 0, :]) if carry is None else carry
    time, out = x.shape[-2], {}
    for t in range(time)[:: -1 if reverse else 1]:
        carry, out[t] = cell(carry, x[..., t, :])
    return carry, jnp.stack([out[t] for t in range(time)], -2)


@settings(max_examples=10)
@given(
    st.integers(1, 7),
    st.integers(1, 5),
    st.booleans(),
    st.lists(st.integers(1, 2), max_size=2),
)
def test_it_is_one_call_per_time(time, unroll, reverse, batch):
    x = normal((*batch, time, 3))
    rnn = made(nn.RNN(nn.LSTMCell(2), reverse=reverse, return_carry=True), x)
    rnn = rnn.replace(unroll=unroll)
    assert_close(rnn(x), stepwise(rnn.cell, x, reverse=reverse), atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", [nn.LSTMCell(2), nn.GRUCell(2)])
def test_padding_is_as_if_it_were_not_there(cell, reverse):
    x, lengths = normal((4, 6, 3)), jnp.array([6, 0, 2, 5])
    rnn = made(nn.RNN(cell, reverse=reverse, return_carry=True), x)
    carry, y = rnn(x, lengths=lengths)
    for i, length in enumerate([6, 0, 2, 5]):
        alone = rnn(x[i, :length])
        found = jax.tree.map(lambda c, i=i: c[i], carry), y[i, :length]
        assert_close(found, alone, atol=1e-5)
        assert_close(y[i, length:], np.zeros((6 - length, 2)))


def test_a_mask_may_have_holes_and_lengths_are_a_mask():
    x = normal((2, 5, 3))
    mask = jnp.array([[True, False, True, True, False], [False] * 5])
    rnn = made(nn.RNN(nn.GRUCell(2), return_carry=True), x)
    carry, y = rnn(x, mask=mask)
    desired, kept = rnn(x[0, jnp.array([0, 2, 3])])
    assert_close(carry, jnp.stack([desired, jnp.zeros(2)]))
    assert_close(y[0, jnp.array([0, 2, 3])], kept)
    assert_close(y[1], np.zeros((5, 2)))
    first = jnp.arange(5)[None] < jnp.array([3, 1])[:, None]
    assert_close(rnn(x, mask=first), rnn(x, lengths=jnp.array([3, 1])))


def test_what_is_padded_has_no_gradient():
    x = normal((2, 5, 3))
    rnn = made(nn.RNN(nn.LSTMCell(2)), x)
    grad = jax.grad(lambda x: rnn(x, lengths=jnp.array([2, 5])).sum())(x)
    assert_close(grad[0, 2:], np.zeros((3, 3)))
    assert (grad[0, :2] != 0).all()


def test_a_sequence_may_go_on_from_a_carry():
    x = normal((2, 7, 3))
    rnn = made(nn.RNN(nn.LSTMCell(2), return_carry=True), x)
    carry, first = rnn(x[:, :3])
    last, rest = rnn(x[:, 3:], carry)
    assert_close((last, jnp.concatenate([first, rest], 1)), rnn(x))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (0, 5, 3)])
def test_nothing_gives_nothing(shape):
    rnn = made(nn.RNN(nn.GRUCell(2), return_carry=True), normal((2, 5, 3)))
    carry, y = rnn(jnp.zeros(shape))
    assert y.shape == (*shape[:-1], 2)
    assert_close(carry, np.zeros((*shape[:-2], 2)))


def test_images_over_time():
    x = normal((2, 4, 5, 6, 3))
    rnn = made(nn.RNN(nn.ConvLSTMCell(2, (3, 3)), return_carry=True), x)
    carry = rnn.cell.initial_carry(x[:, 0])
    out = []
    for t in range(4):
        carry, y = rnn.cell(carry, x[:, t])
        out.append(y)
    assert_close(rnn(x), (carry, jnp.stack(out, 1)), atol=1e-5)
    assert rnn(x, lengths=jnp.array([1, 4]))[1].shape == (2, 4, 5, 6, 2)


def test_both_directions_are_two_runs():
    x, lengths = normal((2, 5, 3)), jnp.array([3, 5])
    both = made(nn.Bidirectional(nn.GRUCell(2), return_carry=True), x)
    first, ahead = both.forward(x, lengths=lengths)
    last, behind = both.backward(x, lengths=lengths)
    found = both(x, lengths=lengths)
    assert_close(found, ((first, last), jnp.concatenate([ahead, behind], -1)))
    assert_close(both.replace(merge="sum")(x, lengths=lengths)[1], ahead + behind)
    assert_close(both.replace(merge=None)(x, lengths=lengths)[1], (ahead, behind))
    again = both(x, (first, last), lengths=lengths)[1]
    assert_close(again[..., :2], both.forward(x, first, lengths=lengths)[1])
    assert (both.forward.cell.kernel != both.backward.cell.kernel).all()


def test_layers_of_several_kinds_follow_one_another():
    x = normal((2, 5, 3))
    model = nn.Sequential(
        [
            nn.RNN(nn.LSTMCell(4)),
            nn.Dropout(0.5),
            nn.Bidirectional(nn.GRUCell(2)),
            nn.Stack(nn.RNN(nn.SimpleCell(4)), 2),
        ]
    )
    model = made(model, x)
    assert model(x).shape == (2, 5, 4)
    grads = nn.grad(lambda m: nn.training(m, KEY)(x)[0].sum())(model)
    assert all((g != 0).any() for g in jax.tree.leaves(grads))


class Noisy(nn.Module):
    """A cell of one's own, with noise, state and a carry that is a dict."""

    def __init__(self, features):
        self.features = features
        self.dense = nn.Dense(features)
        self.drop = nn.Dropout(0.5)
        self.steps = nn.state(0)

    def initial_carry(self, x):
        return {"h": jnp.zeros((*x.shape[:-1], self.features))}

    def __call__(self, carry, x):
        if self.training:
            self.steps = self.steps + 1
        inputs = jnp.concatenate([carry["h"], self.drop(x)], -1)
        h = jnp.tanh(self.dense(inputs))
        return {"h": h}, h


def test_a_cell_of_ones_own_draws_and_writes_at_each_time():
    x = jnp.ones((2, 6, 8))
    rnn = made(nn.RNN(Noisy(4), unroll=2), x)
    assert_close(rnn(x), stepwise(rnn.cell, x)[1])
    y, updated = nn.training(rnn, KEY)(x)
    assert updated.cell.steps == 6
    drops, _ = nn.training(nn.RNN(Drops()), KEY)(x)
    assert len({tuple(step) for step in np.asarray(drops[0]).tolist()}) > 3
    assert y.shape == (2, 6, 4)
    lengths = jnp.array([2, 6])
    assert_close(rnn(x, lengths=lengths)[0, :2], rnn(x)[0, :2])


class Drops(nn.Module):
    """A cell that shows what a dropout draws."""

    def __init__(self):
        self.drop = nn.Dropout(0.5)

    def initial_carry(self, x):
        return jnp.zeros(x.shape)

    def __call__(self, carry, x):
        return carry, self.drop(x)


def test_lengths_may_be_traced_and_mapped():
    x, lengths = normal((3, 5, 2)), jnp.array([1, 5, 3])
    rnn = made(nn.RNN(nn.GRUCell(2)), x)
    one = jax.vmap(lambda x, n: rnn(x, lengths=n))
    assert_close(jax.jit(one)(x, lengths), rnn(x, lengths=lengths))


def test_what_is_no_cell_is_refused_and_the_fix_works():
    with pytest.raises(ConfigError, match=r"`cell` is a Dense.*LN-VALUE-04") as caught:
        nn.RNN(nn.Dense(4))
    scope = {"nn": nn}
    exec(caught.value.fixes[0][1], scope)
    assert made(nn.RNN(scope["cell"]), jnp.ones((2, 3))).cell.features == 8


def test_masks_that_do_not_fit_are_refused_with_the_path():
    x = jnp.ones((2, 5, 3))
    model = made(nn.Sequential([nn.RNN(nn.GRUCell(4))]), x)
    rnn = model[0]
    with pytest.raises(ShapeError, match=r"`lengths` is int32\[5\]"):
        rnn(x, lengths=jnp.arange(5))
    with pytest.raises(ShapeError, match=r"`mask` is bool\[5, 2\]"):
        rnn(x, mask=jnp.ones((5, 2), bool))
    with pytest.raises(ShapeError, match=r"booleans of shape \[2, 5\] are needed"):
        rnn(x, mask=jnp.ones((2, 5)))
    with pytest.raises(DTypeError, match="`lengths` is float32"):
        rnn(x, lengths=jnp.ones(2))
    with pytest.raises(ConfigError, match="both `lengths` and `mask`"):
        rnn(x, lengths=jnp.arange(2), mask=jnp.ones((2, 5), bool))
    with pytest.raises(ShapeError, match=r"cell \(GRUCell\): `carry` is"):
        rnn(x, jnp.zeros((3, 4)))
    with pytest.raises(ShapeError, match=r"layers\[0\] \(RNN\): `x` has 1 axes"):
        model(jnp.ones(3))
