"""What was traced before is used again only where JAX is set as it was then."""

import contextlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oracle import assert_same

X = jnp.ones((2, 4))
MESH = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
KEYS = itertools.cycle(["rbg", "unsafe_rbg"])

SETTINGS = {
    "64 bits": lambda: jax.enable_x64(True),
    "other draws": lambda: jax.threefry_partitionable(False),
    "other keys": lambda: jax.default_prng_impl(next(KEYS)),
    "precision": lambda: jax.default_matmul_precision("float32"),
    "mesh": lambda: jax.set_mesh(MESH),
    "no jit": lambda: jax.disable_jit(),
}


def made(nn):
    """Parameters, a prediction, and the program that made them."""
    model = nn.Sequential([nn.Dense(4, param_dtype=float), nn.LayerNorm()])

    def run(key, x):
        return model.init_with_output(key, x)

    key, x = jax.random.PRNGKey(0), jnp.asarray(X, float)
    traced = jax.jit(run).trace(key, x) if not jax.config.jax_disable_jit else None
    precise = str(traced.jaxpr).count("HIGHEST") if traced else None
    return jax.jit(run)(key, x), precise


@pytest.mark.parametrize("setting", SETTINGS)
def test_programs_follow_the_settings_of_jax(setting):
    def program(library):
        results = []
        for context in (contextlib.nullcontext, SETTINGS[setting]) * 2:
            with context():
                results.append(made(library.linen))
        return results

    assert_same(program)


def test_jit_may_be_disabled_inside_of_a_program():
    def program(library):
        model = library.linen.Dense(3)

        def run(key, x):
            with jax.disable_jit():
                return model.init_with_output(key, x)

        return jax.jit(run)(jax.random.key(0), X)

    assert_same(program)


def test_named_axes_are_those_of_each_program():
    def program(library):
        norm = library.linen.BatchNorm(use_running_average=False, axis_name="rows")
        variables = norm.init(jax.random.key(0), X)

        def run(x):
            return norm.apply(variables, x, mutable=["batch_stats"])

        xs = jnp.arange(8.0).reshape(2, 2, 2, 1)
        inner = jax.jit(jax.vmap(run, axis_name="rows"))
        outer = jax.vmap(jax.vmap(run), axis_name="rows")
        return inner(xs[0]), jax.jit(outer)(xs)

    assert_same(program)


@pytest.mark.parametrize("epsilon", [0.1, np.array(0.1), jnp.float32(0.1)])
def test_configurations_may_hold_arrays(epsilon):
    def program(library):
        def run(key, x):
            model = library.linen.Sequential(
                [library.linen.Dense(np.array(4)), library.linen.LayerNorm(epsilon)]
            )
            return model.init_with_output(key, x)

        return jax.jit(run)(jax.random.key(0), X)

    assert_same(program)


def test_a_shape_that_is_traced_is_refused():
    def program(library):
        linen = library.linen

        def run(n):
            return linen.Dense(n, use_bias=False).init(jax.random.key(0), X)

        with pytest.raises(TypeError, match="concrete") as error:
            jax.jit(run)(3)
        return str(error.value).splitlines()[0]

    assert_same(program)
