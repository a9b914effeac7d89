"""Gradients of a large batch, from parts of it one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from linnet import nn
from linnet._errors import ConfigError, describe
from linnet._typing import Array, Key, PyTree
from linnet.core._check import check_size
from linnet.core._path import path_text
from linnet.core._where import Where

LossFn = Callable[..., Any]


def accumulate(
    loss_fn: LossFn,
    model: PyTree,
    batch: PyTree,
    key: Key | None = None,
    *,
    parts: int,
    wrt: Where = nn.Param,
) -> tuple[tuple[Array, PyTree], PyTree]:
    r"""The loss and the gradients of a batch that is too large to take at once.

    The batch is cut into parts along its first axis, and the sums of the losses and of
    their gradients go from part to part in one compiled loop, in float32. Both are then
    divided by the sum of the counts, so that they are those of the large batch to
    rounding, however unevenly masks or padding leave the parts filled. State that the
    model writes, such as batch statistics, goes from part to part too, which is what
    small batches one after another do, and not what the large batch does.

    Args:
        loss_fn: `loss_fn(model, part, key) -> (total, count, model)`: the sum of the
            losses of a part, how many they are, and the updated model. `key` is left
            out if none is given here.
        model: A model.
        batch: A pytree of arrays `[B, ...]`.
        key: Each part gets its own, folded in by its number.
        parts: Number of parts; it divides B.
        wrt: What the gradients are by.

    Returns:
        `((loss, model), grads)`, as `nn.value_and_grad(..., has_aux=True)` gives them:
        the mean loss, the model with the state of the last part, and the gradients of
        the mean, in the dtypes of the parameters.

    Raises:
        ConfigError: `parts` does not divide the batch.

    Example:
        >>> def loss_fn(model, part):
        ...     losses = (model(part["x"]) - part["y"]) ** 2 * part["mask"]
        ...     return losses.sum(), part["mask"].sum(), model
        >>> x = jnp.arange(8.0)[:, None]
        >>> batch = {"x": x, "y": 2 * x, "mask": jnp.float32(x < 5)}
        >>> model = nn.init(nn.Dense(1), jax.random.key(0), x)
        >>> (loss, model), grads = training.accumulate(loss_fn, model, batch, parts=4)
        >>> grads.kernel.shape
        (1, 1)
    """
    __tracebackhide__ = True
    parts = check_size("accumulate", "parts", parts)
    batch = jax.tree_util.tree_map_with_path(
        lambda path, x: _cut(path_text(path), x, parts), batch
    )
    params, _ = nn.partition(model, wrt)

    def total_fn(model: PyTree, part: PyTree, *keys: Key) -> Any:
        total, count, model = loss_fn(model, part, *keys)
        return total, (count, model)

    def one(carry: Any, given: Any) -> Any:
        model, total, count, grads = carry
        i, part = given
        keys = () if key is None else (jax.random.fold_in(key, i),)
        (loss, (more, after)), found = nn.value_and_grad(total_fn, wrt, has_aux=True)(
            model, part, *keys
        )
        grads = jax.tree.map(lambda a, b: a + b.astype(a.dtype), grads, found)
        total, count = total + loss.astype(total.dtype), count + jnp.float32(more)
        return (_with_params(model, after, wrt), total, count, grads), None

    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, _wide(p.dtype)), params)
    start = (model, jnp.float32(0), jnp.float32(0), zeros)
    (model, total, count, grads), _ = jax.lax.scan(
        one, start, (jnp.arange(parts), batch)
    )
    count = jnp.maximum(count, jnp.finfo(jnp.float32).tiny)
    grads = jax.tree.map(lambda g, p: (g / count).astype(p.dtype), grads, params)
    return (total / count, model), grads


def _cut(path: str, x: Any, parts: int) -> Array:
    """`[B, ...]` as `[parts, B / parts, ...]`."""
    size = x.shape[0] if x.ndim else 0
    if size == 0 or size % parts:
        fewer = max((n for n in range(1, parts) if size and size % n == 0), default=1)
        raise ConfigError(
            f"a batch of {size} cannot be cut into {parts} equal parts.",
            code="LN-TRAIN-03",
            at="accumulate",
            facts={path or "batch": describe(x)},
            fixes=[
                ("there may be fewer parts", f"parts = {fewer}"),
                (
                    "the batch may be smaller",
                    f"batch = jax.tree.map(lambda x: x[:{size - size % parts}], batch)",
                ),
            ],
        )
    return jnp.reshape(x, (parts, size // parts, *x.shape[1:]))


def _with_params(model: PyTree, after: PyTree, wrt: Where) -> PyTree:
    """The model after a part, whose parameters are those from before."""
    params, _ = nn.partition(model, wrt)
    _, rest = nn.partition(after, wrt)
    return nn.merge(params, rest)


def _wide(dtype: Any) -> Any:
    return jnp.promote_types(dtype, jnp.float32)
