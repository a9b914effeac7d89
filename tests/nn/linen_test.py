"""Modules of Linen in native models, and native ones in those of Linen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linnet import interop, nn
from linnet.compat.flax import errors, linen

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (4, 3))


class Net(linen.Module):
    """Parameters, statistics and randomness."""

    @linen.compact
    def __call__(self, x, train=False):
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(8)(x))
        return linen.Dropout(0.5, deterministic=not train)(x)


def native():
    return nn.from_linen(Net(), mode=lambda training: {"train": training})


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


def test_init_gives_what_linen_makes_of_the_key():
    model, variables = nn.init(native(), KEY, X), Net().init(KEY, X)
    jax.tree.map(np.testing.assert_array_equal, model.variables, variables)
    np.testing.assert_array_equal(model(X), Net().apply(variables, X))


def test_training_writes_the_statistics_as_linen_does():
    model, dropout = nn.init(native(), KEY, X), jax.random.key(2)
    out, trained = nn.training(model, dropout)(X)
    _, updates = Net().apply(
        model.variables, X, True, mutable=["batch_stats"], rngs={"dropout": KEY}
    )
    statistics = {"batch_stats": trained.variables["batch_stats"]}
    jax.tree.map(np.testing.assert_array_equal, statistics, updates)
    assert float((out == 0).mean()) > 0.2, "nothing was dropped"
    assert jax.tree.structure(trained) == jax.tree.structure(model)


def test_a_linen_module_is_one_layer_among_native_ones():
    model = nn.Sequential([nn.Dense(5), nn.from_linen(linen.Dense(6)), nn.BatchNorm()])
    expected = [(3, 5), (5,), (6,), (5, 6), (6,), (6,), (6,), (6,)]
    assert [x.shape for x in jax.tree.leaves(nn.abstract(model, X))] == expected
    model = nn.init(model, KEY, jax.ShapeDtypeStruct(X.shape, X.dtype))
    assert [x.shape for x in jax.tree.leaves(model)] == expected
    loss = lambda model: (nn.training(model, update=False)(X) ** 3).sum()  # noqa: E731
    grads = nn.grad(loss)(model)
    assert float(jnp.abs(grads.layers[1].params["kernel"]).max()) > 0


def test_given_variables_stay_and_fill_a_stack():
    variables = linen.Dense(3).init(KEY, X)
    layer = nn.from_linen(linen.Dense(3), variables)
    np.testing.assert_array_equal(layer(X), linen.Dense(3).apply(variables, X))
    assert nn.Stack(layer, 2)(X).shape == X.shape


def test_names_of_axes_come_along():
    init = linen.with_partitioning(linen.initializers.lecun_normal(), ("in", "out"))
    model = nn.init(nn.from_linen(linen.Dense(2, kernel_init=init)), KEY, X)
    described = nn.describe(model)
    assert model(X).shape == (4, 2)
    assert described._spec.leaves[_path("params", "kernel")].axes == ("in", "out")


def _path(name, key):
    return (jax.tree_util.GetAttrKey(name), jax.tree_util.DictKey(key))


def test_a_cache_is_written_step_by_step():
    block = linen.MultiHeadDotProductAttention(2, qkv_features=4, decode=True)
    model = nn.init(nn.from_linen(block), KEY, jnp.ones((1, 5, 3)))
    for step in range(1, 3):
        _, model = nn.stateful(model)(jnp.ones((1, 1, 3)))
        assert int(model.state["cache"]["cache_index"]) == step


def test_other_methods_have_the_same_variables():
    class Coder(linen.Module):
        def setup(self):
            self.encoder, self.decoder = linen.Dense(2), linen.Dense(3)

        def encode(self, x):
            return self.encoder(x)

        def __call__(self, x):
            return self.decoder(self.encode(x))

    model = nn.init(nn.from_linen(Coder()), KEY, X)
    assert model.call("encode", X).shape == (4, 2)


# ---- native ones in those of Linen


class Mixed(linen.Module):
    """The same net, of native layers."""

    @linen.compact
    def __call__(self, x, train=False):
        x = interop.to_linen(nn.Dense(8))(x)
        x = interop.to_linen(nn.BatchNorm())(x, train=train)
        return interop.to_linen(nn.Dropout(0.5))(x, train=train)


def test_a_native_layer_has_the_variables_of_linens():
    assert shapes(Mixed().init(KEY, X)) == shapes(Net().init(KEY, X))
    variables = Net().init(KEY, X)
    np.testing.assert_allclose(
        Mixed().apply(variables, X), Net().apply(variables, X), atol=1e-6
    )


def test_a_native_layer_trains_like_linens():
    variables, rngs = Net().init(KEY, X), {"dropout": KEY}
    _, native_stats = Mixed().apply(
        variables, X, True, mutable=["batch_stats"], rngs=rngs
    )
    _, stats = Net().apply(variables, X, True, mutable=["batch_stats"], rngs=rngs)
    assert shapes(native_stats) == shapes(stats)
    with pytest.raises(errors.ModifyScopeVariableError, match="immutable"):
        Mixed().apply(variables, X, True, rngs=rngs)
    with pytest.raises(errors.InvalidRngError, match="Dropout_0"):
        Mixed().apply(variables, X, True, mutable=["batch_stats"])


def test_a_native_layer_goes_through_lifted_transforms():
    class Steps(linen.Module):
        @linen.compact
        def __call__(self, x):
            step = lambda module, x, _: (interop.to_linen(nn.Dense(3))(x), None)  # noqa: E731
            each = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
            return linen.scan(step, **each, length=4)(self, x, None)[0]

    variables = Steps().init(KEY, X)
    assert variables["params"]["Dense_0"]["kernel"].shape == (4, 3, 3)
    assert Steps().apply(variables, X).shape == X.shape


def test_there_and_back_again():
    model = nn.init(nn.from_linen(Mixed()), KEY, X)
    np.testing.assert_array_equal(model(X), Mixed().apply(model.variables, X))
