"""Dropout against PyTorch."""

import numpy as np
import pytest

from helpers import assert_close, normal
from interop.parity import KEY
from linnet import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")


def test_dropout_scales_as_theirs_does():
    x = normal((100,)) + 10
    layer = torch.nn.Dropout(0.25)
    theirs = layer(torch.tensor(np.asarray(x))).numpy()
    ours = np.asarray(nn.training(nn.Dropout(0.25), KEY)(x)[0])
    kept = (ours != 0) & (theirs != 0)
    assert kept.sum() > 20
    assert_close(ours[kept], theirs[kept])
