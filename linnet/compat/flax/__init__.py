"""Flax's Linen API, import-compatible: existing code runs, and is moved by and by.

Either import from here, `from linnet.compat.flax import linen as nn`; or let programs
that import `flax` find this package under that name:

    python -m linnet.compat.flax script.py
"""

import importlib
from typing import Any

from linnet.compat.flax import configurations, version
from linnet.compat.flax._install import install, uninstall
from linnet.compat.flax.configurations import config

__version__ = version.__version__

_MODULES = (
    "core",
    "cursor",
    "errors",
    "ids",
    "io",
    "jax_utils",
    "linen",
    "metrics",
    "nnx",
    "serialization",
    "struct",
    "traceback_util",
    "training",
    "traverse_util",
    "typing",
)
__all__ = ["__version__", "config", "configurations", "install", "uninstall", *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
