"""Pooling against PyTorch."""

import pytest

from helpers import normal
from interop.parity import assert_same, first
from linnet import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(("window", "strides"), [((3, 2), None), ((3, 3), (2, 1))])
def test_pools(window, strides, padding):
    x = normal((2, 9, 8, 3))
    functional = torch.nn.functional
    options = {"stride": strides, "padding": padding}
    cases = [
        ("max_pool", nn.max_pool, functional.max_pool2d, {}),
        ("avg_pool", nn.avg_pool, functional.avg_pool2d, {"count_include_pad": True}),
        ("avg_pool", nn.avg_pool, functional.avg_pool2d, {"count_include_pad": False}),
    ]
    for name, ours, theirs, extra in cases:

        def pool(_, x, ours=ours, extra=extra):
            return ours(x, window, strides, padding=padding, **extra)

        def their_pool(x, theirs=theirs, extra=extra):
            return theirs(x, window, **options, **extra)

        names = (name, f"torch.nn.functional.{name}2d")
        assert_same(names, pool, their_pool, {}, x, [], to_torch=first)
