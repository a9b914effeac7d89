"""Routing, slots of experts, and losses: their definitions, laws and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError, DTypeError, ShapeError


def wide(x):
    return np.asarray(x, np.float64)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def numbers(shape, most, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, most, shape), jnp.int32)


def seats(experts, number, capacity):
    """By hand: who gets which place, first choices first, then by position."""
    tokens, choices = experts.shape
    taken = dict.fromkeys(range(number), 0)
    found = {}
    for k in range(choices):
        for t in range(tokens):
            e = int(experts[t, k])
            if e < number and (capacity is None or taken[e] < capacity):
                found[t, k] = (e, taken[e])
                taken[e] += 1
    return found


SHAPES = st.tuples(st.integers(0, 9), st.integers(1, 3))


@settings(max_examples=20)
@given(SHAPES, st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_a_capacity_gives_places_in_order_of_priority(shape, number, capacity, seed):
    experts = numbers(shape, number + 1, seed)
    where = F.expert_slots(experts, number, capacity)
    found = seats(np.asarray(experts), number, capacity)
    tokens, choices = shape
    assert where.experts is None
    assert where.tokens.shape == (number, capacity)
    for t in range(tokens):
        for k in range(choices):
            e, place = found.get((t, k), (number, 0))
            assert where.slots[t, k] == e * capacity + place
    held = np.full((number, capacity), tokens)
    for (t, _), spot in found.items():
        held[spot] = t
    np.testing.assert_array_equal(where.tokens, held)


@settings(max_examples=20)
@given(SHAPES, st.integers(1, 5), st.integers(0, 99))
def test_without_a_capacity_each_choice_has_a_row_of_its_own(shape, number, seed):
    experts = numbers(shape, number + 1, seed)
    where = F.expert_slots(experts, number)
    tokens, choices = shape
    blocks, rows = where.tokens.shape
    assert where.experts.shape == (blocks,)
    assert blocks <= number + experts.size // rows
    slots, used = np.asarray(where.slots), set()
    for t in range(tokens):
        for k in range(choices):
            if experts[t, k] == number:
                assert slots[t, k] == blocks * rows
                continue
            block, row = divmod(slots[t, k], rows)
            assert where.experts[block] == experts[t, k]
            assert where.tokens[block, row] == t
            used.add(slots[t, k])
    assert len(used) == int((experts < number).sum())
    assert int((where.tokens < tokens).sum()) == len(used)


@pytest.mark.parametrize("capacity", [None, 2, 6])
@pytest.mark.parametrize("batch", [(), (3,), (2, 0), (2, 2)])
def test_dispatch_and_combine_bring_each_token_there_and_back(batch, capacity):
    x, weights = normal((*batch, 6, 2)), normal((*batch, 6, 2), 1)
    experts = numbers((*batch, 6, 2), 4)  # the number 3 stands for none
    where = F.expert_slots(experts, 3, capacity)
    y = F.expert_combine(F.expert_dispatch(x, where), weights, where)
    kept = np.zeros(experts.shape)
    for entry in np.ndindex(*batch):
        for t, k in seats(np.asarray(experts[entry]), 3, capacity):
            kept[(*entry, t, k)] = 1
    expected = (wide(weights) * kept).sum(-1)[..., None] * wide(x)
    assert_close(y, expected)


@pytest.mark.parametrize("experts", [None, [1, 1, 0, 1]])
@pytest.mark.parametrize("use_bias", [True, False])
def test_expert_dense_is_a_product_with_the_kernel_of_each_block(experts, use_bias):
    owners = [0, 1] if experts is None else experts
    x, kernel = normal((len(owners), 3, 4)), normal((2, 4, 5), 1)
    bias = normal((2, 5), 2) if use_bias else None
    given_experts = None if experts is None else jnp.array(experts)

    def ours(x, kernel, bias):
        return F.expert_dense(x, kernel, bias, experts=given_experts)

    def theirs(x, kernel, bias):
        y = jnp.einsum("xbi,xio->xbo", x, kernel[jnp.array(owners)])
        return y if bias is None else y + bias[jnp.array(owners)][:, None]

    expected = np.einsum("xbi,xio->xbo", wide(x), wide(kernel)[owners])
    if bias is not None:
        expected += wide(bias)[owners][:, None]
    assert_close(ours(x, kernel, bias), expected)

    def loss(f):
        return lambda *args: (f(*args) ** 3).sum()

    args = (0, 1, 2) if use_bias else (0, 1)
    found = jax.grad(loss(ours), args)(x, kernel, bias)
    assert_close(found, jax.grad(loss(theirs), args)(x, kernel, bias), rtol=1e-4)

    def curvature(f):
        return jax.grad(lambda k: (jax.grad(loss(f), 1)(x, k, bias) ** 2).sum())

    assert_close(curvature(ours)(kernel), curvature(theirs)(kernel), rtol=1e-3)


def test_expert_dense_maps_over_any_argument():
    x, kernel = normal((2, 3, 3, 4)), normal((2, 2, 4, 5), 1)
    experts = jnp.array([[0, 1, 1], [1, 1, 0]])

    def product(x, kernel, experts):
        return F.expert_dense(x, kernel, experts=experts)

    def squares(x, kernel, experts):
        return (product(x, kernel, experts) ** 2).sum()

    for axes in [(0, 0, 0), (0, None, 0), (None, 0, None)]:
        pairs = list(zip((x, kernel, experts), axes, strict=True))
        args = [array if axis == 0 else array[0] for array, axis in pairs]

        def entry(n, pairs=pairs):
            return [array[0 if axis is None else n] for array, axis in pairs]

        for f in (product, jax.grad(squares, 1)):
            rows = [f(*entry(n)) for n in range(2)]
            assert_close(jax.vmap(f, axes)(*args), jnp.stack(rows), rtol=1e-4)


def test_a_sum_over_many_blocks_of_low_precision_is_exact():
    x = jnp.ones((64, 16, 1), jnp.bfloat16)
    kernel = jnp.ones((1, 1, 1), jnp.bfloat16)

    def total(kernel):
        y = F.expert_dense(x, kernel, experts=jnp.zeros(64, jnp.int32))
        return y.astype(jnp.float32).sum()

    assert jax.grad(total)(kernel)[0, 0, 0] == 1024


@settings(max_examples=10)
@given(st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_routing_takes_the_largest_probabilities(top_k, renormalize, seed):
    logits = 3 * normal((2, 5, 4), seed)
    routing = F.top_k_routing(logits, top_k, renormalize=renormalize)
    p = softmax(wide(logits))
    best = np.argsort(-p, -1, kind="stable")[..., :top_k]
    weights = np.take_along_axis(p, best, -1)
    if renormalize and top_k > 1:
        weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_array_equal(routing.experts, best)
    assert_close(routing.weights, weights)
    assert_close(routing.probabilities, p)


def test_routing_is_in_float32_and_leaves_out_what_is_masked():
    logits, mask = normal((3, 4), dtype="bfloat16"), jnp.array([True, False, True])
    routing = F.top_k_routing(logits, 2, mask=mask)
    assert routing.weights.dtype == routing.probabilities.dtype == jnp.float32
    assert (routing.experts[1] == 4).all()
    assert_close(routing.weights.sum(-1), np.array([1.0, 0.0, 1.0]))


def test_jitter_scales_each_feature_by_a_little():
    x, kernel = normal((50, 4)), jnp.eye(4)
    key = jax.random.key(0)
    ratio = np.asarray(F.router_logits(x, kernel, key=key, jitter=0.1) / x)
    assert 0.9 <= ratio.min() < 0.92
    assert 1.08 < ratio.max() < 1.1
    assert_close(F.router_logits(x, kernel, key=key), x)


@pytest.mark.parametrize("masked", [False, True])
def test_losses_are_their_definitions(masked):
    logits = normal((2, 5, 4))
    mask = numbers((2, 5), 2) == 1 if masked else None
    chosen = F.top_k_routing(logits, 2).experts
    p = softmax(wide(logits))
    kept = np.ones((2, 5), bool) if mask is None else np.asarray(mask)
    share = np.bincount(np.asarray(chosen)[kept].reshape(-1), minlength=4)
    share = share / (2 * kept.sum())
    expected = 4 * (share * p[kept].mean(0)).sum()
    found = F.load_balancing_loss(jnp.asarray(p, jnp.float32), chosen, mask=mask)
    assert_close(found, expected)
    sums = np.log(np.exp(wide(logits)).sum(-1))[kept]
    assert_close(F.router_z_loss(logits, mask=mask), (sums**2).mean())


def test_losses_of_nothing_are_zero_and_so_are_their_gradients():
    logits, mask = normal((3, 4)), jnp.zeros(3, bool)

    def losses(logits, mask=None):
        routing = F.top_k_routing(logits, 2, mask=mask)
        balance = F.load_balancing_loss(
            routing.probabilities, routing.experts, mask=mask
        )
        return balance + F.router_z_loss(logits, mask=mask)

    assert losses(logits[:0]) == 0
    assert losses(logits, mask) == 0
    assert_close(jax.grad(losses)(logits, mask), np.zeros((3, 4)))


def test_balanced_choices_have_loss_one_and_a_single_one_has_many():
    p = jnp.eye(4)
    assert F.load_balancing_loss(p, jnp.arange(4)[:, None]) == 1
    alone = jnp.broadcast_to(p[:1], (4, 4))
    assert F.load_balancing_loss(alone, jnp.zeros((4, 1), jnp.int32)) == 4


@pytest.mark.parametrize(
    ("tokens", "experts", "top_k", "factor", "expected"),
    [(100, 8, 2, 1.25, 32), (10, 4, 1, 1.0, 3), (1, 8, 2, 1.0, 1), (4, 2, 2, 9.0, 4)],
)
def test_capacity_is_a_multiple_of_the_share(tokens, experts, top_k, factor, expected):
    assert F.expert_capacity(tokens, experts, top_k, factor) == expected


def test_what_does_not_fit_is_refused():
    where = F.expert_slots(jnp.zeros((3, 1), jnp.int32), 2)
    with pytest.raises(ShapeError, match="LN-SHAPE-02"):
        F.expert_slots(jnp.zeros(3, jnp.int32), 2)
    with pytest.raises(DTypeError, match="LN-DTYPE-01"):
        F.expert_slots(jnp.zeros((3, 1)), 2)
    with pytest.raises(ShapeError, match="slots were given to tokens"):
        F.expert_dispatch(normal((4, 2)), where)
    with pytest.raises(ShapeError, match="`y` has shape"):
        F.expert_combine(normal((4, 2)), normal((3, 1)), where)
    with pytest.raises(ShapeError, match="`weights` has shape"):
        F.expert_combine(normal((1, 8, 2)), normal((3, 2)), where)
    with pytest.raises(ShapeError, match="cannot be multiplied by `kernel`"):
        F.expert_dense(normal((3, 4, 2)), normal((2, 2, 5)))
    with pytest.raises(ShapeError, match="cannot be multiplied by `kernel`"):
        F.expert_dense(normal((3, 2)), normal((2, 2, 5)))
    with pytest.raises(ConfigError, match="`top_k` is 5"):
        F.top_k_routing(normal((3, 4)), 5)
    with pytest.raises(DTypeError, match="`mask` has dtype float32"):
        F.router_z_loss(normal((3, 4)), mask=normal(3))
    with pytest.raises(ShapeError, match="`mask` has shape"):
        F.router_z_loss(normal((3, 4)), mask=jnp.ones(4, bool))
    with pytest.raises(ShapeError, match="`experts` has shape"):
        F.load_balancing_loss(normal((3, 4)), jnp.zeros((4, 1), jnp.int32))
