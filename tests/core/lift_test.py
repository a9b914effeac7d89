"""`nn.lift`: what is carried, from closures, arguments, methods and containers."""

import functools

import jax
import jax.numpy as jnp
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet.testing import log_compiles

KEY = jax.random.key(0)
X = normal((2, 3))


class Part(nn.Module):
    """Has a parameter, state and randomness."""

    def __init__(self):
        self.dense = nn.Dense(3)
        self.drop = nn.Dropout(0.5)
        self.count = nn.state(0)

    def __call__(self, x, scale=1.0):
        self.count = self.count + 1
        return self.drop(self.dense(x)) * scale

    def method(self, x):
        return self(x, 2.0)


class Uses(nn.Module):
    """Runs a function of itself."""

    def __init__(self, how):
        self.part, self.other = Part(), nn.Dense(3)
        self.parts = {"a": Part()}
        self.how = how

    def __call__(self, x):
        return self.how(self, x)

    def everything(self, x):
        return self.part(x) + self.other(x) + self.parts["a"](x)


def lifted(f):
    return nn.lift(jax.checkpoint)(f)


PLAIN = {
    "module": lambda self, x: self.part(x),
    "method": lambda self, x: self.part.method(x),
    "own method": lambda self, x: self.everything(x),
    "keyword": lambda self, x: self.part(x, scale=3.0),
    "two": lambda self, x: self.other(self.part(x)) + self.parts["a"](x),
}


def with_default(self, x):
    def run(x, part=self.part):
        return part(x)

    return lifted(run)(x)


def with_keyword_default(self, x):
    def run(x, *, part=self.part):
        return part(x)

    return lifted(run)(x)


def in_inner_function(self, x):
    def inner(x):
        return self.part(x)

    return lifted(lambda x: inner(x))(x)


def in_containers(self, x):
    modules = [self.part, {"other": (self.other, self.parts)}]

    def run(x):
        part, rest = modules
        other, parts = rest["other"]
        return other(part(x)) + parts["a"](x)

    return lifted(run)(x)


def in_arguments(self, x):
    def run(tree, x):
        return tree["two"][1](tree["two"][0](x)) + tree["a"](x)

    return lifted(run)({"two": (self.part, self.other), "a": self.parts["a"]}, x)


def module_and_parent(self, x):
    """A module and the one that holds it stay one."""
    part = self.part

    def run(x):
        out = part(x)
        return out + 0 * (self.part.count - part.count)

    return lifted(run)(x)


def module_and_parent_as_arguments(self, x):
    return lifted(lambda whole, part, x: part(x) + 0 * whole.part.count)(
        self, self.part, x
    )


WAYS = [
    ("module", lambda self, x: lifted(self.part)(x)),
    ("module", lambda self, x: lifted(self.part.__call__)(x)),
    ("module", lambda self, x: lifted(lambda x: self.part(x))(x)),
    ("module", lambda self, x: lifted(functools.partial(self.part, scale=1.0))(x)),
    ("module", lambda self, x: lifted(functools.partial(Part.__call__, self.part))(x)),
    ("module", lambda self, x: lifted(lambda m, x: m(x))(self.part, x)),
    ("module", lambda self, x: lifted(lifted(lifted(self.part)))(x)),
    ("module", lambda self, x: nn.jit(nn.remat(self.part))(x)),
    ("module", with_default),
    ("module", with_keyword_default),
    ("module", in_inner_function),
    ("module", module_and_parent),
    ("module", module_and_parent_as_arguments),
    ("method", lambda self, x: lifted(self.part.method)(x)),
    ("own method", lambda self, x: lifted(self.everything)(x)),
    ("keyword", lambda self, x: lifted(self.part)(x, scale=jnp.float32(3.0))),
    ("keyword", lambda self, x: nn.remat(self.part)(x, scale=3.0)),
    ("two", in_containers),
    ("two", in_arguments),
]


def run(how, arrays_of=None):
    model = Uses(how).replace(**{k: v for k, v in arrays_of.items()})
    return nn.training(model, KEY)(X)


@pytest.fixture(scope="module")
def arrays():
    both = nn.init(Uses(lambda self, x: self.everything(x)), KEY, X)
    return {name: getattr(both, name) for name in ("part", "other", "parts")}


@pytest.mark.parametrize("way", range(len(WAYS)))
def test_what_is_lifted_does_what_the_plain_call_does(arrays, way):
    """The same numbers, masks and state, from wherever the module comes."""
    plain, how = WAYS[way]
    out, model = run(how, arrays)
    desired, expected = run(PLAIN[plain], arrays)
    assert_close(out, desired, rtol=1e-5)
    states = nn.to_paths(nn.partition(model, nn.State)[0])
    assert_close(states, nn.to_paths(nn.partition(expected, nn.State)[0]))
    assert int(model.part.count) == 1


@pytest.mark.parametrize("way", range(len(WAYS)))
def test_initialising_goes_through_a_lifted_call(way):
    _, how = WAYS[way]
    model = nn.init(Uses(how), KEY, X, method=lambda m, x: (m(x), m.everything(x)))
    desired = nn.init(Uses(PLAIN["own method"]), KEY, X)
    assert_close(model.part.dense.kernel, desired.part.dense.kernel, rtol=0)
    assert int(model.part.count) == 0


def test_without_open_modules_it_is_the_transform_itself():
    assert_close(lifted(jnp.tanh)(X), jnp.tanh(X))
    dense = nn.init(nn.Dense(3), KEY, X)
    assert_close(lifted(dense)(X), dense(X))
    assert_close(lifted(lambda m, x: m(x))(dense, X), dense(X))


def test_a_transform_of_ones_own():
    def negated(f):
        return lambda *args, **kwargs: jax.tree.map(
            lambda y: -y if jnp.issubdtype(y.dtype, jnp.floating) else y,
            f(*args, **kwargs),
        )

    dense = nn.init(nn.Dense(3), KEY, X)

    class Model(nn.Module):
        def __init__(self):
            self.dense = nn.Dense(3)

        def __call__(self, x):
            return nn.lift(negated)(self.dense)(x)

    out, _ = nn.stateful(Model().replace(dense=dense))(X)
    assert_close(out, -dense(X))


def test_gradients_flow_through(arrays):
    plain = Uses(PLAIN["two"]).replace(**arrays)
    carried = Uses(in_containers).replace(**arrays)

    def loss(model):
        return (nn.training(model, KEY, update=False)(X) ** 2).sum()

    desired = nn.to_paths(nn.grad(loss)(plain))
    actual = nn.to_paths(nn.grad(loss)(carried))
    assert_close(actual, desired, rtol=1e-4)


def test_a_module_changed_outside_is_seen_inside(arrays):
    """State written before the transform is what the transform sees."""

    def how(self, x):
        self.part(x)
        counts = [self.part.count, lifted(lambda x: self.part.count)(x)]
        lifted(self.part)(x)
        return [*counts, self.part.count]

    counts, model = run(how, arrays)
    assert list(map(int, counts)) == [1, 1, 2]
    assert int(model.part.count) == 2


@pytest.mark.parametrize("what", ["module", "method", "function"])
def test_a_plain_call_of_a_jitted_part_compiles_once(what):
    dense = nn.init(nn.Dense(3), KEY, normal((2, 19)))

    def apply(x):
        return dense(x)

    f = {"module": dense, "method": dense.__call__, "function": apply}[what]
    x = normal((2, 19))
    nn.jit(f)(x)
    with log_compiles() as names:
        assert_close(nn.jit(f)(x), dense(x))
        assert_close(nn.jit(f)(x + 1), dense(x + 1))
    assert not {"_called", "apply", "pure"} & set(names)


def test_options_of_jit_are_those_of_jax():
    dense = nn.init(nn.Dense(3), KEY, X)

    def scaled(times, x):
        return dense(x) * (times if isinstance(times, int) else 0)

    assert_close(nn.jit(scaled, static_argnums=0)(3, X), 3 * dense(X), rtol=1e-5)
