"""Quantised models: the error, the memory, the way back, and adapters on top."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, DTypeError, InitError, ShapeError, TreeError

KEY = jax.random.key(0)
IDS = jnp.arange(6).reshape(2, 3)


class Net(nn.Module):
    """Each kind of layer that can be quantised, in each kind of place."""

    def __init__(self):
        block = nn.Sequential([nn.Dense(8), jax.nn.gelu, nn.LayerNorm()])
        self.embed = nn.Embed(7, 8)
        self.blocks = nn.Stack(block, 3)
        self.conv = nn.Conv(6, (2,), strides=2, padding="CAUSAL")
        self.many = nn.Ensemble(nn.Stack(nn.Dense(6), 2), 3)
        self.split = nn.DenseGeneral((2, 3))
        self.join = nn.DenseGeneral(8, axis=(-2, -1))

    def __call__(self, ids):
        x = self.conv(self.blocks(self.embed(ids)))
        x = self.many(x).sum(0)
        return self.embed.attend(self.join(self.split(x)))


def net():
    return nn.init(Net(), KEY, IDS)


def weights_of(model):
    return {p: x for p, x in nn.to_paths(model).items() if p.endswith(("el", "ng"))}


@pytest.mark.parametrize(
    ("dtype", "bound"), [("int8", 0.03), ("float8_e4m3fn", 0.3), ("float8_e5m2", 0.6)]
)
def test_outputs_are_close_and_the_structure_comes_back(dtype, bound):
    model = net()
    small = nn.quantize(model, "**", dtype)
    assert all(x.dtype == dtype for x in weights_of(small).values())
    error = jnp.abs(small(IDS) - model(IDS)).max() / jnp.abs(model(IDS)).max()
    assert 0 < error < bound
    again = nn.dequantize(small)
    assert jax.tree.structure(again) == jax.tree.structure(model)
    assert_close(again(IDS), small(IDS), rtol=1e-4, atol=1e-4)


def test_each_channel_is_wrong_by_at_most_half_a_step():
    model = net()
    again = nn.dequantize(nn.quantize(model, "**"))
    shared = {"kernel": (-2,), "embedding": (-1,)}
    axes = {"conv/kernel": (0, 1), "join/kernel": (0, 1), "split/kernel": (0,)}
    for path, weight in weights_of(model).items():
        axis = axes.get(path, shared[path.split("/")[-1]])
        bound = np.abs(weight).max(axis, keepdims=True) / 254
        error = np.abs(nn.to_paths(again)[path] - weight)
        assert (error <= bound * 1.0001).all(), path


def test_weights_take_a_quarter_of_the_memory():
    model = nn.init(nn.Stack(nn.Dense(128, use_bias=False), 2), KEY, jnp.ones((1, 128)))
    small = nn.quantize(model, nn.Dense)
    before, after = (
        sum(x.nbytes for x in jax.tree.leaves(tree)) for tree in (model, small)
    )
    assert after < 0.26 * before
    blocks = nn.quantize(model, nn.Dense, block_size=32)
    assert sum(x.nbytes for x in jax.tree.leaves(blocks)) == before // 4 * (1 + 4 / 32)


def test_layers_of_a_stack_have_scales_of_their_own():
    model = net()
    small = nn.quantize(model, "blocks")
    assert small.blocks.block.layers[0].scale.shape == (3, 1, 8)
    for one, layer in zip(model.blocks, small.blocks, strict=True):
        assert layer == nn.quantize(one, nn.Dense)
    x, expected = normal((2, 8)), normal((2, 8))
    for layer in small.blocks:
        expected = layer(expected)
    assert_close(small.blocks(x), expected)


def test_weights_are_constants_and_biases_stay_parameters():
    small = nn.quantize(net(), "**")
    constants = {path.split("/")[-1] for path in nn.select(small, nn.Constant)}
    assert constants == {"kernel", "embedding", "scale"}
    left = {path.split("/")[-1] for path in nn.to_paths(nn.params(small))}
    assert left == {"bias", "scale"}  # those of LayerNorm


def test_roles_and_frozen_parameters_come_back():
    model = nn.select(net(), "conv").freeze()
    assert jax.tree.structure(
        nn.dequantize(nn.quantize(model, "**"))
    ) == jax.tree.structure(model)


@pytest.mark.parametrize("where", [nn.Dense, "many/**", "join"])
def test_parts_are_selected(where):
    small = nn.quantize(net(), where)
    changed = [p for p, x in weights_of(small).items() if x.dtype == "int8"]
    assert 0 < len(changed) < 6


def test_masks_are_kept_and_still_hold():
    mask = jnp.tri(4, dtype=bool)
    model = nn.init(nn.Dense(4, mask=mask), KEY, jnp.ones((1, 4)))
    small = nn.quantize(model, nn.Dense)
    x = normal((3, 4))
    assert_close(small(x), model(x), atol=0.05)
    assert jax.tree.structure(nn.dequantize(small)) == jax.tree.structure(model)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_computes_in_the_dtype_of_the_layer(dtype):
    x = normal((2, 4), dtype=dtype)
    model = nn.init(nn.Dense(3, param_dtype=dtype), KEY, x)
    small = nn.quantize(model, nn.Dense)
    assert small(x).dtype == model(x).dtype == dtype
    assert small(x.astype("float32")).dtype == "float32"
    assert nn.dequantize(small).kernel.dtype == dtype
    cast = nn.cast(nn.quantize(net(), "**"), dtype)
    assert cast(IDS).dtype == dtype


def test_it_compiles_maps_and_pickles():
    model = net()
    small = jax.jit(lambda m: nn.quantize(m, "**"))(model)
    assert jax.tree.structure(small) == jax.tree.structure(nn.quantize(model, "**"))
    out = jax.jit(lambda m, ids: m(ids))(small, IDS)
    assert_close(out, small(IDS))
    assert pickle.loads(pickle.dumps(small)) == small
    rows = jax.vmap(small)(IDS)
    assert_close(rows, small(IDS))
    shapes = jax.eval_shape(lambda m: nn.quantize(m, "**"), nn.abstract(Net(), IDS))
    assert jax.tree.structure(shapes) == jax.tree.structure(small)


def test_gradients_reach_what_is_before_a_quantised_layer():
    x = normal((3, 4))
    model = nn.init(nn.Sequential([nn.Dense(4), nn.Dense(2)]), KEY, x)
    small = nn.quantize(model, "layers/1")
    ours = nn.grad(lambda m: m(x).sum())(small)[0].kernel
    theirs = nn.grad(lambda m: m(x).sum())(nn.dequantize(small))[0].kernel
    assert_close(ours, theirs)


def test_adapters_on_top_and_the_way_back():
    model = net()
    small = nn.quantize(model, "**")
    tuned = nn.lora(small, (nn.Dense, nn.Embed), 2, 4.0, KEY)
    assert_close(tuned(IDS), small(IDS), rtol=0, atol=0)
    tuned = nn.select(tuned, nn.LoRAParam).map(lambda x: x + 0.1)
    names = {path.split("/")[-1] for path in nn.to_paths(nn.params(tuned))}
    assert names == {"lora_a", "lora_b"}
    floating = nn.dequantize(tuned)
    assert [*nn.to_paths(nn.params(floating))] == [*nn.to_paths(nn.params(tuned))]
    merged = nn.merge_lora(floating)
    assert jax.tree.structure(merged) == jax.tree.structure(model)
    assert_close(merged(IDS), tuned(IDS), rtol=1e-3, atol=1e-3)


def test_quantising_below_adapters_and_the_way_back():
    model = net()
    small = nn.quantize(nn.lora(model, nn.Dense, 2, 4.0, KEY), nn.Dense)
    merged = nn.merge_lora(nn.dequantize(small))
    assert jax.tree.structure(merged) == jax.tree.structure(model)


def test_the_error_is_measured_layer_by_layer():
    model = net()
    small = nn.quantize(model, "**")
    report = nn.quantization_error(model, small, IDS)
    assert set(report) == {
        *("embed", "blocks/block/layers/0", "conv", "many/block/block"),
        *("split", "join"),
    }
    assert all(0 < e.weight < 1 / 200 and 0 < e.output < 0.1 for e in report.values())
    table = repr(report).splitlines()
    assert table[0].split() == ["layer", "weight", "output"]
    assert len(table) == 7
    bare = nn.quantization_error(model, small)
    assert bare["conv"] == (report["conv"].weight, None)
    assert "None" not in repr(bare)
    finer = nn.quantize(model, "many/**", block_size=2)
    blocks = nn.quantization_error(model, finer)
    assert blocks["many/block/block"].weight <= report["many/block/block"].weight


@pytest.mark.parametrize(
    ("where", "dtype", "options"),
    [
        (nn.LayerNorm, "int8", {}),
        (nn.Dense, "int2", {}),
        (nn.Dense, "int8", {"block_size": 5}),
        (nn.Conv, "int8", {"block_size": 2}),
    ],
)
def test_what_makes_no_sense_is_refused(where, dtype, options):
    with pytest.raises(ConfigError):
        nn.quantize(net(), where, dtype, **options)


def test_wrong_models_are_refused():
    model = net()
    with pytest.raises(InitError, match="LN-INIT-01"):
        nn.quantize(Net(), nn.Dense)
    with pytest.raises(ConfigError, match="LN-WHERE-04"):
        nn.quantization_error(model, model)
    with pytest.raises(TreeError, match="LN-TREE-01"):
        nn.quantization_error(nn.LayerNorm(), nn.quantize(model, nn.Dense))


def test_wrong_inputs_are_refused_with_the_path_and_a_fix_that_exists():
    model = nn.init(nn.Sequential([nn.Dense(3)]), KEY, jnp.ones((2, 4)))
    small = nn.quantize(model, nn.Dense)
    with pytest.raises(ShapeError, match=r"^layers\[0\] \(QuantizedDense\)") as caught:
        small(jnp.ones((2, 5)))
    assert caught.value.fixes[-1][1] == "layer = nn.Dense(3)"
    for x in (jnp.ones((2, 4), jnp.int32), jnp.ones((2, 4), jnp.complex64)):
        with pytest.raises(DTypeError, match=r"^layers\[0\].*LN-DTYPE-01"):
            small(x)
    with pytest.raises(ShapeError, match=r"^layers\[0\].*LN-SHAPE-02"):
        small(jnp.array(1.0))
