"""Initialisers: their moments, and that they are values."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close
from linnet._errors import ConfigError, DTypeError, ShapeError
from linnet.functional import initializers as I

KEY = jax.random.key(0)

EVERY = [
    I.zeros,
    I.ones,
    I.constant(2.5),
    I.normal(0.1),
    I.truncated_normal(0.1),
    I.uniform(0.1),
    I.variance_scaling(0.5, "fan_geo_avg", "normal"),
    I.lecun_normal(),
    I.lecun_uniform(),
    I.he_normal(),
    I.he_uniform(),
    I.glorot_normal(),
    I.glorot_uniform(),
    I.orthogonal(),
    I.identity(),
]


@pytest.mark.parametrize("init", EVERY, ids=repr)
def test_an_initialiser_is_a_value(init):
    for other in (copy.deepcopy(init), pickle.loads(pickle.dumps(init))):
        assert other == init
        assert hash(other) == hash(init)
    namespace = {name: getattr(I, name) for name in I.__all__}
    assert eval(repr(init), namespace) == init
    assert sum(init == other for other in EVERY) == 1


@pytest.mark.parametrize("init", EVERY, ids=repr)
def test_half_precision_is_the_rounding_of_float32(init):
    wide = init(KEY, (6, 4), jnp.float32)
    assert wide.dtype == jnp.float32
    for dtype in (jnp.bfloat16, jnp.float16):
        assert np.array_equal(init(KEY, (6, 4), dtype), wide.astype(dtype))


@pytest.mark.parametrize("init", EVERY, ids=repr)
def test_empty_shapes_give_empty_arrays(init):
    assert init(KEY, (0, 4), jnp.float32).shape == (0, 4)


@pytest.mark.parametrize(
    ("init", "variance"),
    [
        (I.lecun_normal(), 1 / 300),
        (I.lecun_uniform(), 1 / 300),
        (I.he_normal(), 2 / 300),
        (I.he_uniform(), 2 / 300),
        (I.glorot_normal(), 2 / 500),
        (I.glorot_uniform(), 2 / 500),
        (I.variance_scaling(1.0, "fan_out", "normal"), 1 / 200),
        (I.variance_scaling(1.0, "fan_geo_avg", "normal"), 1 / np.sqrt(300 * 200)),
        (I.normal(0.5), 0.25),
        (I.truncated_normal(0.5), 0.25 * 0.7737),
    ],
    ids=repr,
)
def test_spreads(init, variance):
    values = np.asarray(init(KEY, (300, 200)), np.float64)
    assert_close(values.var(), variance, rtol=0.03)
    assert abs(values.mean()) < 5 * np.sqrt(variance / values.size)


def test_the_window_of_a_convolution_counts_in_the_fan():
    values = I.lecun_normal()(KEY, (3, 3, 50, 60))
    assert_close(values.var(), 1 / 450, rtol=0.03)


def test_uniform_starts_at_zero():
    values = np.asarray(I.uniform(0.2)(KEY, (10_000,)))
    assert values.min() >= 0
    assert values.max() < 0.2
    assert_close(values.mean(), 0.1, rtol=0.02)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 2, 4)])
def test_orthogonal_has_orthonormal_rows_or_columns(shape):
    matrix = np.asarray(I.orthogonal(2.0)(KEY, shape), np.float64)
    matrix = matrix.reshape(-1, shape[-1])
    small = matrix if matrix.shape[0] < matrix.shape[1] else matrix.T
    assert_close(small @ small.T, 4 * np.eye(len(small)), atol=1e-5)


def test_constants_come_in_integer_dtypes_too():
    assert np.array_equal(I.ones(KEY, (2,), jnp.int8), np.ones(2, np.int8))
    assert_close(I.identity(3.0)(KEY, (2, 2)), 3 * np.eye(2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: I.normal(-1.0),
        lambda: I.normal(float("nan")),
        lambda: I.truncated_normal(float("inf")),
        lambda: I.uniform(-0.1),
        lambda: I.orthogonal(0.0),
        lambda: I.variance_scaling(0.0, "fan_in", "normal"),
        lambda: I.variance_scaling(1.0, "fan", "normal"),
        lambda: I.variance_scaling(1.0, "fan_in", "gaussian"),
        lambda: I.constant(np.ones(2)),
    ],
)
def test_options_that_make_no_sense_are_refused(make):
    with pytest.raises(ConfigError, match="LN-VALUE"):
        make()


def test_the_fix_for_a_constant_array_works():
    value = np.arange(2.0)
    with pytest.raises(ConfigError) as caught:
        I.constant(value)
    scope = {"value": value, "jnp": jnp}
    exec(caught.value.fixes[0][1], scope)
    assert_close(scope["init"](KEY, (2,), jnp.float32), value)


@pytest.mark.parametrize("init", [I.lecun_normal(), I.orthogonal(), I.identity()])
def test_matrices_have_two_axes(init):
    with pytest.raises(ShapeError, match="LN-SHAPE-02") as caught:
        init(KEY, (3,), jnp.float32)
    scope = {"nn": type("nn", (), {"initializers": I})}
    exec(caught.value.fixes[0][1], scope)
    assert scope["init"](KEY, (3,), jnp.float32).shape == (3,)


def test_random_integers_are_refused():
    with pytest.raises(DTypeError, match="LN-DTYPE-01"):
        I.normal()(KEY, (3,), jnp.int32)
