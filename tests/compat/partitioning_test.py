"""Names of axes: what they become on a mesh, as in Flax."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from oracle import assert_same

RULES = (("batch", "data"), ("embed", None), ("mlp", "model"), ("mlp", "data"))
NAMES = [
    None,
    (),
    ("batch", "mlp"),
    ("embed", None),
    ("other", "mlp"),
    ("mlp", "mlp"),
    ("batch", P.UNCONSTRAINED),
    ("batch", ("embed", "mlp")),
    P("batch", "mlp"),
    "batch",
]


@pytest.fixture
def mesh():
    kinds = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((1, 1), ("data", "model"), axis_types=kinds)


@pytest.mark.parametrize("rules", [(), RULES], ids=["no rules", "rules"])
@pytest.mark.parametrize("names", NAMES, ids=str)
def test_logical_names_become_those_of_flax(names, rules):
    assert_same(lambda lib: lib.linen.logical_to_mesh_axes(names, rules))
    assert_same(lambda lib: lib.linen.logical_to_mesh({"a": names, "b": P()}, rules))
    assert_same(lambda lib: lib.core.spmd.get_pspec(names, rules))
    assert_same(lambda lib: lib.core.spmd.from_sharding_rules(names, rules))

    def in_force(lib):
        with lib.linen.logical_axis_rules(rules):
            return lib.core.spmd.apply_rules(names, (("other", "model"),))

    assert_same(in_force)


@pytest.mark.parametrize("given", ["names", "a sharding", "nothing"])
def test_a_value_is_placed_as_in_flax(mesh, given):
    names = {
        "names": ("batch", "mlp"),
        "a sharding": NamedSharding(mesh, P("data", None)),
        "nothing": None,
    }[given]

    def program(lib, of):
        value = lib.core.spmd.shard_value(jnp.ones((2, 2)), names, RULES[:3], of)
        return value.sharding, lib.core.spmd.get_mesh(names)

    assert_same(lambda lib: program(lib, mesh))
    assert_same(lambda lib: program(lib, None))


def boxed_net(lib, kind):
    nn = lib.linen
    box = {"mesh axes": nn.with_partitioning, "logical": nn.with_logical_partitioning}
    init = nn.initializers.normal()

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _=None):
            x = nn.Dense(4, kernel_init=box[kind](init, ("embed", "mlp")))(x)
            self.variable("stats", "mean", box[kind](jnp.zeros, ("mlp",)), (4,))
            return x, None

    return Block, {
        "variable_axes": {"params": 0, "stats": 0},
        "split_rngs": {"params": True},
        "metadata_params": {"partition_name": "layers"},
    }


@pytest.mark.parametrize("kind", ["mesh axes", "logical"])
@pytest.mark.parametrize("lift", ["none", "scan", "vmap", "remat"])
def test_boxes_are_those_of_flax(mesh, kind, lift):
    def program(lib):
        nn = lib.linen
        block, axes = boxed_net(lib, kind)
        model = {
            "none": block,
            "remat": nn.remat(block),
            "scan": nn.scan(block, **axes, length=2),
            "vmap": nn.vmap(block, **axes, axis_size=2, in_axes=None),
        }[lift]()
        variables = model.init(jax.random.key(0), jnp.ones((3, 4)))
        specs = nn.get_partition_spec(variables)
        sharding = nn.logical_to_mesh_sharding(specs, mesh, RULES)
        return variables, specs, nn.logical_to_mesh(specs, RULES), sharding

    assert_same(program)


def test_names_in_collections_are_those_of_flax():
    def program(lib):
        nn, partitioning = lib.linen, lib.linen.partitioning

        class Layer(nn.Module):
            @nn.compact
            def __call__(self, x, _=None):
                init = nn.initializers.normal()
                param, variable = (
                    partitioning.param_with_axes,
                    partitioning.variable_with_axes,
                )
                w = param("w", init, (4, 4), axes=("embed", "mlp"))
                seen = variable("stats", "n", jnp.zeros, (4,), axes=("mlp",))
                if self.is_mutable_collection("stats"):
                    seen.value += 1
                return x @ w, None

        layers = partitioning.scan_with_axes(
            partitioning.remat(Layer),
            variable_axes={"params": 1, "stats": 0},
            split_rngs={"params": True},
            length=2,
            axes_collections=("params", "stats"),
        )()
        variables = layers.init(jax.random.key(0), jnp.ones((3, 4)), None)
        names = partitioning.get_axis_names(variables["params_axes"])
        _, state = layers.apply(variables, jnp.ones((3, 4)), None, mutable=["stats"])
        return variables, names, partitioning.logical_to_mesh(names, RULES), state

    assert_same(program)
