"""Where arrays go: of models, optimisers, caches and batches."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from helpers import assert_close, normal
from linnet import nn, parallel

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
    assert found["block/out/bias"] == P(None, "data")
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


@pytest.mark.parametrize("explicit", [False, True])
def test_shard_places_activations_and_is_nothing_without_a_mesh(explicit):
    x = normal((4, 6))
    assert nn.shard(x, "batch", "features") is x
    mesh = parallel.make_mesh(data=2, model=2, explicit=explicit)
    rules = parallel.Rules({"batch": "data", "features": "model"})
    with parallel.use(mesh, rules):
        y = jax.jit(lambda x: nn.shard(x * 2, "batch", "features"))(x)
        z = jax.jit(lambda x: nn.shard(x, "features"))(y)
        odd = jax.jit(lambda x: nn.shard(x, "batch", "features"))(x[:1])
    assert y.sharding.spec == P("data", "model")
    assert_close(odd, x[:1])
    assert z.sharding.spec[-1] == "model"
    assert_close(y, 2 * x)


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
