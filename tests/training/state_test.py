"""Training states, averages, loss scaling, accumulation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import assert_close, normal
from linnet import nn, parallel, training

KEY = jax.random.key(0)
X = normal((8, 4))


def wide(x):
    return np.asarray(x, np.float64)


def made(model, x=X):
    return nn.init(model, KEY, x)


def loss_fn(model):
    return (model(X) ** 2).mean()


# ---- the state


def test_steps_are_those_of_optax_by_hand():
    tx = optax.chain(
        optax.clip_by_global_norm(0.1),
        optax.adamw(optax.cosine_decay_schedule(1e-2, 10)),
    )
    model = made(nn.MLP(3))
    state = training.TrainState.create(model, tx, KEY)
    params, opt_state = nn.params(model), tx.init(nn.params(model))
    for _ in range(3):
        state = state.apply_gradients(nn.grad(loss_fn)(state.model))
        grads = nn.grad(loss_fn)(model)
        updates, opt_state = tx.update(grads, opt_state, params)
        model = nn.apply_updates(model, updates)
        params = nn.params(model)
    assert state.step == 3
    assert_close(nn.to_paths(state.model), nn.to_paths(model), atol=0)


def test_only_what_wrt_selects_is_trained():
    model = made(nn.MLP(3))
    state = training.TrainState.create(model, optax.sgd(1.0), KEY, wrt="out/**")
    after = state.apply_gradients(nn.grad(loss_fn, state.wrt)(model)).model
    assert_close(after.hidden[0].kernel, model.hidden[0].kernel, atol=0)
    assert not np.array_equal(after.out.kernel, model.out.kernel)
    with pytest.raises(nn.TreeError, match="LN-TRAIN-02"):
        state.apply_gradients(nn.grad(loss_fn)(model))


def test_statistics_of_the_training_call_are_kept():
    model = made(nn.Sequential([nn.Dense(3), nn.BatchNorm()]))
    state = training.TrainState.create(model, optax.sgd(0.1), KEY)
    key, state = state.next_key()

    def loss_fn(model):
        y, model = nn.training(model, key)(X)
        return y.std(), model

    grads, model = nn.grad(loss_fn, has_aux=True)(state.model)
    after = state.apply_gradients(grads, model)
    assert_close(after.model.layers[1].mean, model.layers[1].mean, atol=0)
    with pytest.raises(nn.TreeError):
        state.apply_gradients(grads, made(nn.Dense(3)))


def test_keys_are_never_the_same():
    state = training.TrainState.create(made(nn.Dense(3)), optax.sgd(0.1), KEY)
    first, state = state.next_key()
    second, state = state.next_key()
    data = {jax.random.key_data(k).tobytes() for k in (first, second, state.key, KEY)}
    assert len(data) == 4


def test_it_can_be_donated_though_arrays_were_shared():
    x = jnp.ones(3)
    tx = optax.GradientTransformation(
        lambda params: {"a": x, "b": x}, lambda grads, state, params: (grads, state)
    )
    state = training.TrainState.create(made(nn.Dense(3)), tx, KEY, ema=0.9)

    @jax.jit(donate_argnums=0)
    def step(state):
        return state.apply_gradients(nn.grad(loss_fn)(state.model))

    before = state.model.kernel
    state = step(step(state))
    assert before.is_deleted()
    assert state.step == 2


def test_a_state_of_shapes_is_made_of_shapes():
    tx = optax.adam(0.1)

    def create(model):
        return training.TrainState.create(
            model, tx, KEY, ema=0.9, scale=training.LossScale()
        )

    shapes = create(nn.abstract(nn.MLP(3), X))
    state = create(made(nn.MLP(3)))
    assert jax.tree.structure(shapes) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(shapes), jax.tree.leaves(state), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


def test_it_lies_on_the_mesh_of_its_model():
    mesh = parallel.make_mesh(data=4)
    with parallel.use(mesh, parallel.fsdp(min_size=8)):
        model = made(nn.MLP(8))
        state = training.TrainState.create(model, optax.adam(0.1), KEY)
    assert state.opt_state[0].mu.out.kernel.sharding == model.out.kernel.sharding
    assert state.step.sharding.mesh == mesh


# ---- averages


@pytest.mark.parametrize("debias", [True, False])
def test_the_average_is_its_formula(debias):
    model, decay = made(nn.Dense(3, use_bias=False)), 0.8
    ema = training.Ema(decay, debias=debias)
    state = training.TrainState.create(model, optax.sgd(0.1), KEY, ema=ema)
    average = 0 if debias else wide(model.kernel)
    for t in range(1, 5):
        state = state.apply_gradients(nn.grad(loss_fn)(state.model))
        average = decay * average + (1 - decay) * wide(state.model.kernel)
        expected = average / (1 - decay**t) if debias else average
        assert_close(state.ema.kernel, expected)


def test_a_wrong_decay_is_refused():
    with pytest.raises(nn.ConfigError):
        training.Ema(1.5)


# ---- scaling of the loss


def test_a_gradient_that_is_not_finite_changes_the_scale_alone():
    scale = training.LossScale(value=8.0, interval=2)
    state = training.TrainState.create(
        made(nn.Dense(3)), optax.adam(0.1), KEY, ema=0.9, scale=scale
    )
    grads = nn.grad(loss_fn)(state.model)
    bad = jax.tree.map(lambda g: g * jnp.inf, grads)
    after = state.apply_gradients(bad)
    assert (after.scale.value, after.scale.skipped, after.step) == (4, 1, 1)
    kept = ("model", "opt_state", "average")
    for name in kept:
        pair = jax.tree.leaves((getattr(after, name), getattr(state, name)))
        half = len(pair) // 2
        for a, b in zip(pair[:half], pair[half:], strict=True):
            assert np.array_equal(a, b)
    twice = after.apply_gradients(grads).apply_gradients(grads)
    assert (twice.scale.value, twice.scale.good, twice.opt_state[0].count) == (8, 0, 2)


# ---- accumulation


def masked(model, part):
    losses = (model(part["x"])[:, 0] - part["y"]) ** 2
    return (losses * part["mask"]).sum(), part["mask"].sum(), model


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_parts_with_uneven_masks_give_the_gradients_of_the_whole(parts):
    model = made(nn.MLP(5, out_features=1))
    batch = {"x": X, "y": X.sum(-1), "mask": jnp.array([1, 1, 1, 0, 0, 0, 0, 1.0])}

    def whole(model):
        total, count, _ = masked(model, batch)
        return total / count

    expected = nn.value_and_grad(whole)(model)
    call = jax.jit(lambda model: training.accumulate(masked, model, batch, parts=parts))
    (loss, after), grads = call(model)
    assert_close((loss, nn.to_paths(grads)), (expected[0], nn.to_paths(expected[1])))
    assert_close(nn.to_paths(after), nn.to_paths(model), atol=0)


def test_gradients_in_half_precision_are_added_in_float32():
    model = made(nn.Dense(1, use_bias=False, param_dtype=jnp.bfloat16))
    x = jnp.concatenate([jnp.full((1, 4), 256.0), jnp.ones((7, 4))]).astype(
        jnp.bfloat16
    )

    def total(model, x):
        return model(x).astype(jnp.float32).sum(), 1, model

    _, grads = training.accumulate(total, model, x, parts=8)
    assert_close(grads.kernel.astype(jnp.float32), jnp.full((4, 1), 263 / 8), rtol=4e-3)


def test_state_goes_from_part_to_part_and_keys_differ():
    model = made(nn.Sequential([nn.BatchNorm(momentum=0.5), nn.Dropout(0.5)]))

    def loss_fn(model, x, key):
        y, model = nn.training(model, key)(x)
        return y.sum(), y.size, model

    (_, after), _ = training.accumulate(loss_fn, model, X, KEY, parts=2, wrt=nn.Param)
    step = model
    for i, part in enumerate(X.reshape(2, 4, 4)):
        _, step = nn.training(step, jax.random.fold_in(KEY, i))(part)
    assert_close(after.layers[0].mean, step.layers[0].mean)
