"""Metrics: pytrees that a step returns, and that merge over steps and devices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from linnet._errors import ShapeError, describe
from linnet._typing import Array, ArrayLike, PyTree
from linnet.core._check import check_size

M = TypeVar("M", bound="Mean")
Sum = tuple[Array, Array]  # a sum, and what rounding took from it


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean of what a mask admits, over any number of steps.

    Total and count are each kept in two float32 numbers, of which the second has what
    the first rounds away: counts are exact up to 2^48.

    Args:
        total: Sum of the values, and what is to be added to it.
        count: How many they are, or the sum of their weights, likewise.

    Example:
        >>> a = training.Mean.of(jnp.array([1.0, 2.0]))
        >>> b = training.Mean.of(jnp.array([6.0, 9.0]), mask=jnp.array([True, False]))
        >>> a.merge(b).compute()
        3.0
    """

    total: Sum
    count: Sum

    @classmethod
    def of(
        cls: type[M],
        values: ArrayLike | float,
        weights: ArrayLike | float | None = None,
        *,
        mask: ArrayLike | None = None,
    ) -> M:
        """From values of one step.

        Args:
            values: Of any shape.
            weights: What each value counts, as a number of bytes; 1 by default. Values
                are then totals, and not multiplied by them.
            mask: Booleans like `values`; `False` does not count.

        Raises:
            ShapeError: They have not one shape.
        """
        __tracebackhide__ = True
        values = jnp.asarray(values, jnp.float32)
        weights = jnp.ones_like(values) if weights is None else weights
        weights = jnp.asarray(weights, jnp.float32)
        admitted = jnp.ones(values.shape, bool) if mask is None else jnp.asarray(mask)
        if not values.shape == weights.shape == admitted.shape:
            raise ShapeError(
                "values, weights and mask have not one shape.",
                code="LN-SHAPE-01",
                at=cls.__name__,
                facts={
                    "values": describe(values),
                    "weights": describe(weights),
                    "mask": describe(admitted),
                },
                fixes=[
                    (
                        "every value counts",
                        f"metric = training.{cls.__name__}.of(values)",
                    )
                ],
            )
        zero = jnp.float32(0)
        admitted = admitted.astype(bool)
        return cls(
            (jnp.sum(values, where=admitted), zero),
            (jnp.sum(weights, where=admitted), zero),
        )

    def merge(self: M, other: M) -> M:
        """The metric of both.

        Args:
            other: Of the same kind.
        """
        total, count = _added(self.total, other.total), _added(self.count, other.count)
        return type(self)(total, count)

    def psum(self: M, axis_name: str | tuple[str, ...]) -> M:
        """The metric of all indices of a mapped axis, as in `jax.shard_map`.

        Args:
            axis_name: Of the axis, or several.
        """
        total, count = jax.lax.psum((self.total, self.count), axis_name)
        return type(self)(total, count)

    def mean(self) -> float:
        """The mean, and NaN of nothing."""
        total, count = _float(self.total), _float(self.count)
        return total / count if count else math.nan

    def compute(self) -> float:
        """What is shown."""
        return self.mean()


class Perplexity(Mean):
    """The exponential of the mean loss in nats per token.

    Args:
        total: As for `Mean`.
        count: As for `Mean`.
    """

    def compute(self) -> float:
        """What is shown."""
        return float(np.exp(self.mean()))


class BitsPerByte(Mean):
    """The loss in bits for each byte of text, whatever the tokens are.

    Made by `BitsPerByte.of(nats, bytes)`: losses of tokens in nats, and how many bytes
    of text each token stands for.

    Args:
        total: As for `Mean`.
        count: As for `Mean`.

    Example:
        >>> nats, count = jnp.log(2.0) * jnp.array([8.0, 4.0]), jnp.array([4, 2])
        >>> round(training.BitsPerByte.of(nats, count).compute(), 4)
        2.0
    """

    def compute(self) -> float:
        """What is shown."""
        return self.mean() / math.log(2)


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How often each class was taken for each.

    Args:
        counts: `[C, C]`, int32: by the true class, then by the predicted one.

    Example:
        >>> labels, predictions = jnp.array([0, 1, 1]), jnp.array([0, 1, 0])
        >>> training.Confusion.of(predictions, labels, 2).compute()
        array([[1, 0],
               [1, 1]], dtype=int32)
    """

    counts: Array

    @classmethod
    def of(
        cls,
        predictions: ArrayLike,
        labels: ArrayLike,
        num_classes: int,
        *,
        mask: ArrayLike | None = None,
    ) -> Confusion:
        """From predictions of one step.

        Args:
            predictions: Classes of any shape, integers.
            labels: The true ones.
            num_classes: Number C of them.
            mask: Booleans like `labels`; `False` does not count.
        """
        size = check_size(cls.__name__, "num_classes", num_classes)
        cell = jnp.ravel(jnp.asarray(labels) * size + jnp.asarray(predictions))
        weights = jnp.ones(cell.shape, jnp.int32)
        if mask is not None:
            weights = jnp.ravel(jnp.asarray(mask)).astype(jnp.int32)
        counts = jnp.zeros(size * size, jnp.int32).at[cell].add(weights, mode="drop")
        return cls(counts.reshape(size, size))

    def merge(self, other: Confusion) -> Confusion:
        """The metric of both.

        Args:
            other: Of as many classes.
        """
        return Confusion(self.counts + other.counts)

    def psum(self, axis_name: str | tuple[str, ...]) -> Confusion:
        """The metric of all indices of a mapped axis.

        Args:
            axis_name: Of the axis, or several.
        """
        return Confusion(jax.lax.psum(self.counts, axis_name))

    def compute(self) -> np.ndarray:
        """The counts on the host."""
        return np.asarray(self.counts)


for _cls in (Mean, Perplexity, BitsPerByte):
    jax.tree_util.register_dataclass(_cls, ["total", "count"], [])
jax.tree_util.register_dataclass(Confusion, ["counts"], [])


def accuracy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    top_k: int = 1,
    mask: ArrayLike | None = None,
) -> Mean:
    """How often the label is among the largest logits.

    Args:
        logits: `[..., C]`.
        labels: `[...]`, integers.
        top_k: How many of the largest logits count.
        mask: `[...]`, booleans; `False` does not count.

    Example:
        >>> logits = jnp.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]])
        >>> labels = jnp.array([1, 2])
        >>> training.accuracy(logits, labels).compute()
        0.5
        >>> training.accuracy(logits, labels, top_k=2).compute()
        1.0
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    own = jnp.take_along_axis(logits, labels[..., None], -1)
    place = jnp.arange(logits.shape[-1]).reshape((1,) * labels.ndim + (-1,))
    # Of equal logits the one with the smaller index comes first, as in `argmax`.
    before = (logits > own) | ((logits == own) & (place < labels[..., None]))
    return Mean.of(jnp.sum(before, -1) < top_k, mask=mask)


def throughput(items: ArrayLike | float, seconds: float) -> Mean:
    """Items a second.

    Args:
        items: How many were done.
        seconds: In which time.
    """
    return Mean.of(items, seconds)


def flops_utilization(flops: float, seconds: float, peak: float) -> Mean:
    """The part of a device's arithmetic that a model's own operations took.

    Args:
        flops: Operations of the model in this time, without those of recomputing.
        seconds: The time.
        peak: Operations a second of all devices at best.

    Example:
        >>> round(training.flops_utilization(6e12, 0.02, 989e12).compute(), 3)
        0.303

    Source: Chowdhery et al., "PaLM", 2022, appendix B, arXiv:2204.02311.
    """
    return Mean.of(flops / peak, seconds)


def merge(a: PyTree, b: PyTree) -> PyTree:
    """Metrics of two steps as those of both, name by name.

    Args:
        a: A pytree of metrics.
        b: Another one of the same structure.
    """
    return jax.tree.map(lambda x, y: x.merge(y), a, b, is_leaf=is_metric)


def compute(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown of each metric. Plain arrays are shown as they are.

    Args:
        metrics: By name.
    """
    host = jax.device_get(dict(metrics))
    return {n: m.compute() if is_metric(m) else _plain(m) for n, m in host.items()}


def is_metric(value: Any) -> bool:
    """Whether this has the methods of one."""
    return hasattr(value, "merge") and hasattr(value, "compute")


def _plain(value: Any) -> Any:
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _added(a: Sum, b: Sum) -> Sum:
    """The sum of two, with what rounding takes from it (Knuth's two-sum)."""
    (x, low), (y, other) = a, b
    high = x + y
    part = high - x
    lost = (x - (high - part)) + (y - part)
    return high, low + other + lost


def _float(pair: Sum) -> float:
    high, low = pair
    return float(high) + float(low)
