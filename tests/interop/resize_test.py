"""Adaptive pools, resizing and pixel shuffling against PyTorch."""

import pytest

from helpers import normal
from interop.parity import assert_same, first
from linnet import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")


def assert_agrees_with(name, oracle, ours, theirs, x):
    names = (name, f"torch.nn.functional.{oracle}")
    assert_same(names, lambda _, x: ours(x), theirs, {}, x, [], to_torch=first)


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (5, 7), (7, 3), (9, 8)])
def test_adaptive_pools(shape):
    x, functional = normal((2, 9, 8, 3)), torch.nn.functional
    pools = [
        ("adaptive_avg_pool", nn.adaptive_avg_pool, functional.adaptive_avg_pool2d),
        ("adaptive_max_pool", nn.adaptive_max_pool, functional.adaptive_max_pool2d),
    ]
    for name, ours, theirs in pools:
        assert_agrees_with(
            name,
            f"{name}2d",
            lambda x, ours=ours: ours(x, shape),
            lambda x, theirs=theirs: theirs(x, shape),
            x,
        )


@pytest.mark.parametrize("shape", [(4, 3), (12, 11), (5, 16)])
@pytest.mark.parametrize(
    ("method", "mode", "antialias"),
    [
        ("nearest", "nearest-exact", False),
        ("linear", "bilinear", False),
        ("linear", "bilinear", True),
        ("cubic", "bicubic", True),
    ],
)
def test_resize(shape, method, mode, antialias):
    x = normal((2, 8, 7, 3))
    assert_agrees_with(
        "resize",
        "interpolate",
        lambda x: nn.resize(x, shape, method=method, antialias=antialias),
        lambda x: torch.nn.functional.interpolate(
            x, shape, mode=mode, antialias=antialias
        ),
        x,
    )


def test_pixel_shuffle():
    functional = torch.nn.functional
    assert_agrees_with(
        "pixel_shuffle",
        "pixel_shuffle",
        lambda x: nn.pixel_shuffle(x, (2, 2)),
        lambda x: functional.pixel_shuffle(x, 2),
        normal((2, 3, 4, 8)),
    )
    assert_agrees_with(
        "pixel_unshuffle",
        "pixel_unshuffle",
        lambda x: nn.pixel_unshuffle(x, (2, 2)),
        lambda x: functional.pixel_unshuffle(x, 2),
        normal((2, 6, 4, 3)),
    )
