"""Beam search: the likeliest continuations as a whole.

B rows  K beams  W candidates  N new tokens  V vocabulary
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from linnet._typing import Array
from linnet.nn._sample import Plan, penalised, seen_in, started
from linnet.nn._steps import Steps


class Beams(NamedTuple):
    """Continuations of each row, the best first.

    Attributes:
        scores: `[B, K]`, minus infinity where there is none.
        tokens: `[B, K, N]`, padded.
        log_probs: `[B, K, N]`, of the tokens, zero after the end.
        lengths: `[B, K]`: how many tokens there are.
    """

    scores: Array
    tokens: Array
    log_probs: Array
    lengths: Array


class Search(NamedTuple):
    """A search under way.

    Attributes:
        live: Those that go on, scored by their log-probability.
        ended: Those that a stop token ended, scored by that over the length penalty.
        parents: `[B, K]`: which beam each of the live ones continues.
        seen: `[B, K, V]`: which tokens a beam or its prompt has, if that matters.
    """

    live: Beams
    ended: Beams
    parents: Array
    seen: Array | None


def search(
    steps: Steps,
    prompt: Array,
    lengths: Array | None,
    plan: Plan,
    numbers: Mapping[str, Any],
) -> Beams:
    """The best continuations of prompts `[B, T]`, ended or of full length."""
    rows, beams, end = len(prompt), plan.num_beams, plan.max_new_tokens
    logits, carry = started(steps, prompt, lengths, plan)  # [B, V]
    seen = seen_in(prompt, lengths, logits.shape[-1], numbers)
    carry = steps.repeat(carry, rows, beams)
    nothing = Beams(
        scores=jnp.full((rows, beams), -jnp.inf),
        tokens=jnp.full((rows, beams, end), plan.pad_token, jnp.int32),
        log_probs=jnp.zeros((rows, beams, end), jnp.float32),
        lengths=jnp.zeros((rows, beams), jnp.int32),
    )
    start = Search(
        live=nothing._replace(scores=nothing.scores.at[:, 0].set(0.0)),
        ended=nothing,
        parents=jnp.zeros((rows, beams), jnp.int32),
        seen=None if seen is None else jnp.repeat(seen[:, None], beams, 1),
    )

    def is_going_on(loop: tuple[Any, Any, Search]) -> Array:
        i, _, state = loop
        return (i < end) & ~_is_decided(state, i, plan, numbers).all()

    def body(loop: tuple[Any, Any, Search]) -> tuple[Any, Any, Search]:
        i, carry, state = loop
        rows_of = jnp.arange(rows)[:, None] * beams + state.parents
        carry = steps.reorder(carry, rows_of.ravel())
        logits, carry = steps.next(carry, state.live.tokens[:, :, i - 1].ravel())
        logits = logits.reshape(rows, beams, -1)
        return i + 1, carry, _extended(i, logits, state, plan, numbers)

    logits = jnp.repeat(logits[:, None], beams, 1)  # [B, K, V]
    state = _extended(0, logits, start, plan, numbers)
    first = jnp.ones((), jnp.int32), carry, state
    _, _, state = lax.while_loop(is_going_on, body, first)
    scores = state.live.scores / _penalty(jnp.asarray(end), numbers)
    live = state.live._replace(scores=scores)
    return _best(_joined(state.ended, live), beams)


def _extended(
    i: Any, logits: Array, state: Search, plan: Plan, numbers: Mapping[str, Any]
) -> Search:
    """The search after the `i`-th token, chosen by logits `[B, K, V]`."""
    rows, beams, size = logits.shape
    own = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    scored = penalised(logits, state.seen, numbers)
    scored = own if state.seen is None else jax.nn.log_softmax(scored, axis=-1)
    total = (state.live.scores[:, :, None] + scored).reshape(rows, beams * size)
    # So many, that enough go on even if each beam could end by every stop token.
    width = min(beams * (1 + len(plan.stop_tokens)), beams * size)
    scores, index = lax.top_k(total, width)  # [B, W]
    parents, tokens = index // size, index % size
    log_probs = jnp.take_along_axis(own.reshape(rows, -1), index, 1)
    before = _picked(state.live, parents)
    candidates = Beams(
        scores=scores,
        tokens=before.tokens.at[:, :, i].set(tokens),
        log_probs=before.log_probs.at[:, :, i].set(log_probs),
        lengths=before.lengths + 1,
    )
    is_stop = plan.is_stop(tokens)
    # Only what is among the best K ends, as it would be in a search without an end.
    is_ended = is_stop & (jnp.arange(width) < beams)[None]
    over = scores / _penalty(i + 1, numbers)
    ended = candidates._replace(scores=jnp.where(is_ended, over, -jnp.inf))
    live = candidates._replace(scores=jnp.where(is_stop, -jnp.inf, scores))
    kept = lax.top_k(live.scores, beams)[1]  # [B, K]
    live, parents = _picked(live, kept), jnp.take_along_axis(parents, kept, 1)
    seen = state.seen
    if seen is not None:
        seen = jnp.take_along_axis(seen, parents[:, :, None], 1)
        row, beam = jnp.arange(rows)[:, None], jnp.arange(beams)[None]
        seen = seen.at[row, beam, live.tokens[:, :, i]].set(True)
    ended = _best(_joined(state.ended, ended), beams)
    return Search(live, ended, parents, seen)


def _is_decided(
    state: Search, count: Any, plan: Plan, numbers: Mapping[str, Any]
) -> Array:
    """`[B]`: whether no live beam of so many tokens can come to be among the best.

    A log-probability only falls, so the score that a beam may reach is largest if it
    falls no more, at the next length or at the last.
    """
    best = state.live.scores.max(1)
    soon = best / _penalty(count + 1, numbers)
    late = best / _penalty(jnp.asarray(plan.max_new_tokens), numbers)
    return jnp.maximum(soon, late) <= state.ended.scores.min(1)


def _penalty(length: Any, numbers: Mapping[str, Any]) -> Array:
    return jnp.asarray(length, jnp.float32) ** numbers["length_penalty"]


def _picked(beams: Beams, index: Array) -> Beams:
    """Of each row the beams at `[B, W]`."""
    rows = jnp.arange(len(index))[:, None]
    return Beams(*(x[rows, index] for x in beams))


def _joined(a: Beams, b: Beams) -> Beams:
    return Beams(*(jnp.concatenate(pair, 1) for pair in zip(a, b, strict=True)))


def _best(beams: Beams, count: int) -> Beams:
    return _picked(beams, lax.top_k(beams.scores, count)[1])
