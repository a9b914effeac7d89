"""Summaries against numbers counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import normal
from linnet import nn

KEY = jax.random.key(0)


def spec(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


class Net(nn.Module):
    def __init__(self):
        self.conv = nn.Conv(4, (3, 3))
        self.norm = nn.BatchNorm()
        self.blocks = [nn.Sequential([nn.Dense(6), jax.nn.relu, nn.Dense(4)])]
        self.head = nn.Dense(2)

    def __call__(self, x):
        x = self.norm(self.conv(x)).mean((1, 2))
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def rows(model, *sample, **options):
    return {row.path: row for row in nn.summary(model, *sample, **options).rows}


def test_a_dense_layer():
    (row,) = nn.summary(nn.Dense(5), spec(8, 3)).rows
    assert (row.path, row.type, row.output) == ("", "Dense", "float32[8, 5]")
    assert row.parameters == 3 * 5 + 5
    assert row.parameter_bytes == 4 * 20
    assert row.state_bytes == 0
    product = 2 * 8 * 3 * 5
    assert row.forward_flops == product + 8 * 5
    assert 2 * product <= row.backward_flops <= 2 * product + 3 * 8 * 5


def test_a_convolution():
    model = nn.Conv(4, (3, 3), padding="VALID")
    (row,) = nn.summary(model, spec(2, 10, 10, 3)).rows
    assert row.output == "float32[2, 8, 8, 4]"
    assert row.parameters == 3 * 3 * 3 * 4 + 4
    product = 2 * (2 * 8 * 8 * 4) * (3 * 3 * 3)
    assert product <= row.forward_flops <= 1.05 * product
    assert row.backward_flops > row.forward_flops


@pytest.mark.parametrize("unroll", [1, True])
@pytest.mark.parametrize("remat", [False, True])
def test_a_stack_counts_every_layer(unroll, remat):
    stack = nn.Stack(nn.Dense(4), 7, unroll=unroll, remat=remat)
    found = rows(stack, spec(8, 4))
    one = rows(nn.Dense(4), spec(8, 4))[""]
    assert found[""].parameters == found["block"].parameters == 7 * one.parameters
    assert found["block"].output == one.output
    assert found["block"].forward_flops == 7 * one.forward_flops
    assert found[""].forward_flops == pytest.approx(7 * one.forward_flops, rel=0.05)


def test_an_ensemble_counts_every_member():
    found = rows(nn.Ensemble(nn.Dense(4), 5), spec(8, 3))
    one = rows(nn.Dense(4), spec(8, 3))[""]
    assert found[""].parameters == 5 * one.parameters
    assert found["block"].forward_flops == 5 * one.forward_flops
    assert found[""].output == "float32[5, 8, 4]"


def test_a_model_is_the_sum_of_its_parts():
    found = rows(Net(), spec(2, 6, 6, 3))
    assert list(found) == [
        "",
        "conv",
        "norm",
        "blocks[0]",
        "blocks[0].layers[0]",
        "blocks[0].layers[2]",
        "head",
    ]
    model = nn.init(Net(), KEY, normal((2, 6, 6, 3)))
    sizes = {path: x.size for path, x in nn.to_paths(nn.params(model)).items()}
    assert found[""].parameters == sum(sizes.values())
    assert found["norm"].state_bytes == found[""].state_bytes == 4 * (4 + 4)
    inside = sum(n for path, n in sizes.items() if path.startswith("blocks"))
    assert found["blocks[0]"].parameters == inside
    layers = sum(found[f"blocks[0].layers[{i}]"].forward_flops for i in (0, 2))
    assert layers <= found["blocks[0]"].forward_flops <= layers + 2 * 6 * 2
    outer = ("conv", "norm", "blocks[0]", "head")
    assert sum(found[p].parameters for p in outer) == found[""].parameters


def test_described_initialised_and_shapes_agree():
    x = normal((2, 6, 6, 3))
    model = nn.init(Net(), KEY, x)
    expected = nn.summary(Net(), spec(2, 6, 6, 3))
    assert nn.summary(model, x) == expected
    assert nn.summary(nn.abstract(Net(), x), x) == expected
    assert nn.summary(jax.tree.map(np.asarray, model), np.asarray(x)) == expected


def test_bytes_follow_the_dtype():
    low = rows(nn.Dense(5, param_dtype=jnp.bfloat16), spec(8, 3, dtype=jnp.bfloat16))[
        ""
    ]
    assert (low.parameters, low.parameter_bytes) == (20, 40)
    assert low.output == "bfloat16[8, 5]"
    cast = rows(nn.cast(nn.Dense(5), jnp.bfloat16), spec(8, 3))[""]
    assert (cast.parameter_bytes, cast.output) == (80, "bfloat16[8, 5]")


def test_folding_by_depth():
    x = spec(2, 6, 6, 3)
    full = nn.summary(Net(), x)
    one = nn.summary(Net(), x, depth=1)
    assert [row.path for row in one.rows] == ["", "conv", "norm", "blocks[0]", "head"]
    assert one.folded == 2
    assert "(2 deeper modules are folded)" in str(one)
    assert one.rows == tuple(row for row in full.rows if "layers" not in row.path)
    assert [row.path for row in nn.summary(Net(), x, depth=0).rows] == [""]


def test_it_prints_as_a_table():
    lines = str(nn.summary(Net(), spec(2, 6, 6, 3))).splitlines()
    assert lines[0].split() == [
        "path",
        "type",
        "output",
        "params",
        "bytes",
        "state",
        "forward",
        "backward",
    ]
    assert set(lines[1]) == {"-"}
    assert lines[2].startswith("(model)")
    assert lines[3].startswith("conv ")
    assert "float32[2, 6, 6, 4]" in lines[3]
    assert repr(nn.summary(nn.Dense(2), spec(1, 2))).startswith("path")


def test_flops_may_be_left_out():
    table = nn.summary(Net(), spec(2, 6, 6, 3), flops=False)
    assert {(row.forward_flops, row.backward_flops) for row in table.rows} == {(0, 0)}


class Unusual(nn.Module):
    """Shared calls, a method, randomness, several inputs, and parts never called."""

    def __init__(self):
        self.shared = nn.Dense(3)
        self.drop = nn.Dropout(0.5)
        self.key = nn.constant(jax.random.key(1))
        self.ids = nn.Embed(7, 3)

    def encode(self, ids, *, scale=1.0, mode="twice"):
        x = self.drop(self.shared(self.ids(ids)))
        if mode == "twice":
            x = self.shared(x)
        return {"x": x * scale, "ids": ids}


def test_unusual_models():
    found = rows(Unusual(), spec(4, dtype=jnp.int32), method="encode", scale=2.0)
    once = rows(Unusual(), spec(4, dtype=jnp.int32), method="encode", mode="once")
    assert found["shared"].forward_flops == 2 * once["shared"].forward_flops
    assert found["shared"].parameters == once["shared"].parameters == 12
    assert found["ids"].output == "float32[4, 3]"
    assert found[""].output == "-"
    assert found["drop"].parameters == 0


def test_a_model_with_nothing_in_it():
    (row,) = nn.summary(nn.Dropout(0.5), spec(2, 3)).rows
    assert (row.parameters, row.parameter_bytes, row.output) == (0, 0, "float32[2, 3]")


def test_a_sample_that_misses_a_part_is_refused():
    with pytest.raises(nn.InitError, match="LN-INIT-02"):
        nn.summary(Unusual(), spec(4, 3), method=lambda m, x: m.shared(x))


def test_it_computes_nothing_on_arrays():
    huge = nn.summary(nn.Dense(10**6), spec(10**6, 10**6))
    assert huge.rows[0].parameters == 10**12 + 10**6
    assert "3.64 TiB" in str(huge)
