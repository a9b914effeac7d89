"""Making batches ahead, in a thread."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["PrefetchIterator"]

_END = object()


class PrefetchIterator:
    """Takes items of an iterator in a thread, before they are asked for.

    Args:
        data_iter: The iterator.
        buffer_size: The number of items that are made ahead.
    """

    def __init__(self, data_iter: Iterator[Any], buffer_size: int = 1):
        self._data_iter = data_iter
        self._items: queue.Queue[Any] = queue.Queue(buffer_size)
        self._is_open = True
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __iter__(self) -> "PrefetchIterator":
        return self

    def __next__(self) -> Any:
        if not self._is_open:
            raise StopIteration
        item = self._items.get()
        if item is _END:
            self._is_open = False
            if self._error is not None:
                raise self._error
            raise StopIteration
        return item

    def close(self) -> None:
        """Ends the thread. No item follows."""
        self._is_open = False
        while not self._items.empty():
            self._items.get_nowait()

    def _run(self) -> None:
        try:
            for item in self._data_iter:
                if not self._put(item):
                    return
        except Exception as error:
            self._error = error
        self._put(_END)

    def _put(self, item: Any) -> bool:
        while self._is_open:
            try:
                self._items.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
