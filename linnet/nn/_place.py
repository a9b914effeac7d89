"""How errors of the mathematics learn where they happened."""

import types
from typing import Any

from linnet._errors import LinnetError
from linnet.core._locate import locate


class placed:
    """Adds the module's path to an error that `linnet.functional` raises inside."""

    __slots__ = ("module",)

    def __init__(self, module: Any) -> None:
        self.module = module

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        if isinstance(error, LinnetError) and error.at is None:
            error.at = locate(self.module)
