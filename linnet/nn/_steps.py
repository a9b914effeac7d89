"""The logits of the next token, again and again: with a cache or without one."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from linnet._errors import ConfigError, ShapeError, describe
from linnet._typing import Array, DType
from linnet.core import State, merge, partition, stateful
from linnet.nn._decode import limit_cache, reorder_cache, with_cache, without_cache


class Steps:
    """A model that is asked for logits of the token after those it was given.

    Between the calls of `start` and `next` it is a value, the carry, which holds the
    arrays that change. Everything else is the same in each step.

    Args:
        model: The model, or the module whose method it is.
        method: The method that maps tokens to logits; `None` for a call.
        args: What it takes besides tokens, arrays with the rows first.
    """

    def __init__(
        self, model: Any, method: Callable[..., Any] | None, args: tuple[Any, ...]
    ) -> None:
        self.model = model
        self.method = method
        self.args = args

    def target(self, model: Any) -> Any:
        """What is called: the model or its method."""
        return model if self.method is None else types.MethodType(self.method, model)

    def start(
        self,
        prompt: Array,
        lengths: Array | None,
        max_length: int,
        dtype: DType | None,
    ) -> tuple[Array, Any]:
        """Logits `[B, V]` after the prompts, and the first carry."""
        raise NotImplementedError

    def next(self, carry: Any, tokens: Array) -> tuple[Array, Any]:
        """Logits `[B, V]` after one more token `[B]` of each row, and the carry."""
        raise NotImplementedError

    def reorder(self, carry: Any, rows: Array) -> Any:
        """The carry in which row i is what `rows[i]` was."""
        raise NotImplementedError

    def repeat(self, carry: Any, rows: int, times: int) -> Any:
        """The carry with every row so many times, one after the other."""
        self._repeat_args(times)
        return self.reorder(carry, jnp.repeat(jnp.arange(rows), times))

    def _repeat_args(self, times: int) -> None:
        self.args = jax.tree.map(lambda x: jnp.repeat(x, times, 0), self.args)


class CachedSteps(Steps):
    """A model with a cache, which sees each token once."""

    def start(
        self,
        prompt: Array,
        lengths: Array | None,
        max_length: int,
        dtype: DType | None,
    ) -> tuple[Array, Any]:
        """Logits `[B, V]` after the prompts, and the first carry."""
        model = _cached(self.model, len(prompt), max_length, dtype)
        if lengths is not None:
            model = limit_cache(model, lengths)
        logits, model = stateful(self.target(model))(prompt, *self.args)
        check_logits(logits, prompt)  # [B, T, V]
        if lengths is not None:
            model = limit_cache(model, None)
        carry, self.model = partition(model, State)
        last = prompt.shape[1] - 1 if lengths is None else lengths - 1
        return _taken(logits, last), carry

    def next(self, carry: Any, tokens: Array) -> tuple[Array, Any]:
        """Logits `[B, V]` after one more token `[B]` of each row, and the carry."""
        model = merge(carry, self.model)
        logits, model = stateful(self.target(model))(tokens[:, None], *self.args)
        return logits[:, 0], partition(model, State)[0]

    def reorder(self, carry: Any, rows: Array) -> Any:
        """The carry in which row i is what `rows[i]` was."""
        model = reorder_cache(merge(carry, self.model), rows)
        return partition(model, State)[0]


class FullSteps(Steps):
    """A model without a cache, which sees all tokens in every step."""

    def start(
        self,
        prompt: Array,
        lengths: Array | None,
        max_length: int,
        dtype: DType | None,
    ) -> tuple[Array, Any]:
        """Logits `[B, V]` after the prompts, and the first carry."""
        del dtype
        self.model = without_cache(self.model)
        rows, length = prompt.shape
        if lengths is None:
            lengths = jnp.full(rows, length, jnp.int32)
        tokens = jnp.pad(prompt, ((0, 0), (0, max_length - length)))
        logits = self._logits(tokens, lengths)
        return logits, (tokens, lengths)

    def next(self, carry: Any, tokens: Array) -> tuple[Array, Any]:
        """Logits `[B, V]` after one more token `[B]` of each row, and the carry."""
        all_tokens, lengths = carry
        rows = jnp.arange(len(tokens))
        all_tokens = all_tokens.at[rows, lengths].set(tokens, mode="drop")
        lengths = lengths + 1
        return self._logits(all_tokens, lengths), (all_tokens, lengths)

    def _logits(self, tokens: Array, lengths: Array) -> Array:
        logits = self.target(self.model)(tokens, *self.args)
        check_logits(logits, tokens)
        return _taken(logits, lengths - 1)

    def reorder(self, carry: Any, rows: Array) -> Any:
        """The carry in which row i is what `rows[i]` was."""
        return jax.tree.map(lambda x: x[rows], carry)


def _taken(logits: Array, index: int | Array) -> Array:
    """`[B, V]`: for each row the logits at its own place."""
    if isinstance(index, int):
        return logits[:, index]
    rows = jnp.arange(len(logits))
    return logits.at[rows, index].get(mode="clip")


def _cached(model: Any, rows: int, max_length: int, dtype: DType | None) -> Any:
    try:
        return with_cache(model, rows, max_length, dtype=dtype)
    except ConfigError as error:
        if error.code != "LN-CACHE-02":
            raise
        raise ConfigError(
            "no module of the model has use for a cache.",
            code="LN-CACHE-02",
            at=type(model).__name__,
            why="Without one every new token costs a pass over all tokens before it.",
            fixes=[
                (
                    "that may be so",
                    "out = nn.generate(\n"
                    "    model, prompt, max_new_tokens=4, use_cache=False\n"
                    ")",
                ),
            ],
        ) from error


def check_logits(logits: Any, tokens: Array) -> None:
    """Refuses what a model returned that is no logits for each token."""
    fits = (
        hasattr(logits, "shape")
        and logits.ndim == 3
        and logits.shape[:2] == tokens.shape
        and jnp.issubdtype(logits.dtype, jnp.floating)
    )
    if not fits:
        rows, length = tokens.shape
        raise ShapeError(
            f"the model returns {_shown(logits)}, but logits [{rows}, {length}, V] "
            "are needed.",
            code="LN-SHAPE-01",
            at="generate",
            facts={"tokens": describe(tokens)},
            why="For each token the model scores every token that could come next.",
            fixes=[_FIRST_OF_SEVERAL if isinstance(logits, tuple | list) else _HEAD],
        )


def _shown(logits: Any) -> str:
    return describe(logits) if hasattr(logits, "shape") else f"a {describe(logits)}"


_HEAD = (
    "a layer of the model scores each token (in its `__call__`)",
    "return self.head(x)",
)
_FIRST_OF_SEVERAL = (
    "it returns logits first, and more",
    "class Logits(nn.Module):\n"
    "    def __init__(self, model):\n"
    "        self.model = model\n"
    "    def __call__(self, tokens):\n"
    "        return self.model(tokens)[0]\n"
    "model = Logits(model)",
)
