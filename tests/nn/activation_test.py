"""Activations: JAX's own, and PReLU."""

import pickle

import flax.linen
import jax
import jax.numpy as jnp
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import DTypeError, ShapeError

KEY = jax.random.key(0)


@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "softmax", "tanh", "glu"])
def test_those_of_jax_are_jaxs_own(name):
    assert getattr(nn, name) is getattr(jax.nn, name)
    model = nn.Sequential([getattr(nn, name)])
    assert pickle.loads(pickle.dumps(model)) == model


def test_prelu_agrees_with_linen():
    x = normal((5, 3))
    model = nn.init(nn.PReLU(), KEY, x)
    linen = flax.linen.PReLU()
    params = {"params": {"negative_slope": model.negative_slope}}
    assert_close(model(x), linen.apply(params, x))


def test_each_feature_may_have_a_slope_of_its_own():
    x = normal((5, 3))
    start = nn.initializers.normal(1.0)
    model = nn.init(nn.PReLU(per_feature=True, negative_slope_init=start), KEY, x)
    rows = [
        jnp.where(x[:, i] > 0, x[:, i], model.negative_slope[i] * x[:, i])
        for i in range(3)
    ]
    assert_close(model(x), jnp.stack(rows, 1))


def test_wrong_inputs_are_refused_with_the_path():
    model = nn.Sequential([nn.PReLU(per_feature=True)])
    model = nn.init(model, KEY, normal((5, 3)))
    start = r"^layers\[0\] \(PReLU\)"
    with pytest.raises(ShapeError, match=f"{start}.*LN-SHAPE-01"):
        model(normal((5, 2)))
    with pytest.raises(ShapeError, match=f"{start}.*LN-SHAPE-02"):
        model(normal(()))
    with pytest.raises(DTypeError, match=f"{start}.*LN-DTYPE-01"):
        model(jnp.ones((5, 3), jnp.complex64))
