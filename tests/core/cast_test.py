"""Mixed precision: what is computed in half, and what stays in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import assert_close, normal
from linnet import nn

KEY = jax.random.key(0)
X = normal((8, 3))
BF16 = jnp.bfloat16


class Own(nn.Module):
    """A layer that knows nothing of dtypes."""

    def __init__(self):
        self.scale = nn.param(nn.initializers.normal(1.0), (1, 5))
        self.pair = [
            nn.param(nn.initializers.normal(1.0), (1, 5)),
            {"b": nn.state(0.0)},
        ]
        self.table = nn.constant(jnp.arange(5.0)[None])

    def __call__(self, x):
        return x * self.scale + self.pair[0]


class Net(nn.Module):
    def __init__(self):
        self.hidden = nn.Dense(5)
        self.norm = nn.BatchNorm()
        self.own = Own()
        self.layers = [nn.LayerNorm(), jax.nn.gelu, nn.Dense(2)]

    def __call__(self, x):
        x = self.own(self.norm(self.hidden(x)))
        for layer in self.layers:
            x = layer(x)
        return x


MODEL = nn.init(Net(), KEY, X)
LOW = nn.cast(MODEL, BF16)


def dtypes(tree):
    return {path: x.dtype for path, x in nn.to_paths(tree).items()}


def test_the_arrays_stay_and_the_computation_changes():
    assert dtypes(LOW) == dtypes(MODEL)
    assert all(
        a is b
        for a, b in zip(jax.tree.leaves(LOW), jax.tree.leaves(MODEL), strict=True)
    )
    assert LOW(X).dtype == BF16
    assert_close(LOW(X), MODEL(X), rtol=0.1, atol=0.1)
    assert not np.array_equal(LOW(X), MODEL(X))


@pytest.mark.parametrize("dtype", [BF16, jnp.float16, jnp.float32])
def test_outputs_have_the_dtype_in_every_kind_of_call(dtype):
    model = nn.cast(MODEL, dtype)
    x = X.astype(dtype)

    def calls(model):
        captured = nn.capture(model, nn.Dense)(x)[1]["hidden"]
        return model(x), nn.training(model, KEY)(x)[0], captured

    shapes = jax.eval_shape(calls, model)
    assert [shape.dtype for shape in shapes] == [dtype] * 3


def test_parameters_are_read_in_the_dtype_and_nothing_else_is():
    seen = {}

    class Reader(Own):
        def __init__(self):
            super().__init__()
            self.ids = nn.param(jnp.arange(5)[None])

        def __call__(self, x):
            values = (self.scale, self.pair[0], self.pair[1]["b"], self.table, self.ids)
            names = ("scale", "pair", "state", "table", "ids")
            seen.update({n: v.dtype for n, v in zip(names, values, strict=True)})
            return x

    expected = {
        "scale": BF16,
        "pair": BF16,
        "state": jnp.float32,
        "table": jnp.float32,
        "ids": jnp.int32,
    }
    model = nn.cast(nn.init(Reader(), KEY, X), BF16)
    for call in (model, nn.stateful(model), jax.jit(lambda x: model(x))):
        seen.clear()
        call(X)
        assert seen == expected


def test_gradients_and_optimiser_state_are_float32_and_it_trains():
    tx = optax.adam(1e-4)  # far below the spacing of bfloat16 near one

    @jax.jit
    def step(model, state):
        def loss_fn(model):
            out, model = nn.training(model, KEY)(X.astype(BF16))
            assert out.dtype == BF16
            return (out.astype(jnp.float32) ** 2).mean(), model

        (_, model), grads = nn.value_and_grad(loss_fn, has_aux=True)(model)
        updates, state = tx.update(grads, state, nn.params(model))
        return nn.apply_updates(model, updates), state, grads

    model, state = LOW, tx.init(nn.params(LOW))
    for _ in range(3):
        model, state, grads = step(model, state)
    assert {x.dtype for x in jax.tree.leaves((grads, state[0].mu))} == {
        np.dtype("float32")
    }
    assert dtypes(model) == dtypes(MODEL)
    assert jax.tree.structure(model) == jax.tree.structure(LOW)
    for path, x in nn.to_paths(nn.params(model)).items():
        moved = jnp.abs(x - nn.to_paths(LOW)[path]).max()
        assert moved < 4e-4, path
        assert moved > 1e-4 or path == "hidden/bias"  # which the batch norm removes


def test_gradients_agree_with_full_precision():
    def loss(model):
        return (model(X).astype(jnp.float32) ** 2).mean()

    gradient = jax.jit(nn.grad(loss, "**/kernel"))
    low, full = gradient(LOW), gradient(MODEL)
    for one, other in zip(jax.tree.leaves(low), jax.tree.leaves(full), strict=True):
        assert one.dtype == jnp.float32
        error = jnp.linalg.norm(one - other) / jnp.linalg.norm(other)
        assert 0 < float(error) < 0.1


def test_none_undoes_it():
    assert nn.cast(LOW, None) == MODEL
    assert nn.cast(nn.cast(LOW, jnp.float16), BF16) == LOW
    assert jax.tree.structure(nn.cast(LOW, None)) == jax.tree.structure(MODEL)


def test_a_description_may_be_cast_before_its_arrays_are_made():
    assert nn.init(nn.cast(Net(), BF16), KEY, X) == LOW
    assert nn.describe(LOW).hidden == nn.cast(nn.Dense(5), BF16)


def test_freezing_and_casting_commute():
    one = nn.cast(nn.select(MODEL, "own").freeze(), BF16)
    other = nn.select(LOW, "own").freeze()
    assert one == other
    assert one(X).dtype == BF16


def test_numpy_arrays_are_cast_as_well():
    model = nn.cast(jax.tree.map(np.asarray, MODEL), BF16)
    assert model(X).dtype == BF16
    assert_close(model(X), LOW(X), rtol=0.02, atol=0.02)


def test_stacks_and_several_models():
    stack = nn.init(nn.Stack(nn.Dense(3), 2), KEY, X)
    shape = jax.eval_shape(nn.cast(stack, BF16), X.astype(BF16))
    assert shape.dtype == BF16
    low, other = nn.cast((MODEL, {"a": stack}), BF16)
    assert low == LOW
    assert other["a"] == nn.cast(stack, BF16)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_, jnp.complex64])
def test_what_is_no_floating_dtype_is_refused(dtype):
    with pytest.raises(nn.ConfigError, match="LN-VALUE-05"):
        nn.cast(MODEL, dtype)
