"""Module: classes, frozen instances, containers, equality, and life as an object."""

import abc
import collections
import copy
import dataclasses
import functools
import inspect
import os
import pickle
import subprocess
import sys
from typing import Any, Generic, NamedTuple, TypeVar

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn

KEY = jax.random.key(0)
X = normal((2, 3))
ones = nn.initializers.ones


class Affine(nn.Module):
    features: int
    scale: float = 2.0

    def setup(self):
        self.shift = nn.param(ones, (1, self.features))

    def __call__(self, x):
        return self.scale * x + self.shift


class Holder(nn.Module):
    """Holds anything, to see what becomes of it."""

    def __init__(self, value):
        self.value = value

    def __call__(self, x):
        for layer in jax.tree.leaves(self.value, is_leaf=_is_module):
            x = layer(x)
        return x


def _is_module(value):
    return isinstance(value, nn.Module)


class Pair(NamedTuple):
    first: Any
    second: Any


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["layer"],
    meta_fields=["activation"],
)
@dataclasses.dataclass
class Block:
    layer: Any
    activation: Any


def made(model, *sample):
    return nn.init(model, KEY, *(sample or (X,)))


# ---- classes


def test_a_class_is_a_pytree_as_soon_as_it_is_defined():
    class Fresh(nn.Module):
        def __init__(self):
            self.weight = nn.param(jnp.arange(3.0))

    leaves, treedef = jax.tree.flatten(Fresh())
    assert_close(leaves, [np.arange(3.0)])
    assert isinstance(treedef.unflatten(leaves), Fresh)


def test_fields_make_a_constructor_and_setup_follows_it():
    model = made(Affine(3))
    assert (model.features, model.scale) == (3, 2.0)
    assert_close(model(X), 2 * X + 1)
    assert_close(made(Affine(3, scale=0.5))(X), 0.5 * X + 1)
    assert list(inspect.signature(Affine).parameters) == ["features", "scale"]


def test_a_default_of_a_field_is_no_class_attribute_in_the_way():
    models = [Affine(3, scale=s) for s in (1.0, 3.0)]
    assert [m.scale for m in models] == [1.0, 3.0]
    assert [jax.tree.map(lambda x: x, m).scale for m in models] == [1.0, 3.0]


def test_fields_are_inherited_and_defaults_overridden():
    class Wider(Affine):
        features: int = 4
        extra: str = "e"

    model = Wider()
    assert (model.features, model.scale, model.extra) == (4, 2.0, "e")
    assert made(model, normal((2, 4))).shift.shape == (1, 4)
    assert Affine(3).features == 3
    assert list(inspect.signature(Wider).parameters) == ["features", "scale", "extra"]


def test_fields_may_be_for_keywords_only():
    class Some(nn.Module):
        first: int = 1
        _: dataclasses.KW_ONLY
        second: int

    class All(nn.Module, kw_only=True):
        first: int = 1
        second: int

    for cls in (Some, All):
        assert (cls(second=2).first, cls(second=2).second) == (1, 2)
        with pytest.raises(TypeError):
            cls(1, 2)


def test_field_options_of_dataclasses_hold():
    class Options(nn.Module):
        names: list = dataclasses.field(default_factory=lambda: ["a"])
        count: int = dataclasses.field(init=False, default=7)

    assert Options().names == ("a",)
    assert Options(names=["b", "c"]).count == 7
    with pytest.raises(TypeError):
        Options(count=1)


def test_an_explicit_constructor_calls_that_of_its_base():
    class Base(nn.Module):
        def __init__(self, width):
            self.width = width
            self.base = nn.Dense(width)

    class Child(Base):
        def __init__(self, width):
            super().__init__(width + 1)
            self.head = nn.Dense(self.width)

        def __call__(self, x):
            return self.head(self.base(x))

    class Grandchild(Child):
        """Inherits the constructor too."""

    for cls in (Child, Grandchild):
        model = made(cls(4))
        assert model(X).shape == (2, 5)
        assert next(iter(nn.to_paths(model))) == "base/kernel"


def test_a_generated_constructor_may_be_called_by_a_written_one():
    class Child(Affine):
        def __init__(self):
            super().__init__(3, scale=4.0)
            self.more = 1

    model = made(Child())
    assert_close(model(X), 4 * X + 1)
    assert model.more == 1


def test_calling_the_constructor_of_module_itself_does_nothing():
    class Torchlike(nn.Module):
        def __init__(self):
            super().__init__()
            self.k = 3

    assert Torchlike().k == 3


def test_properties_read_and_setters_write_before_and_during_a_call():
    class Counter(nn.Module):
        def __init__(self):
            self.seen = nn.state(0)
            self.limit = 5

        @property
        def limit(self):
            return self._limit

        @limit.setter
        def limit(self, value):
            self._limit = 2 * value

        @property
        def count(self):
            return self.seen

        @count.setter
        def count(self, value):
            self.seen = value

        def __call__(self):
            self.count = self.count + 1

    model = Counter()
    assert model.limit == 10
    _, model = nn.stateful(model)()
    assert int(model.count) == 1
    with pytest.raises(nn.FrozenError, match="LN-FROZEN-01"):
        model.limit = 1


def test_class_methods_static_methods_and_other_methods():
    class Model(nn.Module):
        default = 4

        def __init__(self, width):
            self.dense = nn.Dense(width)

        @classmethod
        def small(cls):
            return cls(cls.default)

        @staticmethod
        def double(x):
            return 2 * x

        def encode(self, x):
            return self.double(self.dense(x))

    model = nn.init(Model.small(), KEY, X, method="encode")
    assert_close(model.encode(X), 2 * model.dense(X))
    out, same = nn.stateful(model.encode)(X)
    assert_close(out, model.encode(X))
    assert same is model
    assert_close(jax.jit(lambda m, x: m.encode(x))(model, X), out)


def test_an_abstract_method_keeps_a_class_from_being_built():
    class Base(nn.Module):
        @abc.abstractmethod
        def __call__(self, x): ...

    class Concrete(Base):
        def __call__(self, x):
            return x

    with pytest.raises(TypeError, match="abstract"):
        Base()
    assert Concrete()(3) == 3


def test_generic_classes():
    T = TypeVar("T")

    class Box(nn.Module, Generic[T]):
        def __init__(self, layer: T):
            self.layer = layer

        def __call__(self, x):
            return self.layer(x)

    assert made(Box[nn.Dense](nn.Dense(2)))(X).shape == (2, 2)


def test_instance_attributes_shadow_those_of_the_class():
    class Model(nn.Module):
        rate = 0.5
        dense = None

        def __init__(self):
            self.rate = 0.1
            self.dense = nn.Dense(2)

    model = jax.tree.map(lambda x: x, nn.init(Model(), KEY, X, method=_dense))
    assert model.rate == 0.1
    assert model.dense.kernel.shape == (3, 2)
    assert (Model.rate, Model.dense) == (0.5, None)
    _, model = nn.stateful(_Method(model).run)(X)
    assert model.model.rate == 0.1


def _dense(model, x):
    return model.dense(x)


class _Method(nn.Module):
    def __init__(self, model):
        self.model = model

    def run(self, x):
        assert self.model.rate == 0.1
        return self.model.dense(x)


def test_modules_without_data():
    class Double(nn.Module):
        def __call__(self, x):
            return 2 * x

    model = Double()
    assert jax.tree.leaves(model) == []
    assert nn.init(model, KEY, X) == model
    assert_close(jax.jit(model)(X), 2 * X)
    assert_close(jax.jit(lambda m, x: m(x))(model, X), 2 * X)
    assert nn.init(Holder([Double(), nn.Dense(2)]), KEY, X)(X).shape == (2, 2)


def test_names_that_modules_need_themselves_are_refused():
    for name in ("replace", "training", "path", "_open", "_pending", "_node"):

        class Bad(nn.Module):
            def __init__(self):
                setattr(self, name, 3)  # noqa: B023

        with pytest.raises(nn.ConfigError, match="LN-STATIC-03"):
            Bad()


# ---- frozen


def test_an_instance_cannot_be_changed():
    model = made(nn.Dense(2))
    with pytest.raises(nn.FrozenError, match="LN-FROZEN-01"):
        model.kernel = jnp.zeros((3, 2))
    with pytest.raises(nn.FrozenError):
        model.novel = 1
    with pytest.raises(nn.FrozenError):
        del model.kernel
    with pytest.raises(nn.FrozenError):
        model.training = True


def test_its_containers_cannot_be_changed():
    model = Holder({"a": nn.Dense(2), "sizes": [1, 2]})
    with pytest.raises(nn.FrozenError, match="LN-FROZEN-02"):
        model.value["b"] = 1
    with pytest.raises(nn.FrozenError):
        model.value.update(b=1)
    assert model.value["sizes"] == (1, 2)
    assert Holder([nn.Dense(1), nn.Dense(2)]).value.__class__ is tuple


def test_an_object_that_went_in_can_change_without_the_model():
    sizes, heads = [1, 2], {"a": 1}
    model = Holder((sizes, heads))
    sizes.append(3)
    heads["b"] = 2
    assert model.value == ((1, 2), {"a": 1})


def test_replace_makes_a_changed_copy():
    model = made(nn.Dense(2))
    other = model.replace(bias=jnp.full((2,), 5.0))
    assert_close(other(X), model(X) + 5)
    assert_close(model.bias, np.zeros(2))
    assert list(nn.to_paths(nn.params(other))) == ["kernel", "bias"]
    with pytest.raises(nn.ConfigError, match="LN-STATIC-04"):
        model.replace(kernle=0)


def test_replace_of_nothing_leaves_the_structure():
    model = made(Holder([nn.Dense(2), jax.nn.relu]))
    parts = nn.partition(model, "**/kernel")
    for tree in (model, *parts, nn.abstract(model, X), nn.describe(model)):
        assert jax.tree.structure(tree.replace()) == jax.tree.structure(tree)
    kernel = parts[0].value[0]
    assert jax.tree.structure(kernel.replace(features=2)) == jax.tree.structure(kernel)


def test_replace_takes_new_modules_and_removes_old_ones():
    model = made(Holder(nn.Dense(2)))
    bigger = made(model.replace(value=[model.value, nn.Dense(5)]))
    assert bigger(X).shape == (2, 5)
    assert bigger.value[0].kernel is model.value.kernel
    assert jax.tree.leaves(model.replace(value=None)) == []


# ---- containers


CONTAINERS = {
    "list": (lambda a, b: [a, b], "value/0/kernel"),
    "tuple": (lambda a, b: (a, (b,)), "value/0/kernel"),
    "dict": (lambda a, b: {"z": a, "a": b}, "value/z/kernel"),
    "ordered": (lambda a, b: collections.OrderedDict(z=a, a=b), "value/z/kernel"),
    "named": (Pair, "value/first/kernel"),
    "dataclass": (lambda a, b: [Block(a, "relu"), b], "value/0/layer/kernel"),
    "nested": (lambda a, b: {"x": [{"y": (a,)}], "b": b}, "value/x/0/y/0/kernel"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_modules_in_containers(name):
    build, path = CONTAINERS[name]
    model = made(Holder(build(nn.Dense(4), nn.Dense(2))))
    assert next(iter(nn.to_paths(model))) == path
    expected = Holder([nn.Dense(4), nn.Dense(2)])
    assert model(X).shape == made(expected)(X).shape
    assert_close(jax.jit(lambda m, x: m(x))(model, X), model(X))
    assert_close(nn.training(model, KEY)(X)[0], model(X))
    assert pickle.loads(pickle.dumps(model)) == model
    assert type(model.value) is type(jax.tree.map(lambda x: x, model).value)


def test_functions_and_numbers_in_the_same_container():
    def run(model, x):
        first, activation, factor, last = model.value
        return last(factor * activation(first(x)))

    model = Holder([nn.Dense(4), jax.nn.relu, 0.5, nn.Dense(2)])
    model = nn.init(model, KEY, X, method=run)
    assert model.value[1] is jax.nn.relu
    again = jax.jit(lambda m: m)(model)
    assert again.value[1:3] == (jax.nn.relu, 0.5)
    expected = run(model, X)
    assert_close(jax.jit(run)(model, X), expected)
    assert_close(nn.stateful(_Runner(run, model))(X)[0], expected)
    other = Holder([nn.Dense(4), jax.nn.relu, 1, nn.Dense(2)])
    one = Holder([nn.Dense(4), jax.nn.relu, 1.0, nn.Dense(2)])
    assert other != one


class _Runner(nn.Module):
    def __init__(self, run, model):
        self.run = run
        self.model = model

    def __call__(self, x):
        return self.run(self.model, x)


def test_a_registered_dataclass_keeps_its_static_field():
    model = Holder(Block(nn.Dense(4), jax.nn.relu))
    model = nn.init(model, KEY, X, method=lambda m, x: m.value.layer(x))
    again = jax.jit(lambda m: m)(model)
    assert again.value.activation is jax.nn.relu
    assert list(nn.to_paths(again)) == ["value/layer/kernel", "value/layer/bias"]


def test_a_dict_of_layers_keeps_its_order():
    names = ["z", "a", "m"]
    model = Holder({name: nn.Dense(i + 2) for i, name in enumerate(names)})

    def run(model, x):
        for layer in model.value.values():
            x = layer(x)
        return x

    model = nn.init(model, KEY, X, method=run)
    assert list(jax.jit(lambda m: m)(model).value) == names
    assert run(model, X).shape == (2, 4)
    assert list(Holder({"b": 1, "a": 2}).value) == ["b", "a"]
    assert list(Holder({"a": 2, "b": 1}).value) == ["a", "b"]


def test_keys_of_a_dict_may_be_of_several_types():
    assert Holder({1: "a", "b": 2}).value == {1: "a", "b": 2}
    model = Holder({1: nn.Dense(2), "b": 2})
    model = nn.init(model, KEY, X, method=lambda m, x: m.value[1](x))
    assert list(nn.to_paths(model)) == ["value/1/kernel", "value/1/bias"]


def test_arrays_may_be_declared_in_containers():
    class Weights(nn.Module):
        def __init__(self):
            self.pair = [nn.param(ones, (1, 3)), {"b": nn.state(ones, (1, 3))}]

        def __call__(self, x):
            return x * self.pair[0] + self.pair[1]["b"]

    model = made(Weights())
    assert_close(model(X), X + 1)
    assert_close(nn.training(model)(X)[0], X + 1)
    assert list(nn.to_paths(nn.params(model))) == ["pair/0"]


def test_empty_containers_and_none_are_configuration():
    model = Holder([None, [], {}, ()])
    assert model.value == (None, (), {}, ())
    assert jax.tree.leaves(model) == []


@dataclasses.dataclass(frozen=True)
class Unknown:
    layer: Any


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({nn.Dense(1), nn.Dense(2)}, "holds modules in a set"),
        ((nn.Dense(1) for _ in range(2)), "is a generator"),
        (Unknown(nn.Dense(2)), "is a Unknown with modules"),
        (nn.Dense(2).__call__, "is a bound method of a module"),
    ],
)
def test_modules_where_a_pytree_does_not_see_them_are_refused(value, what):
    with pytest.raises(nn.ConfigError, match=f"{what}.*LN-STATIC-02"):
        Holder(value)


def test_the_way_out_of_an_unknown_dataclass_works():
    @dataclasses.dataclass(frozen=True)
    class Local:
        layer: Any

    with pytest.raises(nn.ConfigError) as caught:
        Holder(Local(nn.Dense(2)))
    exec(caught.value.fixes[0][1], {"jax": jax, "Local": Local})
    assert made(Holder(Local(nn.Dense(2))))(X).shape == (2, 2)


def test_what_cannot_be_hashed_is_refused_also_in_a_container():
    for value in ({1, 2}, [nn.Dense(2), {1, 2}], {"a": (nn.Dense(2), bytearray(2))}):
        with pytest.raises(nn.ConfigError, match="LN-STATIC-01"):
            Holder(value)


# ---- as an object


def test_equality_is_by_configuration_and_arrays():
    a, b = made(nn.Dense(2)), made(nn.Dense(2))
    assert a == b
    assert hash(a) == hash(b)
    assert a != a.replace(bias=a.bias + 1)
    assert a != nn.Dense(2)
    assert nn.Dense(2) == nn.Dense(2)
    assert nn.Dense(2) != nn.Dense(3)
    assert a != jax.tree.map(lambda x: x.astype(jnp.bfloat16), a)
    assert a != "a"
    assert len({nn.Dense(2), nn.Dense(2), nn.Dense(3)}) == 2


def test_a_model_may_be_a_static_argument():
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def run(model, x):
        traces.append(1)
        return model(x)

    model = made(nn.Dense(2))
    assert_close(run(model, X), model(X))
    run(jax.tree.map(jnp.copy, model), X)
    assert len(traces) == 1
    assert_close(run(model.replace(bias=model.bias + 1), X), model(X) + 1)


COPIES = {
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "cloudpickle": lambda m: cloudpickle.loads(cloudpickle.dumps(m)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("ready", [True, False])
def test_copies_are_equal(how, ready):
    model = Holder({"b": [nn.Dense(2), Affine(2)], "a": nn.BatchNorm()})
    model = made(model) if ready else model
    again = COPIES[how](model)
    assert again == model
    assert jax.tree.structure(again) == jax.tree.structure(model)
    assert repr(again) == repr(model)
    if ready:
        assert_close(again(X), model(X), rtol=0, atol=0)
    else:
        assert made(again) == made(model)


def test_a_deep_copy_has_arrays_of_its_own_and_a_shallow_one_shares_them():
    model = made(nn.Dense(2))
    assert copy.copy(model).kernel is model.kernel
    assert copy.deepcopy(model).kernel is not model.kernel
    shared = nn.Dense(3)
    with pytest.raises(nn.TreeError, match="LN-SHARE-01"):
        made(Holder([shared, shared]))
    assert made(Holder([shared, copy.deepcopy(shared)]))(X).shape == (2, 3)


SCRIPT = """
import sys, cloudpickle, jax
from linnet import nn

class Local(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.param(lambda key, shape, dtype: jax.numpy.full(shape, 3.0), ())
        self.act = lambda x: x + 1
    def __call__(self, x):
        return self.act(self.scale * x)

class Fields(nn.Module):
    inner: nn.Module
    plus: float = 1.0
    def __call__(self, x):
        return self.inner(x) + self.plus

model = nn.init(Fields(Local(), plus=2.0), jax.random.key(0), 1.0)
sys.stdout.buffer.write(cloudpickle.dumps(model))
"""


def test_a_model_of_a_script_reaches_another_process():
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, check=True, env=env
    )
    model = cloudpickle.loads(done.stdout)
    assert float(model(1.0)) == 6.0
    assert float(jax.jit(lambda m, x: m(x))(model, 1.0)) == 6.0
    assert list(nn.to_paths(model)) == ["inner/scale"]
    again = type(model)(type(model.inner)(), plus=0.0)
    assert float(nn.init(again, KEY, 1.0)(1.0)) == 4.0


def test_a_module_under_construction_and_absent_attributes_say_so():
    class Early(nn.Module):
        def __init__(self):
            self.text = repr(self)

    assert Early().text == "<Early under construction>"
    with pytest.raises(AttributeError, match="'Early' object has no attribute 'nope'"):
        _ = Early().nope
    assert not hasattr(Early(), "nope")
    assert {"text", "replace"} <= set(dir(Early()))
    assert {"kernel", "features"} <= set(dir(nn.Dense(2)))
