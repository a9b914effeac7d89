"""conv_local: its definition, its relation to conv, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError, ShapeError

OPTIONS = [
    ((9,), (3,), {}),
    ((9,), (3,), {"strides": 2, "padding": "VALID"}),
    ((9,), (4,), {"padding": "CAUSAL", "kernel_dilation": 2}),
    ((9,), (4,), {"padding": "CIRCULAR", "strides": 2}),
    ((9,), (4,), {"padding": "REFLECT"}),
    ((5,), (3,), {"input_dilation": 2}),
    ((8, 7), (3, 2), {"strides": (2, 1), "padding": [(1, 0), (2, 2)]}),
    ((5, 4, 3), (2, 3, 1), {"kernel_dilation": (1, 2, 1), "padding": 1}),
    ((0,), (3,), {}),
]


@pytest.mark.parametrize(("sizes", "window", "options"), OPTIONS, ids=str)
def test_with_one_kernel_for_all_positions_it_is_conv(sizes, window, options):
    x, kernel, bias = normal((2, *sizes, 2)), normal((*window, 2, 3), 1), normal(3, 2)
    expected = F.conv(x, kernel, bias, **options)
    positions = expected.shape[1:-1]
    kernels = jnp.broadcast_to(kernel, (*positions, *kernel.shape))
    biases = jnp.broadcast_to(bias, (*positions, 3))
    y = F.conv_local(x, kernels, biases, **options)
    assert_close(y, expected, atol=1e-5)


def test_each_position_has_its_own_kernel():
    x, kernel = normal((5, 6, 2)), normal((3, 5, 3, 2, 2, 4), 1)
    bias = normal((3, 5, 4), 2)
    y = F.conv_local(x, kernel, bias, padding="VALID")
    for i in range(3):
        for j in range(5):
            window = np.asarray(x[i : i + 3, j : j + 2], np.float64)
            own = np.asarray(kernel[i, j], np.float64)
            expected = np.tensordot(window, own, 3) + np.asarray(bias[i, j])
            assert_close(y[i, j], expected, atol=1e-5)


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
def test_it_takes_any_batch_axes(batch):
    x, kernel = normal((*batch, 5, 2)), normal((5, 3, 2, 4), 1)
    y = F.conv_local(x, kernel)
    flat = x.reshape((-1, 5, 2)) if x.size else x.reshape((0, 5, 2))
    rows = [F.conv_local(row, kernel) for row in flat]
    assert_close(y, np.reshape(np.asarray(rows), (*batch, 5, 4)), atol=1e-5)


def test_gradients_agree_with_differences():
    x, kernel = normal((6, 2)), normal((3, 3, 2, 2), 1)

    def loss(x, kernel):
        return (F.conv_local(x, kernel, strides=2) ** 2).sum()

    for argument in (0, 1):
        direction = normal((x, kernel)[argument].shape, 2)
        slope = jnp.vdot(jax.grad(loss, argument)(x, kernel), direction)
        ends = []
        for step in (1e-2, -1e-2):
            moved = [x, kernel]
            moved[argument] = moved[argument] + step * direction
            ends.append(loss(*moved))
        assert_close((ends[0] - ends[1]) / 2e-2, slope, rtol=1e-2)


def test_half_precision():
    x, kernel = normal((6, 2), dtype="bfloat16"), normal((6, 3, 2, 4), 1, "bfloat16")
    y = F.conv_local(x, kernel)
    assert y.dtype == "bfloat16"
    wide = F.conv_local(x.astype("float32"), kernel.astype("float32"))
    assert_close(y, wide, rtol=0.03, atol=0.03)


@pytest.mark.parametrize(
    ("x", "kernel", "bias", "text"),
    [
        ((5, 2), (4, 3, 2, 4), None, r"has \[5\] positions in `x`"),
        ((5, 3), (5, 3, 2, 4), None, "has 3 features"),
        ((5, 2), (3, 2, 4), None, "`kernel` has 3 axes"),
        ((5, 2), (5, 5, 3, 2, 4), None, "`kernel` has 5 axes"),
        ((2,), (5, 3, 2, 4), None, "`x` has 1 axes"),
        ((5, 2), (5, 3, 2, 4), (4,), "`bias` has shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(x, kernel, bias, text):
    bias = None if bias is None else normal(bias)
    with pytest.raises(ShapeError, match=text):
        F.conv_local(normal(x), normal(kernel), bias)


def test_images_are_not_causal():
    with pytest.raises(ConfigError, match="one spatial axis"):
        F.conv_local(normal((2, 2, 1)), normal((2, 2, 1, 1, 1, 1)), padding="CAUSAL")
