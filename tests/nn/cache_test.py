"""Caches: decoding token by token gives what the whole sequence gives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn

KEY = jax.random.key(0)
SPREAD = nn.initializers.normal(0.5)
LENGTH, WIDTH = 12, 8
POSITIONS = {
    "none": lambda: None,
    "rotary": lambda: nn.Rotary(),
    "alibi": lambda: nn.ALiBi(),
    "relative": lambda: nn.RelativeBias(
        num_buckets=6, max_distance=8, bidirectional=False, embedding_init=SPREAD
    ),
}


def attention(**options):
    options = {"num_kv_heads": 2, "causal": True, "bias_init": SPREAD} | options
    return nn.Attention(4, **options)


def made(layer, x):
    return nn.init(layer, KEY, x)


@jax.jit
def step(model, x, positions=None):
    if positions is None:
        return nn.stateful(model)(x)
    return nn.stateful(model)(x, positions=positions)


@jax.jit
def predicted(model, x):
    return model(x)


def decoded(model, x, chunks):
    """What a cached model gives, called with so many tokens at a time."""
    outs = []
    for part in jnp.split(x, np.cumsum(chunks)[:-1], axis=1):
        out, model = step(model, part)
        outs.append(out)
    return jnp.concatenate(outs, 1), model


def chunks_of(length, prefill, chunk):
    """Sizes that add up to the length: of the prompt, of chunks, then ones."""
    rest = length - prefill
    return [prefill] * (prefill > 0) + [chunk] * (rest // chunk) + [1] * (rest % chunk)


@pytest.mark.parametrize("window", [None, 4], ids=["full", "ring"])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
def test_decoding_equals_the_whole_sequence(num_kv_heads, position, window):
    x = normal((2, LENGTH, WIDTH))
    model = attention(
        num_kv_heads=num_kv_heads, position=POSITIONS[position](), window=window
    )
    model = made(model, x)
    whole = predicted(model, x)
    cached = nn.with_cache(model, 2, LENGTH)
    assert cached.cache.keys.shape[1] == (window or LENGTH)
    for prefill in (0, 1, 5):
        for chunk in (1, 3):
            out, after = decoded(cached, x, chunks_of(LENGTH, prefill, chunk))
            assert_close(out, whole, rtol=1e-5, atol=1e-5)
            assert_close(after.cache.index.length, np.array([LENGTH] * 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"fused_qkv": True},
        {"head_dim": 6, "features": 5},
        {"softcap": 2.0, "scale": 0.7},
        {"window": 40},
        {"use_bias": False, "window": 1},
        {"causal": False, "window": (3, 0)},
    ],
    ids=str,
)
def test_decoding_equals_the_whole_sequence_with_other_options(options):
    x = normal((2, LENGTH, WIDTH))
    model = made(attention(position=nn.Rotary(), **options), x)
    cached = nn.with_cache(model, 2, LENGTH)
    for chunks in ([LENGTH], [5, 4, 2, 1]):
        assert_close(decoded(cached, x, chunks)[0], predicted(model, x), atol=1e-5)


def test_a_ring_has_no_end():
    x = normal((1, 30, WIDTH))
    model = made(attention(window=3, position=nn.Rotary()), x)
    cached = nn.with_cache(model, 1, 8)
    assert cached.cache.keys.shape == (1, 3, 2, 2)
    out, _ = decoded(cached, x, [20] + [1] * 4 + [6])
    assert_close(out, predicted(model, x), atol=1e-5)


def test_what_lies_past_the_end_is_nan_and_the_rest_is_not():
    x = normal((1, 6, WIDTH))
    model = made(attention(), x)
    for options in ({}, {"window": 100}):
        cached = nn.with_cache(model.replace(**options), 1, 4)
        for chunks in ([6], [3, 3], [4, 1, 1]):
            out, after = decoded(cached, x, chunks)
            assert_close(out[:, :4], predicted(model, x)[:, :4], atol=1e-5)
            assert np.isnan(out[:, 4:]).all()
            assert_close(after.cache.positions, np.array([[0, 1, 2, 3]]))


# ---- rows of different lengths


@pytest.mark.parametrize("window", [None, 3])
def test_prompts_padded_on_the_right(window):
    x, lengths = normal((3, 9, WIDTH)), jnp.array([2, 5, 0])
    model = made(attention(window=window, position=nn.Rotary()), x)
    is_there = jnp.arange(5)[None, :, None] < lengths[:, None, None]
    prompts = jnp.where(is_there, x[:, :5], 9.0)
    cached = nn.limit_cache(nn.with_cache(model, 3, 12), lengths)
    first, cached = step(cached, prompts)
    assert_close(cached.cache.index.length, lengths)
    cached = nn.limit_cache(cached, None)
    outs = []
    for i in range(3):
        out, cached = step(cached, x[jnp.arange(3), lengths + i][:, None])
        outs.append(out)
    later, whole = jnp.concatenate(outs, 1), predicted(model, x)
    for row, n in enumerate(lengths.tolist()):
        assert_close(first[row, :n], whole[row, :n], atol=1e-5)
        assert_close(later[row], whole[row, n : n + 3], atol=1e-5)


def test_prompts_padded_on_the_left():
    x, padding = normal((2, 6, WIDTH)), jnp.array([3, 0])
    model = made(attention(position=nn.Rotary()), x)
    prompt = jnp.stack([jnp.concatenate([9 + x[0, 3:], x[0, :3]]), x[1]])
    positions = jnp.arange(6)[None] - padding[:, None]
    cached = nn.with_cache(model, 2, 12)
    first, cached = step(cached, prompt, positions)
    assert_close(cached.cache.index.length, np.array([3, 6]))
    later, _ = step(cached, x[:, 3:4])
    assert_close(first[0, 3:], predicted(model, x)[0, :3], atol=1e-5)
    assert_close(first[1], predicted(model, x)[1], atol=1e-5)
    assert_close(later[0, 0], predicted(model, x)[0, 3], atol=1e-5)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("make", [lambda: nn.LearnedPosition(8), nn.SinusoidalPosition])
def test_positions_added_to_tokens_go_on_from_the_cache(make, window):
    x, lengths = normal((2, 8, WIDTH)), jnp.array([2, 5])
    model = made(nn.Sequential([make(), attention(window=window)]), x)
    whole = predicted(model, x)
    cached = nn.limit_cache(nn.with_cache(model, 2, 8), lengths)
    first, cached = step(cached, x[:, :5])
    cached = nn.limit_cache(cached, None)
    later, _ = step(cached, x[jnp.arange(2), lengths][:, None])
    for row, n in enumerate(lengths.tolist()):
        assert_close(first[row, :n], whole[row, :n], atol=1e-5)
        assert_close(later[row, 0], whole[row, n], atol=1e-5)


@pytest.mark.parametrize("window", [None, 3])
def test_padding_outside_of_a_table_of_positions_does_not_spread(window):
    x = normal((2, 8, WIDTH))
    model = made(nn.Sequential([nn.LearnedPosition(8), attention(window=window)]), x)
    cached = nn.limit_cache(nn.with_cache(model, 2, 8), jnp.array([3, 8]))
    _, cached = step(cached, x[:, :6])
    out, cached = step(cached, jnp.full((2, 4, WIDTH), jnp.nan))
    assert np.isnan(out[1]).all()
    out, _ = step(nn.limit_cache(cached, None), x[:, 3:4])
    assert_close(out[0, 0], predicted(model, x)[0, 3], atol=1e-5)


def test_a_row_can_go_back():
    x = normal((1, 6, WIDTH))
    model = made(attention(position=nn.ALiBi()), x)
    cached = nn.with_cache(model, 1, 8)
    _, cached = step(cached, jnp.concatenate([x[:, :3], 9 + x[:, 3:]], 1))
    index = cached.cache.index.replace(length=jnp.array([3]))
    cached = cached.replace(cache=cached.cache.replace(index=index))
    out, _ = decoded(cached, x[:, 3:], [1, 2])
    assert_close(out, predicted(model, x)[:, 3:], atol=1e-5)


# ---- models


class Block(nn.Module):
    def __init__(self, window=None):
        self.attention = attention(window=window, position=nn.Rotary())

    def __call__(self, x):
        return x + self.attention(x)


def blocks():
    return [
        nn.Stack(Block(), 3),
        nn.Stack(nn.Sequential([Block(), Block(window=3)]), 2, unroll=True),
        nn.Sequential([Block(), jnp.tanh, nn.Stack(Block(window=2), 2, remat=True)]),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("model", blocks(), ids=["stack", "nested", "list"])
def test_stacks_and_lists_of_blocks(model):
    x = normal((2, 7, WIDTH))
    model = made(model, x)
    cached = nn.with_cache(model, 2, 7)
    assert nn.without_cache(cached) == model
    assert_close(decoded(cached, x, [4, 1, 2])[0], predicted(model, x), atol=1e-5)


class Decoder(nn.Module):
    """Sees what it has written, and the whole of a context."""

    def __init__(self):
        self.own = attention(position=nn.RelativeBias(bidirectional=False))
        self.cross = nn.Attention(2, head_dim=3)

    def __call__(self, x, context):
        x = x + self.own(x)
        return x + self.cross(x, context)


def test_a_decoder_of_a_context():
    x, context = normal((2, 6, WIDTH)), normal((2, 4, 5), 1)
    model = nn.init(nn.Stack(Decoder(), 2), KEY, x, context)
    cached = nn.with_cache(model, 2, 6)
    call = jax.jit(lambda m, x: nn.stateful(m)(x, context))
    first, cached = call(cached, x[:, :4])
    last, _ = call(cached, x[:, 4:])
    whole = jax.jit(lambda m, x: m(x, context))(model, x)
    assert_close(jnp.concatenate([first, last], 1), whole, atol=1e-5)


@pytest.mark.parametrize("positions", [np.arange(3), np.ones((3, 4), int), np.ones(4)])
@pytest.mark.parametrize("make", [attention, nn.SinusoidalPosition])
def test_positions_that_do_not_fit_are_refused(make, positions):
    x = normal((2, 4, WIDTH))
    cached = nn.with_cache(made(nn.Sequential([attention(), make()]), x), 2, 4)
    with pytest.raises(nn.LinnetError, match=rf"\({type(make()).__name__}\): `pos"):
        nn.stateful(cached[1])(x, positions=positions)


def test_decoding_in_a_scan():
    x = normal((2, 7, WIDTH))
    model = made(nn.Stack(Block(), 2), x)

    @jax.jit
    def run(model, x):
        first, model = nn.stateful(model)(x[:, :3])

        def body(model, x):
            out, model = nn.stateful(model)(x[:, None])
            return model, out[:, 0]

        _, rest = jax.lax.scan(body, model, x[:, 3:].swapaxes(0, 1))
        return jnp.concatenate([first, rest.swapaxes(0, 1)], 1)

    assert_close(run(nn.with_cache(model, 2, 7), x), predicted(model, x), atol=1e-5)


def test_ensembles_have_a_cache_for_each_member():
    x = normal((2, 5, WIDTH))
    model = made(nn.Ensemble(Block(), 3), x)
    first, cached = step(nn.with_cache(model, 2, 5), x[:, :3])
    last, _ = step(cached, x[:, 3:])
    assert_close(jnp.concatenate([first, last], 2), predicted(model, x), atol=1e-5)


def test_a_step_compiles_once_and_keeps_the_structure():
    x = normal((2, 1, WIDTH))
    model = nn.with_cache(made(nn.Stack(Block(), 2), x), 2, 8)
    traces = 0

    @jax.jit
    def one(model, x):
        nonlocal traces
        traces += 1
        return nn.stateful(model)(x)

    for _ in range(3):
        _, model = one(model, x)
    assert traces == 1


@pytest.mark.parametrize("window", [None, 64], ids=["full", "ring"])
def test_a_step_writes_in_place(window):
    x, rows, length = normal((2, 1, 64)), 2, 2048
    model = made(attention(window=window and length, position=nn.Rotary()), x)
    model = nn.with_cache(model, rows, length)
    donated = jax.jit(lambda m, x: nn.stateful(m)(x), donate_argnums=0)
    compiled = donated.lower(model, x).compile()
    keys = model.cache.keys
    assert compiled.memory_analysis().alias_size_in_bytes > 2 * keys.nbytes
    shape = f"f32[{','.join(map(str, keys.shape))}]"
    lines = [line for line in compiled.as_text().splitlines() if f"= {shape}" in line]
    assert any("scatter" in line for line in lines)
    assert not any(" copy(" in line for line in lines)


def test_gradients_flow_through_a_stateful_call():
    x = normal((1, 4, WIDTH))
    model = made(attention(position=nn.Rotary()), x)

    def loss(model, cached):
        run = nn.stateful(cached(model), update=False) if cached else model
        return (run(x) ** 2).sum()

    cache = functools.partial(nn.with_cache, batch_size=1, max_length=4)
    gradient = jax.jit(nn.grad(loss), static_argnums=1)
    assert_close(
        nn.params(nn.without_cache(gradient(model, cache))),
        nn.params(gradient(model, None)),
        atol=1e-5,
    )


def test_bfloat16():
    x = normal((2, 6, WIDTH))
    model = made(attention(position=nn.Rotary()), x)
    half = nn.with_cache(nn.cast(model, jnp.bfloat16), 2, 6)
    assert half.cache.keys.dtype == jnp.bfloat16
    out, _ = decoded(half, x, [4, 1, 1])
    assert out.dtype == jnp.bfloat16
    assert_close(out, predicted(model, x), rtol=0.05, atol=0.05)
    small = nn.with_cache(model, 2, 6, dtype=jnp.bfloat16)
    out, _ = decoded(small, x, [4, 1, 1])
    assert out.dtype == jnp.float32
    assert_close(out, predicted(model, x), rtol=0.03, atol=0.03)


def test_only_causal_attention_has_a_cache():
    x = normal((2, 4, WIDTH))
    grid = made(nn.LearnedPosition((2, 3)), normal((2, 2, 3, WIDTH)))
    assert grid.with_cache(2, 4).cache is None
    with pytest.raises(nn.ConfigError, match="LN-CACHE-02"):
        nn.with_cache(nn.Sequential([nn.SinusoidalPosition(), nn.Attention(2)]), 2, 4)
    with pytest.raises(nn.ConfigError, match="LN-CACHE-02"):
        nn.with_cache(made(nn.Attention(2, window=(3, 1)), x), 2, 4)


def test_attention_that_looks_ahead_is_refused_where_a_call_goes_on():
    x = normal((2, 4, WIDTH))
    model = made(nn.Sequential([nn.Attention(2), attention()]), x)
    cached = nn.with_cache(model, 2, 4)
    with pytest.raises(nn.ConfigError, match=r"layers\[0\].*not causal.*LN-CACHE-01"):
        nn.stateful(cached)(x)
    assert_close(cached[0](x), model[0](x))
    assert_close(nn.training(cached[0], update=False)(x), model[0](x))
    assert nn.without_cache(cached) == model


def test_an_encoder_inside_of_a_cached_model_reads_whole_sequences_in_plain_calls():
    class Translator(nn.Module):
        def __init__(self):
            self.encoder = nn.Attention(2)
            self.decoder = Decoder()

        def encode(self, source):
            return self.encoder(source)

        def decode(self, x, memory):
            return self.decoder(x, memory)

        def __call__(self, x, source):
            return self.decode(x, self.encode(source))

    x, source = normal((2, 4, WIDTH)), normal((2, 3, WIDTH), 1)
    model = nn.init(Translator(), KEY, x, source)
    cached = nn.with_cache(model, 2, 4)
    memory, outs = cached.encode(source), []
    for i in range(4):
        out, cached = nn.stateful(cached.decode)(x[:, i : i + 1], memory)
        outs.append(out)
    assert_close(jnp.concatenate(outs, 1), model(x, source), atol=1e-5)


def test_a_cache_can_be_made_before_the_arrays_if_its_sizes_are_known():
    x = normal((2, 4, WIDTH))
    cached = made(nn.with_cache(attention(head_dim=2), 2, 4), x)
    model = made(attention(head_dim=2), x)
    assert nn.without_cache(cached) == model
    assert_close(step(cached, x)[0], predicted(model, x), atol=1e-5)
    with pytest.raises(nn.InitError, match="LN-INIT-01"):
        nn.with_cache(attention(), 2, 4)


def test_a_cache_has_shapes_without_arrays():
    x = normal((2, 4, WIDTH))
    model = nn.abstract(attention(), x)
    cached = jax.eval_shape(lambda m: nn.with_cache(m, 2, 4), model)
    assert cached.cache.keys.shape == (2, 4, 2, 2)


class Mean(nn.Module):
    """The running mean of all tokens so far: a user's module with a cache."""

    def __init__(self):
        self.cache = None

    def with_cache(self, batch_size, max_length, dtype=None):
        return self.replace(cache=Sum(batch_size))

    def __call__(self, x):
        counts = jnp.arange(1.0, x.shape[1] + 1)[None, :, None]
        if self.cache is None:
            return jnp.cumsum(x, 1) / jnp.broadcast_to(counts, x.shape)
        before, total = self.cache.add(x)
        return (total + x.cumsum(1)) / jnp.broadcast_to(counts + before, x.shape)


class Sum(nn.Module):
    def __init__(self, batch_size):
        zeros, axes = jnp.zeros((batch_size, 1, WIDTH)), ("batch", None, None)
        self.total = nn.state(zeros, role=nn.Cache, axes=axes)
        self.count = nn.state(0, role=nn.Cache)

    def add(self, x):
        before = self.count, self.total
        self.count, self.total = self.count + x.shape[1], self.total + x.sum(1)[:, None]
        return before


def test_a_users_module_has_a_cache():
    x = normal((2, 6, WIDTH))
    model = nn.Sequential([Mean(), made(attention(), x)])
    cached = nn.with_cache(model, 2, 6)
    assert_close(decoded(cached, x, [3, 1, 2])[0], predicted(model, x), atol=1e-5)
    turned = nn.reorder_cache(cached, jnp.array([1]))
    assert turned[0].cache.total.shape == (1, 1, WIDTH)


# ---- all caches of a model at once


def test_rows_are_reordered_in_stacks_as_well():
    x = normal((3, 6, WIDTH))
    model = made(nn.Sequential([Block(), nn.Stack(Block(), 2)]), x)
    rows = jnp.array([2, 0, 0, 1])
    _, cached = step(nn.with_cache(model, 3, 6), x[:, :4])
    turned = jax.jit(nn.reorder_cache)(cached, rows)
    assert turned[1].block.attention.cache.keys.shape == (2, 4, 6, 2, 2)
    out, _ = step(turned, x[rows, 4:])
    assert_close(out, predicted(model, x)[rows, 4:], atol=1e-5)


def test_limits_reach_stacks():
    x = normal((2, 4, WIDTH))
    model = nn.with_cache(made(nn.Stack(Block(), 3), x), 2, 4)
    limited = nn.limit_cache(model, jnp.array([1, 3]))
    _, limited = step(limited, x)
    assert_close(limited.block.attention.cache.index.length, np.array([[1, 3]] * 3))
    assert nn.limit_cache(nn.limit_cache(model, jnp.array([1, 3])), None) == model


# ---- the cache by itself


def test_a_cache_gives_what_is_to_be_attended_to():
    cache = nn.KVCache(1, 8, num_kv_heads=1, head_dim=2, value_dim=3, window=2)
    keys, values = normal((1, 3, 1, 2)), normal((1, 3, 1, 3), 1)
    extend = nn.stateful(cache.extend)
    (k, v, at), cache = extend(keys, values, jnp.array([[0, 1, 2]]))
    assert_close(at, np.array([[-1, -1, 0, 1, 2]]))
    assert_close((k[:, 2:], v[:, 2:]), (keys, values))
    assert_close(cache.positions, np.array([[2, 1]]))
    assert_close(cache.keys, keys[:, jnp.array([2, 1])])
    assert_close(cache.values, values[:, jnp.array([2, 1])])
    assert cache.is_lost(at) is None


@pytest.mark.parametrize(
    ("keys", "values", "text"),
    [
        ((1, 2, 2, 2), (1, 2, 1, 3), "`keys` is float32"),
        ((1, 2, 1, 2), (1, 2, 1, 2), "`values` is float32"),
        ((2, 1, 2), (1, 2, 1, 3), "`keys` is float32"),
    ],
)
def test_keys_and_values_of_other_sizes_are_refused(keys, values, text):
    cache = nn.KVCache(1, 4, num_kv_heads=1, head_dim=2, value_dim=3)
    with pytest.raises(nn.ShapeError, match=text):
        nn.stateful(cache.extend)(jnp.ones(keys), jnp.ones(values), jnp.array([[0, 1]]))


@pytest.mark.parametrize("sizes", [{"head_dim": 0}, {"window": 0}, {"value_dim": 1.5}])
def test_sizes_of_a_cache_are_positive_integers(sizes):
    with pytest.raises(nn.ConfigError, match="LN-VALUE-01"):
        nn.KVCache(1, 4, **{"num_kv_heads": 1, "head_dim": 2} | sizes)


# ---- calls that a cache does not go with


def test_a_peek_is_possible():
    x = normal((2, 4, WIDTH))
    model = made(attention(), x)
    cached = nn.with_cache(model, 2, 4)
    out = nn.stateful(cached, update=False)(x)
    assert_close(out, predicted(model, x), atol=1e-5)


def test_plain_and_training_calls_are_refused():
    x = normal((2, 4, WIDTH))
    cached = nn.with_cache(made(Block(), x), 2, 4)
    for call in (cached, nn.training(cached), nn.capture(cached, "**")):
        with pytest.raises(nn.ScopeError, match=r"^attention \(Attention\).*LN-CACHE"):
            call(x)
