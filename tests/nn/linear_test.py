"""Dense: agreement with Flax Linen, dtypes, and what it refuses."""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, DTypeError, ShapeError

KEY = jax.random.key(0)
SPREAD = nn.initializers.normal(1.0)


def made(layer, x):
    return nn.init(layer, KEY, x)


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 5, 3), (0, 3)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_values_and_gradients_agree_with_linen(shape, use_bias):
    x, weight = normal(shape), normal((*shape[:-1], 4), 1)
    model = made(nn.Dense(4, use_bias=use_bias, bias_init=SPREAD), x)
    params = {"kernel": model.kernel} | ({"bias": model.bias} if use_bias else {})
    linen = flax.linen.Dense(4, use_bias=use_bias)

    def theirs(params, x):
        return (linen.apply({"params": params}, x) * weight).sum()

    def ours(model, x):
        return (model(x) * weight).sum()

    assert_close(model(x), linen.apply({"params": params}, x))
    expected, expected_x = jax.grad(theirs, (0, 1))(params, x)
    grads, grads_x = jax.grad(ours, (0, 1))(model, x)
    assert_close({name: getattr(grads, name) for name in params}, expected)
    assert_close(grads_x, expected_x)


def test_it_starts_as_linen_does():
    model = made(nn.Dense(100), jnp.ones((1, 200)))
    assert_close(model.kernel.std(), (1 / 200) ** 0.5, rtol=0.02)
    assert_close(model.bias, np.zeros(100))


@pytest.mark.parametrize(
    ("x", "params", "asked", "result"),
    [
        ("bfloat16", "bfloat16", None, "bfloat16"),
        ("bfloat16", "float32", None, "float32"),
        ("float32", "float32", "bfloat16", "bfloat16"),
        ("float16", "float32", "float16", "float16"),
    ],
)
def test_dtypes_follow_those_of_linen(x, params, asked, result):
    x = normal((2, 3), dtype=x)
    model = made(nn.Dense(4, dtype=asked, param_dtype=params), x)
    assert model.kernel.dtype == params
    assert model(x).dtype == result
    linen = flax.linen.Dense(4, dtype=asked, param_dtype=params)
    variables = {"params": {"kernel": model.kernel, "bias": model.bias}}
    assert linen.apply(variables, x).dtype == result


def test_a_known_width_holds_at_init():
    with pytest.raises(ShapeError, match="LN-SHAPE-03"):
        made(nn.Dense(4, in_features=5), jnp.ones((2, 3)))


def test_another_width_is_refused_with_the_path():
    model = made(nn.Sequential([nn.Dense(4)]), jnp.ones((2, 3)))
    with pytest.raises(ShapeError, match="LN-SHAPE-01") as caught:
        model(jnp.ones((2, 5)))
    assert str(caught.value).startswith("layers[0] (Dense): `kernel` is float32[3, 4]")


def test_features_on_another_axis_are_refused_and_the_first_fix_works():
    x = jnp.ones((3, 2))
    model = made(nn.Dense(4), x.T)
    with pytest.raises(ShapeError) as caught:
        model(x)
    scope = {"x": x, "jnp": jnp}
    exec(caught.value.fixes[0][1], scope)
    assert model(scope["x"]).shape == (2, 4)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.bool_])
def test_integers_are_refused_with_the_path_and_the_fix_works(dtype):
    model = made(nn.Sequential([nn.Dense(4)]), jnp.ones((2, 3)))
    x = jnp.ones((2, 3), dtype)
    with pytest.raises(DTypeError, match=r"^layers\[0\] \(Dense\).*LN-DTYPE-01") as e:
        model(x)
    scope = {"x": x, "jnp": jnp}
    exec(e.value.fixes[0][1], scope)
    assert model(scope["x"]).shape == (2, 4)


def test_a_scalar_is_refused_with_the_path_and_the_fix_works():
    model = made(nn.Sequential([nn.Dense(4)]), jnp.ones((2, 1)))
    with pytest.raises(ShapeError, match=r"^layers\[0\] \(Dense\).*LN-SHAPE-02") as e:
        model(jnp.array(1.0))
    scope = {"x": jnp.array(1.0)}
    exec(e.value.fixes[0][1], scope)
    assert model(scope["x"]).shape == (4,)


@pytest.mark.parametrize("features", [0, -1, 2.5, True, "4", None])
def test_sizes_that_are_none_are_refused_and_the_fix_works(features):
    with pytest.raises(ConfigError, match=r"^Dense: `features`.*LN-VALUE-01") as caught:
        nn.Dense(features)
    scope = {}
    exec(caught.value.fixes[0][1], scope)
    assert nn.Dense(scope["features"]).features >= 1


def test_an_integer_dtype_of_the_computation_is_refused_and_the_fix_works():
    with pytest.raises(DTypeError, match=r"Dense.*LN-DTYPE-01") as caught:
        nn.Dense(4, dtype=jnp.int8)
    scope = {"jnp": jnp}
    exec(caught.value.fixes[0][1], scope)
    x = jnp.ones((1, 3))
    assert made(nn.Dense(4, dtype=scope["dtype"]), x)(x).dtype == jnp.float32
