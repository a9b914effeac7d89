"""Dropout: when it drops, with which key, and what it refuses."""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, DTypeError, ScopeError, ShapeError

KEY = jax.random.key(0)


def test_a_plain_call_returns_the_very_input():
    x = normal((3, 4))
    assert nn.Dropout(0.9)(x) is x
    assert nn.stateful(nn.Dropout(0.9))(x)[0] is x


def test_training_drops_and_scales():
    y, _ = nn.training(nn.Dropout(0.25), KEY)(jnp.ones(10_000))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert_close(np.mean(np.asarray(y) == 0), 0.25, rtol=0.1)


def test_rate_zero_asks_for_no_key():
    x = normal((3, 4))
    y, _ = nn.training(nn.Dropout(0.0))(x)
    assert y is x


def test_one_key_gives_one_result_and_two_layers_differ():
    model = nn.Sequential([nn.Dropout(0.5), nn.Dropout(0.5)])
    x = jnp.ones(1000)
    first, _ = nn.training(model[0], KEY)(x)
    assert_close(nn.training(model[0], KEY)(x)[0], first)
    both, _ = nn.training(model, KEY)(x)
    assert_close(np.mean(np.asarray(both) != 0), 0.25, rtol=0.2)


def test_the_masks_have_the_statistics_of_linen():
    x = jnp.ones((200, 300))
    linen = flax.linen.Dropout(0.3, deterministic=False, broadcast_dims=(1,))
    theirs = np.asarray(linen.apply({}, x, rngs={"dropout": KEY}))
    ours = np.asarray(nn.training(nn.Dropout(0.3, broadcast_axes=1), KEY)(x)[0])
    assert_close(ours, np.repeat(ours[:, :1], 300, axis=1))
    assert_close(np.unique(ours), np.unique(theirs))


def test_the_stream_can_be_named():
    drop, x = nn.Dropout(0.5, stream="noise"), jnp.ones(100)
    y, _ = nn.stateful(drop, train=True, rngs={"noise": KEY})(x)
    assert 0 < np.count_nonzero(y) < 100
    with pytest.raises(ScopeError, match="LN-RNG-02"):
        nn.stateful(drop, train=True, rngs={"dropout": KEY})(x)


def test_training_without_a_key_is_refused():
    with pytest.raises(ScopeError, match="LN-RNG"):
        nn.training(nn.Dropout(0.5))(jnp.ones(3))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays(dtype):
    y, _ = nn.training(nn.Dropout(0.5), KEY)(jnp.ones(8, dtype))
    assert y.dtype == dtype


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2, float("nan"), "0.5", True])
def test_rates_that_are_no_probability_of_dropping_some_are_refused(rate):
    with pytest.raises(ConfigError, match=r"^Dropout: .*LN-VALUE-02") as caught:
        nn.Dropout(rate)
    scope = {}
    exec(caught.value.fixes[0][1], scope)
    assert nn.Dropout(scope["rate"]).rate == scope["rate"]


def test_integers_and_absent_axes_are_refused_with_the_path():
    model = nn.Sequential([nn.Dropout(0.5, broadcast_axes=2)])
    with pytest.raises(DTypeError, match=r"^layers\[0\] \(Dropout\)"):
        model(jnp.arange(3))
    with pytest.raises(ShapeError, match=r"^layers\[0\] \(Dropout\)"):
        nn.training(model, KEY)(jnp.ones((2, 3)))


def test_drop_path_leaves_the_block_out_for_some_examples():
    class Block(nn.Module):
        def __init__(self):
            self.branch = nn.Dense(3)
            self.drop = nn.DropPath(0.5)

        def __call__(self, x):
            return x + self.drop(self.branch(x))

    x = normal((64, 3))
    model = nn.init(Block(), jax.random.key(0), x)
    y, _ = nn.training(model, jax.random.key(1))(x)
    kept = np.asarray(y != x)[:, :1]
    assert_close(y, np.asarray(x) + 2 * kept * np.asarray(model.branch(x)), atol=1e-5)
    assert 16 < kept.sum() < 48
    assert_close(model(x), x + model.branch(x))


def test_drop_path_in_a_stack_drops_each_layer_by_itself():
    x = jnp.ones((16, 2))
    stack = nn.Stack(nn.DropPath(0.5), 2)
    y, _ = nn.training(stack, jax.random.key(0))(x)
    assert set(np.unique(y)) == {0.0, 4.0}
    with pytest.raises(ShapeError, match="LN-SHAPE-02"):
        nn.DropPath(0.5)(jnp.ones(()))
