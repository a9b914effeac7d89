"""Broadcasting that is spelled out: Linnet never relies on rank promotion."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jax import lax

from linnet._errors import ShapeError
from linnet._typing import Array


def align(array: Array, ndim: int, axes: tuple[int, ...]) -> Array:
    """`array` as one of `ndim` axes, its own lying at `axes` and the rest of size 1.

    `axes` are ascending and not negative.
    """
    if array.ndim == ndim:
        return array
    shape = [1] * ndim
    for axis, size in zip(axes, array.shape, strict=True):
        shape[axis] = size
    return lax.reshape(array, tuple(shape))


def axes_of(
    ndim: int, axis: int | Sequence[int], name: str = "axis"
) -> tuple[int, ...]:
    """The axes meant by `axis`, counted from the front and in ascending order."""
    wanted = (axis,) if isinstance(axis, int) else tuple(axis)
    axes = tuple(sorted(a % ndim for a in wanted if -ndim <= a < ndim))
    if len(set(axes)) != len(wanted):
        raise ShapeError(
            f"`{name}={axis}` does not name distinct axes of an array that has {ndim}.",
            code="LN-SHAPE-02",
            fixes=[("the last axis is meant", f"{name} = -1")] if ndim else [],
        )
    return axes


def require_shape(
    array: Array | None, shape: tuple[int, ...], name: str, why: str
) -> None:
    """Refuses an array that is present and has another shape."""
    if array is not None and array.shape != shape:
        raise ShapeError(
            f"`{name}` has shape {list(array.shape)}, but {list(shape)} is needed.",
            code="LN-SHAPE-01",
            why=why,
            fixes=[("it holds the right numbers", f"{name} = {name}.reshape({shape})")]
            if array.size == math.prod(shape)
            else [("one number is for all", f"{name} = jnp.ones({shape})")],
        )


def features_elsewhere(name: str, x: Array, size: int) -> list[tuple[str, str]]:
    """What to do where an axis of this size is there, but is not the last."""
    if size not in x.shape[:-1]:
        return []
    axis = x.shape.index(size)
    code = f"{name} = jnp.moveaxis({name}, {axis}, -1)"
    return [(f"the features of `{name}` are on axis {axis}", code)]
