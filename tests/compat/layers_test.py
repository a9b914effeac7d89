"""Layers: the same trees, values and errors as those of the genuine Flax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oracle import OURS, THEIRS, assert_same

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 6, 4))
IMAGE = jax.random.normal(jax.random.key(2), (2, 8, 8, 4))
IDS = jnp.array([[0, 3], [2, 1]])
LENGTHS = jnp.array([3, 6])


def layer(name, x, *args, call=None, **options):
    """A case: a layer by name with its options, and what it is called with."""
    label = f"{name} {options or ''} {call or ''}".strip()
    return pytest.param(name, args, options, x, call or {}, id=label[:70])


def rnn(cell, **options):
    def build(nn):
        return nn.RNN(getattr(nn, cell)(5), **options)

    return build


HALF = jnp.bfloat16
CASES = [
    *[layer("Dense", X, 5, **o) for o in ({}, {"use_bias": False}, {"dtype": HALF})],
    layer("DenseGeneral", X, (2, 3), axis=(-2, -1)),
    layer("DenseGeneral", X, 5, axis=1, batch_dims=0),
    *[
        layer("Conv", IMAGE, 6, (3, 3), **o)
        for o in (
            {},
            {"padding": "CIRCULAR"},
            {"padding": ((1, 2), (0, 1)), "strides": 2},
            {"kernel_dilation": 2, "feature_group_count": 2},
        )
    ],
    layer("Conv", X, 6, (3,), padding="CAUSAL"),
    layer("Conv", IMAGE, 6, (3,), padding="REFLECT"),
    layer("ConvLocal", IMAGE, 3, (3, 3)),
    layer("ConvTranspose", IMAGE, 3, (3, 3), strides=(2, 2)),
    layer("ConvTranspose", IMAGE, 3, (4, 4), padding="CIRCULAR", strides=(2, 2)),
    layer("ConvTranspose", IMAGE, 3, (3, 3), padding="CIRCULAR", transpose_kernel=True),
    layer("Embed", IDS, 5, 3),
    layer("Embed", IDS, 1, 3),
    layer("Embed", X, 5, 3),
    layer("Einsum", X, (4, 3), "...c,cd->...d"),
    layer("Einsum", X, (4, 3), "bic,cd"),
    layer("LayerNorm", X, use_fast_variance=False),
    layer("LayerNorm", X, call={"mask": jnp.arange(4) < 3}),
    layer("LayerNorm", X, reduction_axes=(-2, -1), feature_axes=(-2, -1)),
    layer("RMSNorm", X, dtype=HALF),
    layer("BatchNorm", X, use_running_average=False),
    layer("BatchNorm", X, use_running_average=True, axis=1),
    layer("BatchNorm", X),
    layer("GroupNorm", X[0, 0], 2),
    layer("GroupNorm", IMAGE, num_groups=2),
    layer("GroupNorm", IMAGE, num_groups=None, group_size=2),
    layer("GroupNorm", IMAGE, num_groups=3),
    layer("InstanceNorm", IMAGE),
    layer("PReLU", X),
    layer("Dropout", X, 0.5, broadcast_dims=(1,), call={"deterministic": False}),
    layer("Dropout", X, 0.5),
    layer("MultiHeadAttention", X, 2, dropout_rate=0.5, deterministic=False),
    layer("MultiHeadAttention", X, 2, normalize_qk=True, qkv_features=8),
    layer("MultiHeadAttention", X, 2, decode=True),
    layer("MultiHeadAttention", X, 3),
    layer("MultiHeadAttention", X, 2, dtype=HALF, call={"sow_weights": True}),
]


def ran(library, build, x, call):
    """(outputs and variables, the text of the layer), or the class of the error."""
    try:
        model = build(library.linen)
        rngs = {"params": KEY, "dropout": jax.random.key(7)}
        y, variables = model.init_with_output(rngs, x, **call)
        again = model.apply(variables, x, rngs=rngs, mutable=True, **call)
    except Exception as error:
        return type(error).__name__, None
    return (y, variables, again), repr(model)


def assert_alike(build, x, call):
    theirs, their_text = ran(THEIRS, build, x, call)
    ours, our_text = ran(OURS, build, x, call)
    assert our_text == their_text
    if isinstance(theirs, str):
        assert ours == theirs
        return
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(
            np.asarray(mine, np.float64), np.asarray(other, np.float64), atol=1e-6
        )


@pytest.mark.parametrize(("name", "args", "options", "x", "call"), CASES)
def test_a_layer_is_that_of_flax(name, args, options, x, call):
    assert_alike(lambda nn: getattr(nn, name)(*args, **options), x, call)


@pytest.mark.parametrize(
    "cell", ["LSTMCell", "OptimizedLSTMCell", "GRUCell", "MGUCell", "SimpleCell"]
)
def test_a_cell_is_that_of_flax(cell):
    options = {"return_carry": True, "reverse": True, "keep_order": True}
    assert_alike(rnn(cell, **options), X, {"seq_lengths": LENGTHS})


@pytest.mark.parametrize(
    "cell", ["LSTMCell", "OptimizedLSTMCell", "GRUCell", "MGUCell", "SimpleCell"]
)
def test_a_cell_has_the_size_of_the_state_that_it_is_given(cell):
    def shapes(library):
        state = jnp.ones((2, 7))
        carry = (state, state) if "LSTM" in cell else state
        variables = getattr(library.linen, cell)(5).init(KEY, carry, jnp.ones((2, 3)))
        return jax.tree.map(jnp.shape, variables)

    assert shapes(OURS) == shapes(THEIRS)


def test_both_directions_are_those_of_flax():
    def build(nn):
        return nn.Bidirectional(nn.RNN(nn.LSTMCell(3)), nn.RNN(nn.GRUCell(3)))

    assert_alike(build, X, {"seq_lengths": LENGTHS})


@pytest.mark.parametrize(
    ("wrapper", "call"),
    [
        ("WeightNorm", {}),
        ("SpectralNorm", {"update_stats": True}),
        ("SpectralNorm", {"update_stats": False}),
    ],
)
def test_normalised_parameters_are_those_of_flax(wrapper, call):
    def build(nn):
        class Net(nn.Module):
            @nn.compact
            def __call__(self, x):
                return getattr(nn, wrapper)(nn.Dense(3))(x, **call)

        return Net()

    assert_alike(build, X, {})


def calls(library, build, x, call):
    """The methods that an interceptor sees, and what every method returns, by name."""
    nn, seen = library.linen, []

    def note(run, args, kwargs, context):
        name, module = context.method_name, context.module
        seen.append((type(module).__name__, name, len(args), *sorted(kwargs)))
        return run(*args, **kwargs)

    model = build(nn)
    with nn.intercept_methods(note):
        variables = model.init(KEY, x, **call)
        model.apply(variables, x, mutable=["batch_stats"], **call)
    _, state = model.apply(
        variables,
        x,
        capture_intermediates=lambda module, name: True,
        mutable=["intermediates", "batch_stats"],
        **call,
    )
    # Before a lifted function, Flax calls one of its own, without a name; and it traces
    # each step of a scan twice.
    seen = [entry for entry in dict.fromkeys(seen) if entry[1] != "<lambda>"]
    return seen, jax.tree.map(jnp.shape, state["intermediates"])


@pytest.mark.parametrize(
    ("build", "x", "call"),
    [
        pytest.param(lambda nn: nn.Einsum((4, 3), "...c,cd->...d"), X, {}, id="einsum"),
        pytest.param(lambda nn: nn.GroupNorm(2), X, {}, id="groups"),
        pytest.param(
            lambda nn: nn.MultiHeadDotProductAttention(2, decode=True),
            X[:, :1],
            {},
            id="decoding",
        ),
        pytest.param(lambda nn: nn.RNN(nn.GRUCell(3)), X, {}, id="recurrent"),
        pytest.param(
            lambda nn: nn.SpectralNorm(nn.Dense(3)),
            X,
            {"update_stats": True},
            id="spectral",
        ),
    ],
)
def test_the_methods_that_are_seen_are_those_of_flax(build, x, call):
    assert_same(lambda library: calls(library, build, x, call))


def test_pooling_is_that_of_flax():
    def build(nn):
        class Pools(nn.Module):
            def __call__(self, x):
                pads = ("VALID", "SAME", ((1, 0), (0, 1)))
                pools = (nn.avg_pool, nn.max_pool)
                return [f(x, (2, 3), (2, 2), padding=p) for f in pools for p in pads]

        return Pools()

    assert_alike(build, IMAGE, {})


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(
    "build",
    [
        lambda nn: nn.Dense(3),
        lambda nn: nn.DenseGeneral((2, 3), precision=["high", "high"]),
        lambda nn: nn.LayerNorm(),
        lambda nn: nn.MultiHeadAttention(2),
    ],
    ids=["Dense", "DenseGeneral", "LayerNorm", "MultiHeadAttention"],
)
def test_gradients_are_those_of_flax_to_the_last_bit(build, compiled):
    def gradients(library):
        model = build(library.linen)
        params = model.init(KEY, X)

        def loss(params, x):
            return jnp.sum(model.apply(params, x) ** 2)

        gradient = jax.grad(loss)
        return (jax.jit(gradient) if compiled else gradient)(params, X)

    ours, theirs = jax.tree.leaves(gradients(OURS)), jax.tree.leaves(gradients(THEIRS))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_an_initialiser_of_the_user_is_called_for_each_parameter():
    nn, calls = OURS.linen, []
    draw = nn.initializers.lecun_normal()

    @functools.wraps(draw)
    def counted(*args):
        calls.append(args)
        return draw(*args)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(3):
                x = nn.Dense(4, kernel_init=counted)(x)
            return x

    jax.eval_shape(Net().init, KEY, X)
    assert len(calls) == 3
