"""Modules: names, sharing, setup, errors and printing, as with the genuine Flax."""

import gc
import pickle
import weakref

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linnet.compat.flax import linen as nn
from oracle import assert_same

KEY = jax.random.key(0)
X = jnp.ones((1, 2))


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


def compact(body):
    """A program: the shapes that a module makes whose call is `body(self, nn, x)`."""

    def program(library):
        linen = library.linen

        class Net(linen.Module):
            n: int = 1

            @linen.compact
            def __call__(self, x):
                body(self, linen, x)
                return x

        return shapes(Net().init(KEY, X))

    return program


def one(nn):
    return nn.initializers.ones


BODIES = {
    "two layers": lambda self, nn, x: (nn.Dense(2)(x), nn.Dense(3)(x)),
    "a layer twice": lambda self, nn, x: [d(d(x)) for d in [nn.Dense(2)]],
    "a parameter": lambda self, nn, x: self.param("n", one(nn), (2,)),
    "a parameter twice": lambda self, nn, x: [
        self.param("a", one(nn), (2,)) for _ in range(2)
    ],
    "a layer of a field's name": lambda self, nn, x: nn.Dense(2, name="n"),
    "a name twice": lambda self, nn, x: [nn.Dense(2, name="b")(x) for _ in range(2)],
    "a name that is no text": lambda self, nn, x: nn.Dense(2, name=3),
    "a field set": lambda self, nn, x: setattr(self, "n", 3),
    "an attribute set": lambda self, nn, x: setattr(self, "foo", 3),
    "variables": lambda self, nn, x: [
        self.variable(col, "c", lambda: jnp.zeros(3)) for col in ("x", "y")
    ],
    "sown": lambda self, nn, x: (self.sow("y", "b", 2.0), self.sow("y", "b", 3.0)),
    "perturbed": lambda self, nn, x: self.perturb("p", x),
    "a missing stream": lambda self, nn, x: nn.Dropout(0.5, deterministic=False)(x),
    "scanned names": lambda self, nn, x: nn.vmap(
        nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True}
    )(3)(x),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_call_does_what_it_does_in_flax(name):
    assert_same(compact(BODIES[name]))


UNBOUND = {
    "called": lambda nn: nn.Dense(2)(X),
    "path": lambda nn: nn.Dense(2).path,
    "variables": lambda nn: nn.Dense(2).variables,
    "unbound": lambda nn: nn.Dense(2).unbind(),
    "sown": lambda nn: nn.Dense(2).sow("a", "b", 1),
    "no parameters": lambda nn: nn.Dense(2).apply({}, X),
    "one is missing": lambda nn: nn.Dense(2).apply({"params": {"bias": X}}, X),
    "another shape": lambda nn: nn.Dense(2).apply(
        {"params": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}, X
    ),
    "params twice": lambda nn: nn.Dense(2).apply({"params": {"params": {}}}, X),
    "no key": lambda nn: nn.Dense(2).init(3, X),
    "no such method": lambda nn: nn.Dense(2).apply({}, X, method="foo"),
    "no method": lambda nn: nn.Dense(2).apply({}, X, method="features"),
    "frozen": lambda nn: setattr(nn.Dense(2).bind({}), "features", 3),
    "immutable": lambda nn: nn.Dense(2).bind({}).put_variable("params", "a", 1),
    "a parent that is none": lambda nn: nn.Dense(2, parent=3),
    "equal": lambda nn: (nn.Dense(2) == nn.Dense(2), hash(nn.Dense(2)) is not None),
    "printed": lambda nn: nn.Dense(2, name="a"),
    "printed deeply": lambda nn: nn.Sequential([nn.Dense(2), nn.LayerNorm()]),
    "copied": lambda nn: nn.Dense(2).copy(features=4),
}


@pytest.mark.parametrize("name", UNBOUND)
def test_outside_of_calls_it_does_what_it_does_in_flax(name):
    assert_same(lambda library: UNBOUND[name](library.linen))


def test_modules_in_fields_and_in_setup_are_shared_alike():
    def program(library):
        linen = library.linen

        class Twice(linen.Module):
            inner: linen.Module

            @linen.compact
            def __call__(self, x):
                return self.inner(self.inner(x))

        class Net(linen.Module):
            def setup(self):
                self.layers = [linen.Dense(2), (linen.Dense(2),)]
                self.named = {"a": linen.Dense(2)}
                self.twice = Twice(self.layers[0])

            def __call__(self, x):
                return self.named["a"](self.layers[1][0](self.twice(x)))

        shared = linen.Dense(2)
        return shapes(Net().init(KEY, X)), shapes(Twice(shared).init(KEY, X))

    assert_same(program)


def test_intermediates_and_interceptors():
    def program(library):
        linen = library.linen
        calls = []

        def interceptor(call, args, kwargs, context):
            calls.append((type(context.module).__name__, context.method_name))
            return call(*args, **kwargs)

        model = linen.Sequential([linen.Dense(2), linen.Dense(3)])
        variables = model.init(KEY, X)
        with linen.intercept_methods(interceptor):
            found = model.apply(variables, X, capture_intermediates=True)
        return calls, shapes(found)

    assert_same(program)


def test_a_lazy_init_needs_no_values():
    def program(library):
        shape = jax.ShapeDtypeStruct((1, 2), jnp.float32)
        params = library.linen.Dense(2).lazy_init(KEY, shape)["params"]
        return sorted(params), params["kernel"]

    assert_same(program)


@pytest.mark.parametrize("library", [pickle, cloudpickle])
def test_it_can_be_pickled(library):
    zeros = nn.initializers.zeros  # the default initialiser is a local function
    dense = nn.Dense(
        2, kernel_init=zeros if library is pickle else nn.initializers.he_normal()
    )
    model = nn.Sequential([dense, nn.LayerNorm()])
    again = library.loads(library.dumps(model))
    assert shapes(again.init(KEY, X)) == shapes(model.init(KEY, X))


def local_model():
    """A model whose classes are pickled by value, as those of a notebook are."""

    class Inner(nn.Module):
        features: int = 2

        def setup(self):
            self.dense = nn.Dense(self.features)

        def __call__(self, x):
            return self.dense(x)

        @property
        def twice(self):
            return 2 * self.features

    class Outer(nn.Module):
        inner: nn.Module

        @nn.compact
        def __call__(self, x):
            return self.inner(x) * self.inner.twice

    return Outer(Inner())


def test_a_module_of_a_notebook_can_be_cloudpickled():
    model = local_model()
    variables = model.init(KEY, X)
    again = pickle.loads(cloudpickle.dumps(model))
    np.testing.assert_array_equal(again.apply(variables, X), model.apply(variables, X))


def test_errors_say_how_to_go_on():
    with pytest.raises(Exception, match=r"init"):
        nn.Dense(2)(X)


def test_traced_values_and_classes_are_not_kept():
    classes = []

    def run():
        class Net(nn.Module):
            @nn.compact
            def __call__(self, x):
                scaled = lambda tree: jax.tree.map(lambda w: w * x.sum(), tree)  # noqa: E731
                x = x * self.param("w", lambda key: jnp.ones(x.shape))
                dense = nn.map_variables(nn.Dense, "params", scaled, init=True)(3)
                return nn.remat(nn.Dense)(2)(dense(x))

        variables = Net().init(jax.random.key(0), X)
        jax.jit(Net().apply)(variables, X)
        classes.append(weakref.ref(Net))

    with jax.checking_leaks():
        run()
    jax.clear_caches()
    gc.collect()
    assert classes[0]() is None
