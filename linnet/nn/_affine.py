"""The scale and bias of a normalisation, and the axes along which they lie."""

from __future__ import annotations

from typing import Any

from linnet._typing import ArrayLike, DType, Initializer
from linnet.core import Module, param
from linnet.functional._dtype import inexact_dtype
from linnet.functional._shape import axes_of
from linnet.nn._place import placed

AXES = ("features",)


def vector(
    wanted: bool, init: Initializer, shape: tuple[int | None, ...], dtype: DType
) -> Any:
    """The declaration of a scale or bias, if it is wanted."""
    axes = (*(None for _ in shape[1:]), *AXES)
    return param(init, shape, dtype, axes=axes) if wanted else None


def sizes_along(x: ArrayLike, axis: int | tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of an input along the axes that are normalised."""
    return tuple(x.shape[a] for a in axes_of(x.ndim, axis))


def vectors(module: Any, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shape of the scale and of the bias, if there are such."""
    there = {"scale": module.use_scale, "bias": getattr(module, "use_bias", False)}
    return {name: shape for name, is_there in there.items() if is_there}


def result_dtype(module: Module, dtype: DType | None) -> DType | None:
    """The option `dtype`, refused where nothing can be normalised in it."""
    with placed(module):
        return None if dtype is None else inexact_dtype(dtype)
