"""BatchNorm: running statistics, devices, dtypes, refusals."""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, DTypeError, ShapeError

KEY = jax.random.key(0)
SPREAD = nn.initializers.normal(1.0)
OPTIONS = {"scale_init": SPREAD, "bias_init": SPREAD}


def made(layer, x):
    return nn.init(layer, KEY, x)


def wide(x):
    return np.asarray(x, np.float64)


def statistics(model):
    return model.mean, model.var


def test_training_normalises_by_the_batch_and_moves_the_statistics():
    x = 3 + 2 * normal((16, 5, 4))
    model = made(nn.BatchNorm(momentum=0.9, epsilon=1e-3), x)
    assert_close(statistics(model), (np.zeros(4), np.ones(4)))
    y, after = nn.training(model)(x)
    mean, var = wide(x).mean((0, 1)), wide(x).var((0, 1))
    assert_close(y, (wide(x) - mean) / np.sqrt(var + 1e-3), atol=1e-5)
    assert_close(statistics(after), (0.1 * mean, 0.9 + 0.1 * var))
    assert_close(statistics(model), (np.zeros(4), np.ones(4)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("masked", [False, True])
def test_training_keeps_its_digits_where_the_mean_is_large(dtype, masked):
    spread = 1 if dtype == "float32" else 100  # neighbours in bfloat16 are 64 apart
    x = (1e4 + spread * normal((64, 9, 3))).astype(dtype)
    weight, mask = normal(x.shape, 1), np.arange(64).reshape(-1, 1, 1) < 40
    model = made(nn.BatchNorm(momentum=0.0, dtype=jnp.float32), x)

    def ours(x):
        y, after = nn.training(model)(x, mask if masked else None)
        return (y * weight).sum(), (y, after.var)

    grads, (y, var) = jax.grad(ours, has_aux=True)(x.astype(jnp.float32))
    seen = wide(x)[:40] if masked else wide(x)
    mean, std = seen.mean((0, 1)), np.sqrt(seen.var((0, 1)) + 1e-5)
    expected = (wide(x) - mean) / std
    assert_close(y, expected, atol=1e-5)
    assert_close(ours(x)[1][0], y, atol=0)
    assert_close(var, seen.var((0, 1)))
    counts = mask / (40 * 9) if masked else 1 / (64 * 9)
    total = wide(weight).sum((0, 1)) + expected * (wide(weight) * expected).sum((0, 1))
    assert_close(grads, (wide(weight) - counts * total) / std, atol=1e-5)


def test_prediction_uses_the_running_statistics_and_changes_nothing():
    x = normal((8, 3))
    _, model = nn.training(made(nn.BatchNorm(**OPTIONS), x))(x)
    y, same = nn.stateful(model)(x)
    expected = (wide(x) - wide(model.mean)) / np.sqrt(wide(model.var) + 1e-5)
    assert_close(y, expected * wide(model.scale) + wide(model.bias))
    assert_close(model(x), y)
    assert same == model
    assert_close(model(x[3]), y[3])
    assert model(x[:0]).shape == (0, 3)


def test_the_running_statistics_reach_those_of_the_data():
    x = 5 + 3 * normal((64, 2))
    model = made(nn.BatchNorm(momentum=0.5), x)
    for _ in range(30):
        _, model = nn.training(model)(x)
    assert_close(statistics(model), (wide(x).mean(0), wide(x).var(0)), rtol=1e-5)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("use", [(True, True), (False, True), (False, False)])
def test_batch_norm_agrees_with_linen(axis, use):
    use_scale, use_bias = use
    x, weight = 2 + normal((6, 4, 3)), normal((6, 4, 3), 1)
    options = {"axis": axis, "use_scale": use_scale, "use_bias": use_bias}
    model = made(nn.BatchNorm(**options, **OPTIONS), x)
    linen = flax.linen.BatchNorm(**options)
    names = [n for n, used in (("scale", use_scale), ("bias", use_bias)) if used]
    params = {name: getattr(model, name) for name in names}
    start = {"mean": model.mean, "var": model.var}

    def theirs(params, x):
        variables = {"params": params, "batch_stats": start}
        y, new = linen.apply(variables, x, False, mutable=["batch_stats"])
        return (y * weight).sum(), (y, new["batch_stats"])

    def ours(model, x):
        y, model = nn.training(model)(x)
        return (y * weight).sum(), (y, {"mean": model.mean, "var": model.var})

    (expected, expected_x), aux = jax.grad(theirs, (0, 1), has_aux=True)(params, x)
    (grads, grads_x), found = jax.grad(ours, (0, 1), has_aux=True)(model, x)
    assert_close(found, aux, atol=1e-5)
    got = {name: getattr(grads, name) for name in names}
    assert_close((got, grads_x), (expected, expected_x), rtol=1e-4, atol=1e-5)


def test_masked_entries_do_not_count():
    x, mask = normal((6, 5, 3)), np.random.default_rng(0).random((6, 5, 1)) < 0.5
    model = made(nn.BatchNorm(momentum=0.0), x)
    _, after = nn.training(model)(jnp.where(mask, x, 1e6), mask)
    admitted = wide(x)[mask[..., 0]]
    assert_close(statistics(after), (admitted.mean(0), admitted.var(0)))
    linen = flax.linen.BatchNorm(momentum=0.0, use_running_average=False)
    _, variables = linen.init_with_output(KEY, x, mask=jnp.asarray(mask))
    assert_close(
        after.var,
        linen.apply(variables, x, mask=jnp.asarray(mask), mutable=["batch_stats"])[1][
            "batch_stats"
        ]["var"],
        rtol=1e-4,
    )


@pytest.mark.parametrize("masked", [False, True])
def test_where_nothing_counts_the_statistics_stay_and_stand_in(masked):
    x = normal((4, 3))
    _, model = nn.training(made(nn.BatchNorm(momentum=0.5), x))(x)
    empty = (x, jnp.zeros((4, 1), bool)) if masked else (x[:0],)
    y, after = nn.training(model)(*empty)
    assert_close(statistics(after), statistics(model), rtol=0, atol=0)
    assert_close(y, model(empty[0]))


def step(model, x):
    return nn.training(model)(x)


def joined_by_vmap(model, x):
    mapped = jax.vmap(step, (None, 0), (0, None), axis_name="pieces")
    y, model = mapped(model, x.reshape(4, -1, *x.shape[1:]))
    return y.reshape(x.shape), model


def joined_by_shard_map(model, x):
    mesh = Mesh(np.array(jax.devices()[:4]), ("pieces",))
    specs = {"in_specs": (P(), P("pieces")), "out_specs": (P("pieces"), P())}
    return jax.jit(jax.shard_map(step, mesh=mesh, **specs))(model, x)


def joined_by_pmap(model, x):
    mapped = jax.pmap(step, "pieces", in_axes=(None, 0))
    y, models = mapped(model, x.reshape(4, -1, *x.shape[1:]))
    return y.reshape(x.shape), jax.tree.map(lambda a: a[0], models)


JOINED = [joined_by_vmap, joined_by_shard_map, joined_by_pmap]


@pytest.mark.parametrize("joined", JOINED)
def test_devices_joined_by_an_axis_see_one_batch(joined):
    x = 3 + normal((8, 5, 3))
    model = made(nn.BatchNorm(axis_name="pieces", **OPTIONS), x)
    y, after = joined(model, x)
    expected, reference = nn.training(model.replace(axis_name=None))(x)
    assert_close(y, expected, atol=1e-5)
    assert_close(statistics(after), statistics(reference))


def test_gradients_of_joined_devices_are_those_of_one_batch():
    x, weight = 3 + normal((8, 3)), normal((8, 3), 1)
    model = made(nn.BatchNorm(axis_name="pieces", **OPTIONS), x)

    def loss(run, model, x):
        return (run(model, x)[0] * weight).sum()

    found = jax.grad(loss, (1, 2))(joined_by_shard_map, model, x)
    plain = model.replace(axis_name=None)
    expected = jax.grad(loss, (1, 2))(step, plain, x)
    for ours, theirs in zip(found, expected, strict=True):
        leaves = (jax.tree.leaves(ours), jax.tree.leaves(theirs))
        assert_close(*leaves, rtol=1e-4, atol=1e-5)


def test_a_batch_sharded_under_jit_needs_no_axis_name():
    x = 3 + normal((8, 3))
    model = made(nn.BatchNorm(), x)
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    y, after = jax.jit(step)(model, jax.device_put(x, NamedSharding(mesh, P("data"))))
    expected, reference = step(model, x)
    assert_close((y, after.var), (expected, reference.var))


def test_an_axis_that_is_not_in_force_is_refused_with_the_path():
    x = normal((4, 3))
    model = made(nn.Sequential([nn.BatchNorm(axis_name="pieces")]), x)
    assert model(x).shape == x.shape
    with pytest.raises(ConfigError, match=r"^layers\[0\] .*LN-VALUE-07") as caught:
        nn.training(model)(x)
    scope = {}
    exec(caught.value.fixes[0][1], scope)
    fixed = nn.Sequential([model[0].replace(axis_name=scope["axis_name"])])
    assert nn.training(fixed)(x)[0].shape == x.shape


def test_complex_numbers_are_refused_as_the_statistics_are_real():
    with pytest.raises(DTypeError, match="LN-DTYPE-01"):
        made(nn.BatchNorm(), normal((4, 3)) + 1j)


def test_a_mask_that_does_not_fit_is_refused_with_the_path_and_the_fix_works():
    x, mask = normal((4, 5, 3)), jnp.ones((4, 5), bool)
    model = made(nn.BatchNorm(), x)
    with pytest.raises(ShapeError, match=r"^\(BatchNorm\): `mask`.*") as caught:
        nn.training(model)(x, mask)
    scope = {"mask": mask}
    exec(caught.value.fixes[0][1], scope)
    y, _ = nn.training(model)(x, scope["mask"])
    assert_close(y, nn.training(model)(x)[0])
