"""Dataclasses that are pytrees, beside the genuine ones."""

import copy
import dataclasses
import functools
import inspect
import pickle

import cloudpickle
import jax
import pytest

from linnet.compat.flax import struct
from oracle import assert_same


def point(f, decorate=None):
    """A class of a child, a static field and a child with a default."""

    @(decorate or f.struct.dataclass)
    class Point:
        x: object
        name: str = f.struct.field(pytree_node=False, default="origin")
        y: object = f.struct.field(default_factory=list, metadata={"unit": "m"})

    return Point


def node(f, base=None, **options):
    class Node(base or f.struct.PyTreeNode, **options):
        a: int
        b: str = f.struct.field(pytree_node=False, default="s")

    return Node


def derived(f):
    class Derived(node(f), kw_only=True):
        c: int

        def total(self):
            return self.a + self.c

    return Derived


def posted(f):
    class Posted(f.struct.PyTreeNode):
        a: int

        def __post_init__(self):
            if isinstance(self.a, int) and self.a < 0:
                raise ValueError("negative")

    return Posted


def grand(f):
    @f.struct.dataclass
    class Grand(point(f)):
        z: int = 3

    return Grand


def own_replace(f):
    @f.struct.dataclass
    class Own:
        a: int

        def replace(self, **updates):
            return "mine"

    return Own


def replaced_default(f):
    @functools.partial(f.struct.dataclass, kw_only=True)
    class KeywordOnly:
        a: int = 1
        b: int

    return KeywordOnly


def paths(tree):
    return jax.tree_util.tree_leaves_with_path(tree)


PROGRAMS = {
    "repr": lambda f: point(f)(1),
    "set": lambda f: setattr(point(f)(1), "x", 2),
    "set, thawed": lambda f: setattr(
        point(f, f.struct.dataclass(frozen=False))(1), "x", 2
    ),
    "replace": lambda f: point(f)(1).replace(x=3, name="n"),
    "replace unknown": lambda f: point(f)(1).replace(q=3),
    "replace signature": lambda f: list(inspect.signature(point(f).replace).parameters),
    "own replace": lambda f: own_replace(f)(1).replace(a=2),
    "metadata": lambda f: [x.metadata for x in dataclasses.fields(point(f))],
    "paths": lambda f: paths({"p": [point(f)(1)]}),
    "structure": lambda f: jax.tree.structure(point(f)(1)),
    "hash": lambda f: hash(node(f)(1, "t")),
    "unhashable": lambda f: hash(point(f)(1)),
    "equal": lambda f: (lambda p: p(1) == p(1) != p(2))(point(f)),
    "params": lambda f: point(f).__dataclass_params__,
    "mark": lambda f: point(f)._flax_dataclass,
    "keyword only": lambda f: replaced_default(f)(b=1),
    "keyword only, wrong": lambda f: replaced_default(f)(1),
    "order": lambda f: point(f, f.struct.dataclass(order=True))(1, "a") < 3,
    "grandchild": lambda f: paths(grand(f)(1)),
    "node": lambda f: node(f)(1),
    "node, set": lambda f: setattr(node(f)(1), "a", 2),
    "node, thawed": lambda f: setattr(node(f, frozen=False)(1), "a", 2),
    "node, paths": lambda f: paths(node(f)(1)),
    "derived": lambda f: derived(f)(1, "t", c=2),
    "derived, signature": lambda f: inspect.signature(derived(f)),
    "derived, paths": lambda f: paths(derived(f)(1, c=2)),
    "derived, map": lambda f: jax.tree.map(lambda x: -x, derived(f)(1, c=2)).total(),
    "post init": lambda f: jax.tree.map(lambda x: -x, posted(f)(1)),
    "base": lambda f: f.struct.PyTreeNode(),
    "base, args": lambda f: f.struct.PyTreeNode(1, a=2),
    "twice": lambda f: (lambda c: f.struct.dataclass(c) is c)(point(f)),
    "deep copy": lambda f: copy.deepcopy(point(f)(1)),
    "cloudpickle": lambda f: pickle.loads(cloudpickle.dumps(node(f)(1))).replace(a=2),
    "state": lambda f: f.serialization.to_state_dict(point(f)(1, y=[4])),
    "restore": lambda f: f.serialization.from_state_dict(
        point(f)(1, y=[4]), {"x": 2, "y": {"0": 5}}
    ),
    "restore, missing": lambda f: f.serialization.from_state_dict(
        point(f)(1), {"x": 2}
    ),
    "restore, unknown": lambda f: f.serialization.from_state_dict(
        node(f)(1), {"a": 2, "b": "t"}
    ),
    "restore, no dict": lambda f: f.serialization.from_state_dict(node(f)(1), 3),
    "restore, post init": lambda f: f.serialization.from_state_dict(
        posted(f)(1), {"a": -1}
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_does_what_flax_does(name):
    assert_same(PROGRAMS[name])


def test_static_fields_belong_to_the_structure():
    @struct.dataclass
    class Scaled:
        x: jax.Array
        factor: int = struct.field(pytree_node=False)

    traces = []

    @jax.jit
    def apply(scaled):
        traces.append(scaled.factor)
        return scaled.x * scaled.factor

    assert apply(Scaled(2.0, 3)) == apply(Scaled(3.0, 2)) == apply(Scaled(2.0, 3)) == 6
    assert traces == [3, 2]
