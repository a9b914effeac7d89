"""attention by blocks: the same numbers as at once, in memory linear in the length."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from helpers import assert_close, normal
from linnet import functional as F


@st.composite
def problems(draw):
    """Arrays and options of attention, drawn independently."""
    n, t, s = draw(st.integers(1, 2)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    groups, share = draw(st.sampled_from([(1, 1), (1, 3), (2, 2)]))
    heads = groups * share
    options = {"causal": draw(st.booleans())}
    if draw(st.booleans()):
        pair = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
        options["window"] = pair[0] + 1 if options["causal"] else pair
    if draw(st.booleans()):
        options["positions"] = draw(rows(n, t, 0, 12))
        options["key_positions"] = draw(rows(n, s, -1, 12))
    if draw(st.booleans()):
        options["segments"] = draw(rows(n, t, 0, 2))
        options["key_segments"] = draw(rows(n, s, 0, 2))
    if draw(st.booleans()):
        options["softcap"] = 1.5
    if draw(st.booleans()):
        shape = [draw(st.sampled_from([1, m])) for m in (n, heads, t, s)]
        options["mask"] = normal(shape, 8) > -0.5
    bias = None
    if draw(st.booleans()):
        bias = normal([draw(st.sampled_from([1, m])) for m in (n, heads, t, s)], 9)
    arrays = normal((n, t, heads, 2)), normal((n, s, groups, 2), 1)
    block = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    return (*arrays, normal((n, s, groups, 3), 2), bias), options, block


def rows(n, length, least, most):
    numbers = st.lists(st.integers(least, most), min_size=length, max_size=length)
    return st.lists(numbers, min_size=n, max_size=n).map(jnp.asarray)


def results(arrays, options, **kernel):
    """The result, and the gradients by all arrays."""

    def f(q, k, v, bias):
        return F.attention(q, k, v, bias=bias, **options, **kernel)

    @jax.jit
    def both(*arrays):
        y, pull = jax.vjp(f, *arrays)
        return y, pull(normal(y.shape, 3))

    return both(*arrays)


@pytest.mark.slow
@settings(max_examples=12)
@given(problems())
def test_values_and_gradients_are_those_of_attention_at_once(problem):
    arrays, options, block = problem
    found = results(arrays, options, kernel="blockwise", block_size=block)
    assert_close(found, results(arrays, options, kernel="xla"), rtol=1e-4, atol=1e-5)


def small(q, k, v, **options):
    return F.attention(q, k, v, kernel="blockwise", block_size=(3, 2), **options)


def at_once(q, k, v, **options):
    return F.attention(q, k, v, kernel="xla", **options)


def sample(lead=(4,)):
    return (
        normal((*lead, 7, 2, 4)),
        normal((*lead, 5, 1, 4), 1),
        normal((*lead, 5, 1, 4), 2),
    )


def gradients(f, **options):
    return jax.grad(lambda *arrays: (f(*arrays, **options) ** 2).sum(), (0, 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    "transform",
    [jax.jit, jax.vmap, jax.checkpoint, lambda f: jax.jit(jax.vmap(jax.checkpoint(f)))],
    ids=["jit", "vmap", "remat", "all"],
)
def test_under_transforms(transform):
    found = gradients(transform(functools.partial(small, causal=True)))(*sample())
    desired = gradients(at_once, causal=True)(*sample())
    assert_close(found, desired, rtol=1e-4, atol=1e-5)


def test_rules_may_differ_under_vmap():
    q, k, v = sample()
    at, key_at = jnp.arange(7)[None] + jnp.arange(4)[:, None], jnp.arange(5)
    rules = {"causal": True, "window": 3}

    def own(q, k, v, at):
        return small(q, k, v, positions=at, key_positions=key_at, **rules)

    y = jax.vmap(own)(q, k, v, at)
    desired = at_once(q, k, v, positions=at, key_positions=key_at, **rules)
    assert_close(y, desired)


@pytest.mark.slow
def test_gradients_with_dropout_are_those_of_the_same_dropped_weights():
    q, k, v = sample(())
    options = {"dropout_rate": 0.4, "key": jax.random.key(1), "softcap": 1.0}

    def loss(q, k, v):
        return (small(q, k, v, **options) ** 2).sum()

    for i, (x, grad) in enumerate(
        zip((q, k, v), jax.grad(loss, (0, 1, 2))(q, k, v), strict=True)
    ):
        change = normal(x.shape, 7)
        moved = [
            loss(*(x + step * change if j == i else x for j, x in enumerate((q, k, v))))
            for step in (1e-2, -1e-2)
        ]
        slope = (moved[0] - moved[1]) / 2e-2
        assert_close(jnp.vdot(grad, change), slope, rtol=5e-3, atol=5e-3)


def test_half_precision_sums_in_float32():
    q = jnp.zeros((1, 1, 8), jnp.bfloat16)
    k = jnp.zeros((4096, 1, 8), jnp.bfloat16)
    # Sums of 4096 ones stop at 256 in bfloat16.
    v = jnp.ones((4096, 1, 8), jnp.bfloat16)
    y = F.attention(q, k, v, kernel="blockwise", block_size=(1, 4))
    assert y.dtype == jnp.bfloat16
    assert_close(y, np.ones((1, 1, 8)))
    grad = jax.grad(
        lambda q: F.attention(q, k[:1], v[:1], kernel="blockwise").sum().astype("f4")
    )(jnp.zeros((4096, 1, 8), jnp.bfloat16))
    assert grad.dtype == jnp.bfloat16


def test_examples_may_be_spread_over_devices():
    q, k, v = sample()
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    spread = NamedSharding(mesh, PartitionSpec("data"))
    arrays = [jax.device_put(x, spread) for x in (q, k, v)]
    grads = jax.jit(gradients(small, causal=True))(*arrays)
    assert grads[0].sharding.is_equivalent_to(spread, grads[0].ndim)
    desired = gradients(at_once, causal=True)(q, k, v)
    assert_close(grads, desired, rtol=1e-4, atol=1e-5)


def test_what_cannot_count_is_not_computed():
    """The keys outside of every span hold NaN, which any product would spread."""
    q, k, v = normal((8, 1, 2)), normal((16, 1, 2), 1), normal((16, 1, 2), 2)
    bad = jnp.arange(16)[:, None, None] >= 8
    k, v = jnp.where(bad, jnp.nan, k), jnp.where(bad, jnp.nan, v)

    def f(**rules):
        return F.attention(q, k, v, kernel="blockwise", block_size=4, **rules)

    desired = at_once(q, k[:8], v[:8], causal=True)
    assert_close(f(causal=True), desired)
    slots = jnp.where(jnp.arange(16) < 8, jnp.arange(16), -1)
    rules = {"positions": jnp.arange(8), "key_positions": slots}
    assert_close(f(causal=True, **rules), desired)
    segments = {"segments": jnp.zeros(8, int), "key_segments": slots < 0}
    segments["key_segments"] = segments["key_segments"].astype(int)
    assert_close(f(causal=True, **segments), desired)
    late = {"positions": jnp.arange(8) + 8, "key_positions": jnp.arange(16)[::-1]}
    assert np.isfinite(f(causal=True, window=1, **late)).all()


# ---- memory, by XLA's own account


def temporary_bytes(length, backward, **options):
    x = jax.ShapeDtypeStruct((length, 2, 16), jnp.float32)
    f = functools.partial(F.attention, **options)
    f = gradients(f) if backward else f
    return jax.jit(f).lower(x, x, x).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(
    "rules", [{}, {"causal": True}, {"causal": True, "window": 64}], ids="-".join
)
def test_memory_grows_with_the_length(rules, backward):
    sizes = [
        temporary_bytes(1024 * n, backward, kernel="blockwise", **rules)
        for n in (4, 8, 32)
    ]
    assert sizes[1] <= 2.2 * sizes[0]
    assert sizes[2] <= 4.2 * sizes[1]
    # All logits of 32k queries and keys would take 8 GiB.
    assert sizes[2] < 2**26


def test_memory_of_attention_at_once_grows_with_the_square():
    sizes = [temporary_bytes(1024 * n, True, kernel="xla") for n in (2, 4)]
    assert sizes[1] > 3.5 * sizes[0]
