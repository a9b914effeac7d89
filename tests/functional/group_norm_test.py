"""Group and instance normalisation: formulas, masks, large means, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError, DTypeError, ShapeError


def wide(x):
    return np.asarray(x, np.float64)


def formula(x, groups, spatial, epsilon):
    """The definition in NumPy."""
    x = wide(x)
    parts = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    axes = (*range(x.ndim - 1 - spatial, x.ndim - 1), x.ndim)
    centred = parts - parts.mean(axes, keepdims=True)
    var = parts.var(axes, keepdims=True)
    return (centred / np.sqrt(var + epsilon)).reshape(x.shape)


@settings(max_examples=20)
@given(
    st.lists(st.integers(1, 3), max_size=2),
    st.lists(st.integers(1, 3), max_size=2),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_group_norm_is_its_formula(batch, window, groups, size):
    x = normal((*batch, *window, groups * size))
    scale, bias = normal(groups * size, 1), normal(groups * size, 2)
    options = {"spatial_ndim": len(window), "epsilon": 1e-3}
    expected = formula(x, groups, len(window), 1e-3) * wide(scale) + wide(bias)
    assert_close(F.group_norm(x, groups, scale, bias, **options), expected, atol=1e-5)


def test_instance_norm_is_its_formula():
    x = normal((2, 4, 3, 5))
    y = F.instance_norm(x, epsilon=1e-3)
    assert_close(y, formula(x, 5, 2, 1e-3), atol=1e-5)


def test_the_first_axis_is_the_batch_unless_told_otherwise():
    x = normal((2, 3, 4, 6))
    assert_close(F.group_norm(x, 2), F.group_norm(x, 2, spatial_ndim=2))
    assert_close(F.group_norm(x[0, 0], 2), F.group_norm(x[0, 0], 2, spatial_ndim=0))
    assert_close(F.group_norm(x[0, 0, 0], 2)[None], F.group_norm(x[0, 0, :1], 2))


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_a_large_mean_costs_no_digits(groups):
    x = 1e4 + np.random.default_rng(0).standard_normal((2, 9, 7, 8))
    x = jnp.asarray(x, jnp.float32)
    assert_close(F.group_norm(x, groups), formula(x, groups, 2, 1e-6), atol=5e-6)


def test_masked_positions_do_not_count():
    x, mask = normal((2, 6, 4)), jnp.arange(6)[None, :, None] < 4
    y = F.group_norm(jnp.where(mask, x, jnp.nan), 2, mask=mask)
    assert_close(y[:, :4], F.group_norm(x[:, :4], 2))
    whole = jnp.array([True, False])[:, None, None]
    assert_close(F.instance_norm(x, mask=whole)[1], np.zeros((6, 4)))


def test_no_examples_give_none():
    assert F.group_norm(jnp.ones((0, 3, 4)), 2).shape == (0, 3, 4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_dtype_stays(dtype):
    x = (8 + normal((2, 9, 4))).astype(dtype)
    y = F.group_norm(x, 2)
    assert y.dtype == dtype
    assert_close(y, formula(x, 2, 1, 1e-6), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("groups", [4, 0, -1, 7])
def test_groups_that_do_not_divide_are_refused_and_the_fix_works(groups):
    x = normal((2, 6))
    with pytest.raises(ConfigError, match="LN-VALUE-06") as caught:
        F.group_norm(x, groups)
    scope = {}
    exec(caught.value.fixes[0][1], scope)
    assert F.group_norm(x, scope["num_groups"]).shape == (2, 6)


@pytest.mark.parametrize(
    ("shape", "options"), [((), {}), ((3,), {"spatial_ndim": 1}), ((5, 3), {})]
)
def test_too_few_axes_are_refused_and_the_fix_works(shape, options):
    x = normal(shape)
    with pytest.raises(ShapeError, match="LN-SHAPE-02") as caught:
        F.instance_norm(x, **options)
    scope = {"x": x}
    exec(caught.value.fixes[0][1], scope)
    if shape:
        assert np.isfinite(F.instance_norm(scope["x"], **options)).all()


def test_integers_are_refused():
    with pytest.raises(DTypeError):
        F.group_norm(jnp.ones((2, 4), jnp.int32), 2)


def test_gradients_of_an_instance_sum_to_zero():
    x, weight = normal((2, 5, 3)), normal((2, 5, 3), 1)
    grad = jax.grad(lambda x: (F.instance_norm(x) * weight).sum())(x)
    assert_close(grad.sum(1), np.zeros((2, 3)), atol=1e-5)
