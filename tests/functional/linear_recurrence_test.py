"""Linear recurrences: the sequential form, derivatives, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import DTypeError, ShapeError


def sequential(a, b, initial=None, reverse=False, resets=None):
    """The definition, in float64, with the time before the features."""
    kind = np.complex128 if np.iscomplexobj(b) else np.float64
    b = np.asarray(b, kind)
    a = np.broadcast_to(np.asarray(a, kind), b.shape).copy()
    if resets is not None:
        a[np.asarray(resets)] = 0
    h = np.zeros(b.shape[-1], kind) if initial is None else np.asarray(initial, kind)
    out = np.empty_like(b)
    for t in range(b.shape[-2])[:: -1 if reverse else 1]:
        out[..., t, :] = h = a[..., t, :] * h + b[..., t, :]
    return out


def numbers(shape, seed=0, is_complex=False):
    x = normal(shape, seed)
    return jax.lax.complex(x, normal(shape, seed + 50)) if is_complex else x


@settings(max_examples=15)
@given(
    st.lists(st.integers(0, 2), max_size=2),
    st.integers(0, 6),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_it_is_the_sequential_form(batch, time, reverse, is_complex, has_initial):
    shape = (*batch, time, 2)
    a, b = numbers(shape, 1, is_complex), numbers(shape, 2, is_complex)
    initial = numbers((*batch, 2), 3, is_complex) if has_initial else None
    found = F.linear_recurrence(a, b, initial, reverse=reverse)
    assert_close(found, sequential(a, b, initial, reverse), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 5, 1), (3, 1, 1), (3, 5, 2)])
def test_a_factor_may_be_the_same_along_any_axis(shape):
    a, b, initial = normal(shape), normal((3, 5, 2), 1), normal((3, 2), 2)
    assert_close(F.linear_recurrence(a, b, initial), sequential(a, b, initial))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_reset_forgets_what_came_before(reverse):
    a, b, initial = normal((1, 1, 2)), normal((2, 6, 2), 1), normal((2, 2), 2)
    resets = jnp.array([[False, False, True, False, False, False], [True] * 6])
    found = F.linear_recurrence(a, b, initial, resets=resets, reverse=reverse)
    assert_close(found, sequential(a, b, initial, reverse, resets))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_time_may_be_any_axis(axis):
    a, b = normal((4, 3, 2)), normal((4, 3, 2), 1)
    moved = [jnp.moveaxis(x, axis, -2) for x in (a, b)]
    desired = np.moveaxis(sequential(*moved), -2, axis)
    assert_close(F.linear_recurrence(a, b, axis=axis), desired)


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("is_complex", [False, True])
def test_derivatives_are_those_of_the_sequential_form(reverse, is_complex):
    a, b = numbers((5, 2), 1, is_complex), numbers((5, 2), 2, is_complex)
    initial, weight = numbers((2,), 3, is_complex), normal((5, 2), 4)

    def loop(a, b, h):
        out = [h] * 5
        for t in range(5)[:: -1 if reverse else 1]:
            out[t] = h = a[t] * h + b[t]
        return jnp.stack(out)

    def loss(run):
        return lambda *args: (jnp.abs(run(*args)) ** 2 * weight).sum()

    def ours(a, b, h):
        return F.linear_recurrence(a, b, h, reverse=reverse)

    found = jax.grad(loss(ours), (0, 1, 2))(a, b, initial)
    assert_close(found, jax.grad(loss(loop), (0, 1, 2))(a, b, initial), rtol=1e-4)
    if not is_complex:
        found = jax.hessian(loss(ours))(a, b, initial)
        desired = jax.hessian(loss(loop))(a, b, initial)
        assert_close(found, desired, rtol=1e-4, atol=1e-4)


def test_long_sequences_lose_no_precision():
    a, b = 1 - normal((4096, 1)) ** 2 / 100, normal((4096, 1), 1)
    assert_close(F.linear_recurrence(a, b), sequential(a, b), rtol=1e-4, atol=1e-4)


def test_factors_that_do_not_fit_are_refused_and_the_fix_works():
    a, b = normal(2), normal((3, 5, 2))
    with pytest.raises(ShapeError, match=r"`a` is float32\[2\], which does not") as e:
        F.linear_recurrence(a, b)
    scope = {"a": a}
    exec(e.value.fixes[0][1], scope)
    assert F.linear_recurrence(scope["a"], b).shape == b.shape


def test_what_else_does_not_fit_is_refused():
    a = b = normal((3, 5, 2))
    with pytest.raises(ShapeError, match="does not fit `b`"):
        F.linear_recurrence(normal((3, 4, 2)), b)
    with pytest.raises(ShapeError, match="`initial` has shape"):
        F.linear_recurrence(a, b, normal((5, 2)))
    with pytest.raises(ShapeError, match="`resets` has shape"):
        F.linear_recurrence(a, b, resets=jnp.ones(5, bool))
    with pytest.raises(DTypeError, match="booleans are needed"):
        F.linear_recurrence(a, b, resets=jnp.ones((3, 5), jnp.int32))
    with pytest.raises(DTypeError, match="`a` has dtype int32"):
        F.linear_recurrence(jnp.ones((3, 5, 2), jnp.int32), b)


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_rg_lru_terms_are_their_formula(blocks):
    x, decay = normal((3, 4)), normal(4, 1)
    width = 4 // blocks
    kernel, bias = normal((blocks, width, 2 * width), 2), normal((blocks, 2 * width), 3)
    gates = np.einsum(
        "nbi,bio->nbo",
        np.asarray(x, np.float64).reshape(3, blocks, width),
        np.asarray(kernel, np.float64),
    )
    r, i = np.split(expit(gates + np.asarray(bias)), 2, -1)
    a = expit(np.asarray(decay, np.float64)) ** (8 * r.reshape(3, 4))
    b = np.sqrt(1 - a**2) * i.reshape(3, 4) * np.asarray(x)
    assert_close(F.rg_lru_terms(x, kernel, bias, decay), (a, b))


def test_a_feature_that_never_decays_has_finite_derivatives():
    x, kernel, decay = jnp.ones(1), jnp.full((1, 1, 2), -200.0), jnp.full(1, 200.0)

    def total(x, kernel, decay):
        return sum(t.sum() for t in F.rg_lru_terms(x, kernel, None, decay))

    grads = jax.grad(total, (0, 1, 2))(x, kernel, decay)
    assert all(np.isfinite(g).all() for g in grads)


def test_rg_lru_terms_are_float32_in_low_precision():
    x, kernel = normal((3, 4), dtype=jnp.bfloat16), normal((1, 4, 8), 1)
    a, b = F.rg_lru_terms(x, kernel, None, normal(4), dtype=jnp.bfloat16)
    assert (a.dtype, b.dtype) == (jnp.float32, jnp.float32)


def test_a_hold_is_the_exact_solution_for_a_constant_input():
    poles, step = jnp.array([-0.5 + 3j, -2.0 + 0j, 0j]), jnp.array([0.1, 0.7, 0.3])
    a, gain = F.zero_order_hold(poles, step)
    p, d = np.asarray(poles, np.complex128), np.asarray(step, np.float64)
    assert_close(a, np.exp(p * d))
    s = np.linspace(0, 1, 100_001)[:, None] * d
    assert_close(gain, np.trapezoid(np.exp(p * s), s, axis=0), rtol=1e-4)


def test_a_short_step_loses_no_precision():
    _, gain = F.zero_order_hold(jnp.array([-1e-4 + 0j]), jnp.array([1e-4]))
    assert_close(gain, np.array([1e-4]), rtol=1e-6, atol=0)


def test_s5_is_the_recurrence_of_its_conjugate_pairs():
    x = normal((7, 3))
    kernel, out_kernel = normal((3, 4), 1), normal((4, 3), 2)
    poles = jnp.array([-0.5 + 1j, -0.2 + 4j])
    step = jnp.array([0.1, 0.3])
    a, b = F.s5_terms(x, kernel, poles, step)
    y = F.s5_readout(F.linear_recurrence(a[None], b), out_kernel)
    both = [np.asarray(poles, np.complex128), np.asarray(step, np.float64)]
    k, c = np.asarray(kernel, np.float64), np.asarray(out_kernel, np.float64)
    p = np.concatenate([both[0], both[0].conj()])
    d = np.concatenate([both[1], both[1]])
    k, c = k[:, :2] + 1j * k[:, 2:], c[:2] + 1j * c[2:]
    k, c = np.concatenate([k, k.conj()], 1), np.concatenate([c, c.conj()])
    factor = np.exp(p * d)
    h = sequential(factor[None], (factor - 1) / p * (np.asarray(x) @ k))
    assert_close((h @ c).imag, np.zeros((7, 3)))
    assert_close(y, (h @ c).real, rtol=1e-4)


def test_shapes_of_the_layers_that_do_not_fit_are_refused():
    x = normal((2, 4))
    with pytest.raises(ShapeError, match="does not take") as caught:
        F.rg_lru_terms(x, normal((4, 8)), None, normal(4))
    scope = {"kernel": normal((4, 8))}
    exec(caught.value.fixes[0][1], scope)
    assert F.rg_lru_terms(x, scope["kernel"], None, normal(4))[0].shape == x.shape
    with pytest.raises(ShapeError, match="`decay` has shape"):
        F.rg_lru_terms(x, normal((1, 4, 8)), None, normal(3))
    with pytest.raises(ShapeError, match="`step` has shape"):
        F.zero_order_hold(normal(3), normal(2))
    with pytest.raises(ShapeError, match="`kernel` has shape"):
        F.s5_terms(x, normal((4, 7)), normal(3) + 0j, normal(3))
    with pytest.raises(ShapeError, match="`kernel` has shape"):
        F.s5_readout(normal((2, 3)) + 0j, normal((3, 4)))
