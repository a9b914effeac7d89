"""Packages of extras are imported where they are used, and missed politely."""

import pytest

from linnet import nn
from linnet._extra import require


def test_a_missing_package_is_an_import_error_that_names_the_extra():
    with pytest.raises(
        ImportError, match=r"(?s)no_such_package.*linnet\[data\]"
    ) as info:
        require("no_such_package.part", "data", "this")
    assert info.type is nn.ExtraError


def test_an_installed_package_is_given():
    assert require("rich.progress", "logging", "this").Progress
