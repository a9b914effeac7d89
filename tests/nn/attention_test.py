"""Attention: its definition, how options go together, sizes, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn

KEY = jax.random.key(0)
SPREAD = nn.initializers.normal(0.5)


def made(layer, *sample):
    return nn.init(layer, KEY, *sample)


@jax.jit
def predicted(model, *args, **kwargs):
    return model(*args, **kwargs)


def numpy_attention(model, x, context=None, *, bias=0.0, scale=None):
    """The definition in float64, head by head."""
    context = x if context is None else context

    def heads(part, x, count):
        y = wide(x) @ wide(part.kernel) + (0 if part.bias is None else wide(part.bias))
        y = y.reshape(*y.shape[:-1], count, y.shape[-1] // count)
        return np.moveaxis(y, -2, -3)

    h, g = model.num_heads, model.num_kv_heads
    q = heads(model.query, x, h)
    k, v = (
        np.repeat(heads(part, context, g), h // g, -3)
        for part in (model.key, model.value)
    )
    logits = q @ np.swapaxes(k, -1, -2) * (scale or q.shape[-1] ** -0.5) + wide(bias)
    weights = np.exp(logits - logits.max(-1, keepdims=True, initial=-1e30))
    y = np.moveaxis(weights / weights.sum(-1, keepdims=True) @ v, -3, -2)
    y = y.reshape(*y.shape[:-2], y.shape[-2] * y.shape[-1])
    return y @ wide(model.out.kernel) + wide(model.out.bias)


def wide(x):
    return np.asarray(x, np.float64)


@pytest.mark.parametrize("batch", [(), (3,), (2, 1), (0,)])
@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
def test_it_is_its_definition(num_kv_heads, batch):
    x = normal((*batch, 5, 8))
    layer = nn.Attention(4, num_kv_heads=num_kv_heads, bias_init=SPREAD)
    model = made(layer, x)
    assert_close(model(x), numpy_attention(model, x))


def test_keys_and_values_come_from_the_context():
    x, context = normal((2, 5, 8)), normal((2, 3, 6), 1)
    layer = nn.Attention(2, head_dim=3, features=7, scale=0.3, bias_init=SPREAD)
    model = made(layer, x, context)
    expected = numpy_attention(model, x, context, scale=0.3)
    assert_close(predicted(model, x, context), expected)


def test_what_follows_is_not_seen_if_causal():
    x = normal((2, 6, 8))
    model = made(nn.Attention(2, causal=True), x)
    bias = np.where(np.tri(6) > 0, 0.0, -1e9)
    assert_close(predicted(model, x), numpy_attention(model, x, bias=bias))
    windowed = model.replace(window=2)
    bias = np.where((np.tri(6) > 0) & (np.tri(6, 6, -2) == 0), 0.0, -1e9)
    assert_close(predicted(windowed, x), numpy_attention(model, x, bias=bias))


def test_masks_and_biases_reach_the_logits():
    x, bias = normal((2, 4, 8)), normal((2, 1, 4, 4), 1)
    mask = jnp.asarray(np.random.default_rng(2).random((2, 4, 4, 4)) < 0.6)
    mask = mask | jnp.eye(4, dtype=bool)[None, None]
    model = made(nn.Attention(4), x)
    expected = numpy_attention(model, x, bias=wide(bias) + np.where(mask, 0, -1e9))
    assert_close(predicted(model, x, mask=mask, bias=bias), expected)


@pytest.mark.parametrize("bias_shape", [(5, 5), (3, 5, 5), (2, 3, 5, 5), (1, 1, 5, 5)])
def test_a_bias_adds_to_that_of_positions(bias_shape):
    x, bias = normal((2, 5, 6)), normal(bias_shape, 1)
    bias = bias if len(bias_shape) != 3 else bias[None]
    model = made(nn.Attention(3, position=nn.ALiBi()), x)
    at = jnp.arange(5)
    own = wide(model.position.bias(3, at, at))
    expected = numpy_attention(model, x, bias=own + wide(bias))
    assert_close(predicted(model, x, bias=bias), expected)


def test_positions_are_those_that_are_given():
    x = normal((2, 5, 8))
    model = made(nn.Attention(2, causal=True, position=nn.Rotary()), x)
    counted, places = predicted(model, x), jnp.arange(5)
    assert_close(predicted(model, x, positions=places), counted)
    assert_close(predicted(model, x, positions=places + 1000), counted, atol=1e-4)
    order = jnp.array([3, 0, 4, 1, 2])
    assert_close(predicted(model, x[:, order], positions=order), counted[:, order])


def test_a_key_at_a_negative_position_is_not_seen():
    x = normal((1, 5, 8))
    model = made(nn.Attention(2, position=nn.Rotary()), x)
    places = jnp.array([[-1, -1, 0, 1, 2]])
    padded = predicted(model, x, positions=places)
    assert_close(padded[:, 2:], predicted(model, x[:, 2:]))


@pytest.mark.parametrize("options", [{}, {"window": 2}, {"position": nn.Rotary()}])
def test_packed_sequences_do_not_see_each_other(options):
    x, segments = normal((1, 7, 8)), jnp.array([[0, 0, 0, 1, 1, 1, 1]])
    model = made(nn.Attention(2, causal=True, **options), x)
    whole = predicted(model, x, segments=segments)
    assert_close(whole[:, :3], predicted(model, x[:, :3]), atol=1e-5)
    assert_close(whole[:, 3:], predicted(model, x[:, 3:]), atol=1e-5)


def test_segments_of_a_context():
    x, context = normal((1, 4, 8)), normal((1, 5, 8), 1)
    model = made(nn.Attention(2), x, context)
    segments, others = jnp.array([[0, 0, 1, 1]]), jnp.array([[0, 1, 1, 1, 0]])
    whole = predicted(model, x, context, segments=segments, key_segments=others)
    first = predicted(model, x[:, :2], context[:, jnp.array([0, 4])])
    last = predicted(model, x[:, 2:], context[:, 1:4])
    assert_close(whole, jnp.concatenate([first, last], 1))


@pytest.mark.parametrize("num_kv_heads", [4, 2])
def test_fused_projections_are_the_three_side_by_side(num_kv_heads):
    x = normal((2, 5, 8))
    options = {
        "num_kv_heads": num_kv_heads,
        "causal": True,
        "position": nn.Rotary(),
        "bias_init": SPREAD,
        "qk_norm": nn.LayerNorm,
    }
    apart = made(nn.Attention(4, **options), x)
    fused = made(nn.Attention(4, fused_qkv=True, **options), x)
    parts = [apart.query, apart.key, apart.value]
    qkv = fused.qkv.replace(
        kernel=jnp.concatenate([p.kernel for p in parts], 1),
        bias=jnp.concatenate([p.bias for p in parts]),
    )
    same = fused.replace(qkv=qkv, out=apart.out)
    assert_close(predicted(same, x), predicted(apart, x))


def test_queries_and_keys_are_normed_by_head():
    x = normal((2, 5, 8))
    model = made(nn.Attention(4, qk_norm=nn.LayerNorm), x)
    assert model.query_norm.scale.shape == model.key_norm.scale.shape == (2,)
    scaled = model.replace(query=model.query.replace(kernel=7 * model.query.kernel))
    assert_close(predicted(scaled, x), predicted(model, x), atol=0.01)


def test_weights_are_dropped_in_training_only():
    x = normal((2, 5, 8))
    model = made(nn.Attention(2, dropout_rate=0.5), x)
    without = made(nn.Attention(2), x)
    assert_close(model(x), without(x))
    train = nn.training(model, {"dropout": jax.random.key(1)}, update=False)
    assert np.abs(train(x) - model(x)).max() > 0.01
    kept = nn.training(without, update=False)(x)
    assert_close(kept, model(x))


# ---- sizes


def shapes(model):
    return {path: array.shape for path, array in nn.to_paths(model).items()}


def test_sizes_follow_from_the_input():
    x = jax.ShapeDtypeStruct((2, 5, 12), jnp.float32)
    layer = nn.Attention(4, num_kv_heads=2, use_out_bias=False)
    assert shapes(nn.abstract(layer, x)) == {
        "query/kernel": (12, 12),
        "query/bias": (12,),
        "key/kernel": (12, 6),
        "key/bias": (6,),
        "value/kernel": (12, 6),
        "value/bias": (6,),
        "out/kernel": (12, 12),
    }


def test_sizes_that_are_given_hold():
    x = jax.ShapeDtypeStruct((5, 12), jnp.float32)
    layer = nn.Attention(4, head_dim=5, features=7, use_bias=False, fused_qkv=True)
    expected = {"qkv/kernel": (12, 60), "out/kernel": (20, 7)}
    assert shapes(nn.abstract(layer, x)) == expected


def test_axes_have_logical_names():
    seen = {}

    def note(path, declared):
        seen[path] = declared.axes

    nn.init(nn.Stack(nn.Attention(2), 3), KEY, jnp.ones((4, 8)), sharding=note)
    assert seen == {
        "block/query/kernel": ("layers", "in", "heads"),
        "block/query/bias": ("layers", "heads"),
        "block/key/kernel": ("layers", "in", "kv_heads"),
        "block/key/bias": ("layers", "kv_heads"),
        "block/value/kernel": ("layers", "in", "kv_heads"),
        "block/value/bias": ("layers", "kv_heads"),
        "block/out/kernel": ("layers", "heads", "out"),
        "block/out/bias": ("layers", "out"),
    }


def test_dtypes():
    x = normal((2, 5, 8), dtype=jnp.bfloat16)
    layer = nn.Attention(2, position=nn.ALiBi(), param_dtype=jnp.bfloat16)
    assert made(layer, x)(x).dtype == jnp.bfloat16
    wide = nn.Attention(2, dtype=jnp.float32, position=nn.Rotary())
    assert made(wide, x)(x).dtype == jnp.float32
    half = nn.cast(made(nn.Attention(2, position=nn.RelativeBias()), x), jnp.bfloat16)
    assert half(x.astype(jnp.float32)).dtype == jnp.bfloat16


def test_initialisers_reach_their_arrays():
    ones, twos = nn.initializers.ones, nn.initializers.constant(2.0)
    x = jnp.ones((1, 4))
    model = made(nn.Attention(2, kernel_init=ones, out_kernel_init=twos), x)
    assert_close(model.value.kernel, np.ones((4, 4)))
    assert_close(model.out.kernel, np.full((4, 4), 2.0))
    assert_close(model(x), np.full((1, 4), 4.0 * 4 * 2))


# ---- with the rest of the library


def test_adapters_select_its_projections():
    x = normal((2, 5, 8))
    model = made(nn.Stack(nn.Attention(2, causal=True), 2), x)
    adapted = nn.lora(model, ("**/query", "**/value"), 2, 4.0, KEY)
    adapted = nn.select(adapted, "**/lora_b").map(lambda b: b + 0.3)
    paths = [path for path in nn.select(adapted, nn.LoRAParam) if "lora_a" in path]
    assert paths == ["block/query/lora_a", "block/value/lora_a"]
    whole = predicted(adapted, x)
    assert_close(predicted(nn.merge_lora(adapted), x), whole, atol=1e-5)
    cached = nn.with_cache(adapted, 2, 5)
    first, cached = nn.stateful(cached)(x[:, :3])
    last, _ = nn.stateful(cached)(x[:, 3:])
    assert_close(jnp.concatenate([first, last], 1), whole, atol=1e-5)


def test_remat_changes_nothing():
    x = normal((2, 5, 8))
    layer = nn.Attention(2, causal=True, dropout_rate=0.3)
    models = [made(nn.Stack(layer, 2, remat=r), x) for r in (False, True)]

    def loss(model):
        return (nn.training(model, KEY, update=False)(x) ** 2).sum()

    one, two = (jax.jit(nn.grad(loss))(model) for model in models)
    assert_close(jax.tree.leaves(one), jax.tree.leaves(two))


# ---- what it refuses


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m, x: m(x[0, 0]), nn.ShapeError, "`x` has 1 axes"),
        (lambda m, x: m(x[..., :6]), nn.ShapeError, "`kernel` is float32[8, 8]"),
        (lambda m, x: m(x, x[0]), nn.ShapeError, "`context` has 2 axes"),
        (lambda m, x: m(x, x[:1]), nn.ShapeError, "leading axes [1]"),
        (lambda m, x: m(x, x[..., :6]), nn.ShapeError, "`kernel` is float32[8, 8]"),
        (lambda m, x: m(x, [1.0]), nn.DTypeError, "`context` is a list"),
        (lambda m, x: m(x.astype(int)), nn.DTypeError, "`x` is int32"),
        (lambda m, x: m(x, mask=x), nn.DTypeError, "`mask` has dtype float32"),
        (lambda m, x: m(x, mask=jnp.ones((5, 4), bool)), nn.ShapeError, "`mask` of"),
        (lambda m, x: m(x, positions=jnp.arange(3)), nn.ShapeError, "`positions`"),
    ],
)
def test_a_wrong_input_is_refused_with_the_path(call, error, text):
    x = normal((2, 5, 8))
    model = made(nn.Sequential([nn.Attention(2)]), x)
    with pytest.raises(error) as caught:
        call(lambda *a, **k: model[0](*a, **k), x)
    assert text in str(caught.value).splitlines()[0]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_heads": 0}, "`num_heads` is 0"),
        ({"num_kv_heads": 3}, "`num_kv_heads` is 3"),
        ({"head_dim": -1}, "`head_dim` is -1"),
        ({"window": 2.5, "causal": True}, "`window` is 2.5"),
        ({"softcap": -1.0}, "`softcap` is -1.0"),
        ({"dropout_rate": 1.0}, "`dropout_rate` is 1.0"),
        ({"position": "rotary"}, "`position` is str"),
        ({"qk_norm": nn.LayerNorm()}, "`qk_norm` is LayerNorm"),
        ({"kernel": "flash"}, "`kernel` is 'flash'"),
        ({"scale": "none"}, "`scale` is 'none'"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(options, text):
    with pytest.raises(nn.ConfigError) as caught:
        nn.Attention(**{"num_heads": 4} | options)
    assert "Attention" in str(caught.value).splitlines()[0]
    assert text in str(caught.value).splitlines()[0]
