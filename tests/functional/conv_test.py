"""conv: against a loop in float64, its paddings, and what it refuses."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError, DTypeError, ShapeError


def by_loop(x, kernel, strides, padding, kernel_dilation, input_dilation, groups):
    """The definition, one output position at a time, for one unbatched input."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    spatial = kernel.ndim - 2
    drawn = [(n - 1) * d + 1 for n, d in zip(x.shape, input_dilation, strict=False)]
    apart = np.zeros((*drawn, x.shape[-1]))
    apart[tuple(slice(None, None, d) for d in input_dilation)] = x
    apart = np.pad(apart, (*padding, (0, 0)))
    extents = [
        (k - 1) * d + 1 for k, d in zip(kernel.shape, kernel_dilation, strict=False)
    ]
    sizes = [
        max((n - e) // s + 1, 0)
        for n, e, s in zip(apart.shape, extents, strides, strict=False)
    ]
    y = np.zeros((*sizes, kernel.shape[-1]))
    size_in, size_out = kernel.shape[-2], kernel.shape[-1] // groups
    for at in itertools.product(*map(range, sizes)):
        starts = [i * s for i, s in zip(at, strides, strict=True)]
        window = apart[
            tuple(
                slice(b, b + e, d)
                for b, e, d in zip(starts, extents, kernel_dilation, strict=True)
            )
        ]
        for g in range(groups):
            chosen = slice(g * size_out, (g + 1) * size_out)
            part = window[..., g * size_in : (g + 1) * size_in]
            y[(*at, chosen)] = np.tensordot(part, kernel[..., chosen], spatial + 1)
    return y


@st.composite
def convolutions(draw):
    spatial = draw(st.integers(1, 3))
    some = st.lists(st.integers(1, 3), min_size=spatial, max_size=spatial)
    pair = st.tuples(st.integers(0, 2), st.integers(0, 2))
    groups = draw(st.integers(1, 2))
    sizes = [draw(st.integers(3, 6)) for _ in range(spatial)]
    return {
        "x": (*sizes, groups * draw(st.integers(1, 2))),
        "window": tuple(min(k, 2) if spatial == 3 else k for k in draw(some)),
        "features": groups * draw(st.integers(1, 2)),
        "strides": tuple(draw(some)),
        "padding": draw(st.lists(pair, min_size=spatial, max_size=spatial)),
        "kernel_dilation": tuple(draw(some)),
        "input_dilation": tuple(draw(some)),
        "groups": groups,
    }


@settings(max_examples=30)
@given(convolutions())
def test_conv_is_its_definition(case):
    x = normal(case["x"])
    size_in = case["x"][-1] // case["groups"]
    kernel = normal((*case["window"], size_in, case["features"]), 1)
    names = ("strides", "padding", "kernel_dilation", "input_dilation")
    options = {name: case[name] for name in names}
    y = F.conv(x, kernel, feature_group_count=case["groups"], **options)
    assert_close(y, by_loop(x, kernel, groups=case["groups"], **options), atol=1e-5)


@settings(max_examples=20)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(1, 2))
def test_same_padding_gives_size_over_stride_outputs_rounded_up(n, k, s, d):
    y = F.conv(normal((n, 1)), normal((k, 1, 1)), strides=s, kernel_dilation=d)
    assert y.shape == (math.ceil(n / s), 1)


def test_same_padding_agrees_with_scipy():
    x, kernel = normal((7, 6)), normal((3, 3), 1)
    y = F.conv(x[..., None], kernel[..., None, None])[..., 0]
    expected = signal.correlate(np.asarray(x, "f8"), np.asarray(kernel, "f8"), "same")
    assert_close(y, expected, atol=1e-5)


def test_causal_padding_never_looks_ahead():
    x, kernel = normal((8, 2)), normal((3, 2, 2), 1)
    later = x.at[5:].add(100.0)
    before = F.conv(x, kernel, padding="CAUSAL", kernel_dilation=2)
    after = F.conv(later, kernel, padding="CAUSAL", kernel_dilation=2)
    assert before.shape == x.shape
    assert_close(before[:5], after[:5])
    assert not np.allclose(before[5:], after[5:])


def test_circular_padding_commutes_with_rotation():
    x, kernel = normal((6, 5, 2)), normal((3, 4, 2, 3), 1)
    rotated = F.conv(jnp.roll(x, (2, 3), (0, 1)), kernel, padding="CIRCULAR")
    y = F.conv(x, kernel, padding="CIRCULAR")
    assert_close(rotated, jnp.roll(y, (2, 3), (0, 1)))


@pytest.mark.parametrize(
    ("padding", "mode"), [("CIRCULAR", "wrap"), ("REFLECT", "reflect")]
)
def test_continued_paddings_are_those_of_numpy(padding, mode):
    x, kernel = normal((6, 2)), normal((4, 2, 3), 1)
    continued = np.pad(np.asarray(x), ((1, 2), (0, 0)), mode=mode)
    expected = F.conv(jnp.asarray(continued), kernel, padding="VALID", strides=2)
    assert_close(F.conv(x, kernel, padding=padding, strides=2), expected)


def test_one_number_pads_both_sides_of_every_axis():
    x, kernel = normal((5, 4, 1)), normal((3, 3, 1, 1), 1)
    one = F.conv(x, kernel, padding=2)
    assert_close(one, F.conv(x, kernel, padding=[2, 2]))
    assert_close(one, F.conv(x, kernel, padding=((2, 2), (2, 2))))


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,), (2, 0)])
def test_conv_takes_any_batch_axes(batch):
    x, kernel, bias = normal((*batch, 5, 2)), normal((3, 2, 4), 1), normal(4, 2)
    y = F.conv(x, kernel, bias)
    flat = x.reshape((math.prod(batch), 5, 2))
    rows = [F.conv(row, kernel) + bias[None] for row in flat]
    expected = np.reshape(np.asarray(rows), (*batch, 5, 4))
    assert_close(y, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_conv_in_half_precision(dtype):
    x, kernel = normal((6, 2), dtype=dtype), normal((3, 2, 4), 1, dtype)
    y = F.conv(x, kernel, strides=2)
    assert y.dtype == dtype
    wide = F.conv(x.astype("float32"), kernel.astype("float32"), strides=2)
    assert_close(y, wide, rtol=0.02, atol=0.02)
    assert F.conv(x, kernel, dtype=jnp.float32).dtype == jnp.float32


def test_gradients_of_conv_agree_with_differences():
    x, kernel = normal((2, 6, 5, 2)), normal((3, 2, 1, 4), 1)

    def loss(x, kernel):
        y = F.conv(x, kernel, strides=(2, 1), feature_group_count=2)
        return (y**2).sum()

    for argument in (0, 1):
        direction = normal((x, kernel)[argument].shape, 2)
        slope = jnp.vdot(jax.grad(loss, argument)(x, kernel), direction)
        ends = []
        for step in (1e-2, -1e-2):
            moved = [x, kernel]
            moved[argument] = moved[argument] + step * direction
            ends.append(loss(*moved))
        assert_close((ends[0] - ends[1]) / 2e-2, slope, rtol=1e-2)


@pytest.mark.parametrize(
    "options",
    [
        {"strides": 0},
        {"strides": (1, 1)},
        {"strides": 1.5},
        {"kernel_dilation": -1},
        {"input_dilation": "2"},
        {"padding": "same"},
        {"padding": [(1, 1), (1, 1)]},
        {"padding": [(1, 1, 1)]},
        {"padding": 0.5},
        {"padding": None},
        {"feature_group_count": 0},
        {"feature_group_count": 3},
        {"padding": "CIRCULAR", "input_dilation": 2},
        {"padding": "REFLECT", "input_dilation": 2},
    ],
)
def test_conv_refuses_options_without_a_meaning(options):
    with pytest.raises(ConfigError, match="LN-VALUE"):
        F.conv(normal((5, 2)), normal((3, 2, 4)), **options)


def test_conv_refuses_causal_images_and_offers_pairs():
    x, kernel = normal((6, 5, 1)), normal((3, 3, 1, 1), 1)
    with pytest.raises(ConfigError, match="one spatial axis") as caught:
        F.conv(x, kernel, padding="CAUSAL")
    scope = {"window": 3}
    exec(caught.value.fixes[0][1], scope)
    assert F.conv(x, kernel, padding=scope["padding"]).shape == (6, 3, 1)


@pytest.mark.parametrize(
    ("x", "kernel", "bias"),
    [
        ((5,), (3, 2, 4), None),
        ((5, 3), (3, 2, 4), None),
        ((2,), (2, 4), None),
        ((5, 2), (3, 2, 4), (2,)),
        ((), (3, 1, 1), None),
    ],
)
def test_conv_refuses_shapes_that_do_not_fit(x, kernel, bias):
    with pytest.raises(ShapeError, match="LN-SHAPE"):
        F.conv(normal(x), normal(kernel), None if bias is None else normal(bias))


def test_conv_refuses_raw_bytes():
    with pytest.raises(DTypeError, match="LN-DTYPE-01"):
        F.conv(jnp.zeros((5, 1), jnp.uint8), normal((3, 1, 1)))
