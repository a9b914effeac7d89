"""Tables of vectors."""

from __future__ import annotations

import jax.numpy as jnp

from linnet import functional as F
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import Module, param
from linnet.core._check import check_size
from linnet.functional._dtype import inexact_dtype
from linnet.functional.initializers import variance_scaling
from linnet.nn._place import placed

EMBEDDING_INIT = variance_scaling(1.0, "fan_in", "normal", in_axis=1, out_axis=0)


class Embed(Module):
    """Looks up a vector for each integer.

    An id outside `0 <= id < V` gives NaN: compiled code cannot raise, and NaN is
    seen where a neighbouring row would not be.

    Args:
        num_embeddings: Number V of rows.
        features: Size D of each.
        dtype: Of the result. `None` takes that of `embedding`, and in `attend` the
            one to which it and `x` promote together.
        param_dtype: Of `embedding`.
        embedding_init: Initialiser of `embedding`; rows of unit length on average.

    Parameters:
        embedding: `[V, D]`. Logical axes `("vocab", "features")`.

    Shapes:
        ids: `[...]`  ->  `[..., D]`

    Raises:
        ConfigError: A size is no positive integer.
        DTypeError: `ids` are not integers.
        ShapeError: In `attend`, the last axis of `x` is not D.

    Example:
        >>> ids = jnp.array([[1, 2, 1]])
        >>> embed = nn.init(nn.Embed(10, 4), jax.random.key(0), ids)
        >>> embed(ids).shape
        (1, 3, 4)
        >>> embed.attend(embed(ids)).shape
        (1, 3, 10)

    Differs from: PyTorch, whose rows have unit variance per entry, D times as much,
    and which raises for ids outside. Flax Linen, which counts negative ids from the
    end.
    Source: Press and Wolf, "Using the Output Embedding to Improve Language Models",
    2017, arXiv:1608.05859, for `attend`.
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        embedding_init: Initializer = EMBEDDING_INIT,
    ) -> None:
        self.num_embeddings = check_size(self, "num_embeddings", num_embeddings)
        self.features = check_size(self, "features", features)
        with placed(self):
            self.dtype = None if dtype is None else inexact_dtype(dtype)
        shape, axes = (self.num_embeddings, self.features), ("vocab", "features")
        self.embedding = param(embedding_init, shape, param_dtype, axes=axes)

    def __call__(self, ids: ArrayLike) -> Array:
        """Looks up rows.

        Args:
            ids: `[...]`, integers.
        """
        self.check_input(ids, "ids", dtype="integer")
        return F.embed(ids, self.embedding, dtype=self.dtype)

    def attend(self, x: ArrayLike) -> Array:
        """Scores `x` against every row: logits over the vocabulary.

        Args:
            x: `[..., D]`, floating or complex.
        """
        self.check_input(x, min_ndim=1, dtype="inexact")
        self.expect(embedding=(self.num_embeddings, x.shape[-1]))
        return F.attend(x, self.embedding, dtype=self.dtype)
