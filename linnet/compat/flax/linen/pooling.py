"""Pooling over windows, with channels last."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["avg_pool", "max_pool", "min_pool", "pool"]


def pool(
    inputs: Any,
    init: Any,
    reduce_fn: Callable[..., Any],
    window_shape: Sequence[int],
    strides: Sequence[int] | None,
    padding: Any,
) -> Any:
    """Reduces each window.

    Args:
        inputs: `[*batch, *window axes, features]`; one example needs no batch axis.
        init: The value that a reduction starts from.
        reduce_fn: The reduction of two values.
        window_shape: The size of the window along each axis.
        strides: Its steps; by default 1.
        padding: `SAME`, `VALID`, or a pair for each axis.
    """
    num_batch_dims = inputs.ndim - (len(window_shape) + 1)
    strides = strides or (1,) * len(window_shape)
    assert len(window_shape) == len(strides), (
        f"len({window_shape}) must equal len({strides})"
    )
    strides = (1,) * num_batch_dims + tuple(strides) + (1,)
    dims = (1,) * num_batch_dims + tuple(window_shape) + (1,)
    is_single = num_batch_dims == 0
    if is_single:
        inputs = inputs[None]
        strides, dims = (1, *strides), (1, *dims)
    assert inputs.ndim == len(dims), f"len({inputs.shape}) != len({dims})"
    if not isinstance(padding, str):
        padding = tuple(map(tuple, padding))
        assert len(padding) == len(window_shape), (
            f"padding {padding} must specify pads for same number of dims as "
            f"window_shape {window_shape}"
        )
        assert all(len(pair) == 2 for pair in padding), (
            f"each entry in padding {padding} must be length 2"
        )
        outer = ((0, 0),) * (1 if is_single else num_batch_dims)
        padding = (*outer, *padding, (0, 0))
    y = lax.reduce_window(inputs, init, reduce_fn, dims, strides, padding)
    return jnp.squeeze(y, axis=0) if is_single else y


def avg_pool(
    inputs: Any,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Any = "VALID",
    count_include_pad: bool = True,
) -> Any:
    """The mean of each window.

    Args:
        inputs: `[*batch, *window axes, features]`.
        window_shape: The size of the window along each axis.
        strides: Its steps; by default 1.
        padding: `SAME`, `VALID`, or a pair for each axis.
        count_include_pad: Whether padding counts.
    """
    y = pool(inputs, 0.0, lax.add, window_shape, strides, padding)
    if count_include_pad:
        return y / np.prod(window_shape)
    shape = (*inputs.shape[:-1], 1)
    return y / pool(jnp.ones(shape), 0.0, lax.add, window_shape, strides, padding)


def max_pool(
    inputs: Any,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Any = "VALID",
) -> Any:
    """The largest number of each window; arguments as `avg_pool`."""
    return pool(inputs, -jnp.inf, lax.max, window_shape, strides, padding)


def min_pool(
    inputs: Any,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Any = "VALID",
) -> Any:
    """The smallest number of each window; arguments as `avg_pool`."""
    return pool(inputs, jnp.inf, lax.min, window_shape, strides, padding)
