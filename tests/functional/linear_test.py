"""dense: its definition, dtypes, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import DTypeError, ShapeError


def wide(x):
    return np.asarray(x, np.float64)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3), max_size=3), st.integers(1, 4), st.integers(1, 4))
def test_dense_is_a_matrix_product_plus_bias(batch, size_in, size_out):
    x = normal((*batch, size_in))
    kernel, bias = normal((size_in, size_out), 1), normal(size_out, 2)
    expected = wide(x) @ wide(kernel) + wide(bias)
    assert_close(F.dense(x, kernel, bias), expected)


def test_dense_without_bias_is_linear():
    x, y, kernel = normal((4, 3)), normal((4, 3), 1), normal((3, 2), 2)
    whole = F.dense(2 * x + y, kernel)
    assert_close(whole, 2 * F.dense(x, kernel) + F.dense(y, kernel))


@pytest.mark.parametrize(
    ("x", "params", "asked", "result"),
    [
        ("bfloat16", "bfloat16", None, "bfloat16"),
        ("bfloat16", "float32", None, "float32"),
        ("float32", "float32", "bfloat16", "bfloat16"),
        ("float16", "float16", None, "float16"),
        ("bfloat16", "float32", "float16", "float16"),
    ],
)
def test_dense_computes_in_the_dtype_asked_for_or_the_joint_one(
    x, params, asked, result
):
    x, kernel = normal((5, 3), dtype=x), normal((3, 2), 1, dtype=params)
    bias = normal(2, 2, dtype=params)
    y = F.dense(x, kernel, bias, dtype=asked)
    assert y.dtype == result
    assert_close(y, wide(x) @ wide(kernel) + wide(bias), rtol=0.03, atol=0.03)


def test_dense_of_complex_numbers():
    x, kernel = normal((2, 3)) + 1j * normal((2, 3), 1), normal((3, 2), 2) + 0j
    assert_close(F.dense(x, kernel), np.asarray(x) @ np.asarray(kernel))


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.bool_])
def test_dense_refuses_what_is_no_quantity(dtype):
    x, kernel = jnp.ones((2, 3), dtype), normal((3, 2))
    with pytest.raises(DTypeError, match="LN-DTYPE-01") as caught:
        F.dense(x, kernel)
    scope = {"x": x, "jnp": jnp}
    exec(caught.value.fixes[0][1], scope)
    assert F.dense(scope["x"], kernel).shape == (2, 2)


def test_dense_refuses_to_compute_in_integers():
    with pytest.raises(DTypeError, match="`dtype` is int8"):
        F.dense(normal((2, 3)), normal((3, 2)), dtype=jnp.int8)


def test_dense_refuses_features_at_another_axis_and_says_how_to_move_them():
    x, kernel = normal((3, 5)), normal((3, 2))
    with pytest.raises(ShapeError, match="LN-SHAPE-01") as caught:
        F.dense(x, kernel)
    scope = {"x": x, "jnp": jnp}
    exec(caught.value.fixes[0][1], scope)
    assert F.dense(scope["x"], kernel).shape == (5, 2)


@pytest.mark.parametrize(
    ("x", "kernel", "bias"),
    [((), (3, 2), (2,)), ((3,), (3,), None), ((3,), (3, 2), (3,)), ((3,), (3, 2), ())],
)
def test_dense_refuses_shapes_that_do_not_fit(x, kernel, bias):
    with pytest.raises(ShapeError):
        F.dense(normal(x), normal(kernel), None if bias is None else normal(bias))


def test_dense_takes_numpy_arrays_in_their_narrowed_dtype():
    y = F.dense(np.ones((2, 3)), np.ones((3, 1)))
    assert y.dtype == jnp.float32
    assert_close(y, np.full((2, 1), 3.0))


def test_gradient_of_dense_is_that_of_the_formula():
    x, kernel = normal((4, 3)), normal((3, 2), 1)
    grad = jax.grad(lambda k: (F.dense(x, k) ** 2).sum())(kernel)
    assert_close(grad, 2 * wide(x).T @ (wide(x) @ wide(kernel)), rtol=1e-4)


# ---- dense_general

CONTRACTIONS = [
    ((4, 3), -1, (), "ab,bo->ao"),
    ((4, 3), 0, (), "ab,ao->bo"),
    ((2, 3, 4), (0, 2), (), "abc,aco->bo"),
    ((2, 3, 4), (-1, 0), (), "abc,acop->bop"),
    ((2, 3, 4), -1, 0, "abc,aco->abo"),
    ((2, 3, 4), -1, 1, "abc,bcop->abop"),
    ((2, 3, 4, 2), (-1, 0), (-2,), "abcd,cado->bco"),
    ((2, 3, 4), (0, 1, 2), (), "abc,abco->o"),
    ((2, 3), -1, (), "ab,b->a"),
    ((2, 3), (), (), "ab,o->abo"),
]


@pytest.mark.parametrize(("shape", "axis", "batch_axis", "equation"), CONTRACTIONS)
def test_dense_general_is_an_einsum(shape, axis, batch_axis, equation):
    left, result = equation.split("->")
    letters = left.split(",")
    sizes = dict(zip(letters[0], shape, strict=True)) | {"o": 2, "p": 3}
    x, kernel = normal(shape), normal([sizes[c] for c in letters[1]], 1)
    kept = "".join(c for c in letters[1] if c in result)
    bias = normal([sizes[c] for c in kept], 2)
    options = {"axis": axis, "batch_axis": batch_axis}
    expected = np.einsum(equation, wide(x), wide(kernel))
    assert_close(F.dense_general(x, kernel, **options), expected)
    ones = np.ones(expected.shape)
    expected = expected + np.einsum(f"{kept},{result}->{result}", wide(bias), ones)
    assert_close(F.dense_general(x, kernel, bias, **options), expected)


@settings(max_examples=10)
@given(st.lists(st.integers(0, 3), max_size=2), st.integers(1, 3))
def test_dense_general_with_one_axis_is_dense(batch, size_in):
    x, kernel, bias = normal((*batch, size_in)), normal((size_in, 2), 1), normal(2, 2)
    assert_close(F.dense_general(x, kernel, bias), F.dense(x, kernel, bias))


@pytest.mark.parametrize(
    ("x", "kernel", "options", "text"),
    [
        ((2, 3), (2, 4), {}, "needs a kernel whose first axes are"),
        ((2, 3), (3, 4), {"axis": 2}, "`axis=2` does not name"),
        ((2, 3), (3, 4), {"batch_axis": (0, 0)}, "`batch_axis="),
        ((2, 3), (3, 4), {"batch_axis": 1}, "axis 1 of `x`, which has 2"),
        ((), (3, 4), {}, "`axis=-1` does not name"),
    ],
)
def test_dense_general_refuses_what_does_not_fit(x, kernel, options, text):
    with pytest.raises(ShapeError, match=text):
        F.dense_general(normal(x), normal(kernel), **options)


def test_axes_in_another_order_are_put_in_order_by_the_fix():
    x, kernel = normal((2, 3, 4)), normal((4, 3, 5))
    with pytest.raises(ShapeError) as caught:
        F.dense_general(x, kernel, axis=(1, 2))
    scope = {"kernel": kernel}
    exec(caught.value.fixes[0][1], scope)
    assert F.dense_general(x, scope["kernel"], axis=(1, 2)).shape == (2, 5)


# ---- bilinear


@settings(max_examples=10)
@given(st.lists(st.integers(0, 3), max_size=2))
def test_bilinear_is_its_formula(batch):
    x, y = normal((*batch, 3)), normal((*batch, 4), 1)
    kernel, bias = normal((3, 4, 2), 2), normal(2, 3)
    expected = np.einsum("...i,ijo,...j->...o", wide(x), wide(kernel), wide(y))
    assert_close(F.bilinear(x, y, kernel, bias), expected + wide(bias))


def test_bilinear_promotes_all_of_its_arrays():
    x, y, kernel = normal(3, dtype="bfloat16"), normal(4), normal((3, 4, 2))
    assert F.bilinear(x, y, kernel.astype("bfloat16")).dtype == "float32"
    assert F.bilinear(x, y, kernel, dtype="bfloat16").dtype == "bfloat16"
    with pytest.raises(DTypeError, match="`y` has dtype int32"):
        F.bilinear(x, jnp.arange(4), kernel)


def test_bilinear_refuses_what_does_not_fit_and_the_fixes_work():
    x, y, kernel = normal((5, 3)), normal((5, 4), 1), normal((3, 4, 2), 2)
    for one, other in ((y, x), (x, y[0])):
        with pytest.raises(ShapeError, match="do not fit a `kernel`") as caught:
            F.bilinear(one, other, kernel)
        scope = {"x": one, "y": other, "jnp": jnp}
        exec(caught.value.fixes[0][1], scope)
        assert F.bilinear(scope["x"], scope["y"], kernel).shape == (5, 2)
    with pytest.raises(ShapeError):
        F.bilinear(x, y, normal((3, 4)))


# ---- masked


def test_masked_entries_are_zero_and_get_no_gradient():
    kernel, mask = normal((3, 2)), jnp.array([[True], [False], [True]])
    kernel = kernel.at[1, 0].set(jnp.nan)
    assert_close(F.masked(kernel, mask), np.where(mask, wide(kernel), 0))
    grad = jax.grad(lambda k: F.masked(k, mask).sum())(kernel)
    assert_close(grad, np.broadcast_to(mask, (3, 2)))
    assert F.masked(kernel, None) is kernel


def test_masks_that_do_not_fit_are_refused_and_the_fixes_work():
    kernel = normal((3, 2))
    with pytest.raises(DTypeError, match="must hold booleans") as caught:
        F.masked(kernel, jnp.ones((3, 1)))
    scope = {"mask": jnp.ones((3, 1))}
    exec(caught.value.fixes[0][1], scope)
    assert_close(F.masked(kernel, scope["mask"]), kernel)
    with pytest.raises(ShapeError, match=r"of shape \[3\] does not fit") as caught:
        F.masked(kernel, jnp.ones(3, bool))
    scope = {"mask": jnp.ones(3, bool)}
    exec(caught.value.fixes[0][1], scope)
    assert_close(F.masked(kernel, scope["mask"]), kernel)
