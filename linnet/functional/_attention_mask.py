"""Who may attend to whom: rules on positions and segments, and masks made of them.

T query length  S key length  H heads  ... batch

A rule is cheap to state for any part of the queries and keys, so a kernel can apply it
to one block of the logits after another without ever holding a mask of all.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from linnet._errors import ConfigError, ShapeError
from linnet._typing import Array, ArrayLike, Shape
from linnet.functional._attention_check import (
    check_lengths,
    check_mask,
    is_count,
    whole_numbers,
)

# No two positions are farther apart, so that their sum with a distance is an int32.
FARTHEST = 2**30

Window = int | tuple[int, int]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("positions", "key_positions", "segments", "key_segments", "mask"),
    meta_fields=("left", "right", "has_slots", "is_total"),
)
@dataclasses.dataclass(frozen=True)
class Rules:
    """All that decides whether a query may attend to a key.

    Each array has all leading axes, of full size or 1.

    Args:
        left: How far before a query a key may lie; `None` is any distance.
        right: How far after it.
        positions: `[..., T]`, present if the distance matters.
        key_positions: `[..., S]`, likewise, and where slots may be empty.
        has_slots: Whether the key positions were given, so that negative ones mark
            empty slots. If not, all positions count up from zero.
        is_total: Whether each query surely attends to some key, as to its own.
        segments: `[..., T]`.
        key_segments: `[..., S]`.
        mask: `[..., H, T, S]`.
    """

    left: int | None = None
    right: int | None = None
    positions: Array | None = None
    key_positions: Array | None = None
    has_slots: bool = False
    is_total: bool = False
    segments: Array | None = None
    key_segments: Array | None = None
    mask: Array | None = None

    @property
    def is_local(self) -> bool:
        """Whether positions or segments keep whole stretches of keys from a query."""
        return self.key_positions is not None or self.segments is not None


def rules_for(
    lead: Shape,
    heads: int,
    size: tuple[int, int],
    *,
    mask: ArrayLike | None,
    causal: bool,
    window: Window | None,
    segments: ArrayLike | None,
    key_segments: ArrayLike | None,
    positions: ArrayLike | None,
    key_positions: ArrayLike | None,
) -> Rules:
    """The checked rules of attention from T queries to S keys, where size is (T, S)."""
    length, key_length = size
    left, right = band(causal, window)
    sees_itself = key_segments is None and length <= key_length
    if segments is not None and key_segments is None:
        key_segments = _same_segments(segments, size)
    elif segments is None and key_segments is not None:
        raise _segments_alone(length)
    if positions is not None and key_positions is None:
        raise _positions_alone(size)
    has_slots = key_positions is not None
    is_banded = left is not None or right is not None
    if is_banded:
        positions = _counted(length) if positions is None else positions
        key_positions = _counted(key_length) if key_positions is None else key_positions

    def numbers(x: ArrayLike | None, name: str, n: int) -> Array | None:
        return None if x is None else whole_numbers(x, name, lead, n)

    positions = numbers(positions, "positions", length)
    return Rules(
        left=left,
        right=right,
        positions=positions if is_banded else None,
        key_positions=numbers(key_positions, "key_positions", key_length),
        has_slots=has_slots,
        is_total=mask is None
        and not has_slots
        and (sees_itself or (segments is None and not is_banded)),
        segments=numbers(segments, "segments", length),
        key_segments=numbers(key_segments, "key_segments", key_length),
        mask=None if mask is None else check_mask(mask, lead, heads, size),
    )


def _counted(length: int) -> Array:
    return jnp.arange(length, dtype=jnp.int32)


def attention_mask(
    length: int,
    key_length: int | None = None,
    *,
    causal: bool = False,
    window: Window | None = None,
    segments: ArrayLike | None = None,
    key_segments: ArrayLike | None = None,
    positions: ArrayLike | None = None,
    key_positions: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> Array | None:
    """The mask that `attention` applies when it is given the same rules.

    `attention` takes the rules themselves, which costs it less memory than this mask.

    Args:
        length: Number T of queries.
        key_length: Number S of keys; `None` takes T.
        causal: As in `attention`, like all that follow.
        window: Likewise.
        segments: `[..., T]`.
        key_segments: `[..., S]`.
        positions: `[..., T]`.
        key_positions: `[..., S]`.
        mask: `[..., H, T, S]` or `[T, S]`, boolean, with which the rules are combined.

    Returns:
        Booleans that broadcast to `[..., H, T, S]`, where `True` lets a query attend to
        a key: `[T, S]` if it is the same for all examples and heads. `None` if every
        query may attend to every key.

    Raises:
        ConfigError: The rules do not go together.
        DTypeError: Positions or segments are no integers, or the mask no booleans.
        ShapeError: The arrays do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> F.attention_mask(3, causal=True).astype(int)
        Array([[1, 0, 0],
               [1, 1, 0],
               [1, 1, 1]], dtype=int32)
        >>> packed = jnp.array([[7, 7, 8]])
        >>> F.attention_mask(3, causal=True, segments=packed).astype(int)
        Array([[[[1, 0, 0],
                 [1, 1, 0],
                 [0, 0, 1]]]], dtype=int32)
    """
    size = (length, length if key_length is None else key_length)
    check_lengths(length=size[0], key_length=size[1])
    shape = () if mask is None else np.shape(mask)
    rows = (segments, key_segments, positions, key_positions)
    lead = _lead([np.shape(x)[:-1] for x in rows if x is not None] + [shape[:-3]])
    heads = shape[-3] if len(shape) > 2 else 1
    rules = rules_for(
        lead,
        heads,
        size,
        mask=mask,
        causal=causal,
        window=window,
        segments=segments,
        key_segments=key_segments,
        positions=positions,
        key_positions=key_positions,
    )
    result = allowed(rules)
    if result is None:
        return None
    flat = not lead and len(shape) <= 2
    return result.reshape(size) if flat else result


def _lead(leads: list[Shape]) -> Shape:
    """The leading axes of a mask made of rows and masks that have these."""
    ndim = max(map(len, leads))
    full = [lead for lead in leads if len(lead) == ndim]
    return tuple(max(sizes) for sizes in zip(*full, strict=True))


def allowed(rules: Rules) -> Array | None:
    """Which queries may attend to which keys; `None` if each to each.

    The arrays of the rules may be those of one block of the logits.
    """
    parts = [] if rules.mask is None else [rules.mask]
    if rules.has_slots and rules.key_positions is not None:
        parts.append(_across(rules.key_positions) >= 0)
    if rules.segments is not None and rules.key_segments is not None:
        parts.append(_down(rules.segments) == _across(rules.key_segments))
    if rules.positions is not None and rules.key_positions is not None:
        at, key_at = rules.positions, _across(rules.key_positions)
        # The bounds are moved to the queries: one operation less for each logit.
        if rules.left is not None:
            parts.append(key_at >= _down(at - rules.left))
        if rules.right is not None:
            parts.append(key_at <= _down(at + rules.right))
    return functools.reduce(jnp.logical_and, parts) if parts else None


def _down(x: Array) -> Array:
    return x[..., None, :, None]  # [..., 1, T, 1]


def _across(x: Array) -> Array:
    return x[..., None, None, :]  # [..., 1, 1, S]


def band(causal: bool, window: Window | None) -> tuple[int | None, int | None]:
    """How far before and after itself a query sees."""
    if window is None:
        return None, 0 if causal else None
    if is_count(window, 1):
        if not causal:
            raise ConfigError(
                f"`window={window}` counts the last positions, but `causal` is False.",
                code="LN-VALUE-06",
                why="Without `causal` a window reaches to both sides, so it needs two "
                "numbers: how far before a query, and how far after it.",
                fixes=[
                    ("no query sees what follows it", "causal = True"),
                    (
                        "as many on both sides",
                        f"window = ({int(window) - 1}, {int(window) - 1})",  # type: ignore[arg-type]
                    ),
                ],
            )
        return min(int(window) - 1, FARTHEST), 0  # type: ignore[arg-type]
    pair = isinstance(window, tuple | list) and len(window) == 2
    if pair and all(is_count(n, 0) for n in window):  # type: ignore[union-attr]
        left, right = (min(int(n), FARTHEST) for n in window)  # type: ignore[union-attr]
        return left, 0 if causal else right
    raise ConfigError(
        f"`window` is {window!r}, but it must be a positive integer or a pair "
        "(before, after) of integers.",
        code="LN-VALUE-04",
        fixes=[
            ("every position is seen", "window = None"),
            ("the 128 before it are seen, and none after", "window = (128, 0)"),
        ],
    )


def _same_segments(segments: ArrayLike, size: tuple[int, int]) -> ArrayLike:
    if size[0] == size[1]:
        return segments
    raise ShapeError(
        f"`segments` are those of {size[0]} queries, but there are {size[1]} keys.",
        code="LN-SHAPE-01",
        why="The keys have the segments of the queries only where both are as many.",
        fixes=[
            ("all keys belong together", f"key_segments = jnp.zeros({size[1]}, int)")
        ],
    )


def _segments_alone(length: int) -> ConfigError:
    return ConfigError(
        "`key_segments` is given, but `segments` is not.",
        code="LN-VALUE-06",
        why="A query attends to the keys of its own segment.",
        fixes=[("all queries belong together", f"segments = jnp.zeros({length}, int)")],
    )


def _positions_alone(size: tuple[int, int]) -> ConfigError:
    length, key_length = size
    same = ("queries and keys are at the same positions", "key_positions = positions")
    counted = f"key_positions = jnp.arange({key_length})"
    return ConfigError(
        "`positions` is given, but `key_positions` is not.",
        code="LN-VALUE-06",
        why="Keys may be at the positions of the queries, or elsewhere, as in a cache.",
        fixes=[same] * (length == key_length) + [("keys count up from zero", counted)],
    )
