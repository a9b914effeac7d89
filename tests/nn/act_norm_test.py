"""ActNorm: the first values, the inverse, determinants, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, InitError, ShapeError

KEY = jax.random.key(0)


def wide(x):
    return np.asarray(x, np.float64)


def test_at_first_each_feature_has_mean_zero_and_variance_one():
    x = 1e4 + 3 * normal((16, 8, 5))
    y = nn.init(nn.ActNorm(), KEY, x)(x)
    assert_close(wide(y).mean((0, 1)), np.zeros(5), atol=1e-3)
    assert_close(wide(y).var((0, 1)), np.ones(5), rtol=1e-4)


def test_it_is_undone_by_its_inverse():
    x = 5 + 3 * normal((16, 5))
    model = nn.init(nn.ActNorm(), KEY, x)
    assert_close(model.inverse(model(x)), x)
    half = model(x.astype(jnp.bfloat16))
    assert half.dtype == model.inverse(half).dtype == jnp.bfloat16


def test_the_determinant_is_that_of_the_jacobian():
    x = normal((4, 3, 2))
    model = nn.init(nn.ActNorm(), KEY, x)
    y, log_det = model.forward_and_log_det(x)
    assert log_det.shape == (4, 3)
    jacobian = wide(jax.jacobian(model)(x[0])).reshape(6, 6)
    assert_close(log_det[0].sum(), np.linalg.slogdet(jacobian)[1], rtol=1e-4)
    back, inverse = model.inverse_and_log_det(y)
    assert_close((back, inverse), (x, -log_det))
    first = nn.init(nn.ActNorm(axis=0), KEY, x)
    assert first.forward_and_log_det(x)[1].shape == (3, 2)


def test_training_is_prediction():
    x = normal((4, 3))
    model = nn.init(nn.ActNorm(), KEY, x)
    y, after = nn.training(model)(x + 1)
    assert after == model
    assert_close(y, model(x + 1))


def test_each_layer_of_a_stack_starts_from_what_reaches_it():
    x = 3 + normal((16, 4))
    block = nn.Sequential([nn.Dense(4), nn.ActNorm()])
    model = nn.init(nn.Stack(block, 3), KEY, x)
    y = model(x)
    assert_close(y.mean(0), np.zeros(4), atol=1e-5)
    assert_close(y.var(0), np.ones(4), rtol=1e-3)


def test_masked_entries_do_not_count_at_first():
    x, mask = normal((6, 3)), jnp.arange(6)[:, None] < 4
    model = nn.init(nn.ActNorm(), KEY, jnp.where(mask, x, 1e6), mask)
    assert_close(model.bias, -wide(x[:4]).mean(0))


def test_a_feature_that_does_not_vary_stays_finite():
    model = nn.init(nn.ActNorm(), KEY, jnp.ones((4, 2)))
    assert_close(model(jnp.ones((4, 2))), np.zeros((4, 2)))


def test_it_starts_from_data_only():
    sample = jax.ShapeDtypeStruct((4, 3), jnp.float32)
    with pytest.raises(InitError, match="LN-INIT-07"):
        nn.init(nn.ActNorm(), KEY, sample)
    assert nn.abstract(nn.ActNorm(), sample).scale.shape == (3,)


def test_what_does_not_fit_is_refused():
    model = nn.init(nn.Sequential([nn.ActNorm()]), KEY, normal((4, 3)))
    with pytest.raises(ShapeError, match=r"^layers\[0\] \(ActNorm\)"):
        model(normal((4, 2)))
    with pytest.raises(ShapeError, match=r"^\(ActNorm\)"):
        model[0].inverse(normal((4, 2)))
    with pytest.raises(ConfigError, match="LN-VALUE-03"):
        nn.ActNorm(epsilon=-1)
