"""MLP: its definition, its gates, and what it refuses."""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ShapeError

KEY = jax.random.key(0)
SPREAD = nn.initializers.normal(1.0)


def made(layer, x):
    return nn.init(layer, KEY, x)


class Linen(flax.linen.Module):
    """The same layers, written with Linen's Dense."""

    sizes: tuple[int, ...]
    features: int
    gated: bool = False

    @flax.linen.compact
    def __call__(self, x):
        for i, size in enumerate(self.sizes):
            h = flax.linen.Dense(size, name=f"hidden_{i}")(x)
            if self.gated:
                gate = flax.linen.Dense(size, name=f"gate_{i}")(x)
                x = jax.nn.gelu(gate) * h
            else:
                x = jax.nn.gelu(h)
        return flax.linen.Dense(self.features, name="out")(x)


def as_linen(model):
    """The arrays of an MLP under the names of Linen's layers."""
    params = {}
    for path, array in nn.to_paths(model).items():
        *layer, name = path.split("/")
        params.setdefault("_".join(layer), {})[name] = array
    return {"params": params}


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("hidden", "features"), [(5, None), ((5,), 2), ((5, 4), None), ((), 2)]
)
def test_values_and_gradients_agree_with_layers_of_linen(hidden, features, gated):
    x = normal((2, 4, 3))
    layer = nn.MLP(hidden, out_features=features, gated=gated, bias_init=SPREAD)
    model = made(layer, x)
    sizes = hidden if isinstance(hidden, tuple) else (hidden,)
    linen = Linen(sizes, features or 3, gated)
    weight = normal((2, 4, features or 3), 1)

    def ours(model, x):
        return (model(x) * weight).sum()

    def theirs(variables, x):
        return (linen.apply(variables, x) * weight).sum()

    assert_close(model(x), linen.apply(as_linen(model), x))
    grads, grad_x = jax.grad(ours, (0, 1))(model, x)
    expected, expected_x = jax.grad(theirs, (0, 1))(as_linen(model), x)
    assert_close(as_linen(grads), expected)
    assert_close(grad_x, expected_x)


def test_the_result_is_as_wide_as_the_input_unless_told():
    x = normal((2, 3))
    model = made(nn.MLP(5), x)
    assert model(x).shape == (2, 3)
    assert made(nn.MLP(5, out_features=1), x)(x).shape == (2, 1)
    with pytest.raises(ShapeError, match=r"hidden\[0\] \(Dense\): `kernel`"):
        model(normal((2, 4)))


def test_sizes_known_beforehand_hold_at_init():
    with pytest.raises(ShapeError, match="LN-SHAPE-03"):
        made(nn.MLP(5, in_features=4), normal((2, 3)))


def test_a_module_may_be_the_activation():
    class Slope(nn.Module):
        def __init__(self):
            self.slope = nn.param(nn.initializers.ones, ())

        def __call__(self, x):
            return self.slope * x

    x = normal((2, 3))
    model = made(nn.MLP([4, 4], activation=Slope()), x)
    twice = model.replace(activation=model.activation.replace(slope=jnp.float32(2)))
    assert_close(twice(x), 4 * model(x), rtol=1e-5)  # biases start at zero


def test_dropout_is_between_the_layers():
    x = normal((50, 3))
    model = made(nn.MLP(8, dropout_rate=0.5, activation=jax.nn.relu), x)
    model = nn.select(model, "out/kernel").map(lambda k: jnp.eye(*k.shape))
    h = jax.nn.relu(model.hidden[0](x))[:, :3]
    y, _ = nn.training(model, KEY)(x)
    y, h = np.asarray(y), np.asarray(h)
    dropped = (y == 0) & (h > 0)
    assert 0.3 < dropped.sum() / (h > 0).sum() < 0.7
    assert_close(y[~dropped], 2 * h[~dropped])


def test_a_selection_of_dense_layers_finds_every_array():
    model = made(nn.MLP([5, 4], gated=True), normal((2, 3)))
    assert sorted(nn.select(model, nn.Dense)) == sorted(nn.to_paths(model))
