"""Rotary position embeddings, as arrays.

T positions  H heads  D head size  P = D * fraction / 2 pairs of features
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from linnet._errors import DTypeError, ShapeError, describe
from linnet._typing import Array, ArrayLike
from linnet.functional._dtype import as_array, is_inexact, widened
from linnet.functional._position import fitted, positions_array
from linnet.functional._rotary_scaling import RotaryScaling, unscaled


def rotary_frequencies(
    size: int, *, base: float = 10_000.0, scaling: RotaryScaling | None = None
) -> Array:
    r"""Radians per position by which each pair of features is turned.

    $\theta_i = b^{-2 i / |D|}$ without scaling. They are computed in float64.

    Args:
        size: Number of features that are rotated, 2 P: even.
        base: The base b.
        scaling: For contexts longer than in training; see `RotaryScaling`.

    Returns:
        `[P]`, float32.

    Example:
        >>> from linnet import functional as F
        >>> F.rotary_frequencies(4)
        Array([1.  , 0.01], dtype=float32)

    Source: Su et al., "RoFormer", 2021, section 3.2.2, arXiv:2104.09864.
    """
    return jnp.asarray(_frequencies(size, base, scaling), jnp.float32)


def rotary(
    x: ArrayLike,
    positions: ArrayLike,
    *,
    base: float = 10_000.0,
    fraction: float = 1.0,
    interleaved: bool = False,
    scaling: RotaryScaling | None = None,
) -> Array:
    r"""Turns pairs of features by angles that are proportional to the position.

    The pair $(a, b)$ at position p becomes $(a \cos p\theta - b \sin p\theta,\;
    a \sin p\theta + b \cos p\theta)$, so that the product of two such vectors
    depends on the difference of their positions. The angles and the rotation are
    computed in float32 or wider.

    Args:
        x: `[..., T, H, D]`, floating: queries or keys.
        positions: `[T]` or `[..., T]`, integers or floating.
        base: Of the geometric series of the frequencies.
        fraction: Share of the features that are rotated, the first ones; the others
            stay as they are.
        interleaved: Whether a pair is two neighbours (GPT-J, RoFormer), or one
            feature of the first half with one of the second (GPT-NeoX, Llama).
        scaling: For contexts longer than in training; see `RotaryScaling`.

    Returns:
        `[..., T, H, D]`, in the dtype of `x`.

    Raises:
        DTypeError: `x` is not floating, or `positions` hold booleans.
        ShapeError: The shapes do not fit together, or features are left without a
            partner.

    Example:
        >>> from linnet import functional as F
        >>> x = jnp.array([1.0, 0.0]).reshape(1, 1, 2)
        >>> F.rotary(x, jnp.array([1])).ravel().round(3)
        Array([0.54 , 0.841], dtype=float32)

    Source: Su et al., "RoFormer", 2021, eq. 34, arXiv:2104.09864.
    """
    x = _floating(x)
    _check_rank(x)
    size = _rotated_size(x, fraction)
    wide = widened(x.dtype)
    positions = positions_array(positions)
    positions = fitted(positions, x.shape[:-2], "positions", x)  # [..., T]
    theta = jnp.asarray(_frequencies(size, base, scaling), wide)  # [P]
    theta = theta.reshape((1,) * positions.ndim + theta.shape)
    angles = positions.astype(wide)[..., None] * theta  # [..., T, P]
    angles = angles[..., None, :]
    magnitude = 1.0 if scaling is None else scaling.magnitude()
    cos, sin = jnp.cos(angles) * magnitude, jnp.sin(angles) * magnitude

    turned, rest = x[..., :size].astype(wide), x[..., size:]
    if interleaved:
        pairs = turned.reshape(*turned.shape[:-1], size // 2, 2)
        a, b = pairs[..., 0], pairs[..., 1]
        turned = jnp.stack([a * cos - b * sin, a * sin + b * cos], -1)
        turned = turned.reshape(*x.shape[:-1], size)  # [..., T, H, 2 P]
    else:
        a, b = turned[..., : size // 2], turned[..., size // 2 :]
        turned = jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)
    turned = turned.astype(x.dtype)
    return turned if size == x.shape[-1] else jnp.concatenate([turned, rest], -1)


def _frequencies(
    size: int, base: float, scaling: RotaryScaling | None
) -> np.ndarray[Any, Any]:
    if scaling is None:
        return unscaled(size, base)
    return scaling.frequencies(size, base)


def _floating(x: ArrayLike) -> Array:
    x = as_array(x)
    if not is_inexact(x.dtype) or jnp.iscomplexobj(x):
        raise DTypeError(
            f"`x` has dtype {x.dtype}, but it must be floating.",
            code="LN-DTYPE-01",
            facts={"x": describe(x)},
            why="Pairs of real features are rotated.",
            fixes=[("the numbers are quantities", "x = x.real.astype(jnp.float32)")],
        )
    return x


def _check_rank(x: Array) -> None:
    if x.ndim < 3:
        raise ShapeError(
            f"`x` has {x.ndim} axes, but rotary embeddings need at least 3.",
            code="LN-SHAPE-02",
            facts={"x": describe(x)},
            why="The last three axes are positions, heads and features.",
            fixes=[("there is one head", "x = x[..., None, :]")] if x.ndim == 2 else [],
        )


def _rotated_size(x: Array, fraction: float) -> int:
    features = x.shape[-1]
    size = round(features * fraction)
    if size >= 2 and size % 2 == 0 and abs(size - features * fraction) < 1e-6:
        return size
    even = max(size - size % 2, 2)
    raise ShapeError(
        f"`fraction={fraction:g}` of {features} features are "
        f"{features * fraction:g}, but pairs are rotated.",
        code="LN-SHAPE-01",
        facts={"x": describe(x)},
        why="Each feature that is rotated needs a partner.",
        fixes=[
            (f"the first {even} should be rotated", f"fraction = {even} / {features}")
        ]
        if even <= features
        else [],
    )
