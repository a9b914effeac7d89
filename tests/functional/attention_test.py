"""attention: its definition, rules, edge cases, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functional.attention_oracle import ARANGE, allowed, expected
from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError, DTypeError, ShapeError

T, S = 5, 7
KERNELS = ["xla", "blockwise"]
BIAS = normal((2, 4, T, S), 5)
MASK = np.asarray(normal((T, S), 6)) > 0
SEGMENTS = {"segments": [0, 0, 1, 1, 1], "key_segments": [0, 0, 0, 1, 1, 2, 1]}
PLACED = {
    "positions": [[2, 3, 4, 5, 6], [0, 1, 2, 3, 4]],
    "key_positions": [[5, 6, 0, 1, 2, 3, 4], [-1, -1, 0, 1, 2, 3, 4]],
}
RULES = {
    "free": {},
    "causal": {"causal": True},
    "last": {"causal": True, "window": 2},
    "window": {"window": (1, 2)},
    "causal pair": {"causal": True, "window": (2, 3)},
    "mask": {"mask": MASK},
    "mask by example": {"mask": (np.asarray(normal((2, 1, 1, S), 7)) > 0)},
    "segments": SEGMENTS,
    "packed": SEGMENTS | {"causal": True},
    "slots": {"key_positions": PLACED["key_positions"]},
    "slots, and positions that do not matter": PLACED,
    "cache": PLACED | {"causal": True, "window": 4},
    "everything": PLACED | SEGMENTS | {"causal": True, "window": 6, "mask": MASK},
}


def inputs(groups=2, lead=(2,)):
    return (
        normal((*lead, T, 4, 3)),
        normal((*lead, S, groups, 3), 1),
        normal((*lead, S, groups, 6), 2),
    )


def as_arrays(rules):
    return {
        name: jnp.asarray(value) if isinstance(value, list | np.ndarray) else value
        for name, value in rules.items()
    }


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", RULES)
def test_rules_are_those_of_the_definition(name, kernel):
    q, k, v = inputs()
    y = F.attention(q, k, v, **as_arrays(RULES[name]), kernel=kernel, block_size=2)
    assert_close(y, expected(q, k, v, allowed((2, 4, T, S), **RULES[name])))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "options",
    [
        {"scale": 0.3},
        {"softcap": 0.7},
        {"bias": BIAS},
        {"bias": BIAS[:1, :, :1]},
        {"bias": BIAS[0, 0]},
        {"bias": BIAS, "softcap": 0.5, "scale": 2.0},
    ],
    ids="-".join,
)
def test_logits_are_scaled_capped_and_shifted(options, kernel):
    q, k, v = inputs()
    y = F.attention(q, k, v, **options, causal=True, kernel=kernel, block_size=3)
    admitted = allowed((2, 4, T, S), causal=True)
    assert_close(y, expected(q, k, v, admitted, **options))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("lead", [(), (2,), (2, 1, 3)])
def test_heads_share_keys_in_groups_and_leading_axes_are_batches(groups, lead, kernel):
    q, k, v = inputs(groups, lead)
    y = F.attention(q, k, v, kernel=kernel)
    assert y.shape == (*lead, T, 4, 6)
    assert_close(y, expected(q, k, v))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_query_that_may_attend_to_nothing_gives_zeros_and_no_gradient(kernel):
    q, k, v = inputs()
    mask = jnp.asarray(MASK).at[1].set(False)

    def loss(q, k, v):
        return (F.attention(q, k, v, mask=mask, kernel=kernel) ** 2).sum()

    assert not F.attention(q, k, v, mask=mask, kernel=kernel)[:, 1].any()
    grads = jax.grad(loss, (0, 1, 2))(q, k, v)
    assert all(np.isfinite(grad).all() for grad in grads)
    assert not grads[0][:, 1].any()
    assert grads[0][:, 2].any()


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_additive_mask_of_minus_infinity_is_a_mask(kernel):
    q, k, v = inputs()
    mask = jnp.asarray(MASK).at[1].set(False)
    bias = jnp.where(mask, 0.0, -jnp.inf)

    def loss(q, bias, mask):
        y = F.attention(q, k, v, bias=bias, mask=mask, kernel=kernel, softcap=2.0)
        return (y**2).sum()

    grad = jax.grad(loss)
    assert_close(grad(q, bias, None), grad(q, None, mask))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_takes_the_softmax_in_float32(dtype, kernel):
    q, k, v = (x.astype(dtype) for x in inputs())
    y = F.attention(40 * q, 40 * k, v, kernel=kernel, block_size=3)
    assert y.dtype == dtype
    assert_close(y, expected(40 * q, 40 * k, v), rtol=0.02, atol=0.02)


def test_arrays_of_several_dtypes_are_promoted():
    q, k, v = inputs()
    y = F.attention(q.astype(jnp.bfloat16), k, np.asarray(v, np.float64))
    assert y.dtype == jnp.float32


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("empty", ["batch", "queries", "keys"])
def test_empty_arrays(empty, kernel):
    sizes = {"batch": 2, "queries": T, "keys": S} | {empty: 0}
    n, t, s = sizes.values()
    q, k, v = jnp.ones((n, t, 4, 3)), jnp.ones((n, s, 2, 3)), jnp.ones((n, s, 2, 6))

    def f(q, k, v):
        return F.attention(q, k, v, causal=True, kernel=kernel)

    y, pull = jax.vjp(f, q, k, v)
    assert_close(y, np.zeros((n, t, 4, 6)))
    assert [grad.shape for grad in pull(y)] == [q.shape, k.shape, v.shape]


@pytest.mark.slow
def test_hessians_and_forward_mode_with_the_kernel_that_has_them():
    q, k, v = inputs()

    def loss(scale):
        y = F.attention(scale * q, k, v, causal=True, kernel="xla")
        return (y**2).sum()

    step = 1e-2
    slopes = [jax.grad(loss)(1.0 + sign * step) for sign in (1, -1)]
    curvature = (slopes[0] - slopes[1]) / (2 * step)
    assert_close(jax.hessian(loss)(1.0), curvature, rtol=1e-2)
    assert_close(jax.jvp(loss, (1.0,), (1.0,))[1], jax.grad(loss)(1.0))


@pytest.mark.parametrize("kernel", KERNELS)
def test_dropped_weights_are_zero_and_the_others_scaled_up(kernel):
    length = 48
    q, k = normal((length, 1, 2)), normal((length, 1, 2), 1)
    # With these values the result is the weights.
    v = jnp.eye(length)[:, None, :]
    key = jax.random.key(3)

    def weights(v, rate):
        return F.attention(
            q, k, v, dropout_rate=rate, key=key, kernel=kernel, block_size=20
        )[:, 0]

    whole, dropped = weights(v, 0.0), weights(v, 0.25)
    kept = dropped != 0
    assert abs(kept.mean() - 0.75) < 0.05
    assert_close(dropped, jnp.where(kept, whole / 0.75, 0.0))
    # The way back drops the same.
    grad = jax.grad(lambda v: weights(v, 0.25)[:, 0].sum())(v)[:, 0, 0]
    assert_close(grad, dropped.sum(0), atol=1e-5)


def test_attention_mask_is_what_attention_applies():
    for rules in RULES.values():
        rules = as_arrays(rules)
        mask = F.attention_mask(T, S, **rules)
        q, k, v = inputs()
        assert_close(F.attention(q, k, v, mask=mask), F.attention(q, k, v, **rules))


def test_attention_mask_is_small_where_all_are_alike():
    assert F.attention_mask(T) is None
    assert F.attention_mask(T, S, causal=True).shape == (T, S)
    assert F.attention_mask(T, segments=jnp.arange(T)).shape == (T, T)
    assert F.attention_mask(T, segments=jnp.zeros((3, T), int)).shape == (3, 1, T, T)
    mask = jnp.ones((3, 2, 1, S), bool)
    assert F.attention_mask(T, S, mask=mask, causal=True).shape == (3, 2, T, S)


def test_attention_mask_refuses_lengths_that_are_none():
    with pytest.raises(ConfigError, match="`key_length` is -1"):
        F.attention_mask(T, -1)


def test_positions_of_any_integer_dtype_do_not_wrap_around():
    q, k, v = inputs()
    positions = jnp.arange(T, dtype=jnp.uint8), jnp.arange(S, dtype=jnp.uint8)
    y = F.attention(
        q, k, v, window=(1, 1), positions=positions[0], key_positions=positions[1]
    )
    assert_close(y, F.attention(q, k, v, window=(1, 1)))


def test_auto_takes_blocks_where_logits_would_fill_memory():
    def equations(length, **options):
        x = jax.ShapeDtypeStruct((length, 8, 16), jnp.float32)
        return str(jax.make_jaxpr(lambda x: F.attention(x, x, x, **options))(x))

    assert "custom_vjp" not in equations(256)
    assert "custom_vjp" in equations(1024)
    assert "custom_vjp" not in equations(1024, kernel="xla")
    assert "custom_vjp" not in equations(512)
    one = jax.ShapeDtypeStruct((1, 8, 16), jnp.float32)
    many = jax.ShapeDtypeStruct((2**20, 8, 16), jnp.float32)
    decoding = jax.make_jaxpr(F.attention)(one, many, many)
    assert "custom_vjp" not in str(decoding)


@pytest.mark.parametrize(
    ("q", "k", "v", "code"),
    [
        ((5, 3), (7, 1, 3), (7, 1, 3), "LN-SHAPE-02"),
        ((5, 4, 3), (2, 7, 4, 3), (2, 7, 4, 3), "LN-SHAPE-01"),
        ((5, 4, 3), (7, 4, 3), (6, 4, 3), "LN-SHAPE-01"),
        ((2, 5, 4, 3), (3, 7, 4, 3), (3, 7, 4, 3), "LN-SHAPE-01"),
        ((5, 4, 3), (7, 4, 2), (7, 4, 3), "LN-SHAPE-01"),
        ((5, 4, 3), (7, 3, 3), (7, 3, 3), "LN-SHAPE-01"),
        ((5, 4, 3), (7, 0, 3), (7, 0, 3), "LN-SHAPE-01"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(q, k, v, code):
    with pytest.raises(ShapeError, match=code):
        F.attention(jnp.ones(q), jnp.ones(k), jnp.ones(v))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"mask": jnp.ones((2, T, S), bool)}, ShapeError),
        ({"mask": jnp.ones((T, S))}, DTypeError),
        ({"bias": jnp.ones((T, S), int)}, DTypeError),
        ({"bias": jnp.ones((S, T))}, ShapeError),
        ({"positions": jnp.arange(T)}, ConfigError),
        ({"positions": jnp.ones(T), "key_positions": ARANGE[:S]}, DTypeError),
        ({"key_positions": ARANGE[:T]}, ShapeError),
        ({"segments": ARANGE[:T]}, ShapeError),
        ({"key_segments": ARANGE[:S]}, ConfigError),
        ({"window": 3}, ConfigError),
        ({"window": 0, "causal": True}, ConfigError),
        ({"window": (1, 2, 3)}, ConfigError),
        ({"scale": jnp.ones(())}, ConfigError),
        ({"softcap": 0.0}, ConfigError),
        ({"dropout_rate": 0.1}, ConfigError),
        ({"dropout_rate": 1.0}, ConfigError),
        ({"kernel": "flash"}, ConfigError),
        ({"kernel": "cudnn"}, ConfigError),
        ({"block_size": 0}, ConfigError),
        ({"block_size": (16, 2.0)}, ConfigError),
    ],
    ids=lambda case: "-".join(case) if isinstance(case, dict) else "",
)
def test_options_that_cannot_be_used_are_refused(options, error):
    with pytest.raises(error):
        F.attention(*inputs(), **options)
