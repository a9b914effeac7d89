"""What `nn.generate` refuses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from linnet._errors import ConfigError, LinnetError, ShapeError, describe
from linnet._typing import Array
from linnet.core._call import is_key, key_fixes, key_text
from linnet.functional._dtype import integer
from linnet.functional._sampling import check_probability

WHO = "generate"


def check_prompt(prompt: Any, lengths: Any) -> tuple[Array, Array | None]:
    """The prompts and their lengths as arrays."""
    if isinstance(prompt, list | tuple):
        _check_lists(prompt)
    try:
        prompt = integer(prompt, "prompt")
        lengths = None if lengths is None else integer(lengths, "lengths")
    except LinnetError as error:
        error.at = WHO
        raise
    if prompt.ndim < 1 or prompt.shape[-1] < 1:
        first = f"prompt = jnp.zeros({(*prompt.shape[:-1], 1)}, jnp.int32)"
        raise ShapeError(
            f"`prompt` is {describe(prompt)}, but it must hold at least one token.",
            code="LN-SHAPE-02",
            at=WHO,
            why="The model scores what comes after a token.",
            fixes=[("a first token starts every sequence", first)]
            if prompt.ndim
            else [("there is one token", "prompt = prompt[None]")],
        )
    if lengths is not None:
        _check_lengths(prompt, lengths)
    return prompt, lengths


def _check_lists(prompt: Any) -> None:
    """Refuses lists of tokens that make no array."""
    sizes = [len(row) for row in prompt if isinstance(row, list | tuple)]
    if len(set(sizes)) > 1:
        raise ShapeError(
            f"`prompt` holds lists of {min(sizes)} to {max(sizes)} tokens, but an "
            "array is needed.",
            code="LN-SHAPE-01",
            at=WHO,
            why="Prompts of different lengths are padded on the right.",
            fixes=[
                (
                    "zeros fill the shorter ones",
                    "lengths = jnp.array([len(row) for row in prompt])\n"
                    f"rows = [[*row, *[0] * {max(sizes)}] for row in prompt]\n"
                    f"prompt = jnp.array([row[:{max(sizes)}] for row in rows])",
                )
            ],
        )


def _check_lengths(prompt: Array, lengths: Array) -> None:
    batch, size = prompt.shape[:-1], prompt.shape[-1]
    facts = {"prompt": describe(prompt), "lengths": describe(lengths)}
    every = "all prompts have full length", f"lengths = jnp.full({batch}, {size})"
    if lengths.shape != batch:
        raise ShapeError(
            f"`lengths` has shape {list(lengths.shape)}, but {list(batch)} is needed.",
            code="LN-SHAPE-01",
            at=WHO,
            facts=facts,
            why="Each prompt has one length.",
            fixes=[every],
        )
    if isinstance(lengths, jax.core.Tracer) or not lengths.size:
        return
    least, most = int(lengths.min()), int(lengths.max())
    if least < 1 or most > size:
        raise ConfigError(
            f"`lengths` holds {least if least < 1 else most}, but a prompt has 1 to "
            f"{size} tokens.",
            code="LN-VALUE-04",
            at=WHO,
            facts=facts,
            why="Prompts are padded on the right, and start with at least one token.",
            fixes=[
                ("those out of range are cut", f"lengths = lengths.clip(1, {size})"),
                every,
            ],
        )


def check_args(args: Any, batch: tuple[int, ...]) -> tuple[Any, ...]:
    """The arguments with one batch axis."""
    for x in jax.tree.leaves(args):
        if getattr(x, "shape", ())[: len(batch)] != batch:
            raise ShapeError(
                f"`args` holds {describe(x)}, but the first axes must be "
                f"{list(batch)}.",
                code="LN-SHAPE-01",
                at=WHO,
                why="Each prompt has arguments of its own.",
                fixes=[
                    (
                        "all prompts have the same",
                        "args = jax.tree.map(\n"
                        f"    lambda x: jnp.broadcast_to(x, {batch} + x.shape), args\n"
                        ")",
                    )
                ],
            )
    count = math.prod(batch)
    flat = jax.tree.map(lambda x: x.reshape(count, *x.shape[len(batch) :]), args)
    return tuple(flat)


def check_stops(stop_tokens: Any) -> tuple[int, ...]:
    """The tokens as a tuple."""
    tokens = stop_tokens
    if isinstance(tokens, np.ndarray | jax.Array):
        tokens = tokens.ravel().tolist()
    elif isinstance(tokens, str) or not isinstance(tokens, Sequence):
        tokens = (tokens,)
    for token in tokens:
        is_whole = isinstance(token, int | np.integer) and not isinstance(token, bool)
        if not is_whole or token < 0:
            raise ConfigError(
                f"`stop_tokens` holds {token!r}, but a token is an integer of at least "
                "0.",
                code="LN-VALUE-04",
                at=WHO,
                fixes=[("no token ends a row", "stop_tokens = ()")],
            )
    return tuple(map(int, tokens))


def check_numbers(given: dict[str, Any]) -> dict[str, Any]:
    """The numbers that have an effect. What is an array is not looked into."""
    for name, value in given.items():
        _check_number(name, value)
    for name in ("top_p", "min_p"):
        if given[name] is not None:
            try:
                check_probability(name, given[name])
            except LinnetError as error:
                error.at = WHO
                raise
    penalty = given["repetition_penalty"]
    if _is_number(penalty) and not penalty > 0:
        raise ConfigError(
            f"`repetition_penalty` is {penalty!r}, but it must be above zero.",
            code="LN-VALUE-03",
            at=WHO,
            why="Logits are divided by it; 1 changes nothing.",
            fixes=[("repetition is as likely as ever", "repetition_penalty = 1.0")],
        )
    without_effect = {"top_p": 1, "repetition_penalty": 1}
    return {
        name: value
        for name, value in given.items()
        if value is not None
        and not (_is_number(value) and value == without_effect.get(name))
    }


def _check_number(name: str, value: Any) -> None:
    is_scalar = getattr(value, "shape", None) == ()
    if value is None or _is_number(value) or is_scalar:
        return
    what = describe(value) if hasattr(value, "shape") else repr(value)
    raise ConfigError(
        f"`{name}` is {what}, but it must be one number.",
        code="LN-VALUE-04",
        at=WHO,
        fixes=[("the usual one will do", f"{name} = 1.0")],
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_drawing(key: Any, num_beams: int, **options: Any) -> bool:
    """Whether tokens are drawn. Options that make no sense together are refused.

    Args:
        key: Draws tokens.
        num_beams: Of beam search.
        **options: Those that matter where tokens are drawn.
    """
    temperature = options["temperature"]
    if _is_number(temperature) and not 0 <= temperature < math.inf:
        raise ConfigError(
            f"`temperature` is {temperature!r}, but it must be finite and at least 0.",
            code="LN-VALUE-03",
            at=WHO,
            why="Logits are divided by it before a token is drawn.",
            fixes=[("the model's own probabilities are meant", "temperature = 1.0")],
        )
    is_zero = _is_number(temperature) and temperature == 0
    if key is None:
        _refuse_without_key(options | ({"temperature": None} if is_zero else {}))
        return False
    if not is_key(key):
        raise ConfigError(
            f"`key` is {key_text(key)}, not one JAX key.",
            code="LN-RNG-03",
            at=WHO,
            fixes=key_fixes(key),
        )
    if num_beams != 1:
        raise ConfigError(
            f"`num_beams={num_beams}` was given with a `key`.",
            code="LN-VALUE-06",
            at=WHO,
            why="Beam search seeks what is likeliest, and draws nothing.",
            fixes=[
                ("tokens should be drawn", "num_beams = 1"),
                ("the likeliest continuation is wanted", "key = None"),
            ],
        )
    return not is_zero


def _refuse_without_key(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigError(
                f"`{name}` was given without a `key`.",
                code="LN-VALUE-06",
                at=WHO,
                why="It matters where tokens are drawn, and nothing is random without "
                "a key.",
                fixes=[
                    ("tokens should be drawn", "key = jax.random.key(0)"),
                    ("the most likely token is wanted", f"{name} = None"),
                ],
            )
