"""Carries that a model keeps between calls."""

from __future__ import annotations

from typing import Any

import jax

from linnet._errors import ConfigError
from linnet._typing import Array, ArrayLike, PyTree
from linnet.core import Cache, Module, state
from linnet.core._locate import locate
from linnet.nn._cache import ROWS, CacheIndex
from linnet.nn._decode import check_rows, looks_ahead, refuse_plain


class CarryCache(Module):
    """The carry of each row of a batch, and how many steps the row has taken."""

    def __init__(self, carry: PyTree, batch_size: int) -> None:
        self.index = CacheIndex(batch_size)
        self.carry = jax.tree.map(_kept, carry)


def _kept(array: Array) -> Any:
    axes = (*ROWS, *(None for _ in array.shape[1:]))
    return state(array, role=Cache, axes=axes)


def steps_taken(module: Any, x: ArrayLike, **masks: Any) -> Array:
    """Takes the steps of `x`, and gives which of them count, `[B, T]`.

    Args:
        module: That was called with `x`. It has `reverse`, and a `CarryCache`.
        x: `[B, T, I]`.
        **masks: What does not go with a cache, by name.

    Raises:
        ConfigError: There is a mask, or the module goes backwards.
        ScopeError: The call is a plain one, or one of training.
        ShapeError: There are other rows than in the cache.
    """
    for name, mask in masks.items():
        if mask is not None:
            raise _masked(module, name)
    refuse_plain(module)
    if module.reverse:
        what = "a recurrent layer that goes backwards"
        why = "It starts from the last token, and there are more to come."
        raise looks_ahead(module, what, why)
    index = module.cache.index
    check_rows(module, x, index)
    return index.takes(index.take(x.shape[1]))


def _masked(module: Any, name: str) -> ConfigError:
    return ConfigError(
        f"`{name}` was given to a recurrent layer with a cache.",
        code="LN-CACHE-01",
        at=locate(module),
        why="Each row goes on from where it is.",
        fixes=[
            (
                "it keeps out padding on the right",
                f"model = nn.limit_cache(model, lengths)\n{name} = None",
            ),
            ("`x` holds whole sequences", "model = nn.without_cache(model)"),
        ],
    )


def no_cache_of_images(module: Any) -> ConfigError:
    """The error for a cache of a cell whose input has spatial axes.

    Args:
        module: The layer.
    """
    return ConfigError(
        "a cell of images has no cache.",
        code="LN-CACHE-02",
        at=locate(module),
        why="The size of the images is known when they come.",
        fixes=[
            (
                "its carry can be kept by hand",
                "model = model.replace(return_carry=True)\ncarry, out = model(x)",
            )
        ],
    )
