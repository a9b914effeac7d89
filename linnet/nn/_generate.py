"""Generating sequences with a model that scores the next token."""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from linnet._typing import Array, ArrayLike, DType, Key
from linnet.core._call import module_of
from linnet.core._check import check_size
from linnet.core._tree import closed, refuse_described
from linnet.nn._beam import Beams, search
from linnet.nn._generate_check import (
    WHO,
    check_args,
    check_drawing,
    check_numbers,
    check_prompt,
    check_stops,
)
from linnet.nn._sample import Plan, Written, sample
from linnet.nn._steps import CachedSteps, FullSteps


class Generation(NamedTuple):
    """What `nn.generate` returns.

    Attributes:
        tokens: `[..., N]`, int32: the new tokens, and `pad_token` after the end.
        lengths: `[...]`, int32: how many new tokens there are, a stop token included.
        log_probs: `[..., N]`, float32: the log-probability of each new token in the
            model, whatever it was chosen by; 0 after the end.
        scores: `[...]`, float32: their sum; of beam search the score that was sought.
    """

    tokens: Array
    lengths: Array
    log_probs: Array
    scores: Array


def generate(
    model: Any,
    prompt: ArrayLike | Sequence[Any],
    *,
    max_new_tokens: int,
    lengths: ArrayLike | Sequence[int] | None = None,
    args: tuple[Any, ...] = (),
    key: Key | None = None,
    temperature: float | Array | None = None,
    top_k: int | None = None,
    top_p: float | Array | None = None,
    min_p: float | Array | None = None,
    repetition_penalty: float | Array = 1.0,
    num_beams: int = 1,
    length_penalty: float | Array = 1.0,
    all_beams: bool = False,
    stop_tokens: int | Sequence[int] = (),
    pad_token: int = 0,
    use_cache: bool = True,
    cache_dtype: DType | None = None,
) -> Generation:
    """Continues prompts, token by token.

    The most likely token is taken, unless there is a `key`: then tokens are drawn. Or
    `num_beams` continuations are followed at once, and the one that is likeliest as a
    whole is returned. All of it is one program, compiled once for a model, the shape
    of the prompts and the options (but for numbers, such as `temperature`). It ends
    when all rows have ended, and works under `jax.jit` as well.

    Args:
        model: A module, or one of its methods, that maps tokens `[B, T]` to logits
            `[B, T, V]`, each from the tokens up to its own.
        prompt: `[..., T]`, integers: any number of batch axes, or none.
        max_new_tokens: Number N of tokens after which all rows end.
        lengths: `[...]`, integers from 1 to T, where prompts of different lengths are
            padded on the right. Rows of another length, where compiled code cannot
            raise, have no tokens and the score NaN.
        args: More arguments of the model, arrays with the same batch axes: for a
            decoder, what the encoder gave.
        key: Draws tokens; row i draws the same in a batch of any size.
        temperature: Divides the logits before drawing, 1 by default. 0 takes the most
            likely token.
        top_k: Draws among so many likeliest tokens only.
        top_p: Draws among the fewest tokens whose probabilities add up to this.
        min_p: Draws among tokens at least so probable as this times the likeliest.
        repetition_penalty: Above 1 lowers the logits of tokens that the prompt or the
            continuation has.
        num_beams: Number K of continuations that are followed at once.
        length_penalty: Beams are compared by their log-probability over the number of
            new tokens to this power: 0 for the likeliest, above 0 for longer ones.
        all_beams: Whether all K are returned, the best first: `[..., K, N]`.
        stop_tokens: One or several tokens that end a row.
        pad_token: What stands after the end.
        use_cache: Whether keys and values are kept, as `nn.with_cache` has it. Without
            a cache every step is a pass over all tokens.
        cache_dtype: Of the cache; `None` takes that of the computation.

    Returns:
        A `Generation`.

    Raises:
        ConfigError: An option has a value that cannot be used, or no module of the
            model has use for a cache.
        DTypeError: `prompt` or `lengths` are no integers.
        InitError: The model has no arrays yet.
        ShapeError: `prompt`, `lengths` or `args` do not fit, or the model returns no
            logits.

    Example:
        >>> class Next(nn.Module):  # the next token is the last one plus 1
        ...     def __call__(self, tokens):
        ...         return jax.nn.one_hot(tokens + 1, 8)
        >>> prompt = jnp.array([[1, 2], [4, 0]])
        >>> out = nn.generate(
        ...     Next(), prompt, lengths=jnp.array([2, 1]), max_new_tokens=3,
        ...     stop_tokens=6, use_cache=False)
        >>> out.tokens
        Array([[3, 4, 5],
               [5, 6, 0]], dtype=int32)
        >>> out.lengths
        Array([3, 2], dtype=int32)

    Source: Holtzman et al., 2019, arXiv:1904.09751, for `top_p`; Nguyen et al., 2024,
    arXiv:2407.01082, for `min_p`; Keskar et al., 2019, arXiv:1909.05858, for the
    penalty; Wu et al., "Google's Neural Machine Translation System", 2016, section 7,
    arXiv:1609.08144, for beam search, with another length penalty.
    """
    __tracebackhide__ = True
    module = closed(module_of(model))
    refuse_described(module)
    prompt, lengths = check_prompt(prompt, lengths)
    is_drawn = check_drawing(
        key, num_beams, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p
    )
    given = {
        "temperature": 1.0 if temperature is None else temperature,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "length_penalty": length_penalty,
    }
    plan = Plan(
        max_new_tokens=check_size(WHO, "max_new_tokens", max_new_tokens),
        is_drawn=is_drawn,
        top_k=check_size(WHO, "top_k", top_k, allow_none=True),
        num_beams=check_size(WHO, "num_beams", num_beams),
        stop_tokens=check_stops(stop_tokens),
        pad_token=check_size(WHO, "pad_token", pad_token, least=0),
        cache_dtype=None if cache_dtype is None else jnp.dtype(cache_dtype),
    )
    batch = prompt.shape[:-1]
    rows = math.prod(batch)
    is_search = num_beams > 1 or bool(all_beams)
    args = check_args(args, batch)
    out = _generated(
        module,
        prompt.reshape(rows, prompt.shape[-1]).astype(jnp.int32),
        None if lengths is None else lengths.reshape(rows).astype(jnp.int32),
        args,
        key if is_drawn else None,
        check_numbers(given),
        plan=plan,
        method=_method_of(model),
        steps=CachedSteps if use_cache else FullSteps,
        is_search=is_search,
    )
    if is_search and not all_beams:
        out = Generation(*(x[:, 0] for x in out))
    return Generation(*(x.reshape(*batch, *x.shape[1:]) for x in out))


@functools.partial(jax.jit, static_argnames=("plan", "method", "steps", "is_search"))
def _generated(
    model: Any,
    prompt: Array,
    lengths: Array | None,
    args: tuple[Any, ...],
    key: Key | None,
    numbers: Mapping[str, Any],
    *,
    plan: Plan,
    method: Callable[..., Any] | None,
    steps: type[CachedSteps | FullSteps],
    is_search: bool,
) -> Generation:
    """Generates for prompts `[B, T]`: `[B, N]`, or `[B, K, N]` of a search."""
    if not len(prompt):
        return _nothing(plan, is_search)
    stepped = steps(model, method, args)
    if is_search:
        beams = search(stepped, prompt, lengths, plan, numbers)
        out = _of_beams(beams, plan)
    else:
        out = _of_rows(sample(stepped, prompt, lengths, key, plan, numbers))
    if lengths is None:
        return out
    fits = (lengths >= 1) & (lengths <= prompt.shape[1])
    none = Generation(plan.pad_token, 0, 0.0, jnp.nan)  # type: ignore[arg-type]

    def where_fits(x: Array, otherwise: Any) -> Array:
        condition = fits.reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.where(condition, x, jnp.asarray(otherwise, x.dtype))

    return Generation(*map(where_fits, out, none))


def _of_rows(written: Written) -> Generation:
    scores = written.log_probs.sum(-1)
    return Generation(written.tokens, written.lengths, written.log_probs, scores)


def _of_beams(beams: Beams, plan: Plan) -> Generation:
    """Beams that are none, where there are fewer continuations, have no tokens."""
    is_one = beams.scores > -jnp.inf
    each = is_one[:, :, None]
    return Generation(
        jnp.where(each, beams.tokens, plan.pad_token),
        jnp.where(is_one, beams.lengths, 0),
        jnp.where(each, beams.log_probs, 0.0),
        beams.scores,
    )


def _nothing(plan: Plan, is_search: bool) -> Generation:
    rows = (0, plan.num_beams) if is_search else (0,)
    tokens = jnp.zeros((*rows, plan.max_new_tokens), jnp.int32)
    scores = jnp.zeros(rows, jnp.float32)
    return Generation(tokens, scores.astype(jnp.int32), tokens * 1.0, scores)


def _method_of(model: Any) -> Callable[..., Any] | None:
    if not isinstance(model, types.MethodType):
        return None
    method: Callable[..., Any] = model.__func__
    return method
