"""Files, by the functions that checkpoints use. They are plain files."""

import contextlib
import enum
import glob as _glob
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

__all__ = [
    "BackendMode",
    "GFile",
    "NotFoundError",
    "copy",
    "exists",
    "getsize",
    "glob",
    "io_mode",
    "isdir",
    "listdir",
    "makedirs",
    "override_mode",
    "remove",
    "rename",
    "rmtree",
    "set_mode",
]


class BackendMode(enum.Enum):
    """Which library opens files. Here it is always Python's own."""

    DEFAULT = 0
    TF = 1


io_mode = BackendMode.DEFAULT
NotFoundError = FileNotFoundError
_AlreadyExists = FileExistsError


@contextlib.contextmanager
def override_mode(override: BackendMode) -> Iterator[None]:
    """A context in which the mode is another; files are opened in the same way."""
    before = io_mode
    set_mode(override)
    try:
        yield
    finally:
        set_mode(before)


def set_mode(override: BackendMode) -> None:
    """Sets the mode; files are opened in the same way."""
    global io_mode
    io_mode = override


def GFile(name: Any, mode: str) -> Any:
    """An open file."""
    return open(name, mode)


def listdir(path: Any) -> list[str]:
    """The names in a folder."""
    return os.listdir(path)


def isdir(path: Any) -> bool:
    """Whether it is a folder."""
    return os.path.isdir(path)


def exists(path: Any) -> bool:
    """Whether it exists."""
    return os.path.exists(path)


def makedirs(path: Any) -> None:
    """Makes a folder, and those above it."""
    os.makedirs(path, exist_ok=True)


def glob(pattern: Any) -> list[str]:
    """The paths that match."""
    return _glob.glob(os.fspath(pattern))


def remove(path: Any) -> None:
    """Removes a file."""
    os.remove(path)


def rmtree(path: Any) -> None:
    """Removes a folder with all in it."""
    shutil.rmtree(path)


def getsize(path: Any) -> int:
    """Bytes of a file, or of all in a folder."""
    if os.path.isdir(path):
        files = pathlib.Path(path).rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file())
    return os.path.getsize(path)


def copy(src: Any, dst: Any, overwrite: bool = False) -> None:
    """Copies a file.

    Raises:
        AlreadyExistsError: The new one exists, and may not be overwritten.
    """
    _refuse_existing(dst, overwrite)
    shutil.copy(src, dst)


def rename(src: Any, dst: Any, overwrite: bool = False) -> None:
    """Renames a file or a folder.

    Raises:
        AlreadyExistsError: The new one exists, and may not be overwritten.
    """
    _refuse_existing(dst, overwrite)
    if overwrite and os.path.isdir(dst):
        shutil.rmtree(dst)
    os.replace(src, dst)


def _refuse_existing(path: Any, overwrite: bool) -> None:
    from linnet.compat.flax import errors

    if os.path.exists(path) and not overwrite:
        raise errors.AlreadyExistsError(path)
