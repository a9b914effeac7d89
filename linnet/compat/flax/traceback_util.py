"""Frames of the library in tracebacks.

JAX leaves its own frames out of tracebacks, where an error leaves one of its functions
that are marked as a boundary. `Module.init` and `apply` are such boundaries, too, and
the files of this package count as JAX's.
"""

import pathlib

from jax._src import traceback_util as _jax
from jax._src.traceback_util import api_boundary, register_exclusion

from linnet.compat.flax.configurations import config

__all__ = [
    "api_boundary",
    "config",
    "hide_flax_in_tracebacks",
    "register_exclusion",
    "show_flax_in_tracebacks",
]

_flax_exclusions = {str(p) for p in pathlib.Path(__file__).parent.rglob("*.py")}


def hide_flax_in_tracebacks() -> None:
    """Leaves frames of this package out of tracebacks that JAX filters."""
    paths = _jax._exclude_paths
    paths.extend(sorted(_flax_exclusions.difference(paths)))


def show_flax_in_tracebacks() -> None:
    """Shows frames of this package."""
    _jax._exclude_paths[:] = [
        path for path in _jax._exclude_paths if path not in _flax_exclusions
    ]


if config.flax_filter_frames:
    hide_flax_in_tracebacks()
