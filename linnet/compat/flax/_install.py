"""`import flax` as another name of this package."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

HERE = "linnet.compat.flax"


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `flax.x` as the module `linnet.compat.flax.x`, one and the same."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "flax" and not name.startswith("flax."):
            return None
        real = HERE + name.removeprefix("flax")
        try:
            found = importlib.util.find_spec(real)
        except ModuleNotFoundError:
            found = None
        if found is None:
            return None
        is_package = found.submodule_search_locations is not None
        return importlib.machinery.ModuleSpec(name, self, is_package=is_package)

    def create_module(self, spec: Any) -> ModuleType:
        module = importlib.import_module(HERE + spec.name.removeprefix("flax"))
        # The import system writes the alias's spec and loader into what it is given.
        self._own: dict[str, Any] = {
            key: getattr(module, key, None)
            for key in ("__spec__", "__loader__", "__package__", "__path__", "__name__")
        }
        return module

    def exec_module(self, module: ModuleType) -> None:
        real = self._own["__spec__"].name
        for key, value in self._own.items():
            if value is not None:
                setattr(module, key, value)
        module.__name__ = real


_finder = _Finder()


def install() -> None:
    """Lets `import flax` find this package, in this process.

    Raises:
        RuntimeError: The genuine Flax has been imported already.
    """
    genuine = sys.modules.get("flax")
    if genuine is not None and genuine.__name__ != HERE:
        raise RuntimeError(
            "flax has been imported already, and modules of both would mix. Call "
            "linnet.compat.flax.install() before the first `import flax`, or run the "
            "program with `python -m linnet.compat.flax script.py`."
        )
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def uninstall() -> None:
    """Takes `install` back. What has been imported stays as it is."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    for name in [n for n in sys.modules if n == "flax" or n.startswith("flax.")]:
        if getattr(sys.modules[name], "__name__", "").startswith(HERE):
            del sys.modules[name]
