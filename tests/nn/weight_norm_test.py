"""WeightNorm and SpectralNorm: layers around layers, in every kind of call."""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, PathError, ShapeError, TreeError

KEY = jax.random.key(0)
SPREAD = nn.initializers.normal(1.0)


def made(layer, x):
    return nn.init(layer, KEY, x)


def wide(x):
    return np.asarray(x, np.float64)


def mlp():
    return nn.Sequential([nn.Dense(4), jax.nn.tanh, nn.Dense(2)])


def largest(kernel):
    return np.linalg.svd(wide(kernel).reshape(-1, kernel.shape[-1]))[1][0]


def test_weight_norm_is_its_formula_for_each_kernel():
    x = normal((5, 3))
    model = made(nn.WeightNorm(mlp(), scale_init=SPREAD), x)
    assert list(model.magnitudes) == ["layers/0/kernel", "layers/2/kernel"]
    first, _, last = model.layer
    hidden = np.tanh(wide(x) @ direction(model, "layers/0/kernel", first.kernel))
    expected = hidden @ direction(model, "layers/2/kernel", last.kernel)
    assert_close(model(x), expected)


def direction(model, path, kernel):
    unit = wide(kernel) / np.linalg.norm(wide(kernel), axis=0)
    return unit * wide(model.magnitudes[path].scale)


def test_weight_norm_agrees_with_linen():
    x = normal((5, 3))
    model = made(nn.WeightNorm(nn.Dense(4), scale_init=SPREAD), x)
    linen = flax.linen.WeightNorm(flax.linen.Dense(4))
    arrays = {"kernel": model.layer.kernel, "bias": model.layer.bias}
    scale = model.magnitudes["kernel"].scale
    variables = jax.tree_util.tree_map_with_path(
        lambda path, _: arrays.get(path[-1].key, scale), linen.init(KEY, x)
    )
    assert_close(model(x), linen.apply(variables, x))


def test_scales_from_data_leave_the_layer_what_it_was():
    x = normal((5, 3))
    dense = made(nn.Dense(4), x)
    model = made(nn.WeightNorm(dense, scale_init=nn.from_data), x)
    assert_close(model(x), dense(x))
    assert_close(model.magnitudes["kernel"].scale, np.linalg.norm(dense.kernel, axis=0))


def test_weight_norm_may_have_no_scale_or_several_axes():
    x = normal((5, 3))
    bare = made(nn.WeightNorm(nn.Dense(4), use_scale=False), x)
    assert sorted(nn.to_paths(bare)) == ["layer/bias", "layer/kernel"]
    both = made(nn.WeightNorm(nn.Dense(4), axis=(0, 1)), x)
    assert both.magnitudes["kernel"].scale.shape == (3, 4)
    assert_close(both(x), wide(x) @ np.sign(wide(both.layer.kernel)))


def test_a_training_step_changes_directions_and_magnitudes():
    x = normal((5, 3))
    model = made(nn.WeightNorm(nn.Dense(4)), x)
    grads = jax.jit(nn.grad(lambda m: (m(x) ** 2).sum()))(model)
    kernel = grads.layer.kernel
    assert_close((kernel * model.layer.kernel).sum(0), np.zeros(4), atol=1e-5)
    assert np.abs(grads.magnitudes["kernel"].scale).min() > 0


def test_training_drives_the_largest_singular_value_to_one():
    x = normal((5, 3))
    model = made(nn.SpectralNorm(mlp()), x)
    assert_close(model(x), model.layer(x))
    step = jax.jit(lambda model: nn.training(model)(x)[1])
    for _ in range(100):
        model = step(model)
    for path, estimate in model.estimates.items():
        kernel = nn.select(model.layer, path)[path]
        assert_close(estimate.sigma, largest(kernel), rtol=1e-4)
    y, _ = nn.training(model)(x)
    assert_close(model(x), y)


@pytest.mark.slow
def test_spectral_norm_agrees_with_linen_step_by_step():
    x, weight = normal((5, 3)), normal((5, 4), 1)
    model = made(nn.SpectralNorm(nn.Dense(4), n_steps=2), x)
    linen = flax.linen.SpectralNorm(flax.linen.Dense(4), n_steps=2)
    variables = linen.init(KEY, x, update_stats=False)
    params = jax.tree.map(lambda _: None, variables["params"])
    layer = {"kernel": model.layer.kernel, "bias": model.layer.bias}
    params = {name: layer for name in params}
    stats = jax.tree.map(
        lambda a: model.estimates["kernel"].u[None] if a.ndim else a,
        variables["batch_stats"],
    )

    def theirs(params, stats):
        y, new = linen.apply(
            {"params": params, "batch_stats": stats},
            x,
            update_stats=True,
            mutable=["batch_stats"],
        )
        return (y * weight).sum(), (y, new["batch_stats"])

    def ours(model):
        y, model = nn.training(model)(x)
        return (y * weight).sum(), (y, model)

    for _ in range(2):
        grads, (expected, stats) = jax.grad(theirs, has_aux=True)(params, stats)
        found, (y, model) = nn.grad(ours, has_aux=True)(model)
        assert_close(y, expected)
        (kernel,) = [a for a in jax.tree.leaves(grads) if a.ndim == 2]
        assert_close(found.layer.kernel, kernel, rtol=1e-4, atol=1e-5)
        (u,) = [a[0] for a in jax.tree.leaves(stats) if a.ndim]
        assert_close(model.estimates["kernel"].u, u)


@pytest.mark.parametrize("wrap", [nn.WeightNorm, nn.SpectralNorm])
def test_state_and_randomness_inside_are_those_of_the_call(wrap):
    block = nn.Sequential([nn.Dense(4), nn.BatchNorm(), nn.Dropout(0.5)])
    x = normal((8, 3))
    model = made(wrap(block), x)
    y, after = nn.training(model, jax.random.key(1))(x)
    norm = after.layer.layers[1]
    assert (y == 0).any()
    assert np.abs(norm.mean).max() > 0
    again, _ = nn.training(model, jax.random.key(1))(x)
    assert_close(y, again)
    _, values = nn.capture(model, "layer/layers/0")(x)
    assert values["layer/layers/0"].shape == (8, 4)


@pytest.mark.parametrize("wrap", [nn.WeightNorm, nn.SpectralNorm])
@pytest.mark.parametrize("remat", [False, True])
def test_in_a_stack_it_is_as_one_after_another(wrap, remat):
    x = normal((5, 4))
    stack = made(nn.Stack(wrap(nn.Dense(4)), 3, remat=remat), x)

    def loss(model, x):
        y, model = nn.training(model)(x)
        return (y**2).sum(), (y, model)

    (_, (y, after)), grads = jax.jit(nn.value_and_grad(loss, has_aux=True))(stack, x)
    expected = x
    for i, layer in enumerate(stack):
        expected, layer = nn.training(layer)(expected)
        assert_close(jax.tree.leaves(after[i]), jax.tree.leaves(layer))
    assert_close(y, expected)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_a_wrapped_layer_may_be_rematerialised_and_wrapped_again():
    x = normal((5, 3))

    class Model(nn.Module):
        def __init__(self):
            self.layer = nn.SpectralNorm(nn.WeightNorm(nn.Dense(4)))

        def __call__(self, x):
            return nn.remat(self.layer)(x)

    model = made(Model(), x)
    y, after = nn.training(model)(x)
    kernel = np.asarray(model.layer.layer.layer.kernel)
    assert y.shape == (5, 4)
    assert float(after.layer.estimates["layer/kernel"].sigma) <= 1.0001 * largest(
        kernel
    )


@pytest.mark.parametrize("wrap", [nn.WeightNorm, nn.SpectralNorm])
def test_half_precision_stays_outside(wrap):
    x = normal((5, 3))
    model = nn.cast(made(wrap(nn.Dense(4)), x), jnp.bfloat16)
    y, after = nn.training(model)(x.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(after))


def test_a_kernel_of_zeros_recovers():
    x = normal((5, 3))
    layer = nn.Dense(4, kernel_init=nn.initializers.zeros)
    model = made(nn.SpectralNorm(layer), x)
    y, model = nn.training(model)(x)
    assert_close(y, np.zeros((5, 4)))
    assert np.abs(model.estimates["kernel"].u).max() > 0
    assert_close(model(x), np.zeros((5, 4)))


def test_a_wrong_input_is_refused_by_the_layer_with_its_path():
    model = made(nn.Sequential([nn.WeightNorm(nn.Dense(4))]), normal((5, 3)))
    start = r"^layers\[0\].layer \(Dense\).*LN-SHAPE-01"
    with pytest.raises(ShapeError, match=start):
        model(normal((5, 2)))
    with pytest.raises(ShapeError, match=start):
        nn.training(model)(normal((5, 2)))


@pytest.mark.parametrize("wrap", [nn.WeightNorm, nn.SpectralNorm])
def test_what_cannot_be_normalised_is_refused(wrap):
    with pytest.raises(ConfigError, match="must be a module"):
        wrap(jnp.tanh)
    with pytest.raises(PathError, match="LN-PATH-01"):
        wrap(nn.Dense(4), "kernels")
    with pytest.raises(ConfigError, match="selects none"):
        wrap(nn.Dense(4), lambda path, array: False)
    with pytest.raises(TreeError, match="LN-STACK-05") as caught:
        made(wrap(nn.Stack(nn.Dense(3), 2)), normal((5, 3)))
    scope = {"nn": nn, "Wrapped": wrap, "block": nn.Dense(3), "depth": 2}
    exec(caught.value.fixes[0][1], scope)
    assert made(scope["model"], normal((5, 3)))(normal((5, 3))).shape == (5, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda layer: nn.WeightNorm(layer, axis=(0, 0)),
        lambda layer: nn.WeightNorm(layer, epsilon=0.0),
        lambda layer: nn.SpectralNorm(layer, n_steps=0),
        lambda layer: nn.SpectralNorm(layer, epsilon=-1.0),
    ],
)
def test_options_without_a_meaning_are_refused(make):
    with pytest.raises(ConfigError, match="LN-VALUE"):
        make(nn.Dense(4))
