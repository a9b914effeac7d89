"""Embed: rows, scores, agreement with Flax Linen, and what it refuses."""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, DTypeError, ShapeError

KEY = jax.random.key(0)
IDS = jnp.array([[1, 4, 1], [0, 2, 3]])


def made(**options):
    return nn.init(nn.Embed(5, 3, **options), KEY, IDS)


@pytest.mark.parametrize("ids", [IDS, IDS[0], IDS[0, 0], IDS[:0]])
def test_values_and_gradients_agree_with_linen(ids):
    model, linen = made(), flax.linen.Embed(5, 3)
    params = {"embedding": model.embedding}
    weight = normal((*ids.shape, 3))

    def theirs(params):
        return (linen.apply({"params": params}, ids) * weight).sum()

    def ours(model):
        return (model(ids) * weight).sum()

    assert_close(model(ids), linen.apply({"params": params}, ids))
    expected = jax.grad(theirs)(params)["embedding"]
    assert_close(jax.grad(ours)(model).embedding, expected)


def test_attend_agrees_with_linen():
    model, linen, x = made(), flax.linen.Embed(5, 3), normal((2, 4, 3))
    variables = {"params": {"embedding": model.embedding}}
    assert_close(model.attend(x), linen.apply(variables, x, method=linen.attend))


def test_rows_start_with_unit_length_on_average():
    model = nn.init(nn.Embed(2000, 50), KEY, IDS)
    lengths = np.sum(np.asarray(model.embedding, np.float64) ** 2, axis=-1)
    assert_close(lengths.mean(), 1.0, rtol=0.02)


def test_ids_outside_give_nan_under_jit():
    rows = jax.jit(lambda m, ids: m(ids))(made(), jnp.array([-1, 0, 5]))
    assert np.array_equal(np.isnan(rows).all(-1), [True, False, True])


def test_dtypes():
    model = made(param_dtype=jnp.bfloat16)
    assert model(IDS).dtype == jnp.bfloat16
    assert model.attend(normal((3,))).dtype == jnp.float32
    half = made(dtype=jnp.bfloat16)
    assert half.embedding.dtype == jnp.float32
    assert half(IDS).dtype == half.attend(normal((3,))).dtype == jnp.bfloat16


def test_wrong_inputs_are_refused_with_the_path_and_the_fix_works():
    model = nn.Sequential([made()])
    ids = jnp.array([1.0, 2.0])
    with pytest.raises(DTypeError, match=r"^layers\[0\] \(Embed\).*DTYPE") as caught:
        model(ids)
    scope = {"ids": ids, "jnp": jnp}
    exec(caught.value.fixes[0][1], scope)
    assert_close(model(scope["ids"]), made()(jnp.array([1, 2])))


def test_attend_refuses_another_width_and_integers():
    embed = made()
    with pytest.raises(ShapeError, match=r"^\(Embed\).*LN-SHAPE-01"):
        embed.attend(normal((2, 4)))
    with pytest.raises(DTypeError, match=r"^\(Embed\).*LN-DTYPE-01"):
        embed.attend(IDS)


@pytest.mark.parametrize(("rows", "features"), [(0, 3), (3, -1), (2.5, 3), (3, None)])
def test_sizes_that_are_none_are_refused(rows, features):
    with pytest.raises(ConfigError, match=r"^Embed: .*LN-VALUE-01"):
        nn.Embed(rows, features)
