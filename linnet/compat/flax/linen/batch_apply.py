"""Functions of one batch axis on arrays with several."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = [
    "BatchApply",
    "arbitrary_mergeable_leaf",
    "merge_leading_dims",
    "ndim_at_least",
    "split_leading_dim",
]


def ndim_at_least(x: Any, num_dims: int) -> bool:
    """Whether an array has that many axes."""
    return jnp.asarray(x).ndim >= num_dims


def arbitrary_mergeable_leaf(min_num_dims: int, args: Any, kwargs: Any) -> Any:
    """Some array among arguments that has that many axes.

    Raises:
        ValueError: There is none.
    """
    for leaf in jax.tree.leaves((args, kwargs)):
        if ndim_at_least(leaf, min_num_dims):
            return leaf
    raise ValueError(
        f"BatchApply requires at least one input with ndim >= {min_num_dims}."
    )


def merge_leading_dims(x: Any, num_dims: int) -> Any:
    """The array with its first axes as one; one that has too few as it is."""
    if not ndim_at_least(x, num_dims):
        return x
    return x.reshape((-1, *x.shape[num_dims:]))


def split_leading_dim(x: Any, to_dim: tuple[int, ...]) -> Any:
    """The array with its first axis as several."""
    return x.reshape((*to_dim, *x.shape[1:]))


class BatchApply:
    """Merges the first axes of all arguments, calls a function, and splits them again.

    Args:
        f: The function.
        num_dims: The number of axes to merge.
    """

    def __init__(self, f: Callable[..., Any], num_dims: int = 2):
        self._f = f
        self.num_dims = num_dims

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns, with as many axes as went in."""
        example = arbitrary_mergeable_leaf(self.num_dims, args, kwargs)
        args, kwargs = jax.tree.map(
            lambda x: merge_leading_dims(x, self.num_dims), (args, kwargs)
        )
        outputs = self._f(*args, **kwargs)
        shape = example.shape[: self.num_dims]
        return jax.tree.map(lambda x: split_leading_dim(x, shape), outputs)
