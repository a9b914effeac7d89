"""conv_transpose: its definition, that it transposes, and what it refuses."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError, DTypeError, ShapeError


def by_scatter(x, kernel, strides, dilation, groups):
    """The definition, one input position at a time; nothing is cut off."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    window, size_out = kernel.shape[:-2], kernel.shape[-1]
    sizes = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(x.shape, strides, window, dilation, strict=False)
    ]
    y = np.zeros((*sizes, size_out))
    chunk_in, chunk_out = x.shape[-1] // groups, size_out // groups
    flipped = kernel[tuple(slice(None, None, -1) for _ in window)]
    for at in itertools.product(*map(range, x.shape[:-1])):
        for entry in itertools.product(*map(range, window)):
            to = tuple(np.multiply(at, strides) + np.multiply(entry, dilation))
            for g in range(groups):
                part = slice(g * chunk_out, (g + 1) * chunk_out)
                features = x[at][g * chunk_in : (g + 1) * chunk_in]
                y[(*to, part)] += features @ flipped[entry][:, part]
    return y


@st.composite
def cases(draw):
    spatial = draw(st.integers(1, 2))
    some = st.lists(st.integers(1, 3), min_size=spatial, max_size=spatial)
    groups = draw(st.integers(1, 2))
    return {
        "sizes": tuple(draw(some)),
        "window": tuple(draw(some)),
        "strides": tuple(draw(some)),
        "kernel_dilation": tuple(draw(some)),
        "size_in": groups * draw(st.integers(1, 2)),
        "features": groups * draw(st.integers(1, 2)),
        "feature_group_count": groups,
    }


@settings(max_examples=25)
@given(cases())
def test_it_is_its_definition(case):
    groups, steps = case["feature_group_count"], case["strides"]
    x = normal((*case["sizes"], case["size_in"]))
    kernel = normal((*case["window"], case["size_in"] // groups, case["features"]), 1)
    names = ("strides", "kernel_dilation", "feature_group_count")
    options = {name: case[name] for name in names}
    whole = by_scatter(x, kernel, steps, case["kernel_dilation"], groups)
    y = F.conv_transpose(x, kernel, padding=0, **options)
    assert_close(y, whole, atol=1e-5)
    least = [n * s for n, s in zip(case["sizes"], steps, strict=True)]
    valid = F.conv_transpose(x, kernel, padding="VALID", **options)
    assert valid.shape[:-1] == tuple(map(max, whole.shape, least))
    same = F.conv_transpose(x, kernel, padding="SAME", **options)
    assert same.shape[:-1] == tuple(least)


def test_numbers_cut_the_result():
    x, kernel = normal((4, 2)), normal((5, 2, 3), 1)
    whole = F.conv_transpose(x, kernel, strides=2, padding=0)
    assert_close(
        F.conv_transpose(x, kernel, strides=2, padding=[(1, 3)]), whole[1:-3], atol=1e-5
    )
    one = F.conv_transpose(x, kernel, strides=2, padding=2, output_padding=1)
    assert_close(one, whole[2:-1], atol=1e-5)


@pytest.mark.parametrize(
    ("padding", "mode"), [("SAME", "constant"), ("CIRCULAR", "wrap")]
)
@pytest.mark.parametrize("window", [(1,), (2,), (3,), (4, 3)])
def test_with_strides_of_one_it_is_conv(padding, mode, window):
    """Of windows with even sizes the odd entry is before, where `conv` has it after."""
    x, kernel = normal((2, *(5,) * len(window), 2)), normal((*window, 2, 3), 1)
    around = ((0, 0), *((k // 2, (k - 1) // 2) for k in window), (0, 0))
    expected = F.conv(jnp.pad(x, around, mode=mode), kernel, padding="VALID")
    assert_close(F.conv_transpose(x, kernel, padding=padding), expected, atol=1e-5)


@pytest.mark.slow
@settings(max_examples=25)
@given(cases(), st.sampled_from([0, 1, "CIRCULAR", "SAME"]))
def test_a_transposed_kernel_transposes_conv(case, padding):
    """<conv(z), x> = <z, conv_transpose(x)>: of conv from O to I features."""
    groups = case["feature_group_count"]
    if isinstance(padding, str):
        case["strides"] = (1,) * len(case["sizes"])
    kernel = normal((*case["window"], case["features"] // groups, case["size_in"]), 1)
    names = ("strides", "kernel_dilation", "feature_group_count")
    options = {name: case[name] for name in names} | {"padding": padding}
    reach = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(
            case["sizes"],
            case["strides"],
            case["window"],
            case["kernel_dilation"],
            strict=True,
        )
    ]
    if padding == 1 and min(reach) < 3:
        return
    x = normal((*case["sizes"], case["size_in"]))
    y = F.conv_transpose(x, kernel, transpose_kernel=True, **options)
    z = normal(y.shape, 2)
    forward = F.conv(z, kernel, **options)
    assert forward.shape == x.shape
    assert_close((forward * x).sum(), (z * y).sum(), rtol=1e-4, atol=1e-4)


def test_circular_padding_commutes_with_rotation():
    x, kernel = normal((6, 2)), normal((5, 2, 3), 1)
    options = {"strides": 3, "padding": "CIRCULAR"}
    y = F.conv_transpose(x, kernel, **options)
    rotated = F.conv_transpose(jnp.roll(x, 2, 0), kernel, **options)
    assert_close(rotated, jnp.roll(y, 6, 0), atol=1e-5)
    same = F.conv_transpose(x, kernel, strides=3, padding="SAME")
    assert_close(y[3:-3], same[3:-3], atol=1e-5)


def test_circular_padding_wraps_windows_larger_than_the_input():
    x, kernel = normal((2, 1)), normal((9, 1, 1), 1)
    y = F.conv_transpose(x, kernel, padding="CIRCULAR")
    assert_close(y, F.conv(x, kernel, padding="CIRCULAR"), atol=1e-5)


@pytest.mark.parametrize(("window", "stride"), [(5, 2), (2, 3), (4, 4)])
def test_causal_padding_never_looks_ahead(window, stride):
    x, kernel = normal((6, 2)), normal((window, 2, 3), 1)
    options = {"strides": stride, "padding": "CAUSAL"}
    before = F.conv_transpose(x, kernel, **options)
    after = F.conv_transpose(x.at[4:].add(100.0), kernel, **options)
    assert before.shape == (6 * stride, 3)
    assert_close(before[: 4 * stride], after[: 4 * stride])
    assert not np.allclose(before[4 * stride :], after[4 * stride :])


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,), (2, 0)])
def test_it_takes_any_batch_axes(batch):
    x, kernel, bias = normal((*batch, 5, 2)), normal((3, 2, 4), 1), normal(4, 2)
    y = F.conv_transpose(x, kernel, bias, strides=2)
    flat = x.reshape((math.prod(batch), 5, 2))
    rows = [F.conv_transpose(row, kernel, strides=2) + bias[None] for row in flat]
    assert_close(y, np.reshape(np.asarray(rows), (*batch, 10, 4)), atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype):
    x, kernel = normal((6, 2), dtype=dtype), normal((3, 2, 4), 1, dtype)
    y = F.conv_transpose(x, kernel, strides=2)
    assert y.dtype == dtype
    wide = F.conv_transpose(x.astype("float32"), kernel.astype("float32"), strides=2)
    assert_close(y, wide, rtol=0.02, atol=0.02)


def test_gradients_are_those_of_the_linear_map():
    x, kernel = normal((4, 2)), normal((3, 2, 3), 1)
    weight = normal((8, 3), 2)
    grad = jax.grad(lambda x: (F.conv_transpose(x, kernel, strides=2) * weight).sum())
    rows = jax.jacobian(lambda x: F.conv_transpose(x, kernel, strides=2))(x)
    assert_close(grad(x), jnp.einsum("to,toni->ni", weight, rows), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"padding": "REFLECT"}, "must be one of 'SAME', 'VALID', 'CAUSAL'"),
        ({"padding": [(1, 1), (1, 1)]}, "a list of 1"),
        ({"output_padding": 1}, "cannot be combined with `padding='SAME'`"),
        ({"output_padding": 1, "padding": 0}, "must be less than"),
        ({"output_padding": -1, "padding": 0}, "of at least 0"),
        ({"feature_group_count": 3}, "does not divide the 4 output features"),
        (
            {"feature_group_count": 3, "transpose_kernel": True},
            "does not divide the 4 input features",
        ),
        ({"strides": 0}, "`strides` is 0"),
    ],
)
def test_options_without_a_meaning_are_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        F.conv_transpose(normal((5, 2)), normal((3, 2, 4)), **options)


def test_causal_images_are_refused():
    with pytest.raises(ConfigError, match="one spatial axis") as caught:
        F.conv_transpose(normal((5, 5, 2)), normal((3, 3, 2, 4)), padding="CAUSAL")
    scope = {"window": 3}
    exec(caught.value.fixes[0][1], scope)
    x, kernel, padding = normal((5, 5, 2)), normal((3, 3, 2, 4)), scope["padding"]
    assert F.conv_transpose(x, kernel, padding=padding).shape == (5, 7, 4)


@pytest.mark.parametrize(
    ("x", "kernel", "options"),
    [
        ((5,), (3, 2, 4), {}),
        ((5, 3), (3, 2, 4), {}),
        ((5, 2), (3, 2, 4), {"transpose_kernel": True}),
        ((5, 2), (2, 4), {}),
        ((1, 2), (3, 2, 4), {"padding": 2}),
    ],
)
def test_shapes_that_do_not_fit_are_refused(x, kernel, options):
    with pytest.raises(ShapeError, match="LN-SHAPE"):
        F.conv_transpose(normal(x), normal(kernel), **options)


def test_biases_and_dtypes_are_checked():
    with pytest.raises(ShapeError, match="`bias` has shape"):
        F.conv_transpose(normal((5, 2)), normal((3, 2, 4)), normal(2))
    with pytest.raises(DTypeError, match="LN-DTYPE-01"):
        F.conv_transpose(jnp.zeros((5, 1), jnp.uint8), normal((3, 1, 1)))
