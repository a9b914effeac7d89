"""Selections: reading, mapping, setting, masks, freezing, and replacing modules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import assert_close, normal
from linnet import nn

KEY = jax.random.key(0)
X = normal((4, 3))


class Block(nn.Module):
    def __init__(self, width):
        self.dense = nn.Dense(width)
        self.norm = nn.LayerNorm()

    def __call__(self, x):
        return self.norm(jax.nn.gelu(self.dense(x)))


class Net(nn.Module):
    def __init__(self):
        self.blocks = [Block(4), Block(5)]
        self.heads = {"a": nn.Dense(2), "b": nn.Dense(2)}
        self.stats = nn.BatchNorm()

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        x = self.stats(x)
        return self.heads["a"](x) + self.heads["b"](x)


MODEL = nn.init(Net(), KEY, X)
ARRAYS = nn.to_paths(MODEL)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("blocks/0/dense/kernel", 1),
        ("blocks[0].dense.kernel", 1),
        (".blocks[1].dense", 2),
        ("heads['a'].kernel", 1),
        ("blocks", 8),
        ("blocks/*/dense", 4),
        ("**/kernel", 4),
        ("**/dense/**", 4),
        ("*/*/kernel", 2),
        ("**/b*", 12),
        ("**", len(ARRAYS)),
        ("", len(ARRAYS)),
    ],
)
def test_patterns(pattern, count):
    chosen = nn.select(MODEL, pattern)
    assert len(chosen) == count
    assert all(chosen[path] is ARRAYS[path] for path in chosen)
    assert list(chosen) == [path for path in ARRAYS if path in chosen]


@pytest.mark.parametrize(
    "pattern", ["kernel", "blocks/2", "block", "*/kernel", "heads/A"]
)
def test_a_pattern_that_matches_nothing_is_refused_and_says_what_there_is(pattern):
    with pytest.raises(nn.PathError, match="LN-PATH-01") as caught:
        nn.select(MODEL, pattern)
    for _, code in caught.value.fixes:
        scope = {}
        exec(code, scope)
        assert len(nn.select(MODEL, scope["pattern"])) > 0


def test_a_selection_is_a_mapping():
    chosen = nn.select(MODEL, "heads")
    assert dict(chosen).keys() == {p for p in ARRAYS if p.startswith("heads")}
    assert "heads/a/bias" in chosen
    assert "blocks/0/dense/bias" not in chosen
    assert repr(chosen).startswith("Selection(heads/a/kernel: float32[5, 2]")
    with pytest.raises(KeyError):
        chosen["nope"]


def test_map_changes_what_is_selected_and_nothing_else():
    model = nn.select(MODEL, "**/kernel").map(lambda x: 2 * x)
    for path, x in nn.to_paths(model).items():
        if path.endswith("kernel"):
            assert_close(x, 2 * ARRAYS[path])
        else:
            assert x is ARRAYS[path]
    model = nn.select(MODEL, "heads").map(lambda path, x: x + len(path), with_path=True)
    assert_close(model.heads["a"].bias, MODEL.heads["a"].bias + len("heads/a/bias"))


def test_set_takes_a_number_an_array_or_a_dict():
    model = nn.select(MODEL, "heads/*/bias").set(3)
    assert_close(model.heads["b"].bias, np.full(2, 3.0))
    assert model.heads["b"].bias.dtype == jnp.float32
    model = nn.select(MODEL, "heads/*/bias").set(np.array([1.0, 2.0]))
    assert_close(model.heads["a"].bias, np.array([1.0, 2.0]))
    model = nn.select(MODEL, "heads").set({"heads/a/bias": np.ones(2)})
    assert_close(model.heads["a"].bias, np.ones(2))
    assert model.heads["b"].bias is MODEL.heads["b"].bias
    with pytest.raises(nn.ShapeError, match="LN-TREE-04"):
        nn.select(MODEL, "heads/a").set(np.ones(3))
    with pytest.raises(nn.PathError, match="LN-PATH-01"):
        nn.select(MODEL, "heads").set({"heads/c/bias": np.ones(2)})


def test_predicates_and_types_and_tuples():
    big = nn.select(MODEL, lambda path, x: x.size > 12)
    assert all(x.size > 12 for x in big.values())
    assert len(big) == sum(x.size > 12 for x in ARRAYS.values())
    assert list(nn.select(MODEL, Block)) == list(nn.select(MODEL, "blocks"))
    both = nn.select(MODEL, (nn.LayerNorm, "heads/a/bias"))
    assert len(both) == 5


# ---- masks


def test_masks_serve_optax():
    params = nn.params(MODEL)
    mask = nn.select(params, "**/kernel").mask()
    assert jax.tree.structure(mask) == jax.tree.structure(params)
    tx = optax.add_decayed_weights(0.5, mask=mask)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    for path, update in nn.to_paths(updates).items():
        expected = 0.5 * ARRAYS[path] if path.endswith("kernel") else zeros
        if path.endswith("kernel"):
            assert_close(update, expected)
        else:
            assert not update.any()


def test_optax_masked_and_multi_transform():
    params = nn.params(MODEL)
    mask = nn.select(params, "heads").mask()
    grads = jax.tree.map(jnp.ones_like, params)
    tx = optax.masked(optax.scale(-2.0), mask)
    updates, _ = tx.update(grads, tx.init(params), params)
    labels = jax.tree.map(lambda hit: "fast" if hit else "frozen", mask)
    both = optax.multi_transform(
        {"fast": optax.sgd(2.0), "frozen": optax.set_to_zero()},
        lambda _: labels,  # a model can be called, so Optax must not ask
    )
    others, _ = both.update(grads, both.init(params), params)
    for path in nn.to_paths(params):
        fast = path.startswith("heads")
        assert_close(
            nn.to_paths(updates)[path], np.full_like(ARRAYS[path], [1, -2][fast])
        )
        assert_close(
            nn.to_paths(others)[path], np.full_like(ARRAYS[path], [0, -2][fast])
        )


# ---- freezing


def trained(model, steps=3):
    tx = optax.adamw(1e-1, weight_decay=0.1)
    state = tx.init(nn.params(model))

    @jax.jit
    def step(model, state):
        def loss_fn(model):
            out, model = nn.training(model, KEY)(X)
            return (out**2).mean(), model

        (_, model), grads = nn.value_and_grad(loss_fn, has_aux=True)(model)
        updates, state = tx.update(grads, state, nn.params(model))
        return nn.apply_updates(model, updates), state

    for _ in range(steps):
        model, state = step(model, state)
    return model, state


def test_what_is_frozen_stays_bit_for_bit_and_the_rest_learns():
    frozen = nn.select(MODEL, "blocks").freeze()
    assert list(nn.select(frozen, nn.Frozen)) == list(nn.select(MODEL, "blocks"))
    assert_close(frozen(X), MODEL(X), rtol=0, atol=0)
    model, state = trained(frozen)
    for path, x in nn.to_paths(model).items():
        same = np.array_equal(x, ARRAYS[path])
        assert same == path.startswith("blocks"), path
    assert all(not p.startswith("blocks") for p in nn.to_paths(state[0].mu))


def test_unfreezing_gives_the_model_back():
    frozen = nn.select(MODEL, "blocks").freeze()
    assert frozen != MODEL
    thawed = nn.select(frozen, "blocks").unfreeze()
    assert thawed == MODEL
    assert jax.tree.structure(thawed) == jax.tree.structure(MODEL)
    part = nn.select(frozen, "blocks/0").unfreeze()
    assert set(nn.select(part, nn.Frozen)) == set(nn.select(MODEL, "blocks/1"))
    twice = nn.select(frozen, "blocks").freeze()
    assert nn.select(twice, "**").unfreeze() == MODEL


def test_freezing_reaches_parameters_only_and_keeps_the_users_role():
    class Mine(nn.Param):
        pass

    class Model(nn.Module):
        def __init__(self):
            self.pair = [nn.param(jnp.ones(2), role=Mine), nn.state(jnp.ones(2))]
            self.made = [nn.param(nn.initializers.ones, (3,), role=Mine)]

        def __call__(self, x):
            return x * self.pair[0] + self.pair[1] + self.made[0].sum()

    described = nn.select(Model(), "**").freeze()
    ready = nn.select(nn.init(Model(), KEY, X[0, :2]), "**").freeze()
    assert nn.init(described, KEY, X[0, :2]) == ready
    assert nn.describe(ready).made == described.made
    assert list(nn.select(ready, nn.Frozen)) == ["pair/0", "made/0"]
    assert list(nn.select(ready, nn.State)) == ["pair/1"]
    assert list(nn.select(nn.select(ready, "**").unfreeze(), Mine)) == [
        "pair/0",
        "made/0",
    ]


def test_freezing_a_description_and_several_models():
    described = nn.select(Net(), "blocks").freeze()
    assert nn.init(described, KEY, X) == nn.select(MODEL, "blocks").freeze()
    pair = nn.select((MODEL, MODEL), "0").freeze()
    assert jax.tree.leaves(nn.params(pair[0])) == []
    assert pair[1] == MODEL


# ---- modules


def test_map_modules_by_type_pattern_and_predicate():
    def wider(dense):
        return nn.Dense(dense.features, use_bias=False)

    by_type = nn.select(MODEL, nn.Dense).map_modules(wider)
    assert [p for p in nn.to_paths(by_type) if p.endswith("kernel")] == []
    assert nn.init(by_type, KEY, X)(X).shape == (4, 2)
    by_path = nn.select(MODEL, "heads/*").map_modules(wider)
    assert by_path.blocks[0] is MODEL.blocks[0]
    assert by_path.heads["a"].bias is None
    by_predicate = nn.select(MODEL, lambda path, m: path.endswith("norm")).map_modules(
        lambda m: m.replace(epsilon=1e-3)
    )
    assert [b.norm.epsilon for b in by_predicate.blocks] == [1e-3, 1e-3]
    assert by_predicate.stats == MODEL.stats


def test_map_modules_takes_options_off_and_modules_out():
    class Dropping(nn.Module):
        def __init__(self):
            self.layers = [nn.Dropout(0.5), nn.Dense(2), nn.Dropout(0.1)]

        def __call__(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    model = nn.init(Dropping(), KEY, X)
    quiet = nn.select(model, nn.Dropout).map_modules(lambda d: d.replace(rate=0.0))
    assert_close(nn.training(quiet)(X)[0], model(X))
    assert [layer.rate for layer in quiet.layers[::2]] == [0.0, 0.0]


def test_modules_without_arrays_are_found_by_path_and_predicate():
    model = nn.Sequential([nn.Dropout(0.5), nn.Dense(2), nn.Dropout(0.1)])
    first = nn.select(model, "layers/0").map_modules(lambda d: d.replace(rate=0.2))
    assert [m.rate for m in first.layers[::2]] == [0.2, 0.1]
    rare = nn.select(model, lambda path, m: getattr(m, "rate", 1.0) < 0.3)
    rare = rare.map_modules(lambda d: d.replace(rate=0.3))
    assert [m.rate for m in rare.layers[::2]] == [0.5, 0.3]
    with pytest.raises(nn.PathError, match="LN-PATH-01"):
        nn.select(model, "layers/0").map(jnp.zeros_like)
    with pytest.raises(nn.PathError, match=r"'layers/1/bias'.*LN-PATH-01"):
        nn.select(model, ("layers/0", "layers/1/bias")).map_modules(lambda m: m)


def test_a_predicate_may_ask_a_description_for_its_shapes():
    model = nn.select(Net(), lambda path, x: x.ndim == 2).freeze()
    assert set(nn.select(model, nn.Frozen)) == set(nn.select(MODEL, "**/kernel"))


def test_map_modules_does_not_visit_what_it_made_nor_the_inside_of_it():
    class Wrap(nn.Module):
        def __init__(self, inner):
            self.inner = inner

        def __call__(self, x):
            return self.inner(x)

    model = nn.select(MODEL, (Block, nn.Dense)).map_modules(Wrap)
    assert isinstance(model.blocks[0].inner, Block)
    assert isinstance(model.blocks[0].inner.dense, nn.Dense)
    assert isinstance(model.heads["a"].inner, nn.Dense)
    assert_close(model(X), MODEL(X), rtol=0, atol=0)


def test_map_modules_refuses_roles_and_what_matches_nothing():
    with pytest.raises(nn.ConfigError, match="LN-WHERE-02"):
        nn.select(MODEL, nn.Param).map_modules(lambda m: m)
    with pytest.raises(nn.PathError, match="LN-PATH-01"):
        nn.select(MODEL, nn.Conv).map_modules(lambda m: m)
