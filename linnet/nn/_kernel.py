"""What layers with kernels share: how these start, their axes, and their masks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from linnet._errors import ConfigError
from linnet._typing import Array, ArrayLike, DType, Initializer, Key, Shape
from linnet.core import Module, constant, param
from linnet.functional._dtype import as_array
from linnet.functional._kernel import check_kernel_mask
from linnet.nn._place import placed

Axes = tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class as_matrix:
    """Starts a kernel of several axes as the matrix of inputs and outputs that it is.

    Args:
        init: Called with `[I, O]`, the products of the sizes of the inputs and of
            the outputs: once, or with a key each for every index of the others.
        inputs: Axes of the kernel that are contracted.
        outputs: Axes that are new.
    """

    init: Initializer
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def __call__(self, key: Key, shape: Shape, dtype: DType = jnp.float32) -> Array:
        """The kernel."""
        mapped = {*self.inputs, *self.outputs}
        others = tuple(a for a in range(len(shape)) if a not in mapped)
        order = (*others, *self.inputs, *self.outputs)
        groups = (others, self.inputs, self.outputs)
        count, rows, columns = (math.prod(shape[a] for a in axes) for axes in groups)

        def one(key: Key) -> Array:
            return self.init(key, (rows, columns), dtype)

        keys = jax.random.split(key, count) if others else None
        array = one(key) if keys is None else jax.vmap(one)(keys)
        array = array.reshape([shape[a] for a in order])
        return array.transpose([order.index(a) for a in range(len(shape))])


def logical_axes(
    module: Module,
    given: Sequence[str | None] | None,
    ndim: int,
    inputs: Sequence[int],
    outputs: Sequence[int],
) -> Axes:
    """The names that were given, or "in" and "out" for the first such axes."""
    if given is None:
        names = {**{a: "out" for a in outputs[:1]}, **{a: "in" for a in inputs[:1]}}
        return tuple(names.get(a) for a in range(ndim))
    names_given = tuple(given)
    if isinstance(given, str) or len(names_given) != ndim:
        padded = (*(() if isinstance(given, str) else names_given), *(None,) * ndim)
        raise ConfigError(
            f"`kernel_axes` is {given!r}, but the kernel has {ndim} axes.",
            code="LN-VALUE-06",
            at=type(module).__name__,
            fixes=[("some axes have no name", f"kernel_axes = {padded[:ndim]}")],
        )
    return names_given


def kernel_mask(
    module: Module, mask: ArrayLike | None, shape: Sequence[int | None], axes: Axes
) -> Any:
    """Declares a mask that fits a kernel of this shape as a constant, if there is one.

    Its axes are sharded like those of the kernel, where they are as large.
    """
    if mask is None:
        return None
    with placed(module):
        mask = as_array(mask)
        check_kernel_mask(mask, shape)
    names = zip(mask.shape, axes, strict=True)
    return constant(mask, axes=[None if size == 1 else name for size, name in names])


def bias_param(
    wanted: bool,
    init: Initializer,
    shape: Sequence[int | None],
    dtype: DType,
    axes: Sequence[str | None] = ("out",),
) -> Any:
    """Declares a bias, if it is wanted."""
    return param(init, shape, dtype, axes=axes) if wanted else None
