"""Convolutions against Flax Linen: what PyTorch has not, and its named paddings."""

import flax.linen
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import normal
from interop.linen import assert_same
from interop.parity import SPREAD, made
from linnet import nn

TRANSPOSED = [
    ((2, 5, 3), (3,), {"strides": 2}),
    ((2, 5, 3), (4,), {"strides": 3, "kernel_dilation": 2}),
    ((2, 5, 3), (2,), {"strides": 3, "padding": "VALID"}),
    ((2, 5, 3), (5,), {"strides": 2, "padding": "VALID", "transpose_kernel": True}),
    ((2, 5, 3), (4,), {"strides": 2, "padding": "CIRCULAR"}),
    ((2, 5, 4, 3), (3, 5), {"strides": (1, 3), "padding": "CIRCULAR"}),
    ((5, 4, 3), (3, 3), {"strides": 2, "use_bias": False}),
]


@pytest.mark.parametrize(("shape", "window", "options"), TRANSPOSED, ids=str)
def test_conv_transpose(shape, window, options):
    x = normal(shape)
    model = made(nn.ConvTranspose(4, window, bias_init=SPREAD, **options), x)
    dilation = {"kernel_dilation", "strides"} & options.keys()
    theirs = options | {
        name: np.broadcast_to(options[name], len(window)).tolist() for name in dilation
    }
    linen = flax.linen.ConvTranspose(4, window, **theirs)
    names = ("ConvTranspose", "flax.linen.ConvTranspose")
    assert_same(names, model, linen, x)


LOCAL = [
    ((2, 7, 3), (3,), {}),
    ((2, 7, 3), (3,), {"strides": 2, "padding": "VALID"}),
    ((2, 7, 3), (2,), {"padding": "CAUSAL", "kernel_dilation": 2}),
    ((2, 6, 5, 3), (3, 2), {"padding": "CIRCULAR"}),
    ((6, 5, 3), (3, 2), {"padding": [(1, 0), (0, 1)], "use_bias": False}),
]


@pytest.mark.parametrize(("shape", "window", "options"), LOCAL, ids=str)
def test_conv_local(shape, window, options):
    x = normal(shape)
    model = made(nn.ConvLocal(4, window, bias_init=SPREAD, **options), x)
    linen = flax.linen.ConvLocal(4, window, **options)

    def layout(arrays):
        """The kernel as [*positions, in * window, out], as Linen has it."""
        kernel, spatial = arrays["kernel"], len(window)
        kernel = jnp.moveaxis(kernel, -2, spatial)
        shape = (*kernel.shape[:spatial], -1, kernel.shape[-1])
        return arrays | {"kernel": kernel.reshape(shape)}

    assert_same(("ConvLocal", "flax.linen.ConvLocal"), model, linen, x, layout)


def autoregressive(size):
    """Entries of a 2-d window before its centre, in the order of reading."""
    before = np.arange(size * size) < size * size // 2
    return before.reshape(size, size, 1, 1)


@pytest.mark.parametrize("transposed", [False, True])
def test_masks(transposed):
    x, mask = normal((2, 5, 4, 3)), autoregressive(3)
    ours, theirs = nn.Conv, flax.linen.Conv
    if transposed:
        ours, theirs = nn.ConvTranspose, flax.linen.ConvTranspose
    model = made(ours(4, (3, 3), mask=mask, bias_init=SPREAD), x)
    linen = theirs(4, (3, 3), mask=np.broadcast_to(mask, (3, 3, 3, 4)))
    name = theirs.__name__
    assert_same((f"{name} with a mask", f"flax.linen.{name}"), model, linen, x)


def test_dense_with_a_mask():
    x, mask = normal((5, 4)), np.tri(4, 3, dtype=bool)
    model = made(nn.Dense(3, mask=mask, bias_init=SPREAD), x)

    class Masked(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x):
            conv = flax.linen.Conv(3, (1,), mask=mask[None], name="dense")
            return conv(x[:, None])[:, 0]

    def layout(arrays):
        return {"dense": arrays | {"kernel": arrays["kernel"][None]}}

    names = ("Dense with a mask", "flax.linen.Conv")
    assert_same(names, model, Masked(), x, layout)
