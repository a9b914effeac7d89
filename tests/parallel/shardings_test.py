"""Where arrays go: of models, optimisers, caches and batches."""

import math

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from helpers import assert_close, normal
from linnet import nn, parallel, training
from linnet.core._init import _maker
from linnet.core._value import Static

KEY = jax.random.key(0)
MESH = parallel.make_mesh(data=2, model=2)
BOTH = parallel.fsdp(min_size=64) | parallel.tensor_parallel()


def specs(tree):
    return {path: s.spec for path, s in nn.to_paths(tree).items()}


def test_a_transformer_block_is_divided_as_in_megatron():
    block = nn.TransformerBlock(nn.Attention(4, use_bias=False), nn.MLP(64))
    model = nn.abstract(nn.Stack(block, 3), jnp.ones((1, 2, 32)))
    rules = parallel.tensor_parallel()
    found = specs(parallel.shardings(model, MESH, rules))
    columns, rows = P(None, None, "model"), P(None, "model")
    assert found["block/attention/query/kernel"] == columns
    assert found["block/attention/out/kernel"] == rows
    assert found["block/mlp/hidden/0/kernel"] == columns
    assert found["block/mlp/hidden/0/bias"] == P(None, "model")
    assert found["block/mlp/out/kernel"] == rows
    assert found["block/mlp/out/bias"] == P()


def test_fsdp_divides_large_arrays_along_what_is_left_but_no_stack():
    model = nn.abstract(nn.Stack(nn.MLP(64), 8), jnp.ones((1, 32)))
    found = specs(parallel.shardings(model, MESH, BOTH))
    assert found["block/hidden/0/kernel"] == P(None, "data", "model")
    assert found["block/out/bias"] == P()  # in each layer it is small
    large = parallel.shardings(model, MESH, parallel.fsdp())
    assert set(specs(large).values()) == {P()}
    odd = nn.abstract(nn.Dense(65), jnp.ones((1, 33)))
    assert parallel.shardings(odd, MESH, BOTH).kernel.spec == P()


def test_the_state_of_an_optimiser_lies_with_the_model():
    model = nn.init(nn.Dense(64), KEY, jnp.ones((1, 32)))
    state = optax.adam(1e-3).init(nn.params(model))
    found = parallel.shardings(state, MESH, BOTH)
    assert found[0].mu.kernel.spec == found[0].nu.kernel.spec == P(None, "data")
    assert found[0].count.spec == P()
    placed = jax.device_put(state, found)
    assert placed[0].mu.kernel.sharding == NamedSharding(MESH, P(None, "data"))


def test_what_optimisers_put_in_the_place_of_arrays_is_placed_too():
    model = nn.init(nn.MLP(64), KEY, jnp.ones((1, 32)))
    params = nn.params(model)
    partly = optax.multi_transform(
        {True: optax.adam(1e-3), False: optax.sgd(1e-3, 0.9)},
        lambda params: nn.select(params, "**/kernel").mask(),
    )
    for tx in (optax.adafactor(1e-3, min_dim_size_to_factor=8), partly):
        state = tx.init(params)
        found = parallel.shardings(state, MESH, BOTH)
        assert_close(jax.device_put(state, found), state)
    moments = found.inner_states[True].inner_state[0].mu
    assert moments.hidden[0].kernel.spec == P("data", "model")


def test_a_training_state_lies_with_its_model():
    model = nn.init(nn.Dense(64), KEY, jnp.ones((1, 32)))
    state = training.TrainState.create(model, optax.adam(1e-3), KEY, ema=0.9)
    found = parallel.shardings(state, MESH, BOTH)
    placed = jax.device_put(state, found)
    assert placed.model.kernel.sharding.spec == P(None, "data")
    assert placed.opt_state[0].mu.kernel.sharding.spec == P(None, "data")
    assert placed.average.kernel.sharding.spec == P(None, "data")
    assert placed.key.sharding.spec == placed.step.sharding.spec == P()


def test_a_model_that_is_described_only_is_refused():
    with pytest.raises(nn.InitError, match="LN-INIT-01"):
        parallel.shardings(nn.Dense(3), MESH, BOTH)


def test_caches_and_batches_are_divided_by_the_batch():
    x = normal((4, 6, 32))
    model = nn.init(nn.Attention(2, causal=True), KEY, x)
    cached = nn.with_cache(model, 4, 8)
    found = parallel.shardings(cached, MESH, parallel.data_parallel())
    assert found.cache.keys.spec[0] == "data"
    batch = {"x": x, "label": jnp.zeros(4)}
    axes = ("batch", "length")
    rules = parallel.data_parallel() | parallel.sequence_parallel("model")
    found = parallel.shardings(batch, MESH, rules, axes=axes)
    assert found["x"].spec == P("data", "model")
    assert found["label"].spec == P("data")


def test_init_makes_arrays_in_their_shardings_with_the_same_numbers():
    x = jnp.ones((1, 32))
    plain = nn.init(nn.MLP(64), KEY, x)
    with parallel.use(MESH, BOTH):
        model = nn.init(nn.MLP(64), KEY, x)
        shapes = nn.abstract(nn.MLP(64), x)
    kernel = model.hidden[0].kernel
    assert kernel.sharding == shapes.hidden[0].kernel.sharding
    assert kernel.addressable_shards[0].data.shape == (16, 32)
    assert_close(nn.to_paths(model), nn.to_paths(plain), atol=0)


@pytest.mark.parametrize("make", ["lecun_normal", "truncated_normal", "uniform"])
@pytest.mark.parametrize("spec", [P("data", "model"), P(None, None, "data")])
def test_a_program_that_makes_an_array_holds_no_whole_one(make, spec):
    init = getattr(nn.initializers, make)()
    stack = (4,) if len(spec) == 3 else ()
    sharding = NamedSharding(MESH, spec)
    program = _maker(Static(init), (256, 128), jnp.dtype("float32"), stack, sharding)
    compiled = program.lower(KEY, (1, 2)).compile()
    memory, text = compiled.memory_analysis(), compiled.as_text()
    part = 4 * math.prod(sharding.shard_shape((*stack, 256, 128)))
    assert memory.output_size_in_bytes == part
    assert memory.temp_size_in_bytes < 3.1 * part  # bits, and what they become
    assert not any(name in text for name in ("all-gather", "all-reduce", "all-to-all"))


def test_shapes_need_no_devices():
    mesh = jax.sharding.AbstractMesh((64, 8), ("data", "model"))
    x = jax.ShapeDtypeStruct((1, 512), jnp.float32)
    with parallel.use(mesh, parallel.fsdp() | parallel.tensor_parallel()):
        model = nn.abstract(nn.MLP(1024), x)
        report = parallel.report(model)
    assert model.out.kernel.sharding == NamedSharding(mesh, P("model", "data"))
    assert report.rows[0][-1] == 512 * 1024 * 4 // (64 * 8)


def test_the_report_is_a_table_that_names_what_is_amiss():
    model = nn.abstract(nn.Dense(65, use_bias=False), jnp.ones((1, 33)))
    report = parallel.report(model, MESH, BOTH)
    assert report.replicated == ("kernel",)
    assert report.unused == ("heads", "kv_heads", "mlp", "vocab")
    assert report.total == report.per_device == 65 * 33 * 4
    lines = str(report).splitlines()
    assert lines[0].split() == ["path", "shape", "spec", "bytes", "per", "device"]
    assert lines[1].split() == ["kernel", "[33,", "65]", "replicated", "8,580"]
    assert lines[-1] == "large and on every device: kernel"
    keys = parallel.report(jax.random.split(KEY, 4), MESH, BOTH, axes=("batch",))
    assert (keys.total, keys.per_device) == (32, 16)


RULES = parallel.Rules({"batch": "data", "features": "model"})
KINDS = [(a, b) for a in AxisType for b in AxisType if AxisType.Manual not in (a, b)]


@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_shard_places_activations_in_each_mode(kinds):
    x = normal((4, 3, 6))
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=kinds)
    with parallel.use(mesh, RULES):
        y = jax.jit(lambda x: nn.shard(x * 2, "batch", None, "features"))(x)
        z = jax.jit(lambda x: nn.shard(x, ..., "features"))(nn.shard(x, "batch", ...))
        odd = jax.jit(lambda x: nn.shard(x, "batch", ...))(x[:1])
        mapped = jax.jit(jax.vmap(lambda x: nn.shard(x, None, "features")))(y)
        _, looped = jax.jit(
            lambda x: jax.lax.scan(lambda _, x: (_, nn.shard(x, "batch", ...)), 0, x)
        )(jnp.stack([x, x]))
    assert y.sharding.spec == P("data", None, "model")
    assert z.sharding.spec[-1] == "model"
    assert mapped.sharding.spec[-1] == "model"
    assert looped.sharding.spec[1] == "data"
    assert_close((y, z, odd, mapped, looped[1]), (2 * x, x, x[:1], 2 * x, x))


def test_shard_within_automatic_axes_of_an_explicit_mesh():
    x, mesh = normal((4, 6)), parallel.make_mesh(data=2, model=2, explicit=True)

    def loss(x):
        return (nn.shard(x, "batch", "features") ** 2).sum()

    with parallel.use(mesh, RULES):
        found = jax.jit(jax.grad(jax.sharding.auto_axes(loss, out_sharding=P())))(x)
    assert_close(found, 2 * x)


def test_shard_is_nothing_without_a_mesh_but_counts_the_names():
    x = normal((4, 6))
    assert nn.shard(x, "batch", "features") is nn.shard(x, ...) is x
    for names in [(), ("batch",), ("batch", "length", "features"), (..., "batch", ...)]:
        with pytest.raises(nn.ShapeError, match="LN-SHARD-04"):
            nn.shard(x, *names)


def test_a_compiled_function_is_made_anew_under_other_rules():
    x = normal((4, 6))
    function = jax.jit(lambda x: nn.shard(x + 1, "batch", None))
    with parallel.use(MESH, parallel.Rules({"batch": "data"})):
        assert function(x).sharding.spec[0] == "data"
    with parallel.use(MESH, parallel.Rules({"batch": "model"})):
        assert function(x).sharding.spec[0] == "model"
    assert function(x).sharding == x.sharding


def test_shard_leaves_out_axes_that_a_shard_map_handles():
    x = normal((4, 6))
    with parallel.use(MESH, parallel.Rules({"batch": "data", "features": "model"})):

        def local(x):
            return nn.shard(x, "batch", "features") + jax.lax.axis_index("data")

        spec = P("data")
        y = jax.jit(
            jax.shard_map(local, in_specs=spec, out_specs=spec, axis_names={"data"})
        )(x)
        every = P("data", "model")
        z = jax.jit(jax.shard_map(local, in_specs=every, out_specs=every))(x)
    added = jnp.array([0, 0, 1, 1])[:, None]
    assert_close(y, x + added)
    assert_close(z, x + added)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_generating_divides_the_cache_and_gives_the_same_tokens(kv_heads):
    attention = nn.Attention(4, num_kv_heads=kv_heads, causal=True)
    model = nn.Sequential([nn.Embed(16, 32), attention, nn.Dense(16)])
    prompt = jnp.array([[1, 2, 3], [4, 5, 6]])
    model = nn.init(model, KEY, prompt)
    rules = parallel.data_parallel() | parallel.tensor_parallel()
    plain = nn.generate(model, prompt, max_new_tokens=4)
    with parallel.use(MESH, rules):
        placed = jax.device_put(model, parallel.shardings(model))
        cached = nn.with_cache(placed, 2, 8)
        found = nn.generate(placed, prompt, max_new_tokens=4)
    keys = cached.layers[1].cache.keys
    divided = P("data", None, "model") if kv_heads == 2 else P("data")
    assert keys.sharding.is_equivalent_to(NamedSharding(MESH, divided), keys.ndim)
    assert_close(found.tokens, plain.tokens)
