"""Fp8Dense: its state, training with it, and putting it into a model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import assert_close, normal
from linnet import functional as F
from linnet import nn
from linnet._errors import ConfigError, DTypeError, PathError, ShapeError

KEY = jax.random.key(0)


def net():
    return nn.Sequential([nn.Dense(8), jnp.tanh, nn.Dense(3)])


def test_training_writes_the_largest_magnitudes_and_prediction_nothing():
    x = normal((5, 4))
    layer = nn.init(nn.Fp8Dense(3, amax_history_length=2), KEY, x)
    assert_close(layer.x_amax_history, np.zeros(2))
    _, once = nn.training(layer)(x)
    _, twice = nn.training(once)(3 * x)
    largest = float(jnp.abs(x).max())
    assert_close(twice.x_amax_history, np.array([3 * largest, largest]))
    kernel = float(jnp.abs(layer.kernel).max())
    assert_close(twice.kernel_amax_history, np.array([kernel, kernel]))
    with pytest.raises(nn.ScopeError):
        layer.x_amax_history = jnp.ones(2)
    _, same = nn.stateful(twice)(x)
    assert same == twice


def test_the_second_call_uses_the_scales_of_the_first():
    x = 1e-4 * normal((5, 4))
    layer = nn.init(nn.Fp8Dense(3, use_bias=False), KEY, x)
    first, layer = nn.training(layer)(x)
    expected = x @ layer.kernel
    error = [
        float(jnp.abs(y - expected).max() / jnp.abs(expected).max())
        for y in (first, layer(x))
    ]
    assert error[0] > 0.5  # below the smallest number of fp8
    assert error[1] < 0.1
    scales = {
        "x_scale": F.fp8_scale(layer.x_amax_history),
        "kernel_scale": F.fp8_scale(layer.kernel_amax_history),
    }
    assert_close(layer(x), F.fp8_dense(x, layer.kernel, **scales), rtol=0, atol=0)


def losses(model, steps=40):
    x, y = normal((64, 4)), jnp.sin(normal((64, 4)) @ normal((4, 3), 1))
    model = nn.init(model, KEY, x)
    tx = optax.adam(1e-2)

    @jax.jit
    def step(model, opt_state):
        def loss_fn(model):
            out, model = nn.training(model)(x)
            return ((out - y) ** 2).mean(), model

        (loss, model), grads = nn.value_and_grad(loss_fn, has_aux=True)(model)
        updates, opt_state = tx.update(grads, opt_state)
        return nn.apply_updates(model, updates), opt_state, loss

    opt_state, seen = tx.init(nn.params(model)), []
    for _ in range(steps):
        model, opt_state, loss = step(model, opt_state)
        seen.append(float(loss))
    return seen


def test_it_trains_nearly_as_float32_does():
    wide, small = losses(net()), losses(nn.fp8(net(), nn.Dense))
    assert wide[-1] < 0.5 * wide[0]
    assert abs(small[-1] - wide[-1]) < 0.1 * wide[0]


@pytest.mark.parametrize("remat", [False, True])
def test_layers_of_a_stack_have_histories_of_their_own(remat):
    x = normal((2, 4))
    stack = nn.Stack(nn.Fp8Dense(4, amax_history_length=2), 3, remat=remat)
    model = nn.init(stack, KEY, x)

    @jax.jit
    def loss(model):
        def f(model):
            out, model = nn.training(model)(x)
            return out.sum(), model

        return nn.grad(f, has_aux=True)(model)

    grads, model = loss(model)
    history = model.block.x_amax_history
    assert history.shape == (3, 2)
    assert len(np.unique(np.asarray(history[:, 0]))) == 3
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))
    y = x
    for layer in model:
        y = layer(y)
    assert_close(model(x), y)


def test_a_model_is_changed_before_or_after_its_arrays_are_made():
    x = normal((2, 4))
    before = nn.init(nn.fp8(net(), "layers/0"), KEY, x)
    after = nn.fp8(nn.init(net(), KEY, x), "layers/0")
    assert before == after
    assert type(before[0]) is nn.Fp8Dense
    assert type(before[2]) is nn.Dense
    length = nn.fp8(net(), "**", amax_history_length=5)
    assert nn.init(length, KEY, x)[2].x_amax_history.shape == (5,)


def test_what_was_declared_stays_declared():
    x = normal((2, 4))
    dense = nn.Dense(4, use_bias=False, mask=jnp.tri(4, dtype=bool), dtype="bfloat16")
    model = nn.select(nn.init(nn.Stack(dense, 3), KEY, x.astype("bfloat16")), "**")
    changed = nn.fp8(model.freeze(), nn.Dense)
    assert not jax.tree.leaves(nn.partition(changed, nn.Param)[0])
    assert changed.block.x_amax_history.shape == (3, 1024)
    assert changed(x.astype("bfloat16")).dtype == "bfloat16"
    assert changed.block.bias is None


def test_tied_kernels_and_adapters_go_with_it():
    x = normal((2, 4))
    model = nn.Sequential([nn.Dense(4), nn.Dense(4)])
    tied = nn.fp8(nn.tie(model, {"layers/1/kernel": "layers/0/kernel"}), nn.Dense)
    tied = nn.init(tied, KEY, x)
    assert len([path for path in nn.to_paths(tied) if "kernel" in path]) == 3
    assert tied(x).shape == (2, 4)
    tuned = nn.lora(nn.init(nn.Fp8Dense(3), KEY, x), nn.Fp8Dense, 2, 4.0, KEY)
    _, tuned = nn.training(tuned)(x)
    assert float(tuned.base.x_amax_history[0]) > 0
    assert type(nn.merge_lora(tuned)) is nn.Fp8Dense


def test_ensembles_and_vmap():
    x = normal((2, 4))
    many = nn.init(nn.Ensemble(nn.Fp8Dense(3), 2), KEY, x)
    out, many = nn.training(many)(x)
    assert out.shape == (2, 2, 3)
    assert_close(many[0](x), many(x)[0])


def test_what_makes_no_sense_is_refused():
    x = normal((2, 4))
    model = nn.init(nn.Sequential([nn.Fp8Dense(3)]), KEY, x)
    with pytest.raises(ConfigError, match="LN-WHERE-03"):
        nn.fp8(nn.LayerNorm(), "**")
    with pytest.raises(PathError, match="LN-PATH-01"):
        nn.fp8(net(), "layer/0")
    with pytest.raises(ConfigError, match="LN-VALUE-01"):
        nn.Fp8Dense(3, amax_history_length=0)
    with pytest.raises(ConfigError, match="LN-VALUE-01"):
        nn.fp8(net(), nn.Dense, amax_history_length=0)
    with pytest.raises(ShapeError, match=r"^layers\[0\] \(Fp8Dense\).*LN-SHAPE-01"):
        model(jnp.ones((2, 5)))
    with pytest.raises(DTypeError, match=r"^layers\[0\] \(Fp8Dense\).*LN-DTYPE-01"):
        model(jnp.ones((2, 4), jnp.complex64))
