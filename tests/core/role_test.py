"""Roles: declarations, metadata, the user's own roles, and arrays without one."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn

KEY = jax.random.key(0)
X = normal((2, 3))
ones, zeros = nn.initializers.ones, nn.initializers.zeros


class LowRank(nn.Param):
    """A role of the user's own."""


class Ema(nn.State):
    """Likewise, of state."""


class Everything(nn.Module):
    def __init__(self):
        self.kernel = nn.param(
            nn.initializers.normal(1.0),
            (3, 3),
            axes=("in", "out"),
            tags={"decay": True},
        )
        self.low = nn.param(ones, (1, 3), role=LowRank, tags=("lora", 4))
        self.mean = nn.state(zeros, (1, 3), role=nn.BatchStat)
        self.ema = nn.state(zeros, (1, 3), role=Ema)
        self.cache = nn.state(jnp.zeros((2, 3)), role=nn.Cache)
        self.count = nn.state(0)
        self.table = nn.constant(jnp.arange(3.0)[None])

    def __call__(self, x):
        return x @ self.kernel * self.low + self.mean + self.table


MODEL = nn.init(Everything(), KEY, X)


@pytest.mark.parametrize(
    ("role", "names"),
    [
        (nn.Param, ["kernel", "low"]),
        (LowRank, ["low"]),
        (nn.State, ["mean", "ema", "cache", "count"]),
        (nn.BatchStat, ["mean"]),
        (Ema, ["ema"]),
        (nn.Cache, ["cache"]),
        (nn.Constant, ["table"]),
        (nn.Role, ["kernel", "low", "mean", "ema", "cache", "count", "table"]),
        (nn.Frozen, []),
    ],
)
def test_a_role_selects_itself_and_its_subclasses(role, names):
    assert list(nn.select(MODEL, role)) == names


def test_arrays_are_plain():
    for name in ("kernel", "mean", "table"):
        assert isinstance(getattr(MODEL, name), jax.Array)
        assert type(getattr(MODEL, name)) is type(jnp.ones(1))


def test_axes_and_tags_are_seen_where_arrays_are_made():
    seen = {}

    def sharding(path, declared):
        seen[path] = declared.role, declared.axes, declared.tags

    nn.init(Everything(), KEY, X, sharding=sharding)
    assert seen["kernel"] == (nn.Param, ("in", "out"), {"decay": True})
    assert seen["low"] == (LowRank, None, ("lora", 4))
    assert seen["mean"] == (nn.BatchStat, None, ())


def test_metadata_survives_transforms_and_pickling():
    again = pickle.loads(pickle.dumps(jax.jit(lambda m: m)(MODEL)))
    assert again == MODEL
    assert list(nn.select(again, LowRank)) == ["low"]


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (3, jnp.int32),
        (3.0, jnp.float32),
        (True, jnp.bool_),
        (np.float64(2), jnp.float32),
        (np.arange(3, dtype=np.int64), jnp.int32),
        (np.ones(2, np.uint8), jnp.uint8),
        ([1.0, 2.0], jnp.float32),
        (jnp.array(3.0), jnp.float32),
        (jnp.ones(2, jnp.bfloat16), jnp.bfloat16),
    ],
)
@pytest.mark.parametrize("declare", [nn.param, nn.state, nn.constant])
def test_values_become_arrays_of_a_strong_dtype(declare, value, dtype):
    class Model(nn.Module):
        def __init__(self):
            self.array = declare(value)

    model = Model()
    assert model.array.dtype == dtype
    assert not model.array.weak_type
    assert_close(model.array, np.asarray(value))
    assert nn.init(Wrapper(model), KEY)() is None


class Wrapper(nn.Module):
    def __init__(self, model):
        self.model = model
        self.fresh = nn.state(zeros, ())

    def __call__(self):
        return None


def test_an_initialiser_is_called_with_key_shape_and_dtype():
    calls = []

    def initializer(key, shape, dtype):
        calls.append((key.shape, shape, dtype))
        return jnp.full(shape, 2, dtype)

    class Model(nn.Module):
        def __init__(self):
            self.w = nn.param(initializer, (None, 3), jnp.bfloat16)

        def __call__(self, x):
            self.expect(w=(x.shape[-1], 3))

    model = nn.init(Model(), KEY, normal((1, 2)))
    assert_close(model.w, np.full((2, 3), 2.0))
    assert calls == [((), (2, 3), jnp.bfloat16)]


@pytest.mark.parametrize(
    "initializer",
    [jax.nn.initializers.lecun_normal(), jax.nn.initializers.zeros, jax.random.normal],
)
def test_initialisers_of_jax_serve_as_they_are(initializer):
    class Model(nn.Module):
        def __init__(self):
            self.w = nn.param(initializer, (4, 3))

        def __call__(self):
            return self.w

    model = nn.init(Model(), KEY)
    assert model.w.shape == (4, 3)
    assert pickle.loads(pickle.dumps(model.w)).shape == (4, 3)


def test_a_constant_may_be_made_by_an_initialiser():
    class Features(nn.Module):
        def __init__(self):
            self.w = nn.constant(jax.random.normal, (3, 5))

        def __call__(self, x):
            return jnp.cos(x @ self.w)

    model = nn.init(Features(), KEY, X)
    assert model(X).shape == (2, 5)
    assert jax.tree.leaves(nn.params(model)) == []


@pytest.mark.parametrize(
    "array", [np.ones(2), jnp.ones(2), jax.ShapeDtypeStruct((2,), jnp.float32)]
)
def test_an_array_without_a_role_is_refused(array):
    class Model(nn.Module):
        def __init__(self, value):
            self.w = value

    for value in (array, [array], {"a": (1, array)}):
        with pytest.raises(nn.RoleError, match="LN-ROLE-01"):
            Model(value)


WRONG = {
    "LN-ROLE-03": lambda: nn.param(ones, (2,), role=int),
    "LN-ROLE-04": lambda: nn.param(ones),
    "LN-ROLE-05": lambda: nn.param(ones, (2, 3), axes=("in",)),
}


@pytest.mark.parametrize("code", WRONG)
def test_declarations_that_do_not_fit_together_are_refused(code):
    with pytest.raises(nn.RoleError, match=code):
        WRONG[code]()


def test_a_value_of_another_shape_than_declared_is_refused():
    with pytest.raises(nn.RoleError, match="LN-ROLE-04"):
        nn.param(np.ones(3), (2,))
    assert nn.param(np.ones(3), (3,)).shape == (3,)


def test_a_role_can_be_changed_on_a_model():
    model = nn.select(MODEL, "table").with_role(LowRank)
    assert list(nn.select(model, nn.Param)) == ["kernel", "low", "table"]
    assert list(nn.select(MODEL, nn.Param)) == ["kernel", "low"]
    assert_close(model(X), MODEL(X), rtol=0, atol=0)
