"""Windows that slide over spatial axes: what convolutions and pools share."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from linnet._errors import ConfigError, ShapeError, describe
from linnet._typing import Array, ArrayLike

Padding = str | int | Sequence[int | tuple[int, int]]
Pads = tuple[tuple[int, int], ...]


def per_axis(
    value: int | Sequence[int], count: int, name: str, *, least: int = 1
) -> tuple[int, ...]:
    """`value` once per spatial axis, as integers of at least `least`."""
    wanted = f"an integer, or {count} of them, of at least {least}"
    try:
        if isinstance(value, Sequence):
            numbers = tuple(operator.index(v) for v in value)
        else:
            numbers = (operator.index(value),) * count
    except TypeError:
        raise _unusable(name, value, wanted, "LN-VALUE-01") from None
    if len(numbers) != count or any(n < least for n in numbers):
        raise _unusable(name, value, wanted, "LN-VALUE-01")
    return numbers


def canonical_window(window: Sequence[int], name: str) -> tuple[int, ...]:
    """The window as a tuple. A bare number is refused, as it names no axes."""
    if isinstance(window, str) or not isinstance(window, Sequence) or not window:
        raise ConfigError(
            f"`{name}` is {window!r}, but it must have one number per spatial axis.",
            code="LN-VALUE-01",
            why="Their count tells the spatial axes of `x` from its batch axes.",
            fixes=[
                ("`x` holds images", f"{name} = (3, 3)"),
                ("`x` holds sequences", f"{name} = (3,)"),
            ],
        )
    return per_axis(window, len(window), name)


def canonical_padding(padding: Any, count: int, modes: tuple[str, ...]) -> str | Pads:
    """`padding` as one of `modes`, or as a pair (before, after) per spatial axis."""
    if isinstance(padding, str):
        if padding in modes:
            return padding
    elif isinstance(padding, Sequence):
        if len(padding) == count:
            return tuple(_pair(p, padding) for p in padding)
    else:
        return (_pair(padding, padding),) * count
    names = ", ".join(map(repr, modes))
    wanted = f"one of {names}, an integer, or a list of {count} integers or pairs"
    raise _unusable("padding", padding, wanted, "LN-VALUE-04")


def pads(
    padding: str | Pads,
    sizes: Sequence[int],
    extents: Sequence[int],
    strides: Sequence[int],
) -> Pads:
    """Entries to add before and after each axis of `sizes`.

    `extents` are what the windows span, dilation included. "SAME" gives
    `ceil(size / stride)` outputs, with the odd entry after; "CAUSAL" as many, with
    all entries before; "CIRCULAR" and "REFLECT" surround as for a stride of 1.
    """
    if padding == "SAME":
        totals = [
            max((-(-n // s) - 1) * s + e - n, 0)
            for n, e, s in zip(sizes, extents, strides, strict=True)
        ]
        return tuple((t // 2, t - t // 2) for t in totals)
    if padding == "CAUSAL":
        return tuple((e - 1, 0) for e in extents)
    if padding in ("CIRCULAR", "REFLECT"):
        return tuple(((e - 1) // 2, e // 2) for e in extents)
    if isinstance(padding, str):
        return ((0, 0),) * len(sizes)
    return padding


def spanned(counts: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """How far so many entries reach that are `dilation` apart."""
    pairs = zip(counts, dilation, strict=True)
    return tuple(max((n - 1) * d + 1, 0) for n, d in pairs)


def continued(x: Array, padding: str | Pads, widths: Pads) -> tuple[Array, Pads]:
    """`x`, surrounded by its own entries if that is meant, and the zeros to add."""
    if padding not in ("CIRCULAR", "REFLECT"):
        return x, widths
    mode = "wrap" if padding == "CIRCULAR" else "reflect"
    around = ((0, 0), *widths, (0, 0))
    return jnp.pad(x, around, mode=mode), ((0, 0),) * len(widths)


def refuse_too_small(
    x: ArrayLike, sizes: Sequence[int], extents: Sequence[int], widths: Pads
) -> None:
    """Refuses an input in which no window finds room."""
    room = [
        n + before + after for n, (before, after) in zip(sizes, widths, strict=True)
    ]
    short = [n and r < e for n, r, e in zip(sizes, room, extents, strict=True)]
    if any(short):
        raise ShapeError(
            f"a window of {list(extents)} finds no room in spatial axes of "
            f"{list(sizes)}.",
            code="LN-SHAPE-04",
            facts={"x": describe(x)},
            why="The result would be empty, and so would be all that follows.",
            fixes=[("the size should stay, but for strides", "padding = 'SAME'")],
        )


def split_batch(x: Array, spatial: int) -> tuple[tuple[int, ...], Array]:
    """The batch shape, and `x` with exactly one batch axis before `spatial + 1`."""
    batch_ndim = x.ndim - spatial - 1
    if batch_ndim < 0:
        raise ShapeError(
            f"`x` has {x.ndim} axes, but a window of {spatial} needs at least "
            f"{spatial + 1}.",
            code="LN-SHAPE-02",
            facts={"x": describe(x)},
            why="The last axis holds the features, those before it are spatial.",
            fixes=[("there is one feature", "x = x[..., None]")],
        )
    batch = x.shape[:batch_ndim]
    if batch_ndim == 1:
        return batch, x
    count = 1
    for size in batch:
        count *= size
    return batch, x.reshape((count, *x.shape[batch_ndim:]))


def _pair(value: Any, padding: Any) -> tuple[int, int]:
    try:
        if isinstance(value, Sequence):
            before, after = value
            return operator.index(before), operator.index(after)
        return operator.index(value), operator.index(value)
    except (TypeError, ValueError):
        wanted = "made of integers or pairs of integers"
        raise _unusable("padding", padding, wanted, "LN-VALUE-04") from None


def _unusable(name: str, value: Any, wanted: str, code: str) -> ConfigError:
    usual = "'SAME'" if name == "padding" else "1"
    return ConfigError(
        f"`{name}` is {value!r}, but it must be {wanted}.",
        code=code,
        fixes=[("the usual one will do", f"{name} = {usual}")],
    )
