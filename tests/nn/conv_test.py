"""Conv: agreement with Flax Linen, dtypes, and what it refuses."""

import flax.linen
import jax
import jax.numpy as jnp
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, DTypeError, ShapeError

KEY = jax.random.key(0)
SPREAD = nn.initializers.normal(1.0)


def made(layer, x):
    return nn.init(layer, KEY, x)


CASES = [
    ((9, 2), (3,), {}),
    ((2, 9, 2), (3,), {"strides": 2, "padding": "VALID"}),
    ((2, 9, 2), (4,), {"padding": "CAUSAL", "kernel_dilation": 2}),
    ((2, 9, 2), (4,), {"padding": "CIRCULAR", "strides": 2}),
    ((2, 9, 2), (4,), {"padding": "REFLECT", "kernel_dilation": 2}),
    ((2, 3, 8, 7, 2), (3, 2), {"strides": (2, 1), "padding": [(1, 0), (2, 2)]}),
    ((2, 8, 7, 4), (3, 3), {"feature_group_count": 2, "padding": 1}),
    ((8, 7, 4), (3, 3), {"feature_group_count": 4, "use_bias": False}),
    ((2, 8, 7, 2), (3, 3), {"input_dilation": 2, "padding": 0}),
    ((2, 5, 5, 4, 2), (3, 2, 2), {"kernel_dilation": (1, 2, 1)}),
    ((0, 8, 2), (3,), {}),
]


@pytest.mark.parametrize(("shape", "window", "options"), CASES, ids=str)
def test_values_and_gradients_agree_with_linen(shape, window, options):
    x = normal(shape)
    model = made(nn.Conv(8, window, bias_init=SPREAD, **options), x)
    params = {"kernel": model.kernel} | (
        {} if model.bias is None else {"bias": model.bias}
    )
    linen = flax.linen.Conv(8, window, **options)
    expected = linen.apply({"params": params}, x)
    assert_close(model(x), expected, atol=1e-5)
    weight = normal(expected.shape, 1)

    def theirs(params, x):
        return (linen.apply({"params": params}, x) * weight).sum()

    def ours(model, x):
        return (model(x) * weight).sum()

    expected, expected_x = jax.grad(theirs, (0, 1))(params, x)
    grads, grads_x = jax.grad(ours, (0, 1))(model, x)
    found = {name: getattr(grads, name) for name in params}
    assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert_close(grads_x, expected_x, rtol=1e-4, atol=1e-5)


def test_it_is_its_function_with_its_parameters():
    from linnet import functional as F

    x = normal((3, 6, 5, 2))
    model = made(nn.Conv(4, (2, 3), input_dilation=2, padding="SAME"), x)
    y = F.conv(x, model.kernel, model.bias, input_dilation=2)
    assert y.shape == (3, 11, 9, 4)
    assert_close(model(x), y)


@pytest.mark.parametrize(
    ("x", "params", "asked", "result"),
    [
        ("bfloat16", "bfloat16", None, "bfloat16"),
        ("bfloat16", "float32", None, "float32"),
        ("float32", "float32", "bfloat16", "bfloat16"),
    ],
)
def test_dtypes(x, params, asked, result):
    x = normal((2, 6, 3), dtype=x)
    model = made(nn.Conv(4, (3,), dtype=asked, param_dtype=params), x)
    assert model.kernel.dtype == params
    assert model(x).dtype == result


def test_the_kernel_is_shared_out_among_groups():
    model = made(nn.Conv(6, (3, 3), feature_group_count=3), jnp.ones((4, 4, 9)))
    assert model.kernel.shape == (3, 3, 3, 6)


def refused(model, x, error, text):
    with pytest.raises(error, match=rf"^layers\[0\] \(Conv\): .*{text}") as caught:
        model(x)
    scope = {"x": x, "jnp": jnp, "jax": jax, "nn": nn}
    exec(caught.value.fixes[0][1], scope)
    return scope["x"]


def test_mistakes_are_refused_with_the_path_and_the_fixes_work():
    image = normal((2, 6, 6, 3))
    model = made(nn.Sequential([nn.Conv(4, (3, 3))]), image)
    one = made(nn.Sequential([nn.Conv(4, (3,))]), normal((6, 3)))
    integers = (image * 100).astype(jnp.int32)
    assert model(refused(model, integers, DTypeError, "LN-DTYPE-01")).ndim == 4
    x = refused(one, normal((3,)), ShapeError, "LN-SHAPE-02")
    assert one(x).shape == (1, 4)
    x = refused(one, normal((3, 6)), ShapeError, "LN-SHAPE-01")
    assert one(x).shape == (6, 4)


def test_features_that_the_groups_do_not_divide_are_refused_with_the_path():
    model = nn.Sequential([nn.Conv(4, (3,), feature_group_count=2)])
    with pytest.raises(ShapeError, match=r"^layers\[0\] \(Conv\): `x` has 5 features"):
        made(model, normal((6, 5)))


@pytest.mark.parametrize(
    "options",
    [
        {"features": 0},
        {"kernel_size": 3},
        {"kernel_size": (3, 0)},
        {"kernel_size": ()},
        {"strides": (1, 1, 1)},
        {"padding": "FULL"},
        {"padding": "CAUSAL"},
        {"padding": "CIRCULAR", "input_dilation": 2},
        {"feature_group_count": 3},
        {"feature_group_count": 2, "in_features": 3},
        {"kernel_dilation": 0},
    ],
    ids=str,
)
def test_options_without_a_meaning_are_refused_at_construction(options):
    with pytest.raises(ConfigError, match=r"Conv.*LN-VALUE-0"):
        nn.Conv(**{"features": 4, "kernel_size": (3, 3)} | options)


def test_lists_and_tuples_of_options_make_the_same_layer():
    lists = nn.Conv(4, [3, 3], strides=[1, 2], padding=[[1, 1], [0, 2]])
    tuples = nn.Conv(4, (3, 3), strides=(1, 2), padding=((1, 1), (0, 2)))
    assert lists == tuples
    assert nn.Conv(4, (3, 3), strides=1) == nn.Conv(4, (3, 3), strides=(1, 1))
