"""Batches: Grain pipelines with a state that is saved, and arrays on devices."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from linnet._errors import ConfigError
from linnet._extra import require
from linnet._typing import ArrayLike, PyTree
from linnet.core._check import check_size


class Windows:
    """Windows of a long array of tokens, one after another, as a source for `loader`.

    Args:
        tokens: `[N]`.
        length: Of a window, in tokens.
        stride: From the beginning of one to that of the next; by default `length`.

    Example:
        >>> windows = training.Windows(np.arange(7), 3, stride=2)
        >>> len(windows), windows[1].tolist()
        (3, [2, 3, 4])
    """

    def __init__(
        self, tokens: ArrayLike, length: int, *, stride: int | None = None
    ) -> None:
        self.tokens = np.asarray(tokens)
        self.length = check_size("Windows", "length", length)
        self.stride = check_size("Windows", "stride", stride or length)

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - self.length) // self.stride + 1)

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        start = int(index) * self.stride
        return self.tokens[start : start + self.length]


class _Rows:
    """Arrays with one first axis, as a sequence of examples."""

    def __init__(self, arrays: PyTree) -> None:
        self.arrays = arrays
        sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(arrays)}
        if len(sizes) != 1 or sizes == {()}:
            raise ConfigError(
                "the arrays have not one number of examples.",
                code="LN-DATA-01",
                at="loader",
                facts={"first axes": ", ".join(str(list(s)) for s in sorted(sizes))},
                fixes=[
                    (
                        "the first axis counts examples",
                        "n = min(map(len, source.values()))\n"
                        "source = {name: x[:n] for name, x in source.items()}",
                    )
                ],
            )
        ((self.size,),) = sizes

    def __len__(self) -> int:
        return int(self.size)

    def __getitem__(self, index: int) -> PyTree:
        return jax.tree.map(lambda x: x[index], self.arrays)


def loader(
    source: Any,
    batch_size: int,
    *,
    seed: int = 0,
    shuffle: bool = True,
    epochs: int | None = None,
    transform: Callable[[Any], Any] | None = None,
    drop_remainder: bool = True,
    process: tuple[int, int] | None = None,
) -> Any:
    """Batches of examples, shuffled anew in each epoch, in an order that `seed` gives.

    A pipeline of Grain. Its iterator has `get_state()` and `set_state(state)`: what
    comes after a state is the same in another run, so that a checkpoint can hold it
    (`training.Save(..., data=iterator)`).

    Args:
        source: A pytree of arrays `[N, ...]`, a Hugging Face dataset, a data source of
            TensorFlow Datasets (`tfds.data_source`), `Windows`, or anything else with
            `len` and an index.
        batch_size: Examples in a batch of all processes together.
        seed: Of the order.
        shuffle: Whether there is one; if not, examples come as they are.
        epochs: How many times the source is gone through; `None` goes on without end.
        transform: A function of an example.
        drop_remainder: Whether a last batch that is not full is left out.
        process: `(index, count)`: which part of the source this process reads. By
            default JAX's, so that each process reads a part of its own.

    Returns:
        An iterable of batches, each like an example with one more axis in front. Of
        several processes each gets its part of the batch: see `training.prefetch`.

    Raises:
        ConfigError: The arrays differ in their number of examples, or the processes do
            not divide the batch.
        ExtraError: Grain is not installed.

    Example:
        >>> source = {"x": np.arange(6), "y": np.arange(6) ** 2}
        >>> batches = iter(training.loader(source, 2, seed=1))
        >>> first, state = next(batches), batches.get_state()
        >>> second = next(batches)
        >>> batches.set_state(state)
        >>> bool((next(batches)["x"] == second["x"]).all())
        True
    """
    __tracebackhide__ = True
    batch_size = check_size("loader", "batch_size", batch_size)
    grain = require("grain", "data", "`training.loader`")
    index, count = process or (jax.process_index(), jax.process_count())
    if batch_size % count:
        raise ConfigError(
            f"a batch of {batch_size} cannot be divided by {count} processes.",
            code="LN-DATA-02",
            at="loader",
            fixes=[
                ("it may be larger", f"batch_size = {-(-batch_size // count) * count}")
            ],
        )
    data = grain.MapDataset.source(_as_source(source)).seed(seed)
    data = data[index::count]
    if shuffle:
        data = data.shuffle()
    data = data.repeat(epochs)
    if transform is not None:
        data = data.map(transform)
    data = data.to_iter_dataset()
    return data.batch(batch_size // count, drop_remainder=drop_remainder)


def _as_source(source: Any) -> Any:
    if type(source).__module__.split(".")[0] == "datasets":
        return _Formatted(source.with_format("numpy"))
    is_tree = isinstance(source, Mapping | tuple | list) or hasattr(source, "shape")
    return _Rows(source) if is_tree else source


class _Formatted:
    """A Hugging Face dataset: dicts of arrays, by one of Python's own integers."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        row = self.dataset[int(index)]
        return {name: np.asarray(value) for name, value in row.items()}


class Prefetch:
    """An iterator that has the next batches on the devices already.

    Its state is that of the batch that was handed out last, not of those that wait.

    Args:
        batches: An iterable of pytrees of arrays.
        size: How many batches wait.
        sharding: For each array of a batch, or one for all, as `parallel.shardings`
            gives them. The batches are then parts of a whole, one of each process.

    Example:
        >>> batches = training.loader(np.arange(8.0), 2, shuffle=False)
        >>> batches = training.Prefetch(batches)
        >>> next(batches)
        Array([0., 1.], dtype=float32)
    """

    def __init__(
        self, batches: Iterable[Any], *, size: int = 2, sharding: PyTree = None
    ) -> None:
        self.size = check_size("Prefetch", "size", size)
        self.sharding = sharding
        self._source = iter(batches)
        self._waiting: collections.deque[tuple[Any, Any]] = collections.deque()
        self._state = self._source_state()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while len(self._waiting) <= self.size:
            try:
                batch = self._placed(next(self._source))
            except StopIteration:
                break
            self._waiting.append((batch, self._source_state()))
        if not self._waiting:
            raise StopIteration
        batch, self._state = self._waiting.popleft()
        return batch

    def get_state(self) -> Any:
        """The state from which the batch after the last one handed out follows."""
        return self._state

    def set_state(self, state: Any) -> None:
        """Goes on from a state.

        Args:
            state: Of `get_state`, in this run or another.
        """
        self._source.set_state(state)  # type: ignore[attr-defined]
        self._waiting.clear()
        self._state = state

    def _source_state(self) -> Any:
        get_state = getattr(self._source, "get_state", None)
        return get_state() if get_state else None

    def _placed(self, batch: Any) -> Any:
        if self.sharding is None:
            return jax.tree.map(jax.device_put, batch)
        return jax.tree.map(
            lambda sharding, part: jax.tree.map(
                lambda x: jax.make_array_from_process_local_data(sharding, x), part
            ),
            self.sharding,
            batch,
        )
