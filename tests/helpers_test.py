"""The comparison that all other tests rely on."""

import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal


def test_equal_trees_are_close():
    tree = {"a": normal((2, 3)), "b": [jnp.float32(1.0), np.array([np.nan, np.inf])]}
    assert_close(tree, tree)


def test_a_difference_is_shown_with_path_place_and_size():
    actual = {"a": {"kernel": np.array([[0.0, 0.0], [0.5, 0.1]])}}
    desired = {"a": {"kernel": np.zeros((2, 2))}}
    with pytest.raises(AssertionError) as caught:
        assert_close(actual, desired)
    message = str(caught.value)
    assert message.startswith("a.kernel: 2 of 4 differ; largest error 0.5 at")
    assert "a.kernel[1, 0]: 0.5 but desired 0.0" in message


@pytest.mark.parametrize(
    ("actual", "desired"),
    [
        (np.zeros(2), np.zeros((2, 1))),
        (np.zeros(2), np.zeros(())),
        ([np.zeros(2)], (np.zeros(2),)),
        ([np.zeros(2)], [np.zeros(2), np.zeros(2)]),
        ({"a": 1.0}, {"b": 1.0}),
        (np.array([np.nan]), np.array([0.0])),
        (np.array([np.inf]), np.array([-np.inf])),
        (np.array([1.0]), np.array([1.0 + 2e-5])),
        (np.array(1 + 1e-3j), np.array(1 + 0j)),
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([True]), np.array([False])),
    ],
)
def test_what_differs_is_refused(actual, desired):
    with pytest.raises(AssertionError):
        assert_close(actual, desired)


def test_tolerances_are_used():
    assert_close(np.array([1.0]), np.array([1.01]), rtol=0.02)
    assert_close(np.array([0.0]), np.array([0.01]), atol=0.02)


def test_low_precision_is_compared_as_it_is():
    assert_close(jnp.bfloat16(1.0), 1.0)
    with pytest.raises(AssertionError):
        assert_close(jnp.bfloat16(1.01), 1.01)


def test_normal_depends_on_the_seed_alone():
    assert_close(normal((3, 2)), normal((3, 2)), rtol=0, atol=0)
    assert not np.array_equal(normal((3, 2)), normal((3, 2), seed=1))
    assert normal((3,), dtype=jnp.bfloat16).dtype == jnp.bfloat16
