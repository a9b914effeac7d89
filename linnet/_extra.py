"""Packages that only some parts of Linnet need."""

import importlib
from typing import Any

from linnet._errors import ExtraError


def require(module: str, extra: str, what: str) -> Any:
    """Imports a module of an optional package.

    Args:
        module: Its dotted name.
        extra: The extra of Linnet that installs it.
        what: What needs it, as the subject of a sentence.

    Raises:
        ExtraError: It is not installed.
    """
    __tracebackhide__ = True
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ExtraError(
            f"{what} needs the package `{error.name}`, which is not installed.",
            code="LN-EXTRA-01",
            why="Linnet itself needs JAX, NumPy and Optax only.",
            fixes=[("run in a shell", f"# pip install 'linnet[{extra}]'")],
        ) from error
