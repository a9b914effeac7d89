"""Linear maps and embeddings as functions of a scope."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from linnet.compat.flax import struct
from linnet.compat.flax.core.scope import Array, Scope
from linnet.compat.flax.linen import initializers
from linnet.compat.flax.linen import linear as layers
from linnet.compat.flax.linen.linear import default_embed_init, default_kernel_init

__all__ = [
    "Embedding",
    "Iterable",
    "Scope",
    "conv",
    "conv_transpose",
    "default_embed_init",
    "default_kernel_init",
    "dense",
    "dense_general",
    "embedding",
    "initializers",
    "jnp",
    "lax",
    "np",
    "struct",
]

_zeros = initializers.zeros


def dense_general(
    scope: Scope,
    inputs: Array,
    features: int | Sequence[int],
    axis: int | Sequence[int] = -1,
    batch_dims: Sequence[int] = (),
    bias: bool = True,
    dtype: Any = jnp.float32,
    kernel_init: Any = default_kernel_init,
    bias_init: Any = _zeros,
    precision: Any = None,
) -> Array:
    """A linear map over several axes: `[*batch, ..., *axis]` to `[..., *features]`.

    The parameters `kernel` and `bias` are made in the scope.
    """
    copies = math.prod(inputs.shape[i] for i in batch_dims)
    layer = layers.DenseGeneral(
        features,
        axis,
        tuple(batch_dims),
        use_bias=bias,
        dtype=dtype,
        kernel_init=_repeated(kernel_init, copies),
        bias_init=_repeated(bias_init, copies),
        precision=precision,
        parent=scope,
    )
    return layer(inputs)


def _repeated(init: Any, copies: int) -> Any:
    """An initialiser that makes a part of the rows, and gives it `copies` times."""
    if copies == 1:
        return init

    def repeated(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        part = init(key, (shape[0] // copies, *shape[1:]), dtype)
        return jnp.concatenate([part] * copies)

    return repeated


def dense(
    scope: Scope,
    inputs: Array,
    features: int,
    bias: bool = True,
    dtype: Any = jnp.float32,
    precision: Any = None,
    kernel_init: Any = default_kernel_init,
    bias_init: Any = _zeros,
) -> Array:
    """A linear map of the last axis: `[..., in]` to `[..., features]`.

    Example:
        >>> import jax
        >>> from linnet.compat.flax.core import init, nn
        >>> model = lambda scope, x: nn.dense(scope, x, 3)
        >>> y, variables = init(model)(jax.random.key(0), jnp.ones((2, 4)))
        >>> y.shape, variables["params"]["kernel"].shape
        ((2, 3), (4, 3))
    """
    layer = layers.Dense(
        features,
        use_bias=bias,
        dtype=dtype,
        precision=precision,
        kernel_init=kernel_init,
        bias_init=bias_init,
        parent=scope,
    )
    return layer(inputs)


def conv(
    scope: Scope,
    inputs: Array,
    features: int,
    kernel_size: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "SAME",
    input_dilation: Sequence[int] | None = None,
    kernel_dilation: Sequence[int] | None = None,
    feature_group_count: int = 1,
    bias: bool = True,
    dtype: Any = jnp.float32,
    precision: Any = None,
    kernel_init: Any = default_kernel_init,
    bias_init: Any = _zeros,
) -> Array:
    """A convolution: `[batch, *spatial, in]` to `[batch, *spatial, features]`."""
    layer = layers.Conv(
        features,
        tuple(kernel_size),
        strides,
        padding,
        input_dilation,
        kernel_dilation,
        feature_group_count,
        use_bias=bias,
        dtype=dtype,
        precision=precision,
        kernel_init=kernel_init,
        bias_init=bias_init,
        parent=scope,
    )
    return layer(inputs)


def conv_transpose(
    scope: Scope,
    inputs: Array,
    features: int,
    kernel_size: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "SAME",
    kernel_dilation: Sequence[int] | None = None,
    bias: bool = True,
    dtype: Any = jnp.float32,
    precision: Any = None,
    kernel_init: Any = default_kernel_init,
    bias_init: Any = _zeros,
) -> Array:
    """A transposed convolution: `[batch, *spatial, in]` to `[..., features]`."""
    layer = layers.ConvTranspose(
        features,
        tuple(kernel_size),
        strides,
        padding,
        kernel_dilation,
        use_bias=bias,
        dtype=dtype,
        precision=precision,
        kernel_init=kernel_init,
        bias_init=bias_init,
        parent=scope,
    )
    return layer(inputs)


@struct.dataclass
class Embedding:
    """A table of vectors.

    Args:
        table: `[num_embeddings, features]`.
    """

    table: np.ndarray

    def lookup(self, indices: Array) -> Array:
        """The vectors of indices: `[...]` to `[..., features]`.

        Raises:
            ValueError: The indices are no integers.
        """
        if not jnp.issubdtype(indices.dtype, jnp.integer):
            raise ValueError("Input type must be an integer or unsigned integer.")
        return self.table[indices]

    def attend(self, query: Array) -> Array:
        """The products of queries with all vectors: `[..., features]` to `[..., n]`."""
        return jnp.dot(query, self.table.T)


def embedding(
    scope: Scope, num_embeddings: int, features: int, init_fn: Any = default_embed_init
) -> Embedding:
    """A table of `num_embeddings` vectors, kept as the parameter `table`."""
    table = scope.param("table", init_fn, (num_embeddings, features))
    return Embedding(table)
