"""What convolutions share: a window that slides, and how its options are checked."""

from __future__ import annotations

from collections.abc import Sequence

from jax import lax

from linnet._errors import ConfigError
from linnet._typing import DType
from linnet.core import Module
from linnet.functional._dtype import inexact_dtype
from linnet.functional._window import (
    Padding,
    Pads,
    canonical_padding,
    canonical_window,
    per_axis,
)
from linnet.nn._kernel import Axes
from linnet.nn._place import placed


class Windowed(Module):
    """A layer that slides a window."""

    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    kernel_dilation: tuple[int, ...]
    padding: str | Pads
    dtype: DType | None
    precision: lax.PrecisionLike

    def _set_window(
        self,
        kernel_size: Sequence[int],
        strides: int | Sequence[int],
        padding: Padding,
        kernel_dilation: int | Sequence[int],
        paddings: tuple[str, ...],
        dtype: DType | None,
        precision: lax.PrecisionLike,
    ) -> int:
        """Assigns the options that all have; the number of spatial axes."""
        with placed(self):
            self.kernel_size = canonical_window(kernel_size, "kernel_size")
            spatial = len(self.kernel_size)
            self.strides = per_axis(strides, spatial, "strides")
            self.kernel_dilation = per_axis(kernel_dilation, spatial, "kernel_dilation")
            self.padding = canonical_padding(padding, spatial, paddings)
            self.dtype = None if dtype is None else inexact_dtype(dtype)
        self.precision = precision
        return spatial


def window_axes(spatial: int, *names: str | None) -> Axes:
    """The names of a kernel's axes, after a window without names."""
    return (*(None,) * spatial, *names)


def check_groups(
    module: Module, size_in: int | None, size_out: int, groups: int
) -> None:
    """Refuses features that cannot be shared out among the groups."""
    for name, size in (("in_features", size_in), ("features", size_out)):
        if size is not None and size % groups:
            raise ConfigError(
                f"`{name}` is {size}, which `feature_group_count={groups}` does not "
                "divide.",
                code="LN-VALUE-06",
                at=type(module).__name__,
                fixes=[("all features may mix", "feature_group_count = 1")],
            )
