"""Frames of the library in tracebacks."""

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


def hide_flax_in_tracebacks() -> None:
    """Leaves frames of this package out of tracebacks that JAX filters."""
    for path in _paths():
        if path not in _jax._exclude_paths:
            _jax._exclude_paths.append(path)


def show_flax_in_tracebacks() -> None:
    """Shows frames of this package."""
    for path in _paths():
        if path in _jax._exclude_paths:
            _jax._exclude_paths.remove(path)


def _paths() -> list[str]:
    import pathlib

    here = pathlib.Path(__file__).parent
    return [str(path) for path in here.rglob("*.py")]
