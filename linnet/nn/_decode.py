"""Giving a model a cache, and changing all caches of a model at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from linnet._errors import ConfigError, ScopeError, ShapeError, describe
from linnet._typing import Array, ArrayLike, DType
from linnet.core import Cache, Module, shard
from linnet.core._ambient import ambient
from linnet.core._check import check_size
from linnet.core._locate import locate
from linnet.core._node import opened_or_none
from linnet.core._path import Path
from linnet.core._select import over_modules, rebuilt
from linnet.core._stack import Stacked
from linnet.core._table import Entry, slots
from linnet.core._tree import closed
from linnet.functional._attention_check import whole_numbers
from linnet.nn._cache import UNLIMITED, CacheIndex, NoCache
from linnet.nn._place import placed


def with_cache(
    model: Any, batch_size: int, max_length: int, *, dtype: DType | None = None
) -> Any:
    """The model with an empty cache in every module that has use for one.

    The cached model is called by `nn.stateful`, first with the prompts, then with what
    follows, one token or several at a time. It gives what the model without a cache
    gives for the whole sequence, at the new tokens.

    Of a model that encodes and decodes it is the decoder that goes on:
    `model.replace(decoder=nn.with_cache(model.decoder, ...))`. Attention to a context
    computes its keys and values at each call. Attention to `x` itself that is not
    causal is refused in a call that goes on. Of other modules none may look from one
    token at another, as a convolution along the sequence does: they are given the new
    tokens alone.

    Under `parallel.use` the cache is divided by the names of its axes: "batch",
    "length", "kv_heads" and "head_dim". In a compiled function, as that of
    `nn.generate`, it is made so.

    A module has use for a cache if it has a method
    `with_cache(batch_size, max_length, dtype)`, which returns the module with something
    in the place of its attribute `cache`. That may be a module, or `None` for none.

    Args:
        model: A module with arrays. A cache that it has is replaced.
        batch_size: Number B of sequences, which come first in what it is called with.
        max_length: Tokens of a sequence. What lies beyond gives NaN: compiled code
            cannot raise. Attention with a shorter window has no such end.
        dtype: Of keys and values; `None` takes that in which they are computed.

    Raises:
        ConfigError: No module has use for a cache, or a size is no positive integer.
        InitError: The model has no arrays yet.

    Example:
        >>> model = nn.Attention(2, causal=True, head_dim=4)
        >>> x = jax.random.normal(jax.random.key(1), (1, 5, 8))
        >>> model = nn.init(model, jax.random.key(0), x)
        >>> cached = nn.with_cache(model, batch_size=1, max_length=8)
        >>> first, cached = nn.stateful(cached)(x[:, :4])
        >>> last, cached = nn.stateful(cached)(x[:, 4:])
        >>> bool(jnp.allclose(jnp.concatenate([first, last], 1), model(x), atol=1e-5))
        True
    """
    check_size("with_cache", "batch_size", batch_size)
    check_size("with_cache", "max_length", max_length)
    found: list[bool] = []

    def visit(module: Any, path: Path) -> Any:
        if isinstance(module, Stacked):
            layer = jax.vmap(
                lambda block: over_modules(block, (), visit), axis_size=module.size
            )
            return module.replace(block=layer(module.block))
        module = rebuilt(module, path, visit)
        if hasattr(type(module), "with_cache"):
            module = module.with_cache(batch_size, max_length, dtype)
            found.append(not isinstance(module.cache, CacheIndex | NoCache | None))
        return module

    cached = over_modules(model, (), visit)
    if not any(found):
        raise _nothing_to_cache(model)
    return cached if ambient() is None else _map_cache(cached, _sharded)


def _sharded(entry: Entry, array: Array) -> Array:
    return shard(array, *entry.axes(array.ndim))


def without_cache(model: Any) -> Any:
    """The model without any cache.

    Args:
        model: A module.

    Example:
        >>> model = nn.Attention(2, causal=True, head_dim=4)
        >>> model = nn.init(model, jax.random.key(0), jnp.ones((1, 5, 8)))
        >>> nn.without_cache(nn.with_cache(model, 1, 8)) == model
        True
    """

    def visit(module: Any, path: Path) -> Any:
        module = rebuilt(module, path, visit)
        return (
            module.replace(cache=None)
            if hasattr(type(module), "with_cache")
            else module
        )

    return over_modules(model, (), visit)


def limit_cache(model: Any, lengths: ArrayLike | None) -> Any:
    """The model taking no more tokens of each row than so many.

    Prompts of different lengths are padded on the right, and this keeps the padding
    out of the cache. Afterwards the limit is lifted, and each row goes on where it is.

    Args:
        model: A module with a cache.
        lengths: `[B]`, integers: how many tokens of each row count, those that it has
            taken included. `None` lifts the limit.

    Raises:
        ConfigError: The model has no cache.
        ShapeError: `lengths` has not one number for each row.

    Example:
        >>> index = nn.limit_cache(nn.CacheIndex(2), jnp.array([1, 3]))
        >>> _, index = nn.stateful(index.take)(3)
        >>> index.length
        Array([1, 3], dtype=int32)
    """
    limits = jnp.asarray(UNLIMITED if lengths is None else lengths, jnp.int32)

    def change(entry: Entry, array: Array) -> Array:
        if entry.owners[-1] is not CacheIndex or entry.path[-1].name != "limit":
            return array
        if limits.ndim and limits.shape != array.shape[-1:]:
            raise _other_rows(limits, array)
        return jnp.broadcast_to(limits, array.shape)

    return _map_cache(model, change)


def reorder_cache(model: Any, rows: ArrayLike) -> Any:
    """The model with other rows in its cache: row i becomes what `rows[i]` was.

    Beam search goes on with the rows of the best beams so, and many samples of one
    prompt start from its row, taken so many times.

    Args:
        model: A module with a cache.
        rows: `[N]`, integers, `0 <= row < B`. The new cache has N rows.

    Raises:
        ConfigError: The model has no cache.

    Example:
        >>> index = nn.CacheIndex(2).replace(length=jnp.array([4, 7]))
        >>> nn.reorder_cache(index, jnp.array([1, 1, 0])).length
        Array([7, 7, 4], dtype=int32)
    """
    rows = jnp.asarray(rows, jnp.int32)

    def change(entry: Entry, array: Array) -> Array:
        axes = () if entry.declared is None else entry.declared.axes or ()
        if "batch" not in axes:
            return array
        axis = len(entry.stack) + axes.index("batch")
        return jnp.take(array, rows, axis, mode="clip")

    return _map_cache(model, change)


def _map_cache(model: Any, change: Callable[[Entry, Array], Array]) -> Any:
    """The model with the arrays of its cache changed."""
    leaves, treedef, entries = slots(closed(model))
    is_cache = [e.role is not None and issubclass(e.role, Cache) for e in entries]
    if not any(is_cache):
        raise ConfigError(
            "the model has no cache.",
            code="LN-CACHE-02",
            at=type(model).__name__,
            fixes=[
                ("it should have one", "model = nn.with_cache(model, len(x), 128)"),
            ],
        )
    return treedef.unflatten(
        [
            change(entry, leaf) if hit else leaf
            for hit, entry, leaf in zip(is_cache, entries, leaves, strict=True)
        ]
    )


def goes_on(module: Module) -> bool:
    """Whether this call takes its input for the next tokens, and writes caches."""
    opened = opened_or_none(module)
    return opened is not None and opened.scope.writable and not opened.scope.train


def refuse_plain(module: Module, *, takes: str = "x") -> None:
    """Refuses a call of a module with a cache that would neither use nor write it."""
    if goes_on(module):
        return
    kind = "training" if module.training else "plain"
    stateful = f"out, model = nn.stateful(model)({takes})"
    whole = "model = nn.without_cache(model)"
    whole += "" if module.training else f"\nout = model({takes})"
    raise ScopeError(
        f"a model with a cache was called in a {kind} call.",
        code="LN-CACHE-01",
        at=locate(module),
        why="It takes what it is given for the next tokens, and the call has to return "
        "the model that remembers them.",
        fixes=[
            ("`x` holds the next tokens", stateful),
            ("`x` holds whole sequences", whole),
        ],
    )


def looks_ahead(
    module: Module, what: str, why: str, *fixes: tuple[str, str]
) -> ConfigError:
    """The error for a layer that cannot go on from a cache, in a call that does.

    Args:
        module: The layer.
        what: Which layer that is, in words.
        why: It cannot go on.
        *fixes: More of them.
    """
    return ConfigError(
        f"{what} was called in a model with a cache.",
        code="LN-CACHE-01",
        at=locate(module),
        why=why,
        fixes=[
            (
                "`x` holds whole sequences",
                "model = nn.without_cache(model)\nout = model(x)",
            ),
            (
                "this part does: it encodes what the other writes about",
                "model = model.replace(encoder=nn.without_cache(model.encoder))",
            ),
            *fixes,
        ],
    )


def check_rows(module: Any, x: ArrayLike, index: CacheIndex) -> None:
    """Refuses an input that has not one row for each of the cache.

    Args:
        module: That was called with it.
        x: `[B, T, I]`.
        index: That of the cache.

    Raises:
        ShapeError: It has other leading axes.
    """
    rows = index.length.shape[0]
    if x.ndim == 3 and x.shape[0] == rows:
        return
    if x.ndim == 3:
        code = f"model = nn.with_cache(model, {x.shape[0]}, max_length)"
        fixes = [("these are new sequences", code)]
    elif x.ndim == 2 and rows == 1:
        fixes = [("there is one sequence", "x = x[None]")]
    else:
        code = f"x = jnp.broadcast_to(x, ({rows}, *x.shape))"
        fixes = [("all rows are the same", code)] if x.ndim == 2 else []
    count = f"{rows} row{'s' if rows > 1 else ''}"
    raise ShapeError(
        f"`x` is {describe(x)}, but the cache has {count}: [{rows}, T, I] is needed.",
        code="LN-CACHE-01",
        at=locate(module),
        fixes=fixes,
    )


def taken(module: Any, x: ArrayLike, positions: ArrayLike | None) -> Array:
    """Where the tokens of `x` stand, `[B, T]`, by the `cache` of a module.

    The cache is an `nn.CacheIndex`, and takes them. Padding stands at zero.

    Args:
        module: That was called with `x`.
        x: `[B, T, I]`.
        positions: `[B, T]`, or what broadcasts to it; by default those that come next.

    Raises:
        ScopeError: The call is a plain one, or one of training.
        ShapeError: There are other rows than in the cache.
    """
    refuse_plain(module)
    index = module.cache
    check_rows(module, x, index)
    with placed(module):
        at = positions_of(positions, index.next(x.shape[1]))
    is_taken = index.takes(at)
    return jnp.where(is_taken, index.take(x.shape[1], at), 0)


def positions_of(positions: ArrayLike | None, usual: Array) -> Array:
    """Positions `[T]` or `[B, T]` that were given, `[B, T]` in int32.

    Args:
        positions: That were given, or `None`.
        usual: `[B, T]`, those that stand if none were.

    Raises:
        DTypeError: They are no integers.
        ShapeError: They do not fit.
    """
    if positions is None:
        return usual
    rows, count = usual.shape
    positions = whole_numbers(positions, "positions", (rows,), count)
    return jnp.broadcast_to(positions, usual.shape)


def _nothing_to_cache(model: Any) -> ConfigError:
    return ConfigError(
        "no module of the model has use for a cache.",
        code="LN-CACHE-02",
        at=type(model).__name__,
        why="Causal self-attention has, and every module with a method `with_cache`.",
        fixes=[("its attention is causal", "attention = nn.Attention(4, causal=True)")],
    )


def _other_rows(limits: Array, array: Array) -> ShapeError:
    rows = array.shape[-1]
    return ShapeError(
        f"`lengths` is {describe(limits)}, but the cache has {rows} rows.",
        code="LN-CACHE-01",
        fixes=[
            (f"the first {rows} count", f"lengths = lengths[:{rows}]"),
            ("all rows have one", f"lengths = jnp.full({rows}, lengths.ravel()[0])"),
        ][limits.shape[-1] < rows :],
    )
