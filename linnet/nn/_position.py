"""Where a token stands, added to what it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from linnet import functional as F
from linnet._errors import ConfigError, ShapeError, describe
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import Module, param
from linnet.core._check import check_positive, check_size
from linnet.functional._dtype import as_array, inexact_dtype, integer, promoted, widened
from linnet.functional._position import coordinates, positions_array
from linnet.functional.initializers import normal
from linnet.nn._cache import CacheIndex
from linnet.nn._decode import taken
from linnet.nn._place import placed

EMBEDDING_INIT = normal(0.02)


class LearnedPosition(Module):
    """Adds a trained vector for each position.

    Of several axes, as of the patches of an image, every place has a vector of its
    own. A position outside of the table gives NaN, as an id does in `nn.Embed`.

    Args:
        max_length: Number L of positions, or one number per axis.
        features: Size D of the last axis of `x`. `None` infers it at `nn.init`.
        dtype: Of the computation and the result. `None` takes the one to which `x`
            and the table promote together.
        param_dtype: Of `embedding`.
        embedding_init: Initialiser of `embedding`.

    Parameters:
        embedding: `[*L, D]`. Logical axes `(None, ..., "features")`.
        cache: An `nn.CacheIndex`, where `nn.with_cache` put one: then positions are
            counted from the length of what is there.

    Shapes:
        x: `[..., *T, D]`  ->  `[..., *T, D]`, with T at most L.

    Raises:
        ConfigError: A size is no positive integer.
        DTypeError: `x` holds integers or booleans, or `positions` anything else.
        ShapeError: The last axis of `x` is not D, an axis is longer than the table,
            or `positions` do not fit.

    Example:
        >>> x = jnp.ones((8, 5, 4))
        >>> position = nn.init(nn.LearnedPosition(16), jax.random.key(0), x)
        >>> position(x).shape, position.embedding.shape
        ((8, 5, 4), (16, 4))

    Differs from: Embed, which returns the vectors; here they are added.
    Source: Gehring et al., "Convolutional Sequence to Sequence Learning", 2017,
    section 3.1, arXiv:1705.03122; Dosovitskiy et al., "An Image is Worth 16x16
    Words", 2020, section 3.1, arXiv:2010.11929.
    """

    def __init__(
        self,
        max_length: int | Sequence[int],
        *,
        features: int | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        embedding_init: Initializer = EMBEDDING_INIT,
    ) -> None:
        lengths = max_length if isinstance(max_length, Sequence) else (max_length,)
        lengths = tuple(check_size(self, "max_length", n) for n in lengths)
        check_size(self, "len(max_length)", len(lengths))
        self.max_length = lengths if isinstance(max_length, Sequence) else lengths[0]
        with placed(self):
            self.dtype = None if dtype is None else inexact_dtype(dtype)
        size = check_size(self, "features", features, allow_none=True)
        axes = (*(None for _ in lengths), "features")
        shape = (*lengths, size)
        self.embedding = param(embedding_init, shape, param_dtype, axes=axes)
        self.cache: Any = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """`max_length`, one number per axis."""
        given = self.max_length
        return given if isinstance(given, tuple) else (given,)

    def __call__(self, x: ArrayLike, positions: ArrayLike | None = None) -> Array:
        """Adds the vectors.

        Args:
            x: `[..., *T, D]`, floating or complex; with `positions` any `[..., D]`.
            positions: Integers: where each vector of `x` stands, `[T]` or `[..., T]`,
                and of several axes one coordinate per axis, `[..., T, N]`. Counted
                from zero if left out.
        """
        ndim = 1 + (len(self.lengths) if positions is None else 1)
        self.check_input(x, min_ndim=ndim, dtype="inexact")
        self.expect(embedding=(*self.lengths, x.shape[-1]))
        if self.cache is not None and not self.initializing:
            positions = taken(self, x, positions)
        with placed(self):
            x, table, _ = promoted(
                self.dtype, x, self.embedding, names=("x", "embedding")
            )
            if positions is None:
                self._refuse_longer(x)
                corner = x.shape[x.ndim - ndim : -1]
                rows = table[tuple(slice(n) for n in corner)]  # [*T, D]
            else:
                where = coordinates(
                    integer(positions, "positions"), x, ndim=len(self.lengths)
                )
                rows = table.at[where].get(
                    mode="fill", fill_value=jnp.nan, wrap_negative_indices=False
                )  # [..., T, D]
            return x + rows.reshape((1,) * (x.ndim - rows.ndim) + rows.shape)

    def with_cache(
        self, batch_size: int, max_length: int, dtype: DType | None = None
    ) -> LearnedPosition:
        """The layer with a count of tokens, if it has one axis of positions.

        `nn.with_cache` calls it on every layer of a model.

        Args:
            batch_size: Number B of sequences.
            max_length: Tokens of a sequence, at most those of the table.
            dtype: Not used here.
        """
        one = len(self.lengths) == 1
        if one and max_length > self.lengths[0]:
            raise ConfigError(
                f"a cache for {max_length} tokens was asked for, but the table holds "
                f"{self.lengths[0]}.",
                code="LN-VALUE-06",
                at=type(self).__name__,
                why="A position without a vector would be NaN.",
                fixes=[
                    ("fewer will do", f"max_length = {self.lengths[0]}"),
                    (
                        "the table should be as long",
                        f"position = nn.LearnedPosition({max_length})",
                    ),
                ],
            )
        return self.replace(cache=CacheIndex(batch_size) if one else None)

    def _refuse_longer(self, x: Array) -> None:
        sizes = x.shape[x.ndim - len(self.lengths) - 1 : -1]
        if any(n > m for n, m in zip(sizes, self.lengths, strict=True)):
            one = len(sizes) == 1
            has, holds = (sizes[0], self.lengths[0]) if one else (sizes, self.lengths)
            cut = ", ".join(f":{m}" for m in self.lengths)
            raise ShapeError(
                f"`x` has {has} positions, but the table holds {holds}.",
                code="LN-SHAPE-01",
                facts={"x": describe(x), "embedding": describe(self.embedding)},
                why="A position without a vector would be NaN.",
                fixes=[
                    ("the rest is not needed", f"x = x[..., {cut}, :]"),
                    (
                        "the table should be as long",
                        f"position = nn.LearnedPosition({has})",
                    ),
                ],
            )


class SinusoidalPosition(Module):
    r"""Adds sines and cosines of the position, which are not trained.

    Of several axes, as of the patches of an image, each has an equal share of the
    features, the last axis the first ones.

    Args:
        ndim: Number N of axes that hold positions.
        base: Of the geometric series of the frequencies.
        interleaved: Whether sines and cosines take turns, as in the paper, or all
            cosines come after all sines.

    Parameters:
        cache: An `nn.CacheIndex`, where `nn.with_cache` put one: then positions are
            counted from the length of what is there.

    Shapes:
        x: `[..., *T, D]`  ->  `[..., *T, D]`, same dtype as `x`.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: `x` is not floating.
        ShapeError: The features of `x` cannot be shared among the axes in pairs, or
            `positions` do not fit.

    Example:
        >>> nn.SinusoidalPosition()(jnp.zeros((2, 2))).round(3)
        Array([[0.   , 1.   ],
               [0.841, 0.54 ]], dtype=float32)
        >>> nn.SinusoidalPosition(ndim=2)(jnp.zeros((7, 7, 8))).shape
        (7, 7, 8)

    Differs from: Masked Autoencoders, whose embedding of a grid is `ndim=2,
    interleaved=False` here.
    Source: Vaswani et al., "Attention Is All You Need", 2017, section 3.5,
    arXiv:1706.03762; He et al., "Masked Autoencoders Are Scalable Vision Learners",
    2021, arXiv:2111.06377, for images.
    """

    def __init__(
        self,
        *,
        ndim: int = 1,
        base: float = 10_000.0,
        interleaved: bool = True,
    ) -> None:
        self.ndim = check_size(self, "ndim", ndim)
        self.base = check_positive(self, "base", base)
        self.interleaved = bool(interleaved)
        self.cache: Any = None

    def __call__(self, x: ArrayLike, positions: ArrayLike | None = None) -> Array:
        """Adds the waves.

        Args:
            x: `[..., *T, D]`, floating; with `positions` any `[..., D]`.
            positions: Where each vector of `x` stands, `[T]` or `[..., T]`, and of
                several axes one coordinate per axis, `[..., T, N]`; integers or
                floating. Counted from zero if left out.
        """
        least = 1 + (self.ndim if positions is None else 1)
        self.check_input(x, min_ndim=least, dtype="floating")
        if self.cache is not None and not self.initializing:
            positions = taken(self, x, positions)
        with placed(self):
            x = as_array(x)
            self._refuse_unpaired(x)
            if positions is None:
                where = tuple(
                    jnp.arange(n).reshape(-1, *(1,) * (self.ndim - i - 1))
                    for i, n in enumerate(x.shape[x.ndim - least : -1])
                )
            else:
                where = coordinates(positions_array(positions), x, ndim=self.ndim)
            waves = [self._waves(p, x) for p in reversed(where)]
            wide = x.astype(widened(x.dtype)) + jnp.concatenate(waves, -1)
            return wide.astype(x.dtype)

    def with_cache(
        self, batch_size: int, max_length: int, dtype: DType | None = None
    ) -> SinusoidalPosition:
        """The layer with a count of tokens, if it has one axis of positions.

        `nn.with_cache` calls it on every layer of a model.

        Args:
            batch_size: Number B of sequences.
            max_length: Not used here.
            dtype: Likewise.
        """
        one = self.ndim == 1
        return self.replace(cache=CacheIndex(batch_size) if one else None)

    def _waves(self, positions: Array, x: Array) -> Array:
        """`[..., D / N]`: the share of one axis, for every vector of `x`."""
        waves = F.sinusoidal_position(
            positions,
            x.shape[-1] // self.ndim,
            base=self.base,
            interleaved=self.interleaved,
        )
        waves = waves.reshape((1,) * (x.ndim - waves.ndim) + waves.shape)
        return jnp.broadcast_to(waves, (*x.shape[:-1], waves.shape[-1]))

    def _refuse_unpaired(self, x: Array) -> None:
        group = 2 * self.ndim
        if not x.shape[-1] or x.shape[-1] % group:
            more = group - x.shape[-1] % group
            widths = f"[(0, 0)] * {x.ndim - 1} + [(0, {more})]"
            raise ShapeError(
                f"`x` has {x.shape[-1]} features, but a multiple of {group} is needed.",
                code="LN-SHAPE-01",
                facts={"x": describe(x)},
                why="Each axis of positions has pairs of a sine and a cosine.",
                fixes=[("zeros may be added", f"x = jnp.pad(x, {widths})")],
            )
