"""substitute: calls of a module with other arrays, closed and open."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import InitError, PathError, TreeError

KEY = jax.random.key(0)


class Doubled(nn.Module):
    """Calls a layer with twice its kernels."""

    def __init__(self, layer, where="**/kernel"):
        self.layer = layer
        self.where = where

    def __call__(self, *args):
        return nn.substitute(self.layer, {self.where: lambda a: 2 * a})(*args)


def test_a_plain_call_has_the_other_arrays_and_the_model_its_own():
    x = normal((5, 3))
    dense = nn.init(nn.Dense(4), KEY, x)
    call = nn.substitute(dense, {"kernel": jnp.zeros_like, "bias": lambda b: b + 1})
    assert_close(call(x), np.ones((5, 4)))
    assert_close(dense(x), x @ dense.kernel)


def test_several_functions_apply_in_turn_and_bound_methods_are_called():
    x = normal((5, 3))
    embed = nn.init(nn.Embed(4, 3), KEY, jnp.array([0]))
    by = {"embedding": lambda a: a + 1, nn.Param: lambda a: 2 * a}
    expected = x @ (2 * (embed.embedding + 1)).T
    assert_close(nn.substitute(embed.attend, by)(x), expected)


@pytest.mark.parametrize("call", [lambda m, x: m(x), lambda m, x: nn.training(m)(x)[0]])
def test_inside_a_module_shapes_are_inferred_and_gradients_flow(call):
    x = normal((5, 3))
    model = nn.init(Doubled(nn.Dense(4)), KEY, x)
    assert_close(call(model, x), 2 * x @ model.layer.kernel)
    grads = jax.jit(nn.grad(lambda m: call(m, x).sum()))(model)
    expected = jax.grad(lambda k: (2 * x @ k).sum())(model.layer.kernel)
    assert_close(grads.layer.kernel, expected)


def test_state_randomness_and_taps_are_those_of_the_call():
    class Model(nn.Module):
        def __init__(self):
            self.count = nn.state(0)
            self.layer = Doubled(nn.Sequential([nn.Dense(4), Counts()]))

        def __call__(self, x):
            return self.layer(x), self.layer(x)

    class Counts(nn.Module):
        def __init__(self):
            self.count = nn.state(0)

        def __call__(self, x):
            if self.training:
                self.count = self.count + 1
            noise = jax.random.normal(self.rng(), x.shape) if self.training else 0.0
            return self.sow("seen", x) + noise

    x = normal((5, 3))
    model = nn.init(Model(), KEY, x)
    run = nn.training(nn.capture(model, "**/seen"), jax.random.key(1))
    ((first, second), values), after = run(x)
    assert int(after.layer.layer.layers[1].count) == 2
    assert np.abs(first - second).max() > 0.1
    (seen,) = values.values()
    assert_close(seen[0], 2 * x @ model.layer.layer.layers[0].kernel)


def test_a_stack_inside_runs_with_other_arrays_around_it():
    x = normal((5, 3))
    layer = nn.Sequential([nn.Dense(4), nn.Stack(nn.Dense(4), 2)])
    model = nn.init(Doubled(layer, "layers/0/kernel"), KEY, x)
    dense, stack = model.layer
    assert_close(model(x), stack(2 * x @ dense.kernel))
    assert_close(nn.training(model)(x)[0], model(x))


def test_inside_a_stack_each_layer_has_its_own_arrays():
    x = normal((5, 3))
    model = nn.init(nn.Stack(Doubled(nn.Dense(3)), 2), KEY, x)
    kernels = model.block.layer.kernel
    assert_close(model(x), 4 * x @ kernels[0] @ kernels[1])
    assert_close(nn.training(model)(x)[0], model(x))


def test_tied_arrays_are_substituted_where_they_are_used():
    class Model(nn.Module):
        def __init__(self):
            self.embed = nn.Embed(5, 3)
            self.head = Doubled(nn.Dense(5, use_bias=False))

        def __call__(self, ids):
            return self.head(self.embed(ids))

    ids = jnp.array([0, 2])
    source = ("embed/embedding", jnp.transpose)
    model = nn.init(nn.tie(Model(), {"head/layer/kernel": source}), KEY, ids)
    table = model.embed.embedding
    assert_close(nn.training(model)(ids)[0], 2 * table[ids] @ table.T)


def test_cast_arrays_are_cast_after_the_function():
    x = normal((5, 3))
    model = nn.cast(nn.init(Doubled(nn.Dense(4)), KEY, x), jnp.bfloat16)
    for y in (model(x), nn.training(model)(x)[0]):
        assert y.dtype == jnp.bfloat16
        assert_close(y, 2 * x @ model.layer.kernel, rtol=0.05, atol=0.05)


def test_what_is_not_there_is_refused():
    x = normal((5, 3))
    with pytest.raises(PathError, match="LN-PATH-01"):
        nn.init(Doubled(nn.Dense(4), "weight"), KEY, x)
    start = r"^layers\[0\].layer \(Dense\): `kernel` has no value yet.*LN-INIT-01"
    with pytest.raises(InitError, match=start):
        nn.Sequential([Doubled(nn.Dense(4))])(x)
    stack = nn.init(nn.Stack(nn.Dense(3), 2), KEY, x)
    with pytest.raises(TreeError, match="LN-STACK-05"):
        nn.substitute(stack, {"block/kernel": abs})(x)
