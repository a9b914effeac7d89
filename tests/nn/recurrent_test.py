"""Recurrent cells: their start, their carry, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, DTypeError, ShapeError

KEY = jax.random.key(0)
CELLS = {
    nn.LSTMCell: 4,
    nn.GRUCell: 3,
    nn.MGUCell: 2,
    nn.SimpleCell: 1,
}


def made(cell, x):
    return nn.init(cell, KEY, cell.initial_carry(x), x)


@pytest.mark.parametrize("make", CELLS)
def test_each_gate_starts_as_if_it_had_kernels_of_its_own(make):
    gates = CELLS[make]
    init = nn.initializers.glorot_uniform()  # its spread depends on both sizes
    cell = made(make(32, kernel_init=init), jnp.ones((1, 64)))
    for part in jnp.split(cell.kernel, gates, -1):
        assert_close(part.std(), np.sqrt(2 / (64 + 32)), rtol=0.1)
    for part in jnp.split(cell.recurrent_kernel, gates, -1):
        assert_close(part @ part.T, np.eye(32), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "gates", "forget"), [(nn.LSTMCell, 4, 1), (nn.MGUCell, 2, 0)]
)
def test_the_forget_gate_starts_open(make, gates, forget):
    bias = made(make(3, forget_bias=2.0), jnp.ones((1, 3))).bias
    expected = np.zeros((gates, 3))
    expected[forget] = 2.0
    assert_close(bias.reshape(gates, 3), expected)


@pytest.mark.parametrize("make", CELLS)
def test_a_call_is_a_projection_and_a_step(make):
    x = normal((2, 5, 3))
    cell = made(make(4), x)
    carry = jax.tree.map(lambda c: normal(c.shape), cell.initial_carry(x))
    assert_close(cell(carry, x), cell.step(carry, cell.project(x)))


@pytest.mark.parametrize("make", CELLS)
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_the_first_carry_is_like_every_other_one(make, dtype):
    x = normal((2, 3), dtype=jnp.bfloat16)
    cell = make(4, dtype=dtype)
    start = cell.initial_carry(x)
    later, y = made(cell, x)(start, x)
    assert y.dtype == (dtype or jnp.float32)
    dtypes = [[c.dtype for c in jax.tree.leaves(c)] for c in (start, later)]
    assert dtypes[0] == dtypes[1]
    memory = start[0] if isinstance(start, tuple) else start
    assert memory.dtype == jnp.float32


@pytest.mark.parametrize("make", CELLS)
def test_parameters_carry_logical_axes(make):
    declared = make(4)._spec.leaves.values()
    assert {d.axes for d in declared} == {("in", "out"), ("out",)}


@pytest.mark.parametrize("make", CELLS)
def test_biases_can_be_left_out(make):
    x = jnp.ones((2, 3))
    cell = made(make(4, use_bias=False), x)
    assert set(nn.to_paths(cell)) == {"kernel", "recurrent_kernel"}
    assert cell(cell.initial_carry(x), x)[1].shape == (2, 4)


def test_a_minimal_gated_unit_without_reset_gate_has_one_bias():
    x = jnp.ones((2, 3))
    assert "recurrent_bias" not in nn.to_paths(made(nn.MGUCell(4, reset_gate=False), x))


def test_an_image_keeps_its_size_under_each_padding():
    x = normal((2, 6, 5, 3))
    for padding in ("SAME", "CIRCULAR", "REFLECT"):
        cell = made(nn.ConvLSTMCell(4, (3, 3), padding=padding), x)
        assert cell(cell.initial_carry(x), x)[1].shape == (2, 6, 5, 4)


@pytest.mark.parametrize("make", CELLS)
def test_another_carry_is_refused_with_the_path_and_the_fix_works(make):
    x = jnp.ones((2, 3))
    cell = made(make(4), x)
    carry = cell.initial_carry(jnp.ones((5, 3)))
    with pytest.raises(ShapeError, match=r"\(\w+Cell\): `carry` is .*LN-SHAPE-01") as e:
        cell(carry, x)
    scope = {"jnp": jnp}
    exec(e.value.fixes[0][1], scope)
    assert cell(scope["carry"], x)[1].shape == (2, 4)


def test_wrong_inputs_and_options_are_refused():
    x = jnp.ones((2, 3))
    cell = made(nn.LSTMCell(4), x)
    carry = cell.initial_carry(x)
    with pytest.raises(ShapeError, match="`kernel` is float32"):
        cell(carry, jnp.ones((2, 5)))
    with pytest.raises(DTypeError, match="floating values are needed"):
        cell(carry, jnp.ones((2, 3), jnp.int32))
    with pytest.raises(ConfigError, match="`features` is 0"):
        nn.GRUCell(0)
    with pytest.raises(ConfigError, match="`padding` is 'VALID'"):
        nn.ConvLSTMCell(4, (3,), padding="VALID")
    with pytest.raises(DTypeError, match="`dtype` is int8"):
        nn.SimpleCell(4, dtype=jnp.int8)
