"""Steps of recurrent cells: their formulas, dtypes, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import DTypeError, ShapeError

WIDTH = 3


def wide(x):
    return np.asarray(x, np.float64)


def case(gates, batch=(2,), dtype=jnp.float32):
    """A carry, a projection and a recurrent kernel."""
    h, projected = normal((*batch, WIDTH)), normal((*batch, gates * WIDTH), 1)
    kernel = normal((WIDTH, gates * WIDTH), 2)
    return tuple(array.astype(dtype) for array in (h, projected, kernel))


@pytest.mark.parametrize("batch", [(), (2,), (2, 4), (0,)])
def test_lstm_step_is_its_formula(batch):
    h, projected, kernel = case(4, batch)
    c = normal(h.shape, 3)
    i, f, g, o = np.split(wide(projected) + wide(h) @ wide(kernel), 4, -1)
    new_c = expit(f) * wide(c) + expit(i) * np.tanh(g)
    new_h = expit(o) * np.tanh(new_c)
    found = F.lstm_step((c, h), projected, kernel)
    assert_close(found, ((new_c, new_h), new_h))


@pytest.mark.parametrize("batch", [(), (2,), (2, 4), (0,)])
def test_gru_step_is_its_formula(batch):
    h, projected, kernel = case(3, batch)
    bias = normal(WIDTH, 3)
    outer, inner = (
        np.split(a, 3, -1) for a in (wide(projected), wide(h) @ wide(kernel))
    )
    r, z = expit(outer[0] + inner[0]), expit(outer[1] + inner[1])
    n = np.tanh(outer[2] + r * (inner[2] + wide(bias)))
    new = (1 - z) * n + z * wide(h)
    assert_close(F.gru_step(h, projected, kernel, bias), (new, new))


@pytest.mark.parametrize("reset_gate", [True, False])
def test_mgu_step_is_its_formula(reset_gate):
    h, projected, kernel = case(2)
    outer, inner = (
        np.split(a, 2, -1) for a in (wide(projected), wide(h) @ wide(kernel))
    )
    f = expit(outer[0] + inner[0])
    n = np.tanh(outer[1] + (f if reset_gate else 1) * inner[1])
    new = (1 - f) * n + f * wide(h)
    found = F.mgu_step(h, projected, kernel, reset_gate=reset_gate)
    assert_close(found, (new, new))


def test_simple_step_is_its_formula():
    h, projected, kernel = case(1)
    new = np.maximum(wide(projected) + wide(h) @ wide(kernel), 0)
    found = F.simple_step(h, projected, kernel, activation_fn=jax.nn.relu)
    assert_close(found, (new, new))


def test_conv_lstm_step_with_a_window_of_one_is_lstm_step():
    h, projected, kernel = case(4, (2, 5))
    found = F.conv_lstm_step((h, h), projected, kernel[None])
    assert_close(found, F.lstm_step((h, h), projected, kernel))


def test_a_memory_in_float32_keeps_what_bfloat16_would_lose():
    one = jnp.ones(1, jnp.bfloat16)
    adds = jnp.array([0.0, 99.0, 99.0, 0.0], jnp.bfloat16)  # keeps, and adds a half
    kernel = jnp.zeros((1, 4), jnp.bfloat16)
    (c, h), y = F.lstm_step((jnp.full(1, 256.0), one), adds, kernel)
    assert (c.dtype, h.dtype, y.dtype) == (jnp.float32, jnp.bfloat16, jnp.bfloat16)
    assert_close(c, np.array([256.5]))


@pytest.mark.parametrize("carried", [jnp.float32, jnp.bfloat16])
def test_a_carry_keeps_its_dtype_and_the_output_takes_that_of_the_input(carried):
    h, projected, kernel = case(3, dtype=jnp.bfloat16)
    new, y = F.gru_step(h.astype(carried), projected, kernel)
    assert (new.dtype, y.dtype) == (carried, jnp.bfloat16)


def test_the_second_derivative_and_the_forward_mode_are_there():
    h, projected, kernel = case(4)

    def loss(h):
        return F.lstm_step((h, h), projected, kernel)[1].sum()

    reverse, forward = jax.jacrev(jax.grad(loss))(h), jax.jacfwd(jax.grad(loss))(h)
    assert_close(reverse, forward)


STEPS = [
    (F.gru_step, 3),
    (F.mgu_step, 2),
    (F.simple_step, 1),
]


@pytest.mark.parametrize(("step", "gates"), STEPS)
def test_another_carry_is_refused_and_the_fix_works(step, gates):
    _, projected, kernel = case(gates)
    with pytest.raises(ShapeError, match=r"`carry` is .*\[2, 3\] is needed") as caught:
        step(normal((4, WIDTH)), projected, kernel)
    scope = {"jnp": jnp}
    exec(caught.value.fixes[0][1], scope)
    assert step(scope["carry"], projected, kernel)[1].shape == (2, WIDTH)


@pytest.mark.parametrize("carry", [normal(3), (normal(3),), (normal(3), normal(4))])
def test_a_carry_that_is_no_pair_is_refused_and_the_fix_works(carry):
    _, projected, kernel = case(4, ())
    with pytest.raises(ShapeError, match=r"a pair `\(c, h\)` is needed") as caught:
        F.lstm_step(carry, projected, kernel)
    scope = {"jnp": jnp}
    exec(caught.value.fixes[0][1], scope)
    assert F.lstm_step(scope["carry"], projected, kernel)[1].shape == (WIDTH,)


def test_other_kernels_biases_and_gates_are_refused():
    h, projected, kernel = case(3)
    with pytest.raises(ShapeError, match="`recurrent_kernel` has shape"):
        F.gru_step(h, projected, kernel.T)
    with pytest.raises(ShapeError, match="`recurrent_bias` has shape"):
        F.gru_step(h, projected, kernel, normal(3 * WIDTH))
    with pytest.raises(ShapeError, match="must hold 4 gates of one size"):
        F.lstm_step((h, h), projected, kernel)
    with pytest.raises(DTypeError, match="`projected` has dtype int32"):
        F.gru_step(h, projected.astype(jnp.int32), kernel)
