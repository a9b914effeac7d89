"""Options that name axes, and give their sizes."""

from __future__ import annotations

from collections.abc import Sequence

from linnet._errors import ConfigError
from linnet.core import Module
from linnet.core._check import check_size


def check_axis(
    module: Module, *axes: int, name: str = "axis", optional: bool = False
) -> None:
    """Refuses what is not one axis or several distinct ones, or none if `optional`."""
    is_fit = all(isinstance(a, int) and not isinstance(a, bool) for a in axes)
    if not is_fit or len(set(axes)) != len(axes) or not (axes or optional):
        raise ConfigError(
            f"`{name}` is {axes}, but it must be one integer or several distinct ones.",
            code="LN-VALUE-04",
            at=type(module).__name__,
            fixes=[("there is no such axis", f"{name} = ()")]
            if optional
            else [("the features come last", f"{name} = -1")],
        )


def sizes(
    module: Module,
    given: int | Sequence[int] | None,
    count: int,
    name: str = "features",
) -> tuple[int | None, ...]:
    """One size for each axis, from an option; a single one is that of all."""
    listed = tuple(given) if isinstance(given, Sequence) else (given,) * count
    if len(listed) != count:
        raise ConfigError(
            f"`{name}` has {len(listed)} sizes for {count} axes.",
            code="LN-VALUE-06",
            at=type(module).__name__,
            fixes=[("the sample knows them", f"{name} = None")],
        )
    return tuple(check_size(module, name, size, allow_none=True) for size in listed)
