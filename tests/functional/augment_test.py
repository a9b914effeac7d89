"""Label smoothing, mixup and cutmix: their formulas, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError, DTypeError, ShapeError

KEY = jax.random.key(0)


def batch(size=6, classes=3):
    labels = jax.nn.one_hot(jnp.arange(size) % classes, classes)
    return normal((size, 4, 2)), labels


@settings(max_examples=10)
@given(st.floats(0, 1))
def test_smoothed_labels_are_those_of_optax(alpha):
    _, labels = batch()
    smooth = F.label_smoothing(labels, alpha)
    assert_close(smooth, optax.smooth_labels(labels, alpha))
    numbers = F.label_smoothing(jnp.arange(6) % 3, alpha, num_classes=3)
    assert_close(numbers, smooth)


def test_the_loss_of_smoothed_labels_is_the_mixture_of_two():
    logits, (_, labels) = normal((6, 3)), batch()
    loss = optax.softmax_cross_entropy
    uniform = jnp.full_like(labels, 1 / 3)
    expected = 0.9 * loss(logits, labels) + 0.1 * loss(logits, uniform)
    assert_close(loss(logits, F.label_smoothing(labels, 0.1)), expected)


@pytest.mark.parametrize("per_example", [False, True])
def test_mixup_is_its_formula_with_one_permutation_for_all_arrays(per_example):
    x, labels = batch()
    identity = jnp.eye(6)  # tells who was mixed with whom, and how much
    mixed, soft, who = F.mixup((x, labels, identity), KEY, 1.0, per_example=per_example)
    assert_close(who.sum(1), np.ones(6))
    assert_close(mixed, np.einsum("ij,jkl->ikl", who, x), atol=1e-6)
    assert_close(soft, np.asarray(who) @ np.asarray(labels), atol=1e-6)
    shares = np.unique(np.asarray(who.max(1)).round(5))
    assert (len(shares) > 3) == per_example


def test_a_large_alpha_mixes_half_and_half_and_a_small_one_nothing():
    identity = jnp.eye(8)
    half = F.mixup(identity, KEY, 1e6)
    assert_close(half[half > 0].min(), 0.5, rtol=0.01)
    hardly = np.asarray(F.mixup(identity, KEY, 1e-3))
    assert_close(np.abs(hardly - hardly.round()).max(), 0.0, atol=1e-3)


@pytest.mark.parametrize("window", [(9,), (8, 6), (4, 3, 5)])
def test_cutmix_pastes_one_box_and_mixes_labels_by_volume(window):
    size = 6
    ones = jnp.ones((size, *window, 1))
    x = ones * jnp.arange(size, dtype=jnp.float32).reshape(-1, *(1,) * (ones.ndim - 1))
    pasted, labels = F.cutmix(x, jnp.eye(size), KEY, 50.0)
    for i in range(size):
        values, counts = np.unique(np.asarray(pasted[i]), return_counts=True)
        expected = np.zeros(size)
        expected[values.astype(int)] = counts / counts.sum()
        assert_close(labels[i], expected, atol=1e-6)
    changed = np.asarray(pasted != x)[..., 0]
    other = next(mask for mask in changed if mask.any())
    box = np.argwhere(other)
    assert len(box) == np.prod(box.max(0) - box.min(0) + 1)


def test_they_run_under_jit_and_keep_the_dtype():
    x, labels = batch()
    half = x.astype(jnp.bfloat16)
    mixed, soft = jax.jit(F.mixup)((half, labels), KEY)
    assert (mixed.dtype, soft.dtype) == (jnp.bfloat16, jnp.float32)
    pasted, _ = jax.jit(F.cutmix)(half, labels, KEY)
    assert pasted.dtype == jnp.bfloat16
    assert F.mixup((x[:0], labels[:0]), KEY)[0].shape == (0, 4, 2)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_shares_that_are_none_are_refused_and_the_fix_works(alpha):
    with pytest.raises(ConfigError, match="LN-VALUE-02") as caught:
        F.label_smoothing(jnp.eye(2), alpha)
    exec(caught.value.fixes[0][1], scope := {})
    assert F.label_smoothing(jnp.eye(2), scope["alpha"]).shape == (2, 2)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_distributions_that_are_none_are_refused(alpha):
    for mix in (
        lambda: F.mixup(jnp.eye(2), KEY, alpha),
        lambda: F.cutmix(jnp.ones((2, 3, 1)), jnp.eye(2), KEY, alpha),
    ):
        with pytest.raises(ConfigError, match="LN-VALUE-03"):
            mix()


def test_numbers_of_classes_are_refused():
    x, numbers = jnp.ones((4, 3, 2)), jnp.arange(4)
    for mix in (
        lambda: F.label_smoothing(numbers, 0.1),
        lambda: F.mixup((x, numbers), KEY),
        lambda: F.cutmix(x, numbers, KEY),
    ):
        with pytest.raises(DTypeError, match="LN-DTYPE-01"):
            mix()


def test_arrays_that_are_no_batch_are_refused():
    x, labels = batch()
    with pytest.raises(ShapeError, match="LN-SHAPE-01"):
        F.mixup((x, labels[:3]), KEY)
    with pytest.raises(ShapeError, match="LN-SHAPE-01"):
        F.mixup((x, jnp.ones(())), KEY)
    with pytest.raises(ShapeError, match="LN-SHAPE-02"):
        F.cutmix(x[:, 0], labels, KEY)
