"""Recurrent cells over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from linnet._errors import ConfigError, ShapeError, describe
from linnet._typing import Array, ArrayLike, DType, PyTree
from linnet.core import Module, scan
from linnet.core._check import check_option, check_size
from linnet.core._locate import locate
from linnet.functional._dtype import as_array, integer
from linnet.nn._carry import CarryCache, no_cache_of_images, steps_taken
from linnet.nn._cell import Cell

Step = Callable[[PyTree, PyTree], tuple[PyTree, Array]]


class RNN(Module):
    """Runs a cell over the time axis, which is the one before the features.

    A cell is any module with `cell(carry, x) -> (carry, y)` and with
    `cell.initial_carry(x)`, of which `x` (the input at one time, or its shape and
    dtype) tells the batch. `cell.num_feature_axes` says how many axes of `x` are no
    batch and no time, if there are more than the last. A cell that also has
    `project(x)` and `step(carry, projected)`, as those of Linnet do, with
    `cell(carry, x) == cell.step(carry, cell.project(x))`, projects `unroll` steps by
    one product.

    Args:
        cell: The cell.
        reverse: Whether to go from the last time to the first. The outputs stay at
            the times of their inputs.
        return_carry: Whether a call returns the last carry as well.
        unroll: Steps in one iteration of the loop.

    Parameters:
        cell: Those of the cell.
        cache: The carry, where `nn.with_cache` put one.

    Shapes:
        x: `[..., T, I]`  ->  `[..., T, H]`, any number of batch axes, or none.

    Raises:
        ConfigError: `cell` has no `initial_carry`, or `unroll` is no positive integer.
        DTypeError: `x` holds no floating numbers, or `lengths` no integers.
        ShapeError: `x`, the carry, `lengths` or `mask` do not fit.

    Example:
        >>> x = jnp.ones((8, 5, 3))
        >>> rnn = nn.init(nn.RNN(nn.LSTMCell(4)), jax.random.key(0), x)
        >>> rnn(x).shape
        (8, 5, 4)
        >>> short = rnn(x, lengths=jnp.arange(8) % 5)
        >>> (short != 0).all(-1).sum(-1)  # steps that count
        Array([0, 1, 2, 3, 4, 0, 1, 2], dtype=int32)

    Differs from: PyTorch, where layers and directions are options: here they are
    `nn.Sequential` or `nn.Stack`, and `nn.Bidirectional`. Flax Linen, whose outputs
    after the length are those of the padding, and in reverse come in the order in
    which they are made unless `keep_order` is true.
    Source: Elman, "Finding structure in time", 1990.
    """

    def __init__(
        self,
        cell: Any,
        *,
        reverse: bool = False,
        return_carry: bool = False,
        unroll: int = 4,
    ) -> None:
        if not isinstance(cell, Module) or not hasattr(cell, "initial_carry"):
            raise _no_cell(cell)
        self.cell = cell
        self.reverse = reverse
        self.return_carry = return_carry
        self.unroll = check_size(self, "unroll", unroll)
        self.cache: Any = None

    def __call__(
        self,
        x: ArrayLike,
        carry: PyTree = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> Any:
        """Runs the cell over `x`.

        Args:
            x: `[..., T, I]`, floating.
            carry: The first carry. `None` is `cell.initial_carry`.
            lengths: `[...]`, integers: how many steps of each sequence count. The
                carry stays as it is at the others, and their outputs are zero.
            mask: `[..., T]`, booleans: which steps count, where these are not the
                first ones.

        Returns:
            `[..., T, H]`, or with `return_carry` the last carry and this.
        """
        axes = getattr(self.cell, "num_feature_axes", 1)
        self.check_input(x, min_ndim=axes + 1, dtype="floating")
        if isinstance(self.cell, Cell):
            self.cell.check(x)  # whose messages know the axes of this input
        cache = None if self.initializing else self.cache
        if cache is not None:
            mask = steps_taken(self, x, lengths=lengths, mask=mask)
            carry = cache.carry if carry is None else carry
        x = jnp.moveaxis(as_array(x), -axes - 1, 0)  # [T, ..., I]
        counts = self._counts(x.shape[: x.ndim - axes], lengths, mask)
        if carry is None:
            now = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
            carry = self.cell.initial_carry(now)
        carry, y = _over_time(self.cell, carry, (x, counts), self.reverse, self.unroll)
        if cache is not None:
            cache.carry = carry
        y = jax.tree.map(lambda y: jnp.moveaxis(y, 0, x.ndim - axes - 1), y)
        return (carry, y) if self.return_carry else y

    def with_cache(
        self, batch_size: int, max_length: int, dtype: DType | None = None
    ) -> RNN:
        """The layer with a carry that it keeps. Backwards it cannot be called so.

        `nn.with_cache` calls it on every layer of a model.

        Args:
            batch_size: Number B of sequences.
            max_length: Not used here: a carry has no end.
            dtype: Of the inputs; `None` is float32.
        """
        if getattr(self.cell, "num_feature_axes", 1) != 1:
            raise no_cache_of_images(self)
        now = jax.ShapeDtypeStruct((batch_size, 1), dtype or jnp.float32)
        return self.replace(cache=CarryCache(self.cell.initial_carry(now), batch_size))

    def _counts(
        self,
        shape: tuple[int, ...],
        lengths: ArrayLike | None,
        mask: ArrayLike | None,
    ) -> Array | None:
        """Which steps count, as `[T, ...]`; `None` where all do."""
        time, *batch = shape
        if lengths is not None and mask is not None:
            raise _two_masks(self)
        if lengths is not None:
            self.check_input(lengths, "lengths", dtype="integer")
            if list(lengths.shape) != batch:
                raise _misfit(self, "lengths", lengths, batch, _LENGTHS)
            times = jnp.arange(time).reshape(time, *(1 for _ in batch))
            wanted = integer(lengths, "lengths")[None]
            return jnp.broadcast_to(times, shape) < jnp.broadcast_to(wanted, shape)
        if mask is not None:
            self.check_input(mask, "mask")
            if list(mask.shape) != [*batch, time] or mask.dtype != bool:
                raise _misfit(self, "mask", mask, [*batch, time], _MASK)
            return jnp.moveaxis(as_array(mask), -1, 0)
        return None


class Bidirectional(Module):
    """Runs one cell forwards and another one backwards, and joins their outputs.

    Args:
        forward: The cell that goes forwards, as `nn.RNN` takes it.
        backward: The cell that goes backwards. `None` is another one like `forward`.
        merge: How outputs are joined: "concat" along the last axis, "sum", or `None`
            for a pair.
        return_carry: Whether a call returns the last carries as well.
        unroll: Steps in one iteration of the loops.

    Parameters:
        forward: Those of the cell that goes forwards, at `forward/cell`.
        backward: Those of the other one, at `backward/cell`.

    Shapes:
        x: `[..., T, I]`  ->  `[..., T, 2H]`, or `[..., T, H]` for a sum.

    Raises:
        ConfigError: A cell has no `initial_carry`, or an option another value.
        DTypeError: `x` holds no floating numbers, or `lengths` no integers.
        ShapeError: `x`, the carry, `lengths` or `mask` do not fit.

    Example:
        >>> x = jnp.ones((8, 5, 3))
        >>> both = nn.init(nn.Bidirectional(nn.GRUCell(4)), jax.random.key(0), x)
        >>> both(x).shape
        (8, 5, 8)

    Differs from: PyTorch, where it is an option of each layer. Flax Linen, which
    takes two `RNN`.
    Source: Schuster and Paliwal, "Bidirectional recurrent neural networks", 1997.
    """

    def __init__(
        self,
        forward: Any,
        backward: Any = None,
        *,
        merge: str | None = "concat",
        return_carry: bool = False,
        unroll: int = 4,
    ) -> None:
        if backward is None and isinstance(forward, Module):
            backward = forward.replace()  # another module, lest one be at two places
        self.forward = RNN(forward, return_carry=True, unroll=unroll)
        self.backward = RNN(backward, return_carry=True, unroll=unroll, reverse=True)
        self.merge = check_option(self, "merge", merge, ("concat", "sum", None))
        self.return_carry = return_carry

    def __call__(
        self,
        x: ArrayLike,
        carry: PyTree = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> Any:
        """Runs both cells over `x`.

        Args:
            x: `[..., T, I]`, floating.
            carry: The pair of first carries: that at the first time, and that of the
                backward cell, at the last. `None` is that of each cell.
            lengths: `[...]`, integers: how many steps of each sequence count.
            mask: `[..., T]`, booleans: which steps count, where these are not the
                first ones.

        Returns:
            The joined outputs, or with `return_carry` the pair of last carries and
            these.
        """
        if carry is not None and not (isinstance(carry, tuple) and len(carry) == 2):
            raise _no_pair(self, carry)
        first, last = (None, None) if carry is None else carry
        first, ahead = self.forward(x, first, lengths=lengths, mask=mask)
        last, behind = self.backward(x, last, lengths=lengths, mask=mask)
        y = _joined(self.merge, ahead, behind)
        return ((first, last), y) if self.return_carry else y


def _joined(merge: str | None, ahead: Array, behind: Array) -> Any:
    if merge == "concat":
        return jnp.concatenate([ahead, behind], -1)
    return (ahead, behind) if merge is None else ahead + behind


def _over_time(
    cell: Any,
    carry: PyTree,
    xs: tuple[Array, Array | None],
    reverse: bool,
    unroll: int,
) -> tuple[PyTree, PyTree]:
    """The last carry and every output; time comes first in `xs` and in the outputs."""
    if hasattr(cell, "project") and hasattr(cell, "step"):
        return _by_block(cell, carry, xs, reverse, unroll)

    def one(carry: PyTree, now: tuple[Array, Array | None]) -> tuple[PyTree, PyTree]:
        return _one_step(cell, carry, *now)

    return scan(one, carry, xs, reverse=reverse, unroll=unroll)


def _by_block(
    cell: Any,
    carry: PyTree,
    xs: tuple[Array, Array | None],
    reverse: bool,
    size: int,
) -> tuple[PyTree, Array]:
    """Takes `size` steps at a time, and the steps that are left over at the end.

    A projection of few steps stays in the processor's cache. For an LSTM of batch 32,
    length 128 and width 256, four at a time took 0.9 times as long as one by one, and
    all at once 1.15 times (2 CPU cores, JAX 0.10.2, 2026-11).
    """

    def block(carry: PyTree, xs: tuple[Array, Array | None]) -> tuple[PyTree, Array]:
        x, counts = xs
        projected = cell.project(x)
        outputs: list[Any] = [None] * x.shape[0]
        for i in range(x.shape[0])[:: -1 if reverse else 1]:
            counted = None if counts is None else counts[i]
            carry, outputs[i] = _one_step(cell.step, carry, projected[i], counted)
        return carry, jnp.stack(outputs)

    time = xs[0].shape[0]
    size = min(size, time) or 1
    count = time // size
    whole = count * size
    blocks = jax.tree.map(
        lambda a: a[:whole].reshape(count, size, *a.shape[1:]), xs
    )  # [T / size, size, ..., I]
    rest = jax.tree.map(lambda a: a[whole:], xs)
    if whole < time and reverse:
        carry, last = block(carry, rest)
    carry, y = scan(block, carry, blocks, reverse=reverse)
    y = y.reshape(whole, *y.shape[2:])
    if whole < time and not reverse:
        carry, last = block(carry, rest)
    return carry, y if whole == time else jnp.concatenate([y, last])


def _one_step(
    step: Step, carry: PyTree, x: PyTree, counted: Array | None
) -> tuple[PyTree, PyTree]:
    """A step that changes nothing, and gives zero, where it does not count."""
    new, y = step(carry, x)
    if counted is None:
        return new, y
    new = jax.tree.map(lambda a, b: _where(counted, a, b), new, carry)
    return new, jax.tree.map(lambda a: _where(counted, a, jnp.zeros_like(a)), y)


def _where(counted: Array, new: Array, old: Array) -> Array:
    axes = tuple(range(counted.ndim))
    return jnp.where(jax.lax.broadcast_in_dim(counted, new.shape, axes), new, old)


_LENGTHS = "Each sequence has one length."
_MASK = "Each step of each sequence counts or does not."


def _misfit(
    rnn: RNN, name: str, given: ArrayLike, shape: list[int], why: str
) -> ShapeError:
    kind = "booleans" if name == "mask" else "integers"
    make = f"jnp.ones({tuple(shape)}, bool)"
    return ShapeError(
        f"`{name}` is {describe(given)}, but {kind} of shape {shape} are needed.",
        code="LN-SHAPE-01",
        at=locate(rnn),
        why=why,
        fixes=[("all steps count", f"{name} = {make if name == 'mask' else None}")],
    )


def _no_pair(both: Bidirectional, carry: Any) -> ShapeError:
    return ShapeError(
        f"`carry` is {describe(carry)}, but it must be a pair.",
        code="LN-SHAPE-01",
        at=locate(both),
        why="Each of the two cells has a carry of its own.",
        fixes=[("both start here", "carry = None")],
    )


def _two_masks(rnn: RNN) -> ConfigError:
    return ConfigError(
        "both `lengths` and `mask` say which steps count.",
        code="LN-VALUE-06",
        at=locate(rnn),
        fixes=[
            ("the first steps count", "mask = None"),
            ("others do", "lengths = None"),
        ],
    )


def _no_cell(cell: Any) -> ConfigError:
    return ConfigError(
        f"`cell` is a {type(cell).__name__}, but it must be a recurrent cell: a module "
        "with `initial_carry`.",
        code="LN-VALUE-04",
        at="RNN",
        why="The first carry comes from the cell.",
        fixes=[("an LSTM is meant", "cell = nn.LSTMCell(8)")],
    )
