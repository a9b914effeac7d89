"""TransformerBlock: what it passes on, drops and refuses, stacks and caches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, ScopeError, ShapeError

KEY = jax.random.key(0)


def made(layer, *sample):
    return nn.init(layer, KEY, *sample)


def block(**options):
    options = {"attention": nn.Attention(2, causal=True), "mlp": nn.MLP(6)} | options
    return nn.TransformerBlock(**options)


class Echo(nn.Module):
    """Returns its input, and keeps what it was called with."""

    def __init__(self, seen):
        self.seen = seen

    def __call__(self, x, *args, **options):
        self.seen(args, options)
        return x


class Seen(list):
    """A record that is compared by identity, as configuration must be hashable."""

    __hash__ = object.__hash__

    def __call__(self, args, options):
        self.append((args, options))


@pytest.mark.parametrize("placement", ["pre", "post", "sandwich"])
def test_norms_are_where_they_should_be(placement):
    x = 3 * normal((2, 5, 4)) + 1
    model = block(placement=placement, attention=jnp.sin, mlp=jnp.cos)
    model = made(model, x)
    norm = made(nn.LayerNorm(), x)

    def around(f, x):
        if placement == "post":
            return norm(x + f(x))
        y = f(norm(x))
        return x + (norm(y) if placement == "sandwich" else y)

    assert_close(model(x), around(jnp.cos, around(jnp.sin, x)))


def test_each_part_has_a_norm_of_its_own():
    x = normal((2, 5, 4))
    count = {
        "pre": 2,
        "post": 2,
        "sandwich": 4,
    }
    for placement, number in count.items():
        model = made(block(placement=placement, norm=nn.RMSNorm), x)
        assert len(nn.select(model, nn.RMSNorm)) == number
    assert (
        len(nn.select(made(block(parallel=True, norm=nn.RMSNorm), x), nn.RMSNorm)) == 1
    )
    crossed = block(cross_attention=nn.Attention(2), norm=nn.RMSNorm)
    assert len(nn.select(made(crossed, x, x), nn.RMSNorm)) == 3


def test_options_are_passed_on_to_whom_they_are_meant_for():
    own, across, fed = Seen(), Seen(), Seen()
    model = block(attention=Echo(own), cross_attention=Echo(across), mlp=Echo(fed))
    x, context, ids = jnp.ones((2, 5, 4)), jnp.ones((2, 3, 4)), jnp.zeros((2, 5))
    model = made(model, x, context)
    model(x, context)
    model(x, context, mask=1, positions=ids, segments=ids, context_mask=2)
    model(x, context, bias=3, segments=ids, context_segments=4, context_bias=5)
    assert own[-3:] == [
        ((), {}),
        ((), {"mask": 1, "positions": ids, "segments": ids}),
        ((), {"bias": 3, "segments": ids}),
    ]
    assert across[-3:] == [
        ((context,), {}),
        ((context,), {"mask": 2}),
        ((context,), {"bias": 5, "segments": ids, "key_segments": 4}),
    ]
    assert fed[-1] == ((), {})


def test_packed_sequences_do_not_see_each_other():
    x = normal((6, 4))
    model = made(block(attention=nn.Attention(2, position=nn.Rotary())), x)
    segments = jnp.array([0, 0, 0, 0, 1, 1])
    positions = jnp.array([0, 1, 2, 3, 0, 1])
    y = model(x, segments=segments, positions=positions)
    assert_close(y[4:], model(x[4:]))


def test_in_a_stack_with_remat_it_is_the_layers_one_after_another():
    x = normal((2, 5, 4))
    stack = made(nn.Stack(block(), 3, remat=True), x)
    y = x
    for layer in stack:
        y = layer(y)
    assert_close(stack(x), y)

    def loss(stack, x):
        return (stack(x) ** 2).sum()

    plain = stack.replace(remat=False)
    found = jax.jit(jax.grad(loss))(stack, x)
    desired = jax.jit(jax.grad(loss))(plain, x)
    assert_close(nn.to_paths(found), nn.to_paths(desired))


def test_decoding_with_a_cache_is_the_whole_pass():
    x = normal((2, 6, 4))
    mlp = nn.MoE(3, 4, capacity_factor=None)
    model = made(nn.Stack(block(mlp=mlp, placement="sandwich"), 2), x)
    whole = model(x)
    step = jax.jit(lambda model, x: nn.stateful(model)(x))
    cached = nn.with_cache(model, 2, 6)
    y, cached = step(cached, x[:, :3])
    assert_close(y, whole[:, :3], atol=1e-5)
    for t in range(3, 6):
        y, cached = step(cached, x[:, t : t + 1])
        assert_close(y[:, 0], whole[:, t], atol=1e-5)


def test_a_decoder_with_a_cache_looks_at_its_context_at_every_step():
    x, context = normal((2, 4, 4)), normal((2, 3, 4), 1)
    model = made(block(cross_attention=nn.Attention(2)), x, context)
    whole = model(x, context)
    step = jax.jit(lambda model, x: nn.stateful(model)(x, context))
    cached = nn.with_cache(model, 2, 4)
    for t in range(4):
        y, cached = step(cached, x[:, t : t + 1])
        assert_close(y[:, 0], whole[:, t], atol=1e-5)


def test_paths_are_dropped_by_example_in_training():
    x = normal((400, 2, 4))
    model = made(block(drop_path_rate=0.5, attention=jnp.zeros_like), x)
    branch = np.asarray(model(x) - x)
    y, _ = nn.training(model, KEY)(x)
    ratio = np.asarray(y - x) / branch
    per_example = ratio.reshape(400, -1)
    assert_close(per_example, np.broadcast_to(per_example[:, :1], (400, 8)), 1e-2, 1e-2)
    kept = per_example[:, 0] > 1
    assert 0.4 < kept.mean() < 0.6
    assert_close(per_example[kept, 0], np.full(kept.sum(), 2.0), rtol=1e-2)
    with pytest.raises(ScopeError, match="LN-RNG-02"):
        nn.training(model)(x)


def test_a_context_must_be_there_and_be_used():
    x = normal((2, 5, 4))
    model = made(nn.Sequential([block()]), x)[0]
    with pytest.raises(ConfigError, match="`context` was given"):
        model(x, x)
    crossed = made(block(cross_attention=nn.Attention(2)), x, x)
    with pytest.raises(ConfigError, match="there is no `context`"):
        crossed(x)


def test_a_part_that_changes_the_width_is_refused():
    with pytest.raises(ShapeError, match=r"`mlp` returns float32\[2, 5, 3\]"):
        made(block(mlp=nn.MLP(6, out_features=3)), normal((2, 5, 4)))


def test_what_is_no_part_is_refused():
    with pytest.raises(ConfigError, match="`attention` is 2"):
        block(attention=2)
    with pytest.raises(ConfigError, match="`mlp` is the class MLP"):
        block(mlp=nn.MLP)
    with pytest.raises(ConfigError, match="`norm` is LayerNorm"):
        block(norm=nn.LayerNorm())
    with pytest.raises(ConfigError, match="`placement` is 'norm_first'"):
        block(placement="norm_first")
    with pytest.raises(ConfigError, match="`parallel` is True"):
        block(parallel=True, cross_attention=nn.Attention(2))
