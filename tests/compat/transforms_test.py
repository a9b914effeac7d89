"""Lifted transforms: the same variables and values as with the genuine Flax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oracle import OURS, THEIRS, assert_same

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (3, 2))
EACH = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}


def stepping(nn):
    class Step(nn.Module):
        n: int = 2

        @nn.compact
        def __call__(self, carry, _):
            noise = jax.random.uniform(self.make_rng("dropout"))
            calls = self.variable("state", "calls", jnp.zeros, ())
            y = carry.sum() + calls.value
            if self.is_mutable_collection("state"):
                calls.value += 1
            return nn.Dense(self.n)(carry) + noise, y

    return Step


def with_setup(nn, decorate):
    class Net(nn.Module):
        def setup(self):
            self.first = nn.Dense(2)
            self.others = [nn.Dense(2), nn.Dense(2)]

        @decorate
        def __call__(self, x):
            return self.others[1](self.others[0](self.first(x)))

    return Net


def calling(nn, body):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return body(self, x)

    return Net()


def gradients(nn):
    def body(self, x):
        dense = nn.Dense(3)
        dense(x)
        f = lambda layer, x: layer(x)  # noqa: E731
        y, backward = nn.vjp(f, dense, x)
        tangent = {"params": jax.tree.map(jnp.ones_like, dense.variables["params"])}
        forward = nn.jvp(f, dense, (x,), (jnp.ones_like(x),), tangent)
        value = nn.value_and_grad(lambda layer, x: layer(x).sum(), dense, x)
        return y, backward(jnp.ones_like(y)), forward, value

    return calling(nn, body)


def own_derivative(nn):
    def body(self, x):
        f = lambda layer, x: layer(x)  # noqa: E731

        def backward(vjp_fn, y_t):
            params_t, x_t = vjp_fn(y_t)
            return jax.tree.map(jnp.sign, params_t), x_t

        run = nn.custom_vjp(f, lambda layer, x: nn.vjp(f, layer, x), backward)
        return run(nn.Dense(1), x).sum()

    return calling(nn, body)


def looping(nn):
    def body(self, x):
        dense = nn.Dense(2)
        dense(x)
        self.variable("state", "n", lambda: jnp.zeros((), jnp.int32))

        def step(module, carry):
            module.put_variable("state", "n", module.get_variable("state", "n") + 1)
            return carry + jax.random.uniform(module.make_rng("dropout"))

        return nn.while_loop(
            lambda module, carry: module.get_variable("state", "n") < 3,
            step,
            self,
            dense(x),
            carry_variables="state",
            split_rngs={"dropout": True, "params": False},
        )

    return calling(nn, body)


def drawing(nn):
    class Noise(nn.Module):
        def __call__(self, x):
            return x + jax.random.uniform(self.make_rng("dropout"))

    def body(self, x):
        return nn.while_loop(
            lambda noise, carry: noise(0.0) < 0.9,
            lambda noise, carry: (noise(carry[0]), carry[1] + 1),
            Noise(),
            (x, 0),
            split_rngs={"dropout": True},
        )

    return calling(nn, body)


def branching(nn):
    def body(self, x):
        dense = nn.Dense(2)
        dense(x)
        y = nn.cond(x.sum() > 0, lambda m, x: m(x), lambda m, x: 2 * m(x), dense, x)
        return nn.switch(1, [lambda m, x: x, lambda m, x: m(x)], dense, y)

    return calling(nn, body)


def transposed(nn):
    turn = functools.partial(jax.tree.map, jnp.transpose)
    return nn.map_variables(nn.Dense, "params", turn, turn, init=True)(
        3, use_bias=False
    )


def named(nn):
    init = nn.with_partitioning(nn.initializers.lecun_normal(), ("a", "b"))
    params = {nn.PARTITION_NAME: "layers"}
    return nn.vmap(nn.Dense, **EACH, metadata_params=params)(3, kernel_init=init)


def mapped_function(nn):
    def body(self, x):
        @functools.partial(nn.vmap, **EACH, in_axes=0)
        def each(module, x):
            return nn.Dense(2)(x)

        return nn.Dense(3)(each(self, x))

    return calling(nn, body)


def all_kinds(nn):
    def body(self, x):
        x = nn.vmap(nn.Dense, **EACH)(4)(x)
        return nn.Dense(2)(nn.jit(nn.Dense)(3)(nn.remat(nn.Dense)(3)(x)))

    return calling(nn, body)


def mapped_state(nn):
    class Drawing(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.variable("state", "n", jnp.ones, ())
            return nn.Dense(2)(x) + jax.random.uniform(self.make_rng("dropout"))

    double = functools.partial(jax.tree.map, lambda x: 2 * x)
    return nn.map_variables(Drawing, "state", double, double, init=True)()


CASES = {
    "vmap": lambda nn: nn.vmap(nn.Dense, **EACH)(4),
    "vmap of shared": lambda nn: nn.vmap(
        nn.Dense, variable_axes={"params": None}, split_rngs={"params": False}
    )(4),
    "vmap of a method": lambda nn: nn.vmap(with_setup(nn, lambda f: f), **EACH)(),
    "vmap of a function": mapped_function,
    "metadata": named,
    "jit of a method": lambda nn: with_setup(nn, nn.jit)(),
    "remat of a method": lambda nn: with_setup(nn, nn.remat)(),
    "all in one": all_kinds,
    "fold_rngs": lambda nn: nn.fold_rngs(nn.Dense)(3),
    "remat_scan": lambda nn: nn.remat_scan(
        with_setup(nn, lambda f: f), lengths=(2, 2)
    )(),
    "map_variables": transposed,
    "map_variables of a state": mapped_state,
    "gradients": gradients,
    "custom_vjp": own_derivative,
    "while_loop": looping,
    "while_loop that draws": drawing,
    "cond and switch": branching,
}


def ran(model, args, mutables):
    """What `init` gives, and each `apply`: its result, or the class of its error."""
    rngs = {"params": KEY, "dropout": jax.random.key(7)}
    made = model.init_with_output(rngs, *args)
    found = [made]
    for mutable in mutables:
        try:
            found.append(model.apply(made[1], *args, rngs=rngs, mutable=mutable))
        except Exception as error:
            found.append({type(error).__name__: ()})
    return found


def assert_alike(build, *args, mutables=(False, True)):
    found = [ran(build(library.linen), args, mutables) for library in (OURS, THEIRS)]
    ours, theirs = ((jax.tree.leaves(f), jax.tree.structure(f)) for f in found)
    assert str(ours[1]) == str(theirs[1])
    for mine, other in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_a_transform_is_that_of_flax(name):
    assert_alike(CASES[name], X)


@pytest.mark.parametrize(
    "options",
    [
        {
            "variable_axes": {"params": 0, "state": 0},
            "split_rngs": {"params": True, "dropout": True},
        },
        {
            "variable_broadcast": ["params", "state"],
            "split_rngs": {"params": False, "dropout": True},
        },
        {
            "variable_broadcast": "params",
            "variable_axes": {"state": 0},
            "split_rngs": {"params": False, "dropout": False},
        },
    ],
    ids=["a slice each", "shared", "one key"],
)
def test_a_scan_is_that_of_flax(options):
    build = lambda nn: nn.scan(stepping(nn), **options, length=3)()  # noqa: E731
    assert_alike(build, X[0], None, mutables=(False, ["state"], True))


LIFTS = {
    "vmap": lambda nn, cls, **options: nn.vmap(
        cls,
        variable_axes={"params": None},
        split_rngs={"params": False},
        **options,
    ),
    "jit": lambda nn, cls, **options: nn.jit(cls, **options),
    "remat": lambda nn, cls, **options: nn.remat(cls, **options),
}


@pytest.mark.parametrize("name", LIFTS)
def test_what_a_lifted_method_calls_is_not_lifted_again(name):
    def program(library):
        nn, seen = library.linen, []

        class Net(nn.Module):
            def setup(self):
                self.dense = nn.Dense(2)

            def __call__(self, x):
                seen.append((type(self).__name__, x.shape))
                return self.other(x)

            def other(self, x):
                seen.append((type(self).__name__, x.shape))
                return self.dense(x)

        lifted = LIFTS[name](nn, Net, methods=["__call__", "other"])
        model = type("Sub", (lifted,), {})()
        y, variables = model.init_with_output(KEY, X)
        model.apply(variables, X, method="other")
        return seen, jax.tree.map(jnp.shape, (y, variables))

    assert_same(program)


@pytest.mark.parametrize("lift", ["vmap", "scan"])
def test_keyword_arguments_are_ignored_with_a_warning(lift):
    def program(library):
        nn = library.linen

        class Layer(nn.Module):
            @nn.compact
            def __call__(self, carry, x, *, scale=2.0):
                return carry, nn.Dense(3)(x) * scale

        axes = {"in_axes": (None, 0), "out_axes": (None, 0)} if lift == "vmap" else {}
        model = getattr(nn, lift)(Layer, **EACH, **axes)()
        with pytest.warns(RuntimeWarning, match=f"kwargs are not supported in {lift}"):
            y, variables = model.init_with_output(KEY, X[0], X, scale=3.0)
        np.testing.assert_array_equal(y[1], model.apply(variables, X[0], X)[1])
        return jax.tree.map(jnp.shape, variables)

    assert_same(program)


@pytest.mark.parametrize("name", LIFTS)
def test_tables_name_the_class_that_was_lifted(name):
    def program(library):
        nn = library.linen
        paths = LIFTS[name](nn, nn.Dense)(2).module_paths(KEY, X)
        return {path: type(module).__name__ for path, module in paths.items()}

    assert_same(program)


@pytest.mark.parametrize("lift", ["vmap", "scan"])
def test_boxes_that_change_arrays_are_changed_before_axes_are_counted(lift):
    def program(library):
        nn, struct = library.linen, library.struct

        class Box(struct.PyTreeNode, library.core.meta.AxisMetadata):
            value: jax.Array

            def unbox(self):
                return self.value

            def replace_boxed(self, value):
                return self.replace(value=value)

            def add_axis(self, index, params):
                return self.replace(value=self.value[None])

            def remove_axis(self, index, params):
                return self.replace(value=self.value[0])

        class Layer(nn.Module):
            @nn.compact
            def __call__(self, carry, x):
                return carry, x * self.param("w", lambda key: Box(jnp.ones(())))

        axes = {"in_axes": (None, 0), "out_axes": (None, 0)} if lift == "vmap" else {}
        model = getattr(nn, lift)(Layer, **EACH, **axes)()
        variables = model.init(KEY, X[0], X)
        return variables["params"]["w"].value, model.apply(variables, X[0], X)

    assert_same(program)
