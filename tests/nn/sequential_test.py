"""Sequential: composition, indexing, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError

KEY = jax.random.key(0)


def made():
    layers = [nn.Dense(4), nn.BatchNorm(), jax.nn.relu, nn.Dropout(0.5), nn.Dense(2)]
    return nn.init(nn.Sequential(layers), KEY, normal((8, 3)))


def test_it_is_the_composition_of_its_layers():
    model, x = made(), normal((8, 3))
    y = model[4](model[3](jax.nn.relu(model[1](model[0](x)))))
    assert_close(model(x), y)


def test_training_reaches_the_layers_and_returns_them():
    model, x = made(), normal((8, 3))
    y, after = nn.training(model, KEY)(x)
    hidden = np.asarray(model[0](x), np.float64)
    assert_close(after[1].mean, 0.01 * hidden.mean(0))
    assert not np.allclose(y, model(x))
    assert_close(model[1].mean, np.zeros(4))


def test_it_is_a_sequence():
    model = made()
    assert len(model) == 5
    assert list(model) == [model[i] for i in range(5)]
    assert model[-1] is model[4]
    assert model[2] is jax.nn.relu
    with pytest.raises(IndexError):
        model[5]


def test_a_slice_is_a_model_of_the_same_arrays():
    model, x = made(), normal((8, 3))
    head, tail = model[:2], model[2:]
    assert isinstance(head, nn.Sequential)
    assert_close(tail(head(x)), model(x))
    assert head[0].kernel is model[0].kernel


def test_a_slice_can_be_called_inside_a_model():
    class Half(nn.Module):
        def __init__(self):
            self.whole = nn.Sequential([nn.Dense(4), nn.BatchNorm(), nn.Dense(2)])

        def __call__(self, x):
            return self.whole[2:](self.whole[:2](x))

    x = normal((8, 3))
    model = nn.init(Half(), KEY, x)
    assert_close(model(x), model.whole(x))
    y, after = nn.training(model)(x)
    expected, whole = nn.training(model.whole)(x)
    assert_close(y, expected)
    assert after.whole == whole


def test_of_nothing_it_is_the_identity():
    x = normal((2, 3))
    assert nn.Sequential([])(x) is x


def test_any_value_is_passed_along():
    model = nn.Sequential([lambda pair: (pair[1], pair[0]), lambda pair: pair[0]])
    assert model((1, 2)) == 2


def test_paths_name_the_layers():
    paths = sorted(nn.to_paths(made()))
    assert paths[:2] == ["layers/0/bias", "layers/0/kernel"]


@pytest.mark.parametrize("layers", [nn.Dense(3), jax.nn.relu, None])
def test_a_single_layer_is_refused_and_the_fix_works(layers):
    with pytest.raises(ConfigError, match=r"^Sequential: `layers`.*LN-VALUE-04") as e:
        nn.Sequential(layers)
    scope = {"layers": layers}
    exec(e.value.fixes[0][1], scope)
    assert callable(layers) == (scope["layers"] == [layers] and layers is not None)


def test_what_cannot_be_called_is_refused_and_the_fix_works():
    layers = [nn.Dense(3), None]
    with pytest.raises(ConfigError, match=r"`layers\[1\]` is a NoneType") as caught:
        nn.Sequential(layers)
    scope = {"layers": layers}
    exec(caught.value.fixes[0][1], scope)
    assert len(nn.Sequential(scope["layers"])) == 1


def test_jit_of_a_model_of_functions_compiles_once():
    model = nn.Sequential([jnp.tanh, jnp.sin])
    traces = []

    @jax.jit
    def run(model, x):
        traces.append(1)
        return model(x)

    x = normal((3,))
    assert_close(run(model, x), jnp.sin(jnp.tanh(x)))
    run(nn.Sequential([jnp.tanh, jnp.sin]), x)
    assert len(traces) == 1
