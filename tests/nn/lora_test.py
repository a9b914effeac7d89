"""Adapters: what they compute, what is trained, and that merging undoes them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, InitError, PathError
from linnet.nn._lora_layer import LoRAConv, LoRADense, LoRADenseGeneral, LoRAEmbed
from linnet.testing import check_layer
from zoo import ids, sample

KEY = jax.random.key(0)
IDS = jnp.arange(6).reshape(2, 3)
KINDS = (nn.Dense, nn.DenseGeneral, nn.Conv, nn.Embed)
SPREAD = nn.initializers.normal(1.0)


class Net(nn.Module):
    """Each kind of layer that can be adapted, in each kind of place."""

    def __init__(self):
        block = nn.Sequential([nn.Dense(4), jax.nn.gelu, nn.LayerNorm()])
        self.embed = nn.Embed(7, 4)
        self.blocks = nn.Stack(block, 3)
        self.conv = nn.Conv(5, (2,), strides=2, padding="CAUSAL")
        self.many = nn.Ensemble(nn.Stack(nn.Dense(5), 2), 3)
        self.split = nn.DenseGeneral((2, 3))
        self.join = nn.DenseGeneral(5, axis=(-2, -1))
        self.heads = {"a": nn.Dense(2), "b": [nn.Dense(3, use_bias=False)]}

    def __call__(self, ids):
        x = self.conv(self.blocks(self.embed(ids)))
        x = self.join(self.split(self.many(x).sum(0)))
        return self.heads["a"](x), self.heads["b"][0](x)


def net():
    return nn.init(Net(), KEY, IDS)


def adapted(model, where=KINDS, **options):
    return nn.lora(model, where, 2, 4.0, jax.random.key(1), **options)


def spread(model):
    """Adapters that do something."""
    return nn.select(model, nn.LoRAParam).map(
        lambda path, x: normal(x.shape, len(path)) / 4, with_path=True
    )


def test_a_new_adapter_changes_no_output():
    model = net()
    assert_close(adapted(model)(IDS), model(IDS), rtol=0, atol=0)


def test_merging_gives_back_the_structure_and_the_outputs():
    model = net()
    tuned = spread(adapted(model))
    merged = nn.merge_lora(tuned)
    assert jax.tree.structure(merged) == jax.tree.structure(model)
    assert_close(merged(IDS), tuned(IDS), rtol=1e-4, atol=1e-4)
    assert not np.allclose(merged(IDS)[0], model(IDS)[0])


def test_merging_untrained_adapters_gives_back_the_model():
    model = net()
    assert nn.merge_lora(adapted(model)) == model


@pytest.mark.parametrize("part", ["blocks/**/0", "heads/b/0", "conv"])
def test_parts_are_selected_by_pattern(part):
    chosen = nn.select(adapted(net(), part), nn.LoRAParam)
    assert len(chosen) == 2


def test_a_module_around_layers_stands_for_all_of_them():
    chosen = nn.select(adapted(net(), "blocks"), nn.LoRAParam)
    assert list(chosen) == [
        "blocks/block/layers/0/lora_a",
        "blocks/block/layers/0/lora_b",
    ]
    assert len(nn.select(adapted(net(), "**"), nn.LoRAParam)) == 16


def test_layers_of_a_stack_have_adapters_of_their_own():
    model = spread(adapted(net()))
    first = model.blocks.block.layers[0]
    assert first.lora_a.shape == (3, 4, 2)
    assert len(np.unique(np.asarray(first.lora_a))) == 24
    x = normal((2, 4))
    layers = list(model.blocks)
    expected = x
    for layer in layers:
        expected = layer(expected)
    assert_close(model.blocks(x), expected)
    assert jax.tree.structure(nn.merge_lora(layers[0])) == jax.tree.structure(
        net().blocks[0]
    )


def test_starts_depend_on_the_path_alone():
    few, all_of_them = adapted(net(), "heads/a"), adapted(net())
    assert_close(few.heads["a"].lora_a, all_of_them.heads["a"].lora_a, rtol=0, atol=0)
    deeper = nn.init(nn.Stack(nn.Dense(4), 5), KEY, jnp.ones((1, 4)))
    same = adapted(deeper, nn.Dense).block.lora_a[:3]
    three = adapted(nn.init(nn.Stack(nn.Dense(4), 3), KEY, jnp.ones((1, 4))), nn.Dense)
    assert_close(three.block.lora_a, same, rtol=0, atol=0)


def test_only_adapters_are_trained_by_default():
    model = adapted(net())
    kinds = {path.split("/")[-1] for path in nn.to_paths(nn.params(model))}
    assert kinds == {"lora_a", "lora_b"}
    grads = nn.grad(lambda m: m(IDS)[0].sum(), wrt=nn.LoRAParam)(model)
    assert jax.tree.structure(grads) == jax.tree.structure(nn.params(model))


def test_another_part_can_be_trained_beside_them():
    model = nn.select(adapted(net(), "blocks"), "heads/a").unfreeze()
    trained = list(nn.to_paths(nn.params(model)))
    assert [p for p in trained if "lora" not in p] == ["heads/a/kernel", "heads/a/bias"]
    assert len(nn.select(model, nn.LoRAParam)) == 2
    assert nn.merge_lora(model) == net()


def test_what_was_frozen_before_stays_frozen_after_merging():
    model = nn.select(net(), "embed").freeze()
    assert nn.merge_lora(adapted(model)) == model


def test_adapters_can_be_added_to_other_layers_later():
    model = nn.lora(adapted(net(), "blocks"), "heads/**", 1, 1.0, KEY)
    assert len(nn.select(nn.params(model), nn.LoRAParam)) == 6
    assert nn.merge_lora(model) == net()


def test_a_training_loop_learns_by_adapters_alone():
    x, y = normal((32, 4)), normal((32, 3), 1)
    model = nn.init(nn.Sequential([nn.Dense(8), jnp.tanh, nn.Dense(3)]), KEY, x)
    tuned = nn.lora(model, nn.Dense, 3, 3.0, KEY)
    tx = optax.adam(3e-2)

    def loss_fn(model):
        return ((model(x) - y) ** 2).mean()

    @jax.jit
    def step(model, opt_state):
        loss, grads = nn.value_and_grad(loss_fn)(model)
        updates, opt_state = tx.update(grads, opt_state)
        return nn.apply_updates(model, updates), opt_state, loss

    before, opt_state = tuned, tx.init(nn.params(tuned))
    for _ in range(60):
        tuned, opt_state, _ = step(tuned, opt_state)
    assert loss_fn(tuned) < 0.7 * loss_fn(before)
    assert tuned[0].base == before[0].base
    assert_close(loss_fn(nn.merge_lora(tuned)), loss_fn(tuned), rtol=1e-4)


@pytest.mark.parametrize(("stabilized", "scale"), [(False, 2.0), (True, 4 / 2**0.5)])
def test_the_scale_is_alpha_over_the_rank_or_its_root(stabilized, scale):
    x = normal((5, 4))
    model = nn.init(nn.Dense(3), KEY, x)
    tuned = spread(adapted(model, nn.Dense, rank_stabilized=stabilized))
    delta = np.asarray(x, np.float64) @ np.asarray(tuned.lora_a) @ tuned.lora_b
    assert_close(tuned(x), model(x) + scale * delta)


def test_attend_uses_the_adapted_table():
    model = nn.init(nn.Embed(7, 4), KEY, IDS)
    tuned = spread(adapted(model, nn.Embed))
    merged = nn.merge_lora(tuned)
    x = normal((5, 4))
    assert_close(tuned.attend(x), merged.attend(x))
    assert_close(tuned(IDS), merged(IDS))


def test_dropout_is_on_the_adapters_input_and_in_training_only():
    x = jnp.ones((1, 4))
    model = spread(adapted(nn.init(nn.Dense(3), KEY, x), nn.Dense, dropout=0.5))
    plain = spread(adapted(nn.init(nn.Dense(3), KEY, x), nn.Dense))
    assert_close(model(x), plain(x))
    means = jax.vmap(lambda key: nn.training(model, key)(x)[0])(
        jax.random.split(KEY, 4000)
    )
    assert_close(means.mean(0), plain(x), atol=0.1)
    dropped = x.at[0, 1:].set(0) * 2
    options = [plain.base(x) + (plain(v) - plain.base(v)) for v in (dropped, 2 * x)]
    assert all(np.isclose(means, option).all(-1).any() for option in options)


def test_dropout_of_an_embedding_drops_whole_rows():
    model = nn.init(nn.Embed(7, 4), KEY, IDS)
    tuned = spread(adapted(model, nn.Embed, dropout=0.5))
    out, _ = nn.training(tuned, KEY)(jnp.zeros(64, jnp.int32))
    kept = model(IDS.ravel()[:1]) + 2 * (
        tuned(IDS.ravel()[:1]) - model(IDS.ravel()[:1])
    )
    rows = np.isclose(out, model(IDS.ravel()[:1])).all(-1)
    assert 10 < rows.sum() < 54
    assert_close(out[~rows], np.broadcast_to(kept, (64 - rows.sum(), 4)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_adapters_follow_the_dtype_of_the_layer(dtype):
    x = normal((2, 4), dtype=dtype)
    model = adapted(nn.init(nn.Dense(3, param_dtype=dtype), KEY, x), nn.Dense)
    assert model.lora_a.dtype == model.lora_b.dtype == dtype
    assert model(x).dtype == dtype
    wide = adapted(
        nn.init(nn.Dense(3, param_dtype=dtype), KEY, x), nn.Dense, param_dtype="float32"
    )
    assert wide.lora_a.dtype == "float32"
    assert wide(x).dtype == dtype
    assert nn.merge_lora(spread(wide)).kernel.dtype == dtype


def test_it_works_under_jit_and_eval_shape():
    model = net()
    inside = jax.jit(adapted)(model)
    assert_close(spread(inside)(IDS), spread(adapted(model))(IDS))
    shapes = jax.eval_shape(adapted, nn.abstract(Net(), IDS))
    assert jax.tree.structure(shapes) == jax.tree.structure(inside)
    merged = jax.jit(nn.merge_lora)(inside)
    assert jax.tree.structure(merged) == jax.tree.structure(model)


def test_several_models_can_be_adapted_at_once():
    models = {"one": nn.init(nn.Dense(3), KEY, jnp.ones((1, 2))), "two": net()}
    tuned = adapted(models, "one")
    assert list(nn.select(tuned, nn.LoRAParam)) == ["one/lora_a", "one/lora_b"]
    assert nn.merge_lora(tuned) == models


def test_logical_axes_are_those_of_the_weight():
    table = declared_axes(nn.describe(adapted(net())))
    assert table["embed/lora_a"] == ("vocab", None)
    assert table["embed/lora_b"] == (None, "features")
    assert table["conv/lora_a"] == (None, "in", None)
    assert table["heads/a/lora_b"] == (None, "out")


def declared_axes(model):
    found = {}
    nn.init(model, KEY, IDS, sharding=lambda path, d: found.update({path: d.axes}))
    return found


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (LoRADense(nn.Dense(4), 2, scale=2.0, lora_b_init=SPREAD), sample(8, 3)),
        (
            LoRAConv(nn.Conv(4, (3,)), 2, scale=2.0, lora_b_init=SPREAD),
            sample(4, 6, 3),
        ),
        (
            LoRADenseGeneral(
                nn.DenseGeneral((3, 4), axis=(-2, -1)),
                2,
                scale=2.0,
                lora_b_init=SPREAD,
            ),
            sample(4, 6, 3),
        ),
    ],
    ids=["Dense", "Conv", "join"],
)
def test_an_adapted_layer_is_a_layer(layer, x):
    check_layer(layer, x)


def test_an_adapted_table_is_a_layer():
    layer = LoRAEmbed(nn.Embed(5, 4), 2, scale=2.0, lora_b_init=SPREAD)
    check_layer(layer, ids(8, 3), refuses=["dtype"])


@pytest.mark.parametrize(
    ("where", "rank", "alpha", "options", "error"),
    [
        ("nowhere", 2, 4.0, {}, PathError),
        ("heads/a/kernel", 2, 4.0, {}, PathError),
        (nn.LayerNorm, 2, 4.0, {}, ConfigError),
        (nn.Dense, 3, 4.0, {}, ConfigError),
        (nn.Dense, 0, 4.0, {}, ConfigError),
        (nn.Dense, 2, -1.0, {}, ConfigError),
        (nn.Dense, 2, 4.0, {"dropout": 1.0}, ConfigError),
    ],
)
def test_what_makes_no_sense_is_refused(where, rank, alpha, options, error):
    with pytest.raises(error):
        nn.lora(net(), where, rank, alpha, KEY, **options)


def test_a_model_without_arrays_and_a_seed_for_a_key_are_refused():
    with pytest.raises(InitError, match="LN-INIT-01"):
        nn.lora(Net(), nn.Dense, 2, 4.0, KEY)
    with pytest.raises(InitError, match="LN-INIT-03"):
        nn.lora(net(), nn.Dense, 2, 4.0, 0)


def test_a_subclass_is_not_taken_for_its_parent():
    class Doubled(nn.Dense):
        def __call__(self, x):
            return 2 * super().__call__(x)

    model = nn.init(Doubled(3), KEY, jnp.ones((1, 2)))
    with pytest.raises(ConfigError, match=r"selects a Doubled.*LN-WHERE-03"):
        nn.lora(model, nn.Dense, 2, 4.0, KEY)
