"""Laws that hold for every module tree, over random ones.

A blueprint is a dict of attribute names to what they hold, from which `Tree` builds
itself, so that one blueprint can be built in several orders.
"""

import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import assert_close
from linnet import nn

KEY = jax.random.key(0)
X = jnp.float32(0.7)
normal = nn.initializers.normal(1.0)


class Tree(nn.Module):
    """Whatever its blueprint says."""

    def __init__(self, blueprint):
        for name, plan in blueprint.items():
            setattr(self, name, build(plan))

    def __call__(self, x):
        for part in self.parts():
            if isinstance(part, nn.Module):
                x = jnp.tanh(part(x))
            elif isinstance(part, jax.Array):
                x = x + jnp.sin(part.astype(jnp.float32)).sum() * x
        return x

    def parts(self):
        names = [name for name in dir(self) if len(name) == 1]
        values = [getattr(self, name) for name in names]
        return jax.tree.leaves(values, is_leaf=lambda v: isinstance(v, nn.Module))

    def nothing(self):
        return len(self.parts())

    def count(self):
        """Adds one to every state."""
        for name in (name for name in dir(self) if len(name) == 1):
            value = getattr(self, name)
            for part in jax.tree.leaves(value, is_leaf=lambda v: isinstance(v, Tree)):
                if isinstance(part, Tree):
                    part.count()
            if name in "st" and isinstance(value, jax.Array):
                setattr(self, name, value + 1)


class Declare:
    """An array of a blueprint."""

    def __init__(self, kind, shape, dtype):
        self.kind, self.shape, self.dtype = kind, shape, dtype

    def __repr__(self):
        return f"{self.kind}({self.shape}, {self.dtype})"

    def build(self):
        if self.kind == "constant":
            return nn.constant(jnp.ones(self.shape, self.dtype))
        kinds = {"param": nn.param, "state": nn.state}
        return kinds[self.kind](normal, self.shape, self.dtype)


class Nested(dict):
    """A blueprint of a module inside another."""


def build(plan):
    if isinstance(plan, Declare):
        return plan.build()
    if isinstance(plan, Nested):
        return Tree(plan)
    if isinstance(plan, dict):
        return {key: build(value) for key, value in plan.items()}
    if type(plan) in (list, tuple):
        return type(plan)(map(build, plan))
    return plan


def arrays(*kinds):
    shapes = st.sampled_from([(), (2,), (2, 3), (0,)])
    dtypes = st.sampled_from(["float32", "bfloat16"])
    return st.builds(Declare, st.sampled_from(kinds), shapes, dtypes)


ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, np.float32(-0.0), 1j]),
    st.text("ab/.", max_size=3),
    st.sampled_from([math.sin, len, jnp.float32, np.dtype("int8"), b"a"]),
)
STATICS = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["k", 1, "l"]), inner, max_size=2)
        | st.frozensets(st.integers(0, 2), max_size=2)
    ),
    max_leaves=4,
)


def blueprints(depth=2):
    parts = [arrays("param", "constant"), STATICS]
    if depth:
        inside = blueprints(depth - 1).map(Nested)
        held = st.one_of(inside, arrays("param"), ATOMS)
        parts += [
            inside,
            st.lists(held, max_size=2),
            st.dictionaries(st.sampled_from(["y", "x", 3]), held, max_size=2),
        ]
    anything = st.dictionaries(st.sampled_from("abcdef"), st.one_of(parts), max_size=3)
    states = st.dictionaries(st.sampled_from("st"), arrays("state"), max_size=2)
    return st.builds(lambda a, b: a | b, anything, states)


def ready(blueprint, key=KEY):
    model = Tree(blueprint)
    leaves = jax.tree.leaves(model, is_leaf=_is_declared)
    return nn.init(model, key, X) if any(map(_is_declared, leaves)) else model


def _is_declared(leaf):
    return type(leaf).__name__ == "Declared"


def law(examples):
    """A property of random blueprints, at this many of them."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]

    def decorate(test):
        limited = settings(max_examples=examples, suppress_health_check=checks)
        return limited(given(blueprints())(test))

    return decorate


@law(60)
def test_flatten_and_unflatten_give_back_the_model(blueprint):
    for model in (Tree(blueprint), ready(blueprint)):
        leaves, treedef = jax.tree.flatten(model)
        again = treedef.unflatten(leaves)
        assert again == model
        assert hash(again) == hash(model)
        assert repr(again) == repr(model)
        assert jax.tree.structure(again) == treedef == jax.tree.structure(model)
        keyed, same = jax.tree_util.tree_flatten_with_path(model)
        assert same == treedef
        for (_, one), other, third in zip(
            keyed, leaves, jax.tree.leaves(again), strict=True
        ):
            assert one is other is third


@law(40)
def test_two_made_of_one_blueprint_are_equal(blueprint):
    assert Tree(blueprint) == Tree(blueprint)
    assert jax.tree.structure(ready(blueprint)) == jax.tree.structure(ready(blueprint))


@law(60)
def test_what_was_assigned_is_read(blueprint):
    model = Tree(blueprint)
    for again in (model, jax.tree.map(lambda x: x, model), ready(blueprint)):
        for name, plan in blueprint.items():
            if not isinstance(plan, Declare):
                assert_same_plan(plan, getattr(again, name))


def assert_same_plan(plan, value):
    if isinstance(plan, Nested):
        for name, inner in plan.items():
            if not isinstance(inner, Declare):
                assert_same_plan(inner, getattr(value, name))
    elif isinstance(plan, dict):
        assert list(value) == list(plan)
        for key in plan:
            assert_same_plan(plan[key], value[key])
    elif type(plan) in (list, tuple):
        assert len(value) == len(plan)
        for one, other in zip(plan, value, strict=True):
            assert_same_plan(one, other)
    elif not isinstance(plan, Declare):
        assert type(value) is type(plan)
        assert repr(value) == repr(plan)


@law(12)
def test_jit_vmap_and_eager_agree(blueprint):
    model = ready(blueprint)
    expected = model(X)
    assert_close(jax.jit(lambda m, x: m(x))(model, X), expected, rtol=1e-4)
    assert_close(nn.training(model, KEY)(X)[0], expected, rtol=1e-4)
    rows = jnp.stack([X, 2 * X, X - 1])
    each = jnp.stack([model(row) for row in rows])
    assert_close(jax.vmap(model)(rows), each, rtol=1e-4, atol=1e-5)
    assert jax.jit(lambda m: m)(model) == model


@law(40)
def test_partition_then_merge_is_the_identity(blueprint):
    model = ready(blueprint)
    for wheres in [(nn.Param,), (nn.State, nn.Constant), (Tree,), (_is_small, nn.Role)]:
        parts = nn.partition(model, *wheres)
        assert nn.merge(*parts) == model
        assert nn.merge(*parts[::-1]) == model
        counts = [len(jax.tree.leaves(part)) for part in parts]
        assert sum(counts) == len(jax.tree.leaves(model))
        for part in parts:
            assert jax.tree.structure(part.replace()) == jax.tree.structure(part)


def _is_small(path, x):
    return x.size < 2


@law(40)
def test_opening_and_closing_without_effects_is_the_identity(blueprint):
    model = ready(blueprint)
    count, same = nn.stateful(model.nothing)()
    assert same is model
    assert count == model.nothing()
    assert nn.training(model, KEY)(X)[1] is model


@law(25)
def test_every_state_is_written_and_nothing_else(blueprint):
    model = ready(blueprint)
    _, counted = nn.stateful(model.count)()
    expected = nn.select(model, nn.State).map(lambda x: x + 1)
    assert counted == expected


@law(40)
def test_the_pickling_round_trip_gives_the_model(blueprint):
    for model in (Tree(blueprint), ready(blueprint)):
        again = pickle.loads(pickle.dumps(model))
        assert again == model
        assert jax.tree.structure(again) == jax.tree.structure(model)


@law(40)
def test_paths_there_and_back_give_the_model(blueprint):
    model = ready(blueprint)
    flat = nn.to_paths(model)
    assert len(flat) == len(jax.tree.leaves(model))
    assert nn.from_paths(model, flat) == model
    assert nn.from_paths(Tree(blueprint), dict(reversed(flat.items()))) == model


@law(40)
def test_abstract_and_describe_agree_with_init(blueprint):
    model = ready(blueprint)
    assert nn.abstract(Tree(blueprint), X) == jax.eval_shape(lambda: model)
    assert nn.describe(model) == Tree(blueprint)


@law(40)
def test_freezing_then_unfreezing_gives_the_model(blueprint):
    model = ready(blueprint)
    frozen = nn.select(model, nn.Param).freeze()
    assert jax.tree.leaves(nn.params(frozen)) == []
    assert nn.select(frozen, nn.Frozen).unfreeze() == model


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(blueprints(), st.randoms(use_true_random=False))
def test_initial_values_depend_on_the_path_alone(blueprint, random):
    """Not on order, nor on what else there is: bit for bit."""
    expected = nn.to_paths(ready(blueprint))
    found = nn.to_paths(ready(rearranged(blueprint, random)))
    for path, array in expected.items():
        assert_close(found[path], array, rtol=0, atol=0)
    kept = dict(list(blueprint.items())[:1])
    for path, array in nn.to_paths(ready(kept)).items():
        assert_close(array, expected[path], rtol=0, atol=0)


def rearranged(plan, random):
    """The same attributes in another order, among new ones."""
    items = [(k, _rearranged(v, random)) for k, v in plan.items()]
    items.append(("h", Declare("param", (2,), "float32")))
    items.append(("g", Nested(a=Declare("param", (3,), "float32"))))
    random.shuffle(items)
    return type(plan)(items)


def _rearranged(plan, random):
    return rearranged(plan, random) if isinstance(plan, Nested) else plan


@law(20)
def test_other_keys_and_other_paths_give_other_values(blueprint):
    seen = {}
    for seed in (0, 1):
        drawn = nn.select(ready(blueprint, jax.random.key(seed)), (nn.Param, nn.State))
        for path, x in drawn.items():
            if x.size > 1:
                values = np.asarray(x, np.float64)
                for other in seen.setdefault(x.shape, []):
                    assert not np.array_equal(values, other), (seed, path)
                seen[x.shape].append(values)


def test_the_trees_are_rich_enough():
    """The strategy makes what these laws are about."""
    found = set()

    @law(60)
    def look(blueprint):
        model = ready(blueprint)
        depth = max(path.count("/") for path in ["", *nn.to_paths(model)])
        roles = {entry for entry in (nn.Param, nn.State, nn.Constant)}
        found.update(role for role in roles if len(nn.select(model, role)))
        found.update({f"depth {depth}", type(model.__dict__.get("a", None))})

    look()
    assert {nn.Param, nn.State, nn.Constant, "depth 0", "depth 1", "depth 2"} <= found
