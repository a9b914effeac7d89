"""Specs: what counts as the same configuration, and paths as JAX prints them."""

import dataclasses
import enum
import functools
import gc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import normal
from linnet import nn

KEY = jax.random.key(0)


class Holder(nn.Module):
    def __init__(self, value):
        self.value = value


class Color(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass(frozen=True)
class Options:
    rate: Any
    mode: str = "same"


def scaled(factor):
    return lambda x: factor * x


def structure(value):
    return jax.tree.structure(Holder(value))


ALL_DIFFERENT = [
    1,
    1.0,
    True,
    Color.RED,
    np.int32(1),
    np.int64(1),
    np.float32(1),
    1 + 0j,
    "1",
    b"1",
    (1,),
    (1.0,),
    (True,),
    ((1,), 1),
    ((1.0,), 1),
    (1, (1,)),
    Point(1, 1),
    Point(1, 1.0),
    (1, 1),
    {"a": 1},
    {"a": 1.0},
    {"a": 1, "b": 1},
    {"b": 1, "a": 1},
    {1: "a"},
    {True: "a"},
    frozenset({1}),
    frozenset({1.0}),
    0,
    0.0,
    -0.0,
    np.float32(0.0),
    np.float32(-0.0),
    complex(0.0, -0.0),
    complex(0.0, 0.0),
    float("nan"),
    float("inf"),
    None,
    False,
    (),
    jnp.float32,
    np.dtype("float32"),
    Options(1),
    Options(1.0),
    Options(True),
    Options((1,), "valid"),
    jax.nn.relu,
    jax.nn.gelu,
    scaled(1),
    scaled(1.0),
    scaled(-0.0),
    scaled(0.0),
    functools.partial(jax.nn.gelu, approximate=True),
    functools.partial(jax.nn.gelu, approximate=1),
    nn.initializers.normal(1.0),
    nn.initializers.normal(2.0),
]


def test_what_python_calls_equal_is_told_apart():
    structures = [structure(value) for value in ALL_DIFFERENT]
    for i, one in enumerate(structures):
        for j, other in enumerate(structures):
            assert (one == other) == (i == j), (ALL_DIFFERENT[i], ALL_DIFFERENT[j])


@pytest.mark.parametrize("i", range(len(ALL_DIFFERENT)))
def test_each_value_is_kept_as_it_is(i):
    value = ALL_DIFFERENT[i]
    held = Holder(value).value
    assert type(held) is type(value) or isinstance(held, dict)
    assert repr(held) == repr(value)


SAME = {
    "nan": lambda: float("nan"),
    "numpy nan": lambda: np.float32("nan"),
    "tuple of nan": lambda: (float("nan"), 1),
    "closure": lambda: scaled(0.5),
    "lambda": lambda: lambda x: x + 1,
    "list": lambda: [1, [2.0, "a"]],
    "dict": lambda: {"a": [1, 2], "b": {"c": None}},
    "partial": lambda: functools.partial(jax.nn.gelu, approximate=True),
    "jax initialiser": lambda: jax.nn.initializers.normal(0.02),
    "dataclass": lambda: Options((1, float("nan"))),
}


@pytest.mark.parametrize("name", SAME)
def test_what_is_made_alike_is_the_same(name):
    make = SAME[name]
    assert structure(make()) == structure(make())
    assert Holder(make()) == Holder(make())
    assert hash(Holder(make())) == hash(Holder(make()))


def test_functions_that_differ_in_what_they_close_over_are_told_apart():
    array = np.ones(2)
    assert structure(scaled(array)) != structure(scaled(array.copy()))
    one = scaled(array)
    assert structure(one) == structure(one)


def test_a_function_that_refers_to_itself_can_be_held():
    def countdown(n):
        return countdown(n - 1) if n else "done"

    assert Holder(countdown).value(3) == "done"
    assert structure(countdown) == structure(countdown)


def test_structures_are_compared_by_identity_of_their_specs():
    class Loud:
        def __init__(self):
            self.calls = 0

        def __hash__(self):
            self.calls += 1
            return 0

        def __eq__(self, other):
            self.calls += 1
            return self is other

    loud = Loud()
    one, other = Holder(loud), Holder(loud)
    before = loud.calls
    assert jax.tree.structure(one) == jax.tree.structure(other)
    leaves, treedef = jax.tree.flatten(one)
    assert jax.tree.structure(treedef.unflatten(leaves)) == treedef
    assert loud.calls == before


def test_equal_configuration_compiles_once_and_other_configuration_again():
    traces = []

    @jax.jit
    def run(model):
        traces.append(model.value)
        return 0

    for value in (1, 1, True, 1.0, [1.0], (1.0,), scaled(2), scaled(2)):
        run(Holder(value))
    assert len(traces) == 5
    assert traces[:4] == [1, True, 1.0, (1.0,)]
    assert list(map(type, traces[:4])) == [int, bool, float, tuple]


def test_classes_of_one_name_and_declarations_differ():
    def make(shape, tags=(), axes=None, role=nn.Param):
        class Local(nn.Module):
            def __init__(self):
                self.w = nn.param(
                    nn.initializers.ones, shape, tags=tags, axes=axes, role=role
                )

        return Local

    assert jax.tree.structure(make((2,))()) != jax.tree.structure(make((2,))())

    class Param(nn.Module):
        def __init__(self, **options):
            self.w = nn.param(nn.initializers.ones, (2,), **options)

    class Mine(nn.Param):
        pass

    different = [
        Param(),
        Param(tags=("a",)),
        Param(tags={"a": 1}),
        Param(axes=("x",)),
        Param(role=Mine),
        Param(dtype=jnp.bfloat16),
    ]
    assert len({jax.tree.structure(model) for model in different}) == len(different)


def test_specs_are_let_go_with_their_models():
    class Local(nn.Module):
        def __init__(self, value):
            self.value = value

    from linnet.core import _spec

    def mine():
        gc.collect()
        return sum(spec.cls is Local for spec in _spec._table.values())

    kept = [Local(i) for i in range(3)]
    assert mine() == 3
    del kept[1:]
    assert mine() == 1


def test_key_paths_read_as_the_model_is_written():
    class Attention(nn.Module):
        def __init__(self):
            self.query = nn.Dense(2)

        def __call__(self, x):
            return self.query(x)

    class Block(nn.Module):
        def __init__(self):
            self.attn = Attention()

        def __call__(self, x):
            return self.attn(x)

    class Net(nn.Module):
        def __init__(self):
            self.hidden = nn.Dense(3)
            self.blocks = [Block() for _ in range(4)]
            self.heads = {"a": nn.Dense(1)}

        def __call__(self, x):
            x = self.hidden(x)
            for block in self.blocks:
                x = block(x)
            return self.heads["a"](x)

    model = nn.init(Net(), KEY, normal((1, 2)))
    items = jax.tree_util.tree_leaves_with_path(model)
    paths = [jax.tree_util.keystr(path) for path, _ in items]
    assert paths[0] == ".hidden.kernel"
    assert ".blocks[3].attn.query.kernel" in paths
    assert paths[-2:] == [".heads['a'].kernel", ".heads['a'].bias"]
    assert list(nn.to_paths(model))[-1] == "heads/a/bias"
