"""What is at work in this thread: open modules, interceptors, filters, call records."""

import threading
from collections.abc import Callable, Iterator
from typing import Any


class ThreadLocalStack(threading.local):
    """A stack for each thread."""

    def __init__(self) -> None:
        self._storage: list[Any] = []

    def push(self, elem: Any) -> None:
        """Puts an element on top."""
        self._storage.append(elem)

    def pop(self) -> Any:
        """Takes the top element off."""
        return self._storage.pop()

    def __iter__(self) -> Iterator[Any]:
        """From the top down."""
        return iter(reversed(self._storage))

    def __len__(self) -> int:
        return len(self._storage)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._storage})"


class _Context(threading.local):
    def __init__(self) -> None:
        self.module_stack: list[Any] = [None]
        self.capture_stack: list[Callable[[Any, str], bool] | None] = []
        self.call_info_stack: list[Any] = []

    def __reduce__(self) -> str:
        return "context"  # Of the process that loads what refers to it.


class _Interceptors(ThreadLocalStack):
    def __reduce__(self) -> str:
        return "interceptors"


context = _Context()
interceptors = _Interceptors()
