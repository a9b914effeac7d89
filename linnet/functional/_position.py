"""Where tokens stand, as arrays.

T positions  D features  N axes that hold positions
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from linnet._errors import ConfigError, DTypeError, ShapeError, describe
from linnet._typing import Array, ArrayLike
from linnet.functional._dtype import as_array


def sinusoidal_position(
    positions: ArrayLike,
    features: int,
    *,
    base: float = 10_000.0,
    interleaved: bool = True,
) -> Array:
    r"""Sines and cosines of the position, from fast to slow.

    $e_{p, 2i} = \sin(p / b^{2i / D})$ and $e_{p, 2i + 1} = \cos(p / b^{2i / D})$.

    Args:
        positions: `[...]`, integers or floating.
        features: Size D of the result's last axis: even.
        base: The base b.
        interleaved: Whether sines and cosines take turns, as in the paper, or all
            cosines come after all sines.

    Returns:
        `[..., D]`, float32.

    Raises:
        ConfigError: `features` is not even.
        DTypeError: `positions` hold booleans or complex numbers.

    Example:
        >>> from linnet import functional as F
        >>> F.sinusoidal_position(jnp.array([0, 1]), 2).round(3)
        Array([[0.   , 1.   ],
               [0.841, 0.54 ]], dtype=float32)

    Source: Vaswani et al., "Attention Is All You Need", 2017, section 3.5,
    arXiv:1706.03762.
    """
    positions = positions_array(positions)
    if features < 2 or features % 2:
        raise ConfigError(
            f"`features` is {features}, but it must be even and at least 2.",
            code="LN-VALUE-06",
            why="Each frequency has a sine and a cosine.",
            fixes=[("one more will do", f"features = {max(features + 1, 2)}")],
        )
    exponents: np.ndarray[Any, Any] = np.arange(0, features, 2) / features
    theta = jnp.asarray(base**-exponents, jnp.float32)
    theta = theta.reshape((1,) * positions.ndim + theta.shape)
    angles = positions.astype(jnp.float32)[..., None] * theta  # [..., D / 2]
    waves = [jnp.sin(angles), jnp.cos(angles)]
    if interleaved:
        return jnp.stack(waves, -1).reshape(*positions.shape, features)
    return jnp.concatenate(waves, -1)  # [..., D]


def positions_array(positions: ArrayLike, name: str = "positions") -> Array:
    """`positions` as an array of real numbers, or a `DTypeError`."""
    positions = as_array(positions)
    if positions.dtype == jnp.bool_ or jnp.iscomplexobj(positions):
        raise DTypeError(
            f"`{name}` has dtype {positions.dtype}, but it must hold real numbers.",
            code="LN-DTYPE-01",
            facts={name: describe(positions)},
            why="A mask says which tokens are there, not where they are.",
            fixes=[
                (
                    "tokens are counted where the mask is true",
                    f"{name} = {name}.cumsum(-1) - 1",
                )
            ]
            if positions.dtype == jnp.bool_
            else [("their real parts are meant", f"{name} = {name}.real")],
        )
    return positions


def fitted(positions: Array, shape: tuple[int, ...], name: str, x: Array) -> Array:
    """`positions` with as many axes as `shape`, which they must broadcast to."""
    missing = len(shape) - positions.ndim
    padded = (1,) * missing + positions.shape
    fits = missing >= 0 and all(p in (1, n) for p, n in zip(padded, shape, strict=True))
    if not fits:
        size = shape[-1] if shape else 1
        raise ShapeError(
            f"`{name}` of shape {list(positions.shape)} does not fit `x` of shape "
            f"{list(x.shape)}.",
            code="LN-SHAPE-01",
            facts={"x": describe(x), name: describe(positions)},
            why=f"One position is needed for each token: {list(shape)}, or "
            f"{list(shape[-1:])} for all alike.",
            fixes=[("they are counted from zero", f"{name} = jnp.arange({size})")],
        )
    return positions.reshape(padded)


def coordinates(positions: Array, x: Array, *, ndim: int) -> tuple[Array, ...]:
    """The position along each of `ndim` axes for every vector of `x`, `[..., T]`.

    Of several axes the last axis of `positions` holds the coordinates.
    """
    if ndim == 1:
        return (fitted(positions, x.shape[:-1], "positions", x),)
    if positions.ndim < 1 or positions.shape[-1] != ndim:
        raise ShapeError(
            f"`positions` has shape {list(positions.shape)}, but the last axis must "
            f"hold {ndim} coordinates.",
            code="LN-SHAPE-01",
            facts={"x": describe(x), "positions": describe(positions)},
            why=f"There are {ndim} axes along which a vector has a place.",
            fixes=[
                (
                    "all stand at the same place in each axis",
                    f"positions = jnp.stack([positions] * {ndim}, -1)",
                )
            ],
        )
    return tuple(
        fitted(positions[..., axis], x.shape[:-1], "positions", x)
        for axis in range(ndim)
    )
