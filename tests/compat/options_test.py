"""Layers under options that Hypothesis draws: the trees and values of Flax."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import assert_same

KEY = jax.random.key(0)
RNGS = {"params": KEY, "dropout": jax.random.key(1)}
few = settings(max_examples=12, deadline=None)
dtypes = st.sampled_from([None, jnp.float32, jnp.bfloat16])
sizes = st.integers(1, 4)
flags = st.booleans()


def assert_layer_same(name, shape, options, *args, variables_too=True, **call):
    """The layer makes and returns the same, and returns the same of other values."""
    x = jax.random.normal(jax.random.key(2), shape)

    def program(library):
        layer = getattr(library.linen, name)(*args, **options)
        y, variables = layer.init_with_output(RNGS, x, **call)
        mutable = [col for col in variables if col != "params"]
        again = layer.apply(variables, x + 1, rngs=RNGS, mutable=mutable, **call)
        return (y, variables, again) if variables_too else (y, again)

    with jax.numpy_rank_promotion("allow"):
        assert_same(program)


@few
@given(st.lists(sizes, min_size=1, max_size=3), sizes, flags, dtypes, dtypes)
def test_dense(shape, features, use_bias, dtype, param_dtype):
    options = {"use_bias": use_bias, "dtype": dtype}
    options["param_dtype"] = param_dtype or jnp.float32
    assert_layer_same("Dense", shape, options, features)


@few
@given(st.data())
def test_dense_general(data):
    shape = data.draw(st.lists(sizes, min_size=2, max_size=4))
    axes = st.integers(-len(shape), len(shape) - 1)
    axis = tuple(data.draw(st.lists(axes, min_size=1, max_size=2)))
    features = tuple(data.draw(st.lists(sizes, min_size=1, max_size=2)))
    batch_dims = data.draw(st.sampled_from([(), (), (0,)]))
    options = {"axis": axis, "batch_dims": batch_dims, "use_bias": data.draw(flags)}
    assert_layer_same("DenseGeneral", shape, options, features)


EQUATIONS = [
    ("ab,bc->ac", (2, 3), (3, 4)),
    ("ab,bc->ca", (2, 3), (3, 4)),
    ("...ab,bc->...ac", (5, 2, 3), (3, 4)),
    ("a...b,...bc->a...c", (2, 5, 3), (5, 3, 4)),
    ("...bc,cd...->b...d", (3, 5, 6), (6, 7, 3)),
    ("abc,...c->abc...", (2, 3, 4), (5, 4)),
    ("ab...,bc->ac...", (2, 3, 7), (3, 4)),
    ("abc,ad...c->abd...", (3, 6, 5), (3, 8, 7, 5)),
    ("ab,bc", (2, 3), (3, 4)),
    ("ab,bc,cd->ad", (2, 3), (3, 4)),
]


@pytest.mark.parametrize("equation", EQUATIONS, ids=lambda e: e[0])
def test_einsum(equation):
    text, shape, kernel = equation
    assert_layer_same("Einsum", shape, {}, kernel, text)


@few
@given(
    st.integers(1, 2).flatmap(
        lambda rank: st.tuples(
            st.lists(st.integers(4, 7), min_size=rank, max_size=rank),
            st.lists(st.integers(1, 3), min_size=rank, max_size=rank),
            st.lists(st.integers(1, 2), min_size=rank, max_size=rank),
        )
    ),
    st.sampled_from(["SAME", "VALID", "CIRCULAR", "REFLECT", "CAUSAL", 1]),
    st.sampled_from([1, 2]),
    flags,
    dtypes,
)
def test_conv(geometry, padding, groups, use_bias, dtype):
    spatial, kernel, strides = geometry
    options = {"padding": padding, "strides": tuple(strides), "use_bias": use_bias}
    options |= {"feature_group_count": groups, "dtype": dtype}
    assert_layer_same("Conv", (2, *spatial, 4), options, 6, tuple(kernel))


@few
@given(
    st.integers(4, 6),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from(["SAME", "VALID", "CIRCULAR"]),
    flags,
)
def test_conv_transpose(length, kernel, stride, padding, transposed):
    options = {"padding": padding, "strides": (stride,), "transpose_kernel": transposed}
    assert_layer_same("ConvTranspose", (2, length, 3), options, 4, (kernel,))


NORMS = {
    "LayerNorm": {"reduction_axes": st.sampled_from([-1, (1, 2)])},
    "RMSNorm": {"reduction_axes": st.sampled_from([-1, (-2, -1)])},
    "GroupNorm": {"num_groups": st.sampled_from([1, 2, 4])},
    "InstanceNorm": {"feature_axes": st.just(-1)},
    "BatchNorm": {
        "use_running_average": flags,
        "momentum": st.sampled_from([0.9, 0.99]),
    },
}


@pytest.mark.parametrize("name", NORMS)
@few
@given(st.data())
def test_norms(name, data):
    options = {option: data.draw(values) for option, values in NORMS[name].items()}
    options["use_scale"] = data.draw(flags)
    options["dtype"] = data.draw(dtypes)
    options["epsilon"] = data.draw(st.sampled_from([1e-6, 1e-2]))
    if name != "RMSNorm":
        options["use_bias"] = data.draw(flags)
    if name != "GroupNorm":
        options["use_fast_variance"] = data.draw(flags)
    assert_layer_same(name, (3, 5, 4), options)


@few
@given(
    st.sampled_from([1, 2]), flags, dtypes, flags, st.sampled_from([0.0, 0.5]), flags
)
def test_attention(num_heads, use_bias, dtype, normalize_qk, rate, broadcast):
    options = {"use_bias": use_bias, "dtype": dtype, "normalize_qk": normalize_qk}
    options |= {"dropout_rate": rate, "broadcast_dropout": broadcast}
    options |= {"deterministic": False, "qkv_features": 4}
    assert_layer_same("MultiHeadDotProductAttention", (2, 3, 4), options, num_heads)


CELLS = ["LSTMCell", "OptimizedLSTMCell", "SimpleCell", "GRUCell", "MGUCell"]


@few
@given(st.sampled_from(CELLS), sizes, flags, flags)
def test_recurrence(cell, features, reverse, keep_order):
    x = jax.random.normal(KEY, (2, 4, 3))

    def program(library):
        nn = library.linen
        layer = nn.RNN(
            getattr(nn, cell)(features), reverse=reverse, keep_order=keep_order
        )
        return layer.init_with_output(KEY, x)

    assert_same(program)


@few
@given(
    st.sampled_from(["avg_pool", "max_pool", "min_pool"]),
    st.lists(st.integers(1, 3), min_size=2, max_size=2),
    st.lists(st.integers(1, 3), min_size=2, max_size=2),
    st.sampled_from(["SAME", "VALID", ((0, 1), (1, 1))]),
)
def test_pools(name, window, strides, padding):
    x = jax.random.normal(KEY, (2, 5, 6, 3))
    assert_same(
        lambda library: getattr(library.linen.pooling, name)(
            x, tuple(window), tuple(strides), padding
        )
    )
