"""einsum_dense: NumPy's einsum, its bias, and what it refuses."""

import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError, ShapeError

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 2, "h": 2, "k": 3}
EQUATIONS = [
    "ab,bc->ac",
    "abc,cde->abde",
    "abc,cde->dbae",
    "...ab,bhk->...ahk",
    "a...b,bhk->h...ak",
    "abc,acd->abd",
    "ab,b->ab",
    "abc,cd->ad",
    "ab,cd->acbd",
    "aab,bc->ac",
    "...,a->...a",
    " a b , b c -> a c ",
]


def shaped(letters, batch=()):
    before, dots, after = letters.replace(" ", "").partition("...")
    sizes = [[SIZES[letter] for letter in part] for part in (before, after)]
    return (*sizes[0], *(batch if dots else ()), *sizes[1])


@pytest.mark.parametrize("equation", EQUATIONS)
@pytest.mark.parametrize("batch", [(), (3,), (2, 1)])
def test_it_is_numpys_einsum_with_a_bias(equation, batch):
    left, result = equation.split("->")
    first, second = left.split(",")
    x, kernel = normal(shaped(first, batch)), normal(shaped(second), 1)
    letters = [c for c in result if c.isalpha() and c in second]
    bias = normal([SIZES[c] for c in letters], 2)
    wide = [np.asarray(a, np.float64) for a in (x, kernel, bias)]
    expected = np.einsum(equation, *wide[:2])
    assert_close(F.einsum_dense(x, kernel, equation=equation), expected)
    ones = np.ones(expected.shape)
    term = f"{''.join(letters)},{result.replace(' ', '')}->{result}"
    expected = expected + np.einsum(term, wide[2], ones)
    assert_close(F.einsum_dense(x, kernel, bias, equation=equation), expected)


@pytest.mark.parametrize(
    ("equation", "text"),
    [
        ("ab->a", "two operands"),
        ("ab,bc,cd->ad", "two operands"),
        ("ab,bc", "does not say"),
        ("a1,1c->ac", "has '1'"),
        ("ab,bc->az", "the letter 'z' in the result"),
        ("ab,bc->aca", "the letter 'a' twice"),
        ("a...,...c->ac", "in the kernel"),
        ("...b,bc->c", "on one side only"),
        ("ab,bc->...ac", "on one side only"),
        (None, "two operands"),
    ],
)
def test_equations_without_a_meaning_are_refused_and_the_fix_has_one(equation, text):
    with pytest.raises(ConfigError, match=text) as caught:
        F.einsum_dense(jnp.ones((2, 3)), jnp.ones((3, 4)), equation=equation)
    scope = {}
    exec(caught.value.fixes[0][1], scope)
    left, _ = scope["equation"].replace("...", "").split("->")
    x, kernel = (jnp.ones((3,) * len(letters)) for letters in left.split(","))
    assert F.einsum_dense(x, kernel, equation=scope["equation"]).size


def test_what_einsum_would_take_for_the_result_is_offered():
    with pytest.raises(ConfigError) as caught:
        F.einsum_dense(normal((2, 3)), normal((3, 4)), equation="zb,ba")
    assert caught.value.fixes[0][1] == 'equation = "zb,ba->az"'


@pytest.mark.parametrize(
    ("x", "kernel", "bias", "text"),
    [
        ((2, 3), (4, 5), None, "the letter 'b'"),
        ((3,), (3, 4), None, "`x` has 1 axes"),
        ((1, 2, 3), (3, 4), None, "`x` has 3 axes"),
        ((2, 3), (3,), None, "`kernel` has 1 axes"),
        ((2, 3), (3, 4), (3,), "`bias` has shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(x, kernel, bias, text):
    bias = None if bias is None else normal(bias)
    with pytest.raises(ShapeError, match=text):
        F.einsum_dense(normal(x), normal(kernel), bias, equation="ab,bc->ac")


def test_more_axes_become_batch_axes_by_the_fix():
    x, kernel = normal((5, 2, 3)), normal((3, 4))
    with pytest.raises(ShapeError) as caught:
        F.einsum_dense(x, kernel, equation="ab,bc->ac")
    scope = {}
    exec(caught.value.fixes[0][1], scope)
    assert F.einsum_dense(x, kernel, equation=scope["equation"]).shape == (5, 2, 4)
