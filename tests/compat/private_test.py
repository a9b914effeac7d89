"""Names with an underscore that programs for Flax use in spite of it."""

import jax
import jax.numpy as jnp
import pytest

from oracle import assert_same

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 6, 4))


@pytest.mark.parametrize("use_mean", [True, False])
def test_a_norm_that_was_copied_from_flax_runs(use_mean):
    def program(library):
        nn, of = library.linen, library.linen.normalization

        class Norm(nn.Module):
            @nn.compact
            def __call__(self, x):
                axes = of._canonicalize_axes(x.ndim, -1)
                mean, var = of._compute_stats(
                    x, axes, jnp.float32, None, None, use_mean=use_mean
                )
                return of._normalize(
                    self,
                    x,
                    mean,
                    var,
                    axes,
                    -1,
                    jnp.float32,
                    jnp.float32,
                    1e-6,
                    True,
                    True,
                    nn.initializers.zeros,
                    nn.initializers.ones,
                )

        y, variables = Norm().init_with_output(KEY, X)
        return y, variables, of._l2_normalize(X, axis=-1), of._abs_sq(X + 1j)

    assert_same(program)


def test_helpers_of_linear_layers_are_those_of_flax():
    def program(library):
        of = library.linen.linear
        return (
            of._conv_dimension_numbers((1, 8, 8, 3)),
            of._canonicalize_tuple(3),
            of._canonicalize_tuple([3, 4]),
            of._normalize_axes((-1, 0, -2), 4),
        )

    assert_same(program)


def test_rows_of_tables_hold_what_they_hold_in_flax():
    def program(library):
        nn = library.linen

        class Net(nn.Module):
            @nn.compact
            def __call__(self, x, train=True):
                return nn.Dense(2)(x), None, 3

        table = nn.summary._get_module_table(
            Net(),
            depth=None,
            show_repeated=False,
            compute_flops=False,
            compute_vjp_flops=False,
        )
        return [(row.path, row.inputs, row.outputs) for row in table(KEY, X, False)]

    assert_same(program)


def test_dicts_become_state_as_in_flax():
    def program(library):
        of = library.serialization
        state = of._dict_state_dict({1: X, "a": [2]})
        return state, of._restore_dict({1: X, "a": [0]}, state)

    assert_same(program)


def test_attributes_freeze_as_in_flax():
    value = {"a": [1, (2, [3])], "b": {"c": []}}
    assert_same(lambda library: library.linen.module._freeze_attr(value))


def test_the_module_at_work_is_on_the_stack():
    def program(library):
        seen = []

        class Inner(library.linen.Module):
            @library.linen.compact
            def __call__(self, x):
                stack = library.linen.module._context.module_stack
                seen.extend(type(module).__name__ for module in stack)
                return x

        class Outer(library.linen.Module):
            @library.linen.compact
            def __call__(self, x):
                return Inner()(x)

        Outer().apply({}, X)
        return seen

    assert_same(program)


def test_arrays_become_bytes_as_in_flax():
    def program(library):
        of = library.serialization
        data = of._ndarray_to_bytes(X)
        extension = of._msgpack_ext_pack(1 + 2j)
        again = of._msgpack_ext_unpack(extension.code, extension.data)
        return data, of._ndarray_from_bytes(data), extension.data, again

    assert_same(program)


@pytest.mark.parametrize(
    "spec", [("a", None), (), "a", None, jax.P("a"), (jax.P.UNCONSTRAINED,)]
)
def test_what_is_a_logical_spec_is_so_in_flax(spec):
    assert_same(lambda library: library.linen.spmd._is_logical_spec(spec))
