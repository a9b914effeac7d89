"""Linnet's public API: modules, their effects, and the layers."""

from linnet._errors import (
    ConfigError,
    DTypeError,
    FrozenError,
    InitError,
    LinnetError,
    PathError,
    RoleError,
    ScopeError,
    ShapeError,
    TreeError,
)
from linnet.core import *  # noqa: F403
from linnet.functional import initializers
from linnet.nn._conv import Conv
from linnet.nn._dropout import Dropout
from linnet.nn._embed import Embed
from linnet.nn._linear import Dense
from linnet.nn._norm import BatchNorm, LayerNorm
from linnet.nn._sequential import Sequential
