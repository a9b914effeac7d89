"""Identities that survive copies."""

import itertools
from typing import Any

__all__ = ["FlaxId", "UUIDManager", "uuid"]


class UUIDManager:
    """Makes identities, each of them once in this process."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)  # Threads never get the same number.

    def __call__(self) -> "FlaxId":
        """The next identity."""
        return FlaxId(next(self._ids))


class FlaxId:
    """An identity. A copy gets a new one.

    Args:
        rawid: Its number.
    """

    __slots__ = ("id",)

    def __init__(self, rawid: int):
        self.id = rawid

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FlaxId) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"FlaxId({self.id})"

    def __copy__(self) -> "FlaxId":
        return uuid()

    def __deepcopy__(self, memo: Any) -> "FlaxId":
        del memo
        return uuid()


uuid = UUIDManager()
