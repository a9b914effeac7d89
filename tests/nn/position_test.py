"""Layers of positions: defaults, positions of one's own, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import functional as F
from linnet import nn
from linnet._errors import ConfigError, DTypeError, ShapeError

KEY = jax.random.key(0)


def made(layer, *sample):
    return nn.init(layer, KEY, *sample)


# ---- Rotary


def test_rotary_counts_from_zero_and_takes_other_positions():
    x, rotary = normal((2, 3, 2, 4)), nn.Rotary(base=100.0, interleaved=True)
    expected = F.rotary(x, jnp.arange(3), base=100.0, interleaved=True)
    assert_close(rotary(x), expected)
    later = rotary.rotate(x[:, 1:], jnp.arange(1, 3))
    assert_close(later, rotary(x)[:, 1:])


def test_rotaries_of_one_configuration_are_one():
    def rotary(factor):
        return nn.Rotary(scaling=nn.YaRNScaling(factor, original_length=64))

    assert rotary(4.0) == rotary(4.0)
    assert hash(rotary(4.0)) == hash(rotary(4.0))
    assert rotary(4.0) != rotary(8.0)


@pytest.mark.parametrize(
    "options",
    [
        {"base": 0},
        {"fraction": 0.0},
        {"fraction": 1.5},
        {"scaling": 2.0},
        {"scaling": nn.LinearScaling},
    ],
)
def test_rotary_refuses_options(options):
    with pytest.raises(ConfigError, match="Rotary: `"):
        nn.Rotary(**options)


def test_an_odd_head_size_is_refused_with_the_path_and_the_fix_works():
    x = normal((3, 1, 5))
    model = nn.Sequential([nn.Rotary()])
    with pytest.raises(ShapeError, match=r"^layers\[0\] \(Rotary\): .*LN-SHAPE") as e:
        model(x)
    scope = {}
    exec(e.value.fixes[0][1], scope)
    assert_close(nn.Rotary(fraction=scope["fraction"])(x)[..., 4:], x[..., 4:])


# ---- Biases


@pytest.mark.parametrize("layer", [nn.ALiBi(), nn.RelativeBias(2, num_buckets=8)])
def test_a_bias_is_added_to_logits(layer):
    logits = normal((3, 2, 4, 4))
    layer = made(layer, logits)
    at = jnp.arange(4)
    assert_close(layer(logits), logits + layer.bias(2, at, at)[None])
    some = layer(logits[:, :, 2:], at[2:], at)
    assert_close(some, layer(logits)[:, :, 2:])


def test_a_bias_asks_for_positions_where_they_are_not_known():
    with pytest.raises(ShapeError, match=r"^\(ALiBi\): `positions` are needed"):
        nn.ALiBi()(jnp.zeros((2, 1, 4)))


def test_a_bias_of_more_batch_axes_than_the_logits_is_refused():
    with pytest.raises(ShapeError, match="does not fit `logits`"):
        nn.ALiBi()(jnp.zeros((2, 3, 3)), jnp.zeros((4, 3)))


def test_another_number_of_heads_is_refused():
    layer = made(nn.RelativeBias(), jnp.zeros((2, 3, 3)))
    assert layer.embedding.shape == (32, 2)
    with pytest.raises(ShapeError, match="`embedding` is float32"):
        layer.bias(4, jnp.arange(3), jnp.arange(3))


# ---- Added embeddings


def test_learned_positions_are_rows_of_the_table():
    x = normal((2, 3, 4))
    layer = made(nn.LearnedPosition(5), x)
    table = np.asarray(layer.embedding)
    assert_close(layer(x), np.asarray(x) + table[:3])
    where = jnp.array([[4, 0, 2], [1, 1, 3]])
    assert_close(layer(x, where), np.asarray(x) + table[np.asarray(where)])
    assert_close(layer(x, jnp.array([4, 3, 2])), np.asarray(x) + table[[4, 3, 2]])


def test_positions_outside_of_the_table_give_nan():
    x = jnp.zeros((3, 2))
    y = made(nn.LearnedPosition(5), x)(x, jnp.array([-1, 4, 5]))
    assert np.isnan(np.asarray(y)).tolist() == [[True] * 2, [False] * 2, [True] * 2]


def test_learned_positions_of_a_grid():
    x = normal((2, 2, 3, 4))
    layer = made(nn.LearnedPosition((3, 3)), x)
    table = np.asarray(layer.embedding)
    assert_close(layer(x), np.asarray(x) + table[:2])
    tokens, where = normal((2, 2, 4)), np.array([[[2, 1], [0, 0]], [[1, 2], [2, 2]]])
    expected = np.asarray(tokens) + table[where[..., 0], where[..., 1]]
    assert_close(layer(tokens, jnp.asarray(where)), expected)


def test_a_sequence_longer_than_the_table_is_refused_and_the_fixes_work():
    x = normal((2, 6, 4))
    layer = made(nn.LearnedPosition(5), x[:, :5])
    with pytest.raises(ShapeError, match="6 positions, but the table holds 5") as e:
        layer(x)
    scope = {"x": x, "nn": nn}
    for _, code in e.value.fixes:
        exec(code, scope)
    assert layer(scope["x"]).shape == (2, 5, 4)
    assert made(scope["position"], x)(x).shape == x.shape


def test_learned_positions_must_be_integers():
    x = jnp.zeros((3, 2))
    layer = made(nn.LearnedPosition(5), x)
    with pytest.raises(DTypeError, match="`positions` has dtype float32"):
        layer(x, jnp.zeros(3))


def test_sinusoids_are_added_in_the_dtype_of_the_input():
    x = normal((2, 3, 4), dtype="bfloat16")
    y = nn.SinusoidalPosition(base=50.0)(x)
    assert y.dtype == x.dtype
    waves = F.sinusoidal_position(jnp.arange(3), 4, base=50.0)
    assert_close(y, (x.astype(jnp.float32) + waves[None]).astype(x.dtype), rtol=0)
    later = nn.SinusoidalPosition()(jnp.zeros((3, 4)), jnp.array([7, 8, 9]))
    assert_close(later, nn.SinusoidalPosition()(jnp.zeros((10, 4)))[7:])


def masked_autoencoder(height, width, size):
    """The grid of He et al., in float64: columns first, sines before cosines."""

    def one(positions):
        omega = 1.0 / 10_000 ** (np.arange(size // 4) / (size / 4))
        angles = positions.reshape(-1)[:, None] * omega
        return np.concatenate([np.sin(angles), np.cos(angles)], 1)

    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    both = np.concatenate([one(columns), one(rows)], 1)
    return both.reshape(height, width, size)


def test_sinusoids_of_a_grid_are_those_of_masked_autoencoders():
    layer = nn.SinusoidalPosition(ndim=2, interleaved=False)
    grid = layer(jnp.zeros((3, 4, 8)))
    assert_close(grid, masked_autoencoder(3, 4, 8))
    where = jnp.array([[2, 3], [0, 1]])
    picked = layer(jnp.zeros((2, 8)), where)
    assert_close(picked, grid[where[:, 0], where[:, 1]])


def test_coordinates_of_another_number_are_refused():
    with pytest.raises(ShapeError, match="must hold 2 coordinates"):
        nn.SinusoidalPosition(ndim=2)(jnp.zeros((3, 8)), jnp.arange(3))


# ---- Patches


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_patches_are_a_matrix_product_each(batch):
    x = normal((*batch, 4, 6, 3))
    layer = made(nn.PatchEmbed(5, (2, 3)), x)
    y = layer(x)
    rows = np.asarray(x).reshape(*batch, 2, 2, 2, 3, 3)
    rows = np.moveaxis(rows, -3, -4).reshape(*batch, 2, 2, 18)
    assert_close(y, rows @ np.asarray(layer.kernel).reshape(18, 5))
    flat = layer.replace(flatten=True)(x)
    assert_close(flat, y.reshape(*batch, 4, 5))


def test_videos_have_patches_of_three_axes():
    x = normal((2, 4, 4, 4, 1))
    assert made(nn.PatchEmbed(5, (2, 4, 4), flatten=True), x)(x).shape == (2, 2, 5)


def test_an_incomplete_patch_is_refused_and_the_fixes_work():
    x = normal((2, 9, 5, 3))
    layer = made(nn.PatchEmbed(4, 4), x[:, :8, :4])
    with pytest.raises(ShapeError, match=r"\[9, 5\] are no multiples") as caught:
        layer(x)
    for (_, code), shape in zip(
        caught.value.fixes, [(2, 3, 2, 4), (2, 2, 1, 4)], strict=True
    ):
        scope = {"x": x, "jnp": jnp, "jax": jax}
        exec(code, scope)
        assert layer(scope["x"]).shape == shape


@pytest.mark.parametrize("patch_size", [0, (), (4, 0), "4", 2.5])
def test_patches_of_no_size_are_refused(patch_size):
    with pytest.raises(ConfigError, match="`patch_size` is "):
        nn.PatchEmbed(4, patch_size)
