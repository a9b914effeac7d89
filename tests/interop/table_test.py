"""The table of accuracy names every layer, and says what was measured."""

import inspect
import re

import numpy as np
import pytest

import house
from interop import parity
from linnet import nn

PAGE = house.ROOT / "docs" / "accuracy.md"
ROW = re.compile(r"^\| `([^`]+)` \| `([^`]+)` \| (\S*) ?\| (\S*) ?\|$", re.MULTILINE)
WITHOUT_ORACLE = {
    "Stack": "repeats a layer",
    "Ensemble": "repeats a model",
    "Sequential": "calls layers",
    "Dropout": "is random",
    "DropPath": "is random",
    "KVCache": "holds what attention gives it",
    "CacheIndex": "counts",
}


def rows():
    return ROW.findall(PAGE.read_text("utf-8"))


def layers():
    return {
        name
        for name, value in vars(nn).items()
        if inspect.isclass(value)
        and issubclass(value, nn.Module)
        and value is not nn.Module
    }


def test_every_layer_is_in_the_table():
    accept = "run `make accuracy` and commit the difference"
    named = {word for name, *_ in rows() for word in re.findall(r"\w+", name)}
    assert layers() - named == set(WITHOUT_ORACLE), accept


def test_no_error_in_the_table_is_above_one_in_a_hundred_thousand():
    errors = [float(error) for *_, a, b in rows() for error in (a, b) if error]
    assert len(errors) > 10
    assert max(errors) <= 1e-5


def test_the_page_is_made_of_what_was_measured(monkeypatch):
    monkeypatch.setattr(parity, "ERRORS", {})
    about = "Dense", "torch.nn.Linear", "values"
    parity.assert_agrees(*about, np.array(2.000001), np.array(2.0))
    parity.assert_agrees(*about, np.array(2.0), np.array(2.0))
    assert parity.page().splitlines()[-1] == (
        "| `Dense` | `torch.nn.Linear` | 5.0e-07 |  |"
    )
    assert ROW.findall(parity.page()) == [("Dense", "torch.nn.Linear", "5.0e-07", "")]
    with pytest.raises(AssertionError, match="Dense and torch"):
        parity.assert_agrees(*about, np.array(2.0), np.array(2.1))
    with pytest.raises(AssertionError, match="shape"):
        parity.assert_agrees(*about, np.array([2.0]), np.array(2.0))
