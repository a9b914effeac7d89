"""The scale and bias of a normalisation, and the axes along which they lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from linnet._errors import ConfigError
from linnet._typing import ArrayLike, DType, Initializer
from linnet.core import Module, param
from linnet.core._check import check_size
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


def sizes(
    module: Module, features: int | Sequence[int] | None, count: int
) -> tuple[int | None, ...]:
    """One size for each axis, from the option `features`."""
    given = tuple(features) if isinstance(features, Sequence) else (features,) * count
    if len(given) != count:
        raise ConfigError(
            f"`features` has {len(given)} sizes for {count} axes.",
            code="LN-VALUE-06",
            at=type(module).__name__,
            fixes=[("the sample knows them", "features = None")],
        )
    return tuple(
        check_size(module, "features", size, allow_none=True) for size in given
    )


def check_axis(module: Module, *axes: int) -> None:
    """Refuses what is not one axis or several distinct ones."""
    is_fit = all(isinstance(a, int) and not isinstance(a, bool) for a in axes)
    if not is_fit or len(set(axes)) != len(axes) or not axes:
        raise ConfigError(
            f"`axis` is {axes}, but it must be one integer or several distinct ones.",
            code="LN-VALUE-04",
            at=type(module).__name__,
            fixes=[("the features come last", "axis = -1")],
        )


def result_dtype(module: Module, dtype: DType | None) -> DType | None:
    """The option `dtype`, refused where nothing can be normalised in it."""
    with placed(module):
        return None if dtype is None else inexact_dtype(dtype)
