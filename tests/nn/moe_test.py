"""MoE: its definition, capacity, losses, sharding, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, DTypeError, ScopeError, ShapeError

KEY = jax.random.key(0)
SPREAD = nn.initializers.normal(1.0)


def made(layer, x):
    return nn.init(layer, KEY, x)


@jax.jit
def predict(model, *args):
    return model(*args)


@jax.jit
def observe(model, *args):
    return nn.capture(model, "*_loss", "expert_share", "dropped")(*args)


def weights_of(model, x):
    """The weight of each expert for each token, zero where it was not chosen."""
    p = jax.nn.softmax(x @ model.router.kernel)  # [..., T, E]
    best, _ = jax.lax.top_k(p, model.top_k)
    chosen = p >= best[..., -1:]
    w = jnp.where(chosen, p, 0)
    return w / w.sum(-1, keepdims=True) if model.top_k > 1 else w


def all_experts(model, x):
    """What the layer would be if each expert saw each token."""

    def layer(experts, x, spec="...ti,eio->...teo"):
        y = jnp.einsum(spec, x, experts.kernel)
        if experts.bias is None:
            return y
        return y + experts.bias.reshape((1,) * (y.ndim - 2) + experts.bias.shape)

    h = layer(model.hidden, x)
    if model.gate is None:
        h = model.activation(h)
    else:
        h = model.activation(layer(model.gate, x)) * h
    y = layer(model.out, h, "...tei,eio->...teo")
    return jnp.einsum("...te,...teo->...to", weights_of(model, x), y)


@pytest.mark.parametrize("capacity_factor", [None, 100.0])
@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("gated", [False, True])
def test_values_and_gradients_are_those_of_all_experts(gated, top_k, capacity_factor):
    x, weight = normal((2, 9, 3)), normal((2, 9, 3), 1)
    layer = nn.MoE(
        4,
        5,
        top_k=top_k,
        gated=gated,
        capacity_factor=capacity_factor,
        bias_init=SPREAD,
    )
    model = made(layer, x)
    assert_close(predict(model, x), jax.jit(all_experts)(model, x))

    def grads(f):
        loss = jax.jit(jax.grad(lambda m, x: (f(m, x) * weight).sum(), (0, 1)))
        return loss(model, x)

    found, desired = grads(lambda m, x: m(x)), grads(all_experts)
    assert_close(found, desired, rtol=1e-4, atol=1e-5)


def test_one_expert_is_a_perceptron():
    x = normal((5, 3))
    model = made(nn.MoE(1, 4, top_k=1, capacity_factor=None), x)
    h = jax.nn.gelu(x @ model.hidden.kernel[0])
    assert_close(model(x), h @ model.out.kernel[0])


def test_who_comes_too_late_gets_nothing():
    x = jnp.ones((4, 3)) + 0.01 * normal((4, 3))  # all choose alike
    model = made(nn.MoE(4, 5, top_k=1, capacity_factor=2.0, bias_init=SPREAD), x)
    y, seen = observe(model, x)
    assert seen["dropped"] == 0.5
    assert_close(y[:2], all_experts(model, x)[:2])
    assert (y[2:] == 0).all()
    free = model.replace(capacity_factor=None)
    assert_close(free(x), all_experts(model, x))


def test_batch_entries_do_not_depend_on_each_other():
    x = normal((3, 8, 4))
    for factor in (0.5, None):
        model = made(nn.MoE(4, 5, capacity_factor=factor), x)
        assert_close(predict(model, x)[1], predict(model, x[1]))
    assert_close(predict(model, x)[1, 3], predict(model, x[1, 3]))  # one token


def test_masked_tokens_take_no_room_and_change_nothing():
    x = normal((2, 6, 4))
    mask = jnp.array([[True] * 4 + [False] * 2, [False] * 2 + [True] * 4])
    for factor in (1.0, None):
        model = made(nn.MoE(4, 5, capacity_factor=factor), x)
        other = jnp.where(mask[..., None], x, 100.0)
        y, seen = observe(model, x, mask)
        z, seen_too = observe(model, other, mask)
        assert_close(y, z)
        assert_close(seen, seen_too)
        assert (y[~mask] == 0).all()
        assert_close(seen["expert_share"].sum(), np.float32(1))


def test_losses_are_collected_from_every_layer_and_teach_the_router():
    x = normal((2, 8, 4))
    model = made(nn.Stack(nn.MoE(3, 5), 2, remat=True), x)

    def loss_fn(model):
        call = nn.capture(nn.training(model, KEY), "**/*_loss")
        (_, model), sown = call(x)
        assert {path: value.shape for path, value in sown.items()} == {
            "block/load_balancing_loss": (2,),
            "block/router_z_loss": (2,),
        }
        return sum(value.sum() for value in sown.values()), model

    grads, _ = jax.jit(nn.grad(loss_fn, has_aux=True))(model)
    assert (grads.block.router.kernel != 0).all()


def test_training_on_the_loss_balances_the_experts():
    x = normal((64, 4)) + 1.0
    model = made(nn.MoE(4, 3, top_k=1, router_init=SPREAD), x)

    def loss_fn(model):
        _, sown = nn.capture(model, "**/load_balancing_loss")(x)
        return sown["load_balancing_loss"]

    @jax.jit
    def step(model):
        loss, grads = nn.value_and_grad(loss_fn)(model)
        return nn.apply_updates(model, jax.tree.map(lambda g: -g, grads)), loss

    _, first = step(model)
    for _ in range(50):
        model, last = step(model)
    assert first > 1.3
    assert last < 1.1


def test_jitter_is_drawn_in_training_only():
    x = normal((8, 4))
    model = made(nn.MoE(3, 5, router_jitter=0.5, capacity_factor=None), x)
    train = jax.jit(lambda model, key, x: nn.training(model, key)(x)[0])
    one, two, again = [train(model, jax.random.key(seed), x) for seed in (1, 2, 1)]
    assert (one != two).any()
    assert (one == again).all()
    assert (predict(model, x) != one).any()
    with pytest.raises(ScopeError, match="LN-RNG-02"):
        nn.training(model)(x)


def test_shared_experts_see_every_token():
    x = normal((5, 3))
    model = made(nn.MoE(3, 4, shared=nn.MLP(6)), x)
    alone = model.replace(shared=None)
    assert_close(predict(model, x), predict(alone, x) + model.shared(x))


@pytest.mark.parametrize("capacity_factor", [1.0, None])
def test_spread_over_devices_by_expert_it_gives_the_same(capacity_factor):
    if len(jax.devices()) < 4:
        pytest.skip("there are not four devices")
    x = normal((4, 8, 6))
    model = made(nn.MoE(4, 8, gated=True, capacity_factor=capacity_factor), x)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("devices",))
    seen = {}

    def place(path, declared):
        seen[path] = declared.axes
        names = ["devices" if a == "experts" else None for a in declared.axes]
        if path == "router/kernel":
            names = []
        return jax.sharding.NamedSharding(mesh, jax.P(*names))

    spread = nn.init(nn.describe(model), KEY, x, sharding=place)
    assert seen["router/kernel"] == ("in", "experts")
    assert seen["hidden/bias"] == ("experts", "out")
    assert seen["out/kernel"] == ("experts", "in", "out")
    assert spread.hidden.kernel.sharding.spec[0] == "devices"

    def loss(model, x):
        return (model(x) ** 2).sum()

    step = jax.jit(jax.value_and_grad(loss))
    assert_close(step(spread, x), step(model, x), rtol=1e-4)


def test_the_router_is_in_float32_whatever_the_rest_is():
    x = normal((4, 3), dtype="bfloat16")
    model = made(nn.MoE(3, 4, dtype="bfloat16", param_dtype="bfloat16"), x)
    y, seen = nn.capture(model, "*")(x)
    assert y.dtype == jnp.bfloat16
    assert seen["router_z_loss"].dtype == jnp.float32
    assert model.router.kernel.dtype == jnp.bfloat16


def test_no_tokens_and_no_batch_are_fine():
    model = made(nn.MoE(3, 4), normal((2, 5, 3)))
    for factor in (1.25, None):
        free = model.replace(capacity_factor=factor)
        for shape in [(0, 3), (0, 5, 3), (3,)]:
            assert predict(free, jnp.ones(shape)).shape == shape


def test_wrong_options_and_masks_are_refused():
    x = normal((5, 3))
    model = made(nn.Sequential([nn.MoE(3, 4)]), x)
    with pytest.raises(ConfigError, match=r"^MoE: `top_k` is 4"):
        nn.MoE(3, 4, top_k=4)
    with pytest.raises(ConfigError, match=r"^MoE: `capacity_factor` is 0"):
        nn.MoE(3, 4, capacity_factor=0)
    with pytest.raises(ConfigError, match=r"^MoE: `shared` is 4"):
        nn.MoE(3, 4, shared=4)
    with pytest.raises(ShapeError, match=r"^layers\[0\]\.router \(Router\)"):
        model(normal((5, 4)))
    moe = model[0]
    with pytest.raises(DTypeError, match="floating values are needed"):
        moe(x + 1j)
    with pytest.raises(DTypeError, match=r"\(MoE\): `mask` has dtype int32"):
        moe(x, jnp.ones(5, jnp.int32))
    with pytest.raises(ShapeError, match=r"\(MoE\): `mask` has shape \[4\]"):
        moe(x, jnp.ones(4, bool))
