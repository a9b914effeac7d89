"""GroupNorm and InstanceNorm: agreement with Flax Linen, options, refusals."""

import flax.linen
import jax
import jax.numpy as jnp
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, DTypeError, ShapeError

KEY = jax.random.key(0)
SPREAD = nn.initializers.normal(1.0)
OPTIONS = {"scale_init": SPREAD, "bias_init": SPREAD}


def made(layer, x):
    return nn.init(layer, KEY, x)


@pytest.mark.parametrize("shape", [(2, 6), (2, 5, 6), (2, 3, 4, 6)])
@pytest.mark.parametrize("groups", [{"num_groups": 3}, {"group_size": 3}])
def test_group_norm_agrees_with_linen(shape, groups):
    x, weight = 2 + normal(shape), normal(shape, 1)
    model = made(nn.GroupNorm(**groups, **OPTIONS), x)
    options = {"num_groups": None} | groups
    linen = flax.linen.GroupNorm(**options, use_fast_variance=False)
    params = {"scale": model.scale, "bias": model.bias}

    def theirs(params, x):
        return (linen.apply({"params": params}, x) * weight).sum()

    expected, expected_x = jax.grad(theirs, (0, 1))(params, x)
    assert_close(model(x), linen.apply({"params": params}, x), atol=1e-5)
    grads, grads_x = jax.grad(lambda m, x: (m(x) * weight).sum(), (0, 1))(model, x)
    found = {"scale": grads.scale, "bias": grads.bias}
    assert_close((found, grads_x), (expected, expected_x), rtol=1e-4, atol=1e-5)


def test_masks_agree_with_those_of_linen():
    x, mask = normal((2, 5, 4)), jnp.arange(5)[None, :, None] < 3
    model = made(nn.GroupNorm(2), x)
    params = {"params": {"scale": model.scale, "bias": model.bias}}
    whole = jnp.broadcast_to(mask, x.shape)
    expected = flax.linen.GroupNorm(2).apply(params, x, mask=whole)
    assert_close(model(x, mask), expected, atol=1e-5)


def test_one_example_and_many_batch_axes_with_known_spatial_axes():
    x = normal((2, 3, 4, 5, 6))
    model = made(nn.GroupNorm(2, spatial_ndim=2, **OPTIONS), x)
    assert_close(model(x)[1, 2], model(x[1, 2]))
    norm = nn.InstanceNorm(spatial_ndim=1)
    assert_close(made(norm, x)(x)[1, 2, 3], made(norm, x)(x[1, 2, 3]))


def test_one_of_number_and_size_must_be_given():
    for options in ({}, {"num_groups": 2, "group_size": 2}):
        with pytest.raises(ConfigError, match="LN-VALUE-06") as caught:
            nn.GroupNorm(**options)
        for _, code in caught.value.fixes:
            exec(code, scope := {"nn": nn})
            assert isinstance(scope["norm"], nn.GroupNorm)


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 6), nn.InstanceNorm(6)])
def test_wrong_inputs_are_refused_with_the_path(norm):
    model = made(nn.Sequential([norm]), normal((2, 5, 6)))
    start = rf"^layers\[0\] \({type(norm).__name__}\)"
    with pytest.raises(ShapeError, match=f"{start}.*LN-SHAPE-01"):
        model(normal((2, 5, 4)))
    with pytest.raises(ShapeError, match=f"{start}.*LN-SHAPE-02"):
        model(normal(()))
    with pytest.raises(DTypeError, match=f"{start}.*LN-DTYPE-01"):
        model(jnp.ones((2, 5, 6), jnp.int32))


@pytest.mark.parametrize("norm", [nn.GroupNorm(2), nn.InstanceNorm()])
def test_a_mask_that_does_not_fit_is_refused_with_the_path_and_the_fix_works(norm):
    x, mask = normal((2, 5, 6)), jnp.ones((2, 5), bool)
    model = made(norm, x)
    start = rf"^\({type(norm).__name__}\): `mask`"
    with pytest.raises(ShapeError, match=start) as caught:
        model(x, mask)
    exec(caught.value.fixes[0][1], scope := {"mask": mask})
    assert_close(model(x, scope["mask"]), model(x))


def test_a_group_size_that_does_not_divide_is_refused_with_the_path():
    model = nn.Sequential([nn.GroupNorm(group_size=4)])
    with pytest.raises(
        ConfigError, match=r"^layers\[0\] .*`group_size` is 4"
    ) as caught:
        made(model, normal((2, 6)))
    exec(caught.value.fixes[0][1], scope := {})
    norm = nn.GroupNorm(group_size=scope["group_size"])
    assert made(norm, normal((2, 6))).scale.shape == (6,)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.GroupNorm(0),
        lambda: nn.GroupNorm(2, spatial_ndim=-1),
        lambda: nn.InstanceNorm(spatial_ndim=0),
        lambda: nn.InstanceNorm(epsilon=0.0),
        lambda: nn.GroupNorm(2, 2.5),
    ],
)
def test_options_without_a_meaning_are_refused(make):
    with pytest.raises(ConfigError, match="LN-VALUE"):
        make()
