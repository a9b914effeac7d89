"""Tables of vectors, as arrays.

V rows of the table (vocabulary)  D features
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from linnet._errors import ShapeError, describe
from linnet._typing import Array, ArrayLike, DType
from linnet.functional._dtype import inexact, integer, promoted
from linnet.functional._shape import features_elsewhere


def embed(ids: ArrayLike, embedding: ArrayLike, *, dtype: DType | None = None) -> Array:
    """Looks up rows of a table.

    An id outside `0 <= id < V` gives a row of NaN: compiled code cannot raise, and
    NaN is seen where a neighbouring row would not be. Such ids send no gradient.

    Args:
        ids: `[...]`, integers.
        embedding: `[V, D]`.
        dtype: Of the result; `None` takes that of `embedding`.

    Returns:
        `[..., D]`.

    Raises:
        DTypeError: `ids` are not integers, or `embedding` holds integers.
        ShapeError: `embedding` has not two axes.

    Example:
        >>> from linnet import functional as F
        >>> F.embed(jnp.array([1, 0, 7]), jnp.array([[0.0, 1.0], [2.0, 3.0]]))
        Array([[ 2.,  3.],
               [ 0.,  1.],
               [nan, nan]], dtype=float32)
    """
    ids, embedding = integer(ids, "ids"), inexact(embedding, "embedding")
    _check_table(embedding)
    rows = embedding.at[ids].get(
        mode="fill", fill_value=jnp.nan, wrap_negative_indices=False
    )  # [..., D]
    return rows if dtype is None else rows.astype(dtype)


def attend(
    x: ArrayLike,
    embedding: ArrayLike,
    *,
    dtype: DType | None = None,
    precision: lax.PrecisionLike = None,
) -> Array:
    """Scores `x` against every row of a table: logits over the vocabulary.

    Args:
        x: `[..., D]`, floating or complex.
        embedding: `[V, D]`.
        dtype: Of the computation and the result. `None` takes the one to which
            the arrays promote together.
        precision: Of the product, as in `jax.lax.dot_general`.

    Returns:
        `[..., V]`.

    Raises:
        DTypeError: An array holds integers or booleans.
        ShapeError: The last axes differ, or `embedding` has not two axes.

    Example:
        >>> from linnet import functional as F
        >>> F.attend(jnp.array([1.0, 2.0]), jnp.array([[0.0, 1.0], [2.0, 3.0]]))
        Array([2., 8.], dtype=float32)
    """
    names = ("x", "embedding")
    x, embedding, _ = promoted(dtype, x, embedding, names=names)
    _check_table(embedding)
    if x.ndim < 1 or x.shape[-1] != embedding.shape[1]:
        raise ShapeError(
            f"`x` of shape {list(x.shape)} cannot be scored against an `embedding` "
            f"of shape {list(embedding.shape)}.",
            code="LN-SHAPE-01",
            facts={"x": describe(x), "embedding": describe(embedding)},
            why="The last axis of `x` is contracted with the last of `embedding`.",
            fixes=features_elsewhere("x", x, embedding.shape[1]),
        )
    contract = (((x.ndim - 1,), (1,)), ((), ()))
    return lax.dot_general(x, embedding, contract, precision=precision)  # [..., V]


def _check_table(embedding: Array) -> None:
    if embedding.ndim != 2:
        raise ShapeError(
            f"`embedding` has {embedding.ndim} axes, but a table has two.",
            code="LN-SHAPE-02",
            facts={"embedding": describe(embedding)},
            why="It has one row of features for each number in `ids`.",
            fixes=[
                (
                    "its leading axes count the rows",
                    "embedding = embedding.reshape(-1, embedding.shape[-1])",
                )
            ]
            if embedding.ndim > 2
            else [("there is one feature", "embedding = embedding.reshape(-1, 1)")],
        )
