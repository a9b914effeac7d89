"""LayerNorm, and what all norms refuse."""

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
OPTIONS = {"scale_init": SPREAD, "bias_init": SPREAD}


def made(layer, x):
    return nn.init(layer, KEY, x)


def wide(x):
    return np.asarray(x, np.float64)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_outside_and_float32_inside(dtype):
    x = (100 + normal((256, 4))).astype(dtype)
    model = made(nn.BatchNorm(momentum=0.0), x)
    y, after = nn.training(model)(x)
    assert y.dtype == dtype
    assert after.mean.dtype == after.var.dtype == jnp.float32
    assert_close((after.mean, after.var), (wide(x).mean(0), wide(x).var(0)), rtol=1e-4)
    norm = made(nn.LayerNorm(), x)
    assert norm(x).dtype == dtype
    assert made(nn.LayerNorm(dtype=jnp.float32), x)(x).dtype == jnp.float32


@pytest.mark.parametrize(
    ("shape", "axis"), [((5,), -1), ((2, 3, 5), -1), ((2, 3, 5), (1, 2)), ((0, 5), -1)]
)
def test_layer_norm_agrees_with_linen(shape, axis):
    x, weight = 2 + normal(shape), normal(shape, 1)
    model = made(nn.LayerNorm(axis=axis, **OPTIONS), x)
    linen = flax.linen.LayerNorm(reduction_axes=axis, feature_axes=axis)
    params = {"scale": model.scale, "bias": model.bias}

    def theirs(params, x):
        return (linen.apply({"params": params}, x) * weight).sum()

    def ours(model, x):
        return (model(x) * weight).sum()

    assert_close(model(x), linen.apply({"params": params}, x), atol=1e-5)
    expected, expected_x = jax.grad(theirs, (0, 1))(params, x)
    grads, grads_x = jax.grad(ours, (0, 1))(model, x)
    found = {"scale": grads.scale, "bias": grads.bias}
    assert_close((found, grads_x), (expected, expected_x), rtol=1e-4, atol=1e-5)


def test_layer_norm_is_its_formula_and_can_be_bare():
    x = normal((4, 6))
    model = made(nn.LayerNorm(use_scale=False, use_bias=False, epsilon=1e-3), x)
    centred = wide(x) - wide(x).mean(-1, keepdims=True)
    expected = centred / np.sqrt(wide(x).var(-1, keepdims=True) + 1e-3)
    assert_close(model(x), expected)
    assert jax.tree.leaves(model) == []


def test_sizes_may_be_given_ahead():
    model = nn.init(nn.LayerNorm((3, 5), axis=(1, 2)), KEY, jnp.ones((2, 3, 5)))
    assert model.scale.shape == (3, 5)
    with pytest.raises(ShapeError, match="LN-SHAPE-03"):
        nn.init(nn.BatchNorm(4), KEY, jnp.ones((2, 3)))


@pytest.mark.parametrize("norm", [nn.BatchNorm, nn.LayerNorm, nn.RMSNorm])
def test_wrong_inputs_are_refused_with_the_path(norm):
    model = made(nn.Sequential([norm()]), normal((2, 3)))
    start = rf"^layers\[0\] \({norm.__name__}\)"
    with pytest.raises(ShapeError, match=f"{start}.*LN-SHAPE-01"):
        model(normal((2, 4)))
    with pytest.raises(ShapeError, match=f"{start}.*LN-SHAPE-02"):
        model(normal(()))
    x = jnp.ones((2, 3), jnp.int32)
    with pytest.raises(DTypeError, match=f"{start}.*LN-DTYPE-01") as caught:
        model(x)
    scope = {"x": x, "jnp": jnp}
    exec(caught.value.fixes[0][1], scope)
    assert model(scope["x"]).shape == (2, 3)


@pytest.mark.parametrize(
    ("norm", "options"),
    [
        (nn.BatchNorm, {"features": 0}),
        (nn.BatchNorm, {"momentum": 1.0}),
        (nn.BatchNorm, {"momentum": -0.1}),
        (nn.BatchNorm, {"momentum": float("nan")}),
        (nn.BatchNorm, {"epsilon": 0.0}),
        (nn.BatchNorm, {"epsilon": float("inf")}),
        (nn.BatchNorm, {"axis": (0, 1)}),
        (nn.LayerNorm, {"epsilon": -1e-6}),
        (nn.LayerNorm, {"axis": ()}),
        (nn.LayerNorm, {"axis": (1, 1)}),
        (nn.LayerNorm, {"axis": 1.0}),
        (nn.LayerNorm, {"features": (3, 4)}),
        (nn.LayerNorm, {"features": (3, 0), "axis": (1, 2)}),
    ],
    ids=str,
)
def test_options_without_a_meaning_are_refused(norm, options):
    with pytest.raises(ConfigError, match=f"^{norm.__name__}: .*LN-VALUE") as caught:
        norm(**options)
    for _, code in caught.value.fixes:
        exec(code, fixed := {})
        name = next(name for name in options if name in fixed)
        assert norm(**{name: fixed[name]})


@pytest.mark.parametrize(
    ("shape", "axis"), [((5,), -1), ((2, 3, 5), -1), ((2, 3, 5), (1, 2)), ((0, 5), -1)]
)
def test_rms_norm_agrees_with_linen(shape, axis):
    x = 2 + normal(shape)
    model = made(nn.RMSNorm(axis=axis, scale_init=SPREAD), x)
    linen = flax.linen.RMSNorm(reduction_axes=axis, feature_axes=axis)
    expected = linen.apply({"params": {"scale": model.scale}}, x)
    assert_close(model(x), expected, atol=1e-5)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_masked_features_do_not_count(norm):
    x, mask = normal((2, 6)), jnp.arange(6)[None] < 4
    model = made(norm(), x)
    y = model(jnp.where(mask, x, 1e6), mask)
    assert_close(y[:, :4], made(norm(), x[:, :4])(x[:, :4]), atol=1e-5)
    with pytest.raises(ShapeError, match="`mask` of shape"):
        model(x, mask[0])
