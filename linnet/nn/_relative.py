"""Biases of attention by distance."""

from __future__ import annotations

import jax.numpy as jnp

from linnet import functional as F
from linnet._errors import ShapeError, describe
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import Module, param
from linnet.core._check import check_size
from linnet.core._locate import locate
from linnet.functional._dtype import widened
from linnet.functional._relative import check_buckets
from linnet.functional.initializers import normal
from linnet.nn._place import placed

EMBEDDING_INIT = normal(0.02)


class ALiBi(Module):
    r"""Lets attention logits fall off linearly with distance.

    $-m_h |p_t - p_s|$ is added to the logit of query t and key s in head h. Nothing
    is trained. `nn.Attention` takes one as its `position`, and calls the method `bias`;
    a call adds to logits that are there.

    Shapes:
        logits: `[..., H, T, S]`  ->  `[..., H, T, S]`, same dtype as `logits`.

    Raises:
        DTypeError: `logits` are not floating.
        ShapeError: There are too few axes, or positions do not fit.

    Example:
        >>> nn.ALiBi().bias(1, jnp.arange(2), jnp.arange(2)) * 256
        Array([[[ 0., -1.],
                [-1.,  0.]]], dtype=float32)

    Differs from: the paper, where keys after the query are masked; here they count
    by their distance as well, for attention in both directions.
    Source: Press, Smith and Lewis, "Train Short, Test Long", 2021, section 3,
    arXiv:2108.12409.
    """

    def bias(
        self, num_heads: int, positions: ArrayLike, key_positions: ArrayLike
    ) -> Array:
        """What is added to the logits, `[..., H, T, S]` in float32.

        Args:
            num_heads: Number H of heads.
            positions: `[..., T]` of the queries, integers or floating.
            key_positions: `[..., S]` of the keys.
        """
        with placed(self):
            return F.alibi_bias(num_heads, positions, key_positions)

    def __call__(
        self,
        logits: ArrayLike,
        positions: ArrayLike | None = None,
        key_positions: ArrayLike | None = None,
    ) -> Array:
        """Adds the bias.

        Args:
            logits: `[..., H, T, S]`, floating.
            positions: `[T]` or `[..., T]` of the queries; counted from zero if left
                out.
            key_positions: `[S]` or `[..., S]` of the keys; likewise.
        """
        return _biased(self, logits, positions, key_positions)


class RelativeBias(Module):
    """Adds a trained bias for each head and bucket of distances, as T5 does.

    Small distances have a bucket each, larger ones share buckets whose width grows.
    `nn.Attention` takes one as its `position`, and calls the method `bias`; a call adds
    to logits that are there.

    Args:
        num_heads: Number H of heads. `None` infers it at `nn.init`.
        num_buckets: Number B of buckets.
        max_distance: Distance from which on all are in the last bucket.
        bidirectional: Whether keys after the query have half of the buckets for
            themselves; otherwise they share the bucket of distance 0, for causal
            attention.
        param_dtype: Of `embedding`.
        embedding_init: Initialiser of `embedding`.

    Parameters:
        embedding: `[B, H]`. Logical axes `(None, "heads")`.

    Shapes:
        logits: `[..., H, T, S]`  ->  `[..., H, T, S]`, same dtype as `logits`.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: `logits` are not floating, or positions no integers.
        ShapeError: `logits` have not H heads, or positions do not fit.

    Example:
        >>> logits = jnp.zeros((2, 4, 6, 6))
        >>> relative = nn.init(nn.RelativeBias(4), jax.random.key(0), logits)
        >>> relative(logits).shape, relative.embedding.shape
        ((2, 4, 6, 6), (32, 4))

    Differs from: T5, where the first layer's bias is used by all: pass one module to
    every layer for that.
    Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified
    Text-to-Text Transformer", 2019, section 2.1, arXiv:1910.10683.
    """

    def __init__(
        self,
        num_heads: int | None = None,
        *,
        num_buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool = True,
        param_dtype: DType = jnp.float32,
        embedding_init: Initializer = EMBEDDING_INIT,
    ) -> None:
        heads = check_size(self, "num_heads", num_heads, allow_none=True)
        self.num_buckets = check_size(self, "num_buckets", num_buckets)
        self.max_distance = check_size(self, "max_distance", max_distance)
        self.bidirectional = bool(bidirectional)
        with placed(self):
            check_buckets(num_buckets, max_distance, self.bidirectional)
        shape, axes = (self.num_buckets, heads), (None, "heads")
        self.embedding = param(embedding_init, shape, param_dtype, axes=axes)

    def bias(
        self, num_heads: int, positions: ArrayLike, key_positions: ArrayLike
    ) -> Array:
        """What is added to the logits, `[..., H, T, S]` in float32.

        Args:
            num_heads: Number H of heads.
            positions: `[..., T]` of the queries, integers.
            key_positions: `[..., S]` of the keys, integers.
        """
        self.expect(embedding=(self.num_buckets, num_heads))
        with placed(self):
            return F.relative_position_bias(
                self.embedding,
                positions,
                key_positions,
                max_distance=self.max_distance,
                bidirectional=self.bidirectional,
            )

    def __call__(
        self,
        logits: ArrayLike,
        positions: ArrayLike | None = None,
        key_positions: ArrayLike | None = None,
    ) -> Array:
        """Adds the bias.

        Args:
            logits: `[..., H, T, S]`, floating.
            positions: `[T]` or `[..., T]` of the queries; counted from zero if left
                out.
            key_positions: `[S]` or `[..., S]` of the keys; likewise.
        """
        return _biased(self, logits, positions, key_positions)


def _biased(
    module: ALiBi | RelativeBias,
    logits: ArrayLike,
    positions: ArrayLike | None,
    key_positions: ArrayLike | None,
) -> Array:
    """The logits with the module's bias added in float32 or wider."""
    module.check_input(logits, "logits", min_ndim=3, dtype="floating")
    heads, queries, keys = logits.shape[-3:]
    for name, given, size in (
        ("positions", positions, queries),
        ("key_positions", key_positions, keys),
    ):
        if given is None and queries != keys:
            raise ShapeError(
                f"`{name}` are needed where {queries} queries meet {keys} keys.",
                code="LN-SHAPE-01",
                at=locate(module),
                facts={"logits": describe(logits)},
                why="It cannot be known which of the keys a query stands at.",
                fixes=[("they are counted from zero", f"{name} = jnp.arange({size})")],
            )
    if positions is None:
        positions = jnp.arange(queries)
    if key_positions is None:
        key_positions = jnp.arange(keys)
    bias = module.bias(heads, positions, key_positions)  # [..., H, T, S]
    missing = logits.ndim - bias.ndim
    fits = missing >= 0 and all(
        m in (1, n) for m, n in zip(bias.shape, logits.shape[missing:], strict=True)
    )
    if not fits:
        raise ShapeError(
            f"a bias of shape {list(bias.shape)} does not fit `logits` of shape "
            f"{list(logits.shape)}.",
            code="LN-SHAPE-01",
            at=locate(module),
            facts={"logits": describe(logits)},
            why="It has the axes of the positions, with the heads between.",
            fixes=[
                ("tokens are counted from zero", f"positions = jnp.arange({queries})")
            ],
        )
    bias = bias.reshape((1,) * missing + bias.shape)
    wide = widened(logits.dtype)
    return jnp.asarray(logits.astype(wide) + bias.astype(wide), logits.dtype)
