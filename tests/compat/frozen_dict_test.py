"""FrozenDict, beside the genuine one."""

import collections
import copy
import pickle
import types

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnet.compat.flax.core import FrozenDict, freeze, pretty_repr, unfreeze
from oracle import THEIRS, assert_same

NESTED = {"b": {"y": 1, "x": {}}, "a": 2, "c": [{"d": 1}, (3, "s")]}

PROGRAMS = {
    "repr": lambda f: f.core.FrozenDict(NESTED),
    "repr of none": lambda f: f.core.FrozenDict({}),
    "repr, indented": lambda f: f.core.FrozenDict(NESTED).pretty_repr(1),
    "pretty": lambda f: f.core.pretty_repr({"a": f.core.FrozenDict(NESTED), 1: {}}),
    "pretty, mapping": lambda f: f.core.pretty_repr({"a": types.MappingProxyType({})}),
    "pretty, other": lambda f: f.core.pretty_repr([1, {"a": 2}]),
    "keys": lambda f: f.core.FrozenDict(NESTED).keys(),
    "values": lambda f: f.core.FrozenDict(NESTED).values(),
    "items": lambda f: list(f.core.FrozenDict(NESTED).items()),
    "kwargs": lambda f: f.core.FrozenDict([("a", {"b": 1})], c={}),
    "item": lambda f: f.core.FrozenDict(NESTED)["b"],
    "missing": lambda f: f.core.FrozenDict(NESTED)["z"],
    "get": lambda f: f.core.FrozenDict(NESTED).get("z", 3),
    "set": lambda f: f.core.FrozenDict(NESTED).__setitem__("a", 3),
    "delete": lambda f: f.core.FrozenDict(NESTED).__delitem__("a"),
    "attribute": lambda f: setattr(f.core.FrozenDict(NESTED), "z", 3),
    "union": lambda f: f.core.FrozenDict(NESTED) | {"z": 1},
    "copy": lambda f: f.core.FrozenDict(NESTED).copy({"z": {"q": 1}}),
    "copy nothing": lambda f: f.core.FrozenDict(NESTED).copy(),
    "pop": lambda f: f.core.FrozenDict(NESTED).pop("b"),
    "pop missing": lambda f: f.core.FrozenDict(NESTED).pop("z"),
    "unfreeze": lambda f: f.core.FrozenDict(NESTED).unfreeze(),
    "unfreeze nested": lambda f: f.core.unfreeze({"b": f.core.FrozenDict(b=1), "a": 1}),
    "unfreeze list": lambda f: f.core.unfreeze([f.core.FrozenDict(b=1)]),
    "freeze list": lambda f: f.core.freeze([1]),
    "freeze mixed": lambda f: f.core.freeze({"a": {"b": f.core.FrozenDict(x={})}}),
    "copy dict": lambda f: f.core.copy(
        {"b": 1, "a": {}}, f.core.FrozenDict(c={"d": 1})
    ),
    "copy ordered": lambda f: f.core.copy(collections.OrderedDict(b=1), {"a": 1}),
    "copy frozen": lambda f: f.core.copy(f.core.FrozenDict(NESTED), {"z": 1}),
    "copy other": lambda f: f.core.copy([1], {}),
    "pop dict": lambda f: f.core.pop({"b": 1, "a": 2, "c": 3}, "b"),
    "pop frozen": lambda f: f.core.pop(f.core.FrozenDict(NESTED), "a"),
    "pop other": lambda f: f.core.pop([1], 0),
    "equal": lambda f: f.core.FrozenDict(NESTED) == NESTED,
    "unequal": lambda f: f.core.FrozenDict(NESTED) == {**NESTED, "a": 3},
    "unhashable": lambda f: hash(f.core.FrozenDict(a=[])),
    "hash": lambda f: hash(f.core.FrozenDict(a=1, b={"c": 2})),
    "reduce": lambda f: f.core.FrozenDict(NESTED).__reduce__()[1],
    "pickle": lambda f: pickle.loads(pickle.dumps(f.core.FrozenDict(NESTED))),
    "deep copy": lambda f: copy.deepcopy(f.core.FrozenDict(NESTED)),
    "structure": lambda f: jax.tree.structure(f.core.FrozenDict(NESTED)),
    "leaves": lambda f: jax.tree.leaves(f.core.FrozenDict(NESTED)),
    "paths": lambda f: jax.tree_util.tree_leaves_with_path(f.core.FrozenDict(NESTED)),
    "children": lambda f: f.core.FrozenDict(NESTED).tree_flatten_with_keys(),
    "mixed keys": lambda f: jax.tree.leaves(f.core.FrozenDict({1: 1, "a": 2})),
    "map": lambda f: jax.tree.map(lambda x: [x], f.core.FrozenDict({"b": 1, "a": {}})),
    "subclass": lambda f: type("S", (f.core.FrozenDict,), {})(a={"b": 1}).pop("a"),
    "state": lambda f: f.serialization.to_state_dict(f.core.FrozenDict(NESTED)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_does_what_flax_does(name):
    assert_same(PROGRAMS[name])


KEYS = st.text("abc", min_size=1, max_size=2)
TREES = st.recursive(
    st.integers() | st.none() | st.text(max_size=2),
    lambda t: st.dictionaries(KEYS, t, max_size=3) | st.lists(t, max_size=2),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, TREES, max_size=4))
def test_any_tree_has_flaxs_text_structure_and_paths(tree):
    theirs, ours = THEIRS.core.freeze(tree), freeze(tree)
    assert repr(ours) == repr(theirs)
    assert pretty_repr(tree) == THEIRS.core.pretty_repr(tree)
    assert str(jax.tree.structure(ours)) == str(jax.tree.structure(theirs))
    paths = [jax.tree_util.tree_leaves_with_path(t) for t in (ours, theirs)]
    assert paths[0] == paths[1]
    assert ours.unfreeze() == unfreeze(ours) == tree


def test_what_was_given_may_change_later():
    given = {"a": {"b": 1}}
    frozen = freeze(given)
    given["a"]["b"] = 2
    frozen.unfreeze()["a"]["b"] = 3
    assert frozen == {"a": {"b": 1}}


def test_the_order_of_keys_counts_for_nothing_but_the_text():
    one, two = FrozenDict({"a": 1, "b": 2}), FrozenDict({"b": 2, "a": 1})
    assert one == two
    assert hash(one) == hash(two)
    assert jax.tree.structure(one) == jax.tree.structure(two)


def test_it_passes_through_transformations():
    double = jax.jit(lambda d: d.copy({"a": 2 * d["a"]["b"]}))
    assert double(freeze({"a": {"b": jnp.ones(2)}}))["a"].tolist() == [2, 2]
