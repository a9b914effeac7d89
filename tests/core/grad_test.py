"""Gradients by part of a model, against jax.grad on plain dicts of arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import assert_close, normal
from linnet import nn

KEY = jax.random.key(0)
X = normal((4, 3))


class Net(nn.Module):
    def __init__(self):
        self.hidden = nn.Dense(5)
        self.norm = nn.BatchNorm()
        self.out = nn.Dense(2)
        self.scale = nn.constant(jnp.ones((1, 2)))

    def __call__(self, x):
        return self.out(self.norm(jnp.tanh(self.hidden(x)))) * self.scale


MODEL = nn.init(Net(), KEY, X)
ARRAYS = nn.to_paths(MODEL)


def loss(model, x=X):
    return (model(x) ** 2).mean()


def plain_gradient(paths):
    """By JAX alone: the model as a function of a flat dict."""
    rest = {path: x for path, x in ARRAYS.items() if path not in paths}

    def function(wanted):
        return loss(nn.from_paths(MODEL, wanted | rest))

    return jax.grad(function)({path: ARRAYS[path] for path in paths})


TRAINED = [
    path for path in ARRAYS if path.split("/")[-1] not in ("mean", "var", "scale")
]
TRAINED += ["norm/scale"]
WHERES = {
    "default": (None, TRAINED),
    "role": (nn.BatchStat, ["norm/mean", "norm/var"]),
    "constant": (nn.Constant, ["scale"]),
    "pattern": ("**/kernel", ["hidden/kernel", "out/kernel"]),
    "subtree": ("hidden", ["hidden/kernel", "hidden/bias"]),
    "dotted": ("hidden.kernel", ["hidden/kernel"]),
    "type": (nn.Dense, [p for p in ARRAYS if p.startswith(("hidden", "out"))]),
    "predicate": (
        lambda path, x: x.ndim == 2,
        ["hidden/kernel", "out/kernel", "scale"],
    ),
    "tuple": (("out/bias", nn.BatchNorm), ["out/bias", *nn.select(MODEL, "norm")]),
    "list": (["out/bias", "scale"], ["out/bias", "scale"]),
}


@pytest.mark.parametrize("name", WHERES)
def test_the_gradient_is_by_what_was_asked_for(name):
    where, paths = WHERES[name]
    options = {} if where is None else {"wrt": where}
    value, grads = nn.value_and_grad(loss, **options)(MODEL)
    assert_close(value, loss(MODEL))
    assert set(nn.to_paths(grads)) == set(paths)
    assert_close(nn.to_paths(grads), plain_gradient(paths), rtol=1e-4)
    assert_close(nn.grad(loss, **options)(MODEL), grads, rtol=0, atol=0)


def test_it_has_the_structure_of_params():
    grads = nn.grad(loss)(MODEL)
    assert jax.tree.structure(grads) == jax.tree.structure(nn.params(MODEL))
    assert isinstance(grads, Net)


def test_aux_carries_the_updated_model():
    def loss_fn(model):
        out, model = nn.training(model, KEY)(X)
        return (out**2).mean(), model

    (value, model), grads = nn.value_and_grad(loss_fn, has_aux=True)(MODEL)
    assert_close(value, loss_fn(MODEL)[0])
    assert_close(model, nn.training(MODEL, KEY)(X)[1])
    assert not np.allclose(model.norm.mean, MODEL.norm.mean)
    again, same = nn.grad(loss_fn, has_aux=True)(MODEL)
    assert_close(again, grads)
    assert_close(same, model)


def test_arguments_and_keywords_are_passed_on():
    grads = nn.grad(lambda m, a, *, b: a * b * loss(m))(MODEL, 2.0, b=3.0)
    expected = jax.tree.map(lambda g: 6 * g, nn.grad(loss)(MODEL))
    assert_close(grads, expected)


@pytest.mark.parametrize("kind", [tuple, list, dict])
def test_several_models(kind):
    other = nn.init(nn.Dense(2), KEY, X)
    both = {"a": MODEL, "b": other} if kind is dict else kind([MODEL, other])
    names = ("a", "b") if kind is dict else (0, 1)

    def distance(models):
        return ((models[names[0]](X) - models[names[1]](X)) ** 2).mean()

    grads = nn.grad(distance)(both)
    assert type(grads) is type(both)
    first = nn.grad(lambda m: ((m(X) - other(X)) ** 2).mean())(MODEL)
    second = nn.grad(lambda m: ((MODEL(X) - m(X)) ** 2).mean())(other)
    assert_close(grads[names[0]], first)
    assert_close(grads[names[1]], second)
    only = nn.grad(distance, f"{names[1]}/kernel")(both)
    assert list(nn.to_paths(only)) == [f"{names[1]}/kernel"]


def test_several_models_are_trained_together():
    tx = optax.adam(1e-1)
    models = {"a": MODEL, "b": nn.init(nn.Dense(2), KEY, X)}
    state = tx.init(nn.params(models))

    @jax.jit
    def step(models, state):
        def loss_fn(models):
            out, a = nn.training(models["a"], KEY)(X)
            return ((out - models["b"](X)) ** 2).mean(), models | {"a": a}

        (value, models), grads = nn.value_and_grad(loss_fn, has_aux=True)(models)
        updates, state_ = tx.update(grads, state, nn.params(models))
        return nn.apply_updates(models, updates), state_, value

    models, state, first = step(models, state)
    for _ in range(5):
        models, state, value = step(models, state)
    assert value < first
    assert not np.allclose(models["a"].norm.mean, MODEL.norm.mean)


def test_arrays_beside_models_are_taken_where_they_are_selected():
    both = {"model": MODEL, "temperature": jnp.array(2.0)}

    def scaled(tree):
        return loss(tree["model"]) * tree["temperature"]

    assert nn.grad(scaled)(both)["temperature"] is None
    assert nn.params(both)["temperature"] is None
    grads = nn.grad(scaled, (nn.Param, "temperature"))(both)
    assert_close(grads["temperature"], loss(MODEL))
    assert_close(grads["model"].out.bias, 2 * nn.grad(loss)(MODEL).out.bias)


def test_without_a_model_it_is_that_of_jax():
    tree = {"a": normal((2,)), "b": (normal((3,), 1),)}

    def function(tree):
        return jnp.sin(tree["a"]).sum() * tree["b"][0].prod()

    assert_close(nn.grad(function)(tree), jax.grad(function)(tree))


def test_transforms_around_and_inside():
    expected = nn.grad(loss)(MODEL)
    assert_close(jax.jit(nn.grad(loss))(MODEL), expected)
    of_rows = jax.vmap(nn.grad(lambda m, x: loss(m, x[None])), (None, 0))
    rows = jax.jit(of_rows)(MODEL, X)
    assert_close(jax.tree.map(lambda g: g.mean(0), rows), expected, rtol=1e-4)

    @jax.jit
    def penalty(model):
        return optax.tree.norm(nn.grad(loss)(model), squared=True)

    second = jax.jit(nn.grad(penalty, "out/bias"))(MODEL).out.bias
    nudged = [
        penalty(nn.select(MODEL, "out/bias").map(lambda b, s=s: b.at[0].add(s)))
        for s in (1e-2, -1e-2)
    ]
    assert_close(second[0], (nudged[0] - nudged[1]) / 2e-2, rtol=1e-2)


def test_jax_grad_takes_models_too():
    floats = jax.grad(loss)(MODEL)
    ours = nn.grad(loss, nn.Role)(MODEL)
    assert_close(floats, ours)


def test_integer_state_is_no_obstacle():
    class Counting(nn.Module):
        def __init__(self):
            self.dense = nn.Dense(1)
            self.count = nn.state(0)
            self.key = nn.constant(jax.random.key(3))

        def __call__(self, x):
            self.count = self.count + 1
            return self.dense(x)

    model = nn.init(Counting(), KEY, X)

    def loss_fn(model):
        out, model = nn.training(model)(X)
        return out.sum(), model

    (_, model), grads = nn.value_and_grad(loss_fn, has_aux=True)(model)
    assert int(model.count) == 1
    assert grads.count is None
    assert_close(grads.dense.bias, np.full(1, 4.0))


def test_what_is_wrong_is_refused():
    with pytest.raises(nn.InitError, match="LN-INIT-01"):
        nn.grad(loss)(Net())
    with pytest.raises(nn.PathError, match="LN-PATH-01"):
        nn.grad(loss, "hiden/kernel")(MODEL)
    with pytest.raises(nn.ConfigError, match="LN-GRAD-02"):
        nn.grad(loss, nn.Cache)(MODEL)
    with pytest.raises(nn.ConfigError, match="LN-WHERE-01"):
        nn.grad(loss, 3)(MODEL)
    with pytest.raises(nn.ConfigError, match="LN-GRAD-01"):
        nn.value_and_grad(lambda m: (loss(m), m))(MODEL)
    with pytest.raises(nn.ConfigError, match="LN-GRAD-01"):
        nn.value_and_grad(loss, has_aux=True)(MODEL)


def test_a_dropped_update_is_refused_and_a_visible_one_is_not():
    def lost(model):
        return nn.training(model, KEY)(X)[0].sum()

    def dropped(model):
        return nn.training(model, KEY, update=False)(X).sum()

    with pytest.raises(nn.TreeError, match="LN-STATE-05"):
        nn.grad(lost)(MODEL)
    assert nn.grad(dropped)(MODEL).out.bias.shape == (2,)
