"""Broadcasting that is spelled out: Linnet never relies on rank promotion."""

from __future__ import annotations

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
    return array.reshape(shape)


def axes_of(ndim: int, axis: int | tuple[int, ...]) -> tuple[int, ...]:
    """The axes meant by `axis`, counted from the front and in ascending order."""
    wanted = (axis,) if isinstance(axis, int) else tuple(axis)
    axes = tuple(sorted(a % ndim for a in wanted if -ndim <= a < ndim))
    if len(set(axes)) != len(wanted):
        raise ShapeError(
            f"`axis={axis}` does not name distinct axes of an array that has {ndim}.",
            code="LN-SHAPE-02",
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
        )
