"""Generating tokens one by one: the most likely ones, or drawn ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from linnet import functional as F
from linnet._errors import ConfigError
from linnet._typing import Array, DType, Key
from linnet.nn._steps import Steps


@dataclasses.dataclass(frozen=True)
class Plan:
    """What of the options of `nn.generate` decides which program runs."""

    max_new_tokens: int
    is_drawn: bool
    top_k: int | None
    num_beams: int
    stop_tokens: tuple[int, ...]
    pad_token: int
    cache_dtype: DType | None

    def is_stop(self, tokens: Array) -> Array:
        """Which tokens end a row."""
        if not self.stop_tokens:
            return jnp.zeros(tokens.shape, bool)
        return jnp.isin(tokens, jnp.array(self.stop_tokens))


class Written(NamedTuple):
    """What was generated of each row so far.

    Attributes:
        tokens: `[B, N]`, padded.
        log_probs: `[B, N]`, of the tokens, zero after the end.
        lengths: `[B]`: how many tokens there are.
        is_over: `[B]`: whether the last one was a stop token.
        seen: `[B, V]`: which tokens a row or its prompt has, if that matters.
    """

    tokens: Array
    log_probs: Array
    lengths: Array
    is_over: Array
    seen: Array | None


def sample(
    steps: Steps,
    prompt: Array,
    lengths: Array | None,
    key: Key | None,
    plan: Plan,
    numbers: Mapping[str, Any],
) -> Written:
    """The model's own continuations of prompts `[B, T]`."""
    rows, end = len(prompt), plan.max_new_tokens
    logits, carry = started(steps, prompt, lengths, plan)  # [B, V]
    start = Written(
        tokens=jnp.full((rows, end), plan.pad_token, jnp.int32),
        log_probs=jnp.zeros((rows, end), jnp.float32),
        lengths=jnp.zeros(rows, jnp.int32),
        is_over=jnp.zeros(rows, bool),
        seen=seen_in(prompt, lengths, logits.shape[-1], numbers),
    )

    def write(i: Any, logits: Array, written: Written) -> Written:
        own = None if key is None else jax.random.fold_in(key, i)
        tokens = chosen(logits, written.seen, own, plan, numbers)  # [B]
        return _written(i, tokens, logits, written, plan)

    def is_going_on(loop: tuple[Any, Any, Written]) -> Array:
        i, _, written = loop
        return (i < end) & ~written.is_over.all()

    def body(loop: tuple[Any, Any, Written]) -> tuple[Any, Any, Written]:
        i, carry, written = loop
        logits, carry = steps.next(carry, written.tokens[:, i - 1])
        return i + 1, carry, write(i, logits, written)

    first = jnp.ones((), jnp.int32), carry, write(0, logits, start)
    _, _, written = jax.lax.while_loop(is_going_on, body, first)
    return written


def started(
    steps: Steps, prompt: Array, lengths: Array | None, plan: Plan
) -> tuple[Array, Any]:
    """Logits `[B, V]` after the prompts, and the first carry."""
    last = prompt.shape[1] + plan.max_new_tokens - 1  # the last token is not read
    logits, carry = steps.start(prompt, lengths, last, plan.cache_dtype)
    for token in plan.stop_tokens:
        if token >= logits.shape[-1]:
            raise ConfigError(
                f"`stop_tokens` has {token}, but the model knows {logits.shape[-1]} "
                "tokens.",
                code="LN-VALUE-04",
                at="generate",
                why="Tokens are counted from zero, and this one could never come.",
                fixes=[
                    ("the last one is meant", f"stop_tokens = {logits.shape[-1] - 1}"),
                    ("no token ends a row", "stop_tokens = ()"),
                ],
            )
    return logits, carry


def chosen(
    logits: Array,
    seen: Array | None,
    key: Key | None,
    plan: Plan,
    numbers: Mapping[str, Any],
) -> Array:
    """The next token of each row, `[B]`, from logits `[B, V]`."""
    logits = penalised(logits, seen, numbers)
    if not plan.is_drawn or key is None:
        return logits.argmax(-1).astype(jnp.int32)
    logits = logits / numbers["temperature"]
    if plan.top_k is not None:
        logits = F.keep_top_k(logits, plan.top_k)
    if "top_p" in numbers:
        logits = F.keep_top_p(logits, numbers["top_p"])
    if "min_p" in numbers:
        logits = F.keep_min_p(logits, numbers["min_p"])
    # A key for each row: what it draws does not depend on how many others there are.
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(len(logits)))
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def penalised(logits: Array, seen: Array | None, numbers: Mapping[str, Any]) -> Array:
    """The logits in float32, lower where a token is there already."""
    logits = logits.astype(jnp.float32)
    if seen is None:
        return logits
    return F.repetition_penalty(logits, seen, numbers["repetition_penalty"])


def seen_in(
    prompt: Array, lengths: Array | None, size: int, numbers: Mapping[str, Any]
) -> Array | None:
    """Which of so many tokens are in a prompt, `[B, V]`, if that matters."""
    if "repetition_penalty" not in numbers:
        return None
    rows, length = prompt.shape
    is_there = jnp.ones(prompt.shape, bool)
    if lengths is not None:
        is_there = jnp.arange(length)[None] < lengths[:, None]
    nothing = jnp.zeros((rows, size), bool)
    return nothing.at[jnp.arange(rows)[:, None], prompt].max(is_there, mode="drop")


def _written(
    i: Any, tokens: Array, logits: Array, written: Written, plan: Plan
) -> Written:
    """With the `i`-th token of each row that is not over."""
    rows = jnp.arange(len(tokens))
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    over, seen = written.is_over, written.seen
    return Written(
        tokens=written.tokens.at[:, i].set(jnp.where(over, plan.pad_token, tokens)),
        log_probs=written.log_probs.at[:, i].set(
            jnp.where(over, 0.0, log_probs[rows, tokens])
        ),
        lengths=written.lengths + ~over,
        is_over=over | plan.is_stop(tokens),
        seen=None if seen is None else seen.at[rows, tokens].set(True),
    )
