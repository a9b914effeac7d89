"""The other convolutions, and masks for kernels: starts, ties, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, DTypeError, ShapeError

KEY = jax.random.key(0)
ALL = [
    lambda **options: nn.Conv(4, (3,), **options),
    lambda **options: nn.ConvTranspose(4, (3,), **options),
    lambda **options: nn.ConvLocal(4, (3,), **options),
    lambda **options: nn.DepthwiseConv((3,), **options),
    lambda **options: nn.SeparableConv(4, (3,), **options),
]


def made(layer, x):
    return nn.init(layer, KEY, x)


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize(
    ("x", "params", "asked", "result"),
    [
        ("bfloat16", "bfloat16", None, "bfloat16"),
        ("bfloat16", "float32", None, "float32"),
        ("float32", "float32", "bfloat16", "bfloat16"),
    ],
)
def test_dtypes(make, x, params, asked, result):
    x = normal((2, 6, 4), dtype=x)
    model = made(make(dtype=asked, param_dtype=params), x)
    assert {array.dtype for array in jax.tree.leaves(model)} == {jnp.dtype(params)}
    assert model(x).dtype == result


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"strides": 0}, "`strides` is 0"),
        ({"padding": "FULL"}, "`padding` is 'FULL'"),
        ({"kernel_dilation": (1, 1)}, "`kernel_dilation` is"),
        ({"in_features": -1}, "`in_features` is -1"),
    ],
)
def test_options_without_a_meaning_are_refused_at_construction(make, option, text):
    with pytest.raises(ConfigError, match=text):
        make(**option)


@pytest.mark.parametrize("make", ALL)
def test_wrong_inputs_are_refused_with_the_path(make):
    x = normal((2, 6, 3))
    model = made(nn.Sequential([make()]), x)
    with pytest.raises(ShapeError, match=r"^layers\[0\].*LN-SHAPE-01"):
        model(x[..., :2])
    with pytest.raises(ShapeError, match=r"^layers\[0\].*LN-SHAPE-02"):
        model(x[0, 0])
    with pytest.raises(DTypeError, match=r"^layers\[0\].*LN-DTYPE-01"):
        model((100 * x).astype(jnp.int32))


# ---- starts


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (nn.DepthwiseConv((5, 5), channel_multiplier=4), 25),
        (nn.ConvTranspose(64, (3, 3)), 9 * 16),
        (nn.ConvTranspose(64, (3, 3), transpose_kernel=True), 9 * 16),
        (
            nn.ConvTranspose(64, (3, 3), transpose_kernel=True, feature_group_count=2),
            9 * 8,
        ),
        (nn.ConvLocal(4, (3, 3)), 9 * 16),
    ],
    ids=str,
)
def test_the_start_keeps_the_size_of_signals(layer, fan_in):
    kernel = made(layer, jnp.ones((6, 6, 16))).kernel
    assert abs(float(kernel.std()) * fan_in**0.5 - 1) < 0.06


def test_positions_start_independently():
    model = made(nn.ConvLocal(4, (3,)), jnp.ones((6, 2)))
    assert not np.allclose(model.kernel[0], model.kernel[1])


# ---- transposed and separable


def test_a_decoder_may_use_the_kernel_of_its_encoder():
    class Autoencoder(nn.Module):
        def __init__(self):
            self.encode = nn.Conv(4, (3,), strides=2, padding=1, use_bias=False)
            self.decode = nn.ConvTranspose(
                2, (3,), strides=2, padding=1, transpose_kernel=True, use_bias=False
            )

        def __call__(self, x):
            return self.decode(self.encode(x))

    x = normal((9, 2))
    model = nn.tie(made(Autoencoder(), x), {"decode/kernel": "encode/kernel"})
    assert list(nn.to_paths(model)) == ["encode/kernel"]
    z = normal((5, 4), 1)
    assert_close((model.encode(x) * z).sum(), (model.decode(z) * x).sum(), rtol=1e-4)


def test_separable_layers_name_their_parts():
    model = made(nn.SeparableConv(3, (3,), channel_multiplier=2), jnp.ones((5, 4)))
    assert {path: a.shape for path, a in nn.to_paths(model).items()} == {
        "depthwise/kernel": (3, 1, 8),
        "pointwise/kernel": (8, 3),
        "pointwise/bias": (3,),
    }


def test_features_of_depthwise_layers_do_not_mix():
    x = normal((6, 3))
    model = made(nn.DepthwiseConv((3,), channel_multiplier=2), x)
    moved = model(x.at[:, 1].add(1.0)) != model(x)
    assert moved.any(0).tolist() == [False, False, True, True, False, False]


# ---- masks


def causal_image_mask(size):
    """Entries before the centre in the order of reading, as in PixelCNN."""
    before = np.arange(size * size) < size * size // 2
    return before.reshape(size, size, 1, 1)


@pytest.mark.parametrize("kind", [nn.Conv, nn.ConvTranspose])
def test_masked_images_depend_on_earlier_pixels_only(kind):
    x = normal((4, 4, 1))
    mask = causal_image_mask(3)
    model = made(kind(1, (3, 3), mask=mask, use_bias=False), x)
    jacobian = jax.jacobian(model)(x).reshape(16, 16)
    if kind is nn.ConvTranspose:  # flipped twice, so that it is a Conv
        assert_close(jacobian, jax.jacobian(_as_conv(model, mask))(x).reshape(16, 16))
    assert_close(np.triu(jacobian), np.zeros((16, 16)))
    assert np.any(jacobian)


def _as_conv(model, mask):
    conv = made(nn.Conv(1, (3, 3), mask=mask, use_bias=False), jnp.ones((4, 4, 1)))
    return conv.replace(kernel=model.kernel)


@pytest.mark.parametrize("make", ALL[:4])
def test_masked_entries_are_not_trained(make):
    x = normal((2, 6, 4))
    plain = made(make(), x)
    mask = np.arange(plain.kernel.size).reshape(plain.kernel.shape) % 3 > 0
    model = made(make(mask=mask), x)
    grads = nn.grad(lambda model: (model(x) ** 2).sum())(model)
    assert_close(np.where(mask, 0, grads.kernel), np.zeros(mask.shape))
    assert np.any(grads.kernel)
    without = plain.replace(kernel=jnp.where(mask, plain.kernel, 0))
    assert_close(model(x), without(x))


@pytest.mark.parametrize("make", ALL[:4])
def test_masks_that_do_not_fit_are_refused(make):
    with pytest.raises(ShapeError, match="`mask` of shape"):
        make(mask=np.ones(3, bool))
    with pytest.raises(DTypeError, match="must hold booleans"):
        make(mask=np.ones((3, 1, 1)))


# ---- one kernel for each position


def test_another_image_size_is_refused_and_says_so():
    model = made(nn.ConvLocal(4, (3,)), normal((6, 2)))
    with pytest.raises(ShapeError, match=r"`kernel` is float32\[6, 3, 2, 4\], but"):
        model(normal((7, 2)))


@pytest.mark.parametrize("make", ALL)
def test_known_sizes_and_inferred_ones_make_one_layer(make):
    x = normal((2, 6, 4))
    known, inferred = made(make(in_features=4), x), made(make(), x)
    assert_close(nn.to_paths(known), nn.to_paths(inferred))
