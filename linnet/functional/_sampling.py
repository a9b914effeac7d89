"""Choosing the next token, as transformations of logits.

V vocabulary
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from linnet._errors import ConfigError, DTypeError, ShapeError, describe
from linnet._typing import Array, ArrayLike
from linnet.functional._dtype import as_array, inexact


def keep_top_k(logits: ArrayLike, k: int) -> Array:
    """Keeps the k largest logits, and those equal to the last of them.

    Args:
        logits: `[..., V]`, floating.
        k: How many; V or more keep all.

    Returns:
        `[..., V]`, minus infinity in the place of the others.

    Raises:
        ConfigError: `k` is below one.
        DTypeError: `logits` are not floating.
        ShapeError: `logits` have no axes.

    Example:
        >>> from linnet import functional as F
        >>> F.keep_top_k(jnp.array([1.0, 3.0, 2.0]), 2)
        Array([-inf,   3.,   2.], dtype=float32)

    Source: Fan, Lewis and Dauphin, "Hierarchical Neural Story Generation", 2018,
    section 5.4, arXiv:1805.04833.
    """
    logits = _vocabulary(logits)
    if k < 1:
        raise ConfigError(
            f"`k` is {k}, but at least one logit has to be kept.",
            code="LN-VALUE-01",
            fixes=[("the largest alone is wanted", "k = 1")],
        )
    if k >= logits.shape[-1]:
        return logits
    least = lax.top_k(logits, k)[0][..., -1:]  # [..., 1]
    return _where(logits >= least, logits)


def keep_top_p(logits: ArrayLike, p: float | Array) -> Array:
    """Keeps the fewest largest logits whose probabilities add up to p: the nucleus.

    Logits equal to the last of them are kept as well.

    Args:
        logits: `[..., V]`, floating.
        p: A probability above 0; 1 keeps all.

    Returns:
        `[..., V]`, minus infinity in the place of the others.

    Raises:
        ConfigError: `p` is outside of (0, 1].
        DTypeError: `logits` are not floating.
        ShapeError: `logits` have no axes.

    Example:
        >>> from linnet import functional as F
        >>> F.keep_top_p(jnp.log(jnp.array([0.5, 0.1, 0.4])), 0.8) > -jnp.inf
        Array([ True, False,  True], dtype=bool)

    Source: Holtzman et al., "The Curious Case of Neural Text Degeneration", 2019,
    section 3.1, arXiv:1904.09751.
    """
    logits = _vocabulary(logits)
    check_probability("p", p)
    if isinstance(p, float | int) and p == 1:
        return logits
    ranked = jnp.sort(logits, axis=-1, descending=True)
    probabilities = jax.nn.softmax(ranked.astype(jnp.float32), axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities  # [..., V]
    kept = jnp.where(before < p, ranked, jnp.inf)
    return _where(logits >= kept.min(-1, keepdims=True), logits)


def keep_min_p(logits: ArrayLike, p: float | Array) -> Array:
    """Keeps the logits whose probability is at least p times the largest one.

    Args:
        logits: `[..., V]`, floating.
        p: A probability above 0; 1 keeps the largest alone.

    Returns:
        `[..., V]`, minus infinity in the place of the others.

    Raises:
        ConfigError: `p` is outside of (0, 1].
        DTypeError: `logits` are not floating.
        ShapeError: `logits` have no axes.

    Example:
        >>> from linnet import functional as F
        >>> F.keep_min_p(jnp.log(jnp.array([0.5, 0.1, 0.4])), 0.3) > -jnp.inf
        Array([ True, False,  True], dtype=bool)

    Source: Nguyen et al., "Turning Up the Heat: Min-p Sampling for Creative and
    Coherent LLM Outputs", 2024, section 3, arXiv:2407.01082.
    """
    logits = _vocabulary(logits)
    check_probability("p", p)
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    least = wide.max(-1, keepdims=True) + jnp.log(jnp.asarray(p, wide.dtype))
    return _where(wide >= least, logits)


def repetition_penalty(
    logits: ArrayLike, seen: ArrayLike, penalty: float | Array
) -> Array:
    r"""Lowers the logits of tokens that are there already.

    A positive logit is divided by the penalty, a negative one multiplied.

    Args:
        logits: `[..., V]`, floating.
        seen: `[..., V]`, booleans: which tokens are there.
        penalty: At least 1, which changes nothing; below 1 it rewards repetition.

    Returns:
        `[..., V]`.

    Raises:
        ConfigError: `penalty` is not above zero.
        DTypeError: `logits` are not floating, or `seen` no booleans.
        ShapeError: The shapes differ.

    Example:
        >>> from linnet import functional as F
        >>> F.repetition_penalty(jnp.array([2.0, -1.0, 2.0]),
        ...                      jnp.array([True, True, False]), 2.0)
        Array([ 1., -2.,  2.], dtype=float32)

    Differs from: the paper, which divides negative logits too and so raises them.
    Source: Keskar et al., "CTRL", 2019, section 4.1, arXiv:1909.05858.
    """
    logits, seen = _vocabulary(logits), as_array(seen)
    if seen.dtype != jnp.bool_:
        raise DTypeError(
            f"`seen` has dtype {seen.dtype}, but it must hold booleans.",
            code="LN-DTYPE-01",
            facts={"seen": describe(seen)},
            why="It has an entry for each token, true where that is there.",
            fixes=[("these are counts", "seen = seen > 0")],
        )
    if seen.shape != logits.shape:
        raise ShapeError(
            f"`seen` is {describe(seen)}, but `logits` are {describe(logits)}.",
            code="LN-SHAPE-01",
            why="It has an entry for each logit.",
            fixes=[
                (
                    "these are the same tokens in every row",
                    f"seen = jnp.broadcast_to(seen, {logits.shape})",
                )
            ],
        )
    if isinstance(penalty, float | int) and not penalty > 0:
        raise ConfigError(
            f"`penalty` is {penalty!r}, but it must be above zero.",
            code="LN-VALUE-03",
            fixes=[("repetition is as likely as ever", "penalty = 1.0")],
        )
    penalty = jnp.asarray(penalty, logits.dtype)
    lowered = jnp.where(logits > 0, logits / penalty, logits * penalty)
    return jnp.where(seen, lowered, logits)


def _where(kept: Array, logits: Array) -> Array:
    return jnp.where(kept, logits, jnp.asarray(-jnp.inf, logits.dtype))


def _vocabulary(logits: ArrayLike) -> Array:
    logits = inexact(logits, "logits")
    if logits.ndim < 1:
        raise ShapeError(
            "`logits` has no axes, but the last axis must hold the vocabulary.",
            code="LN-SHAPE-02",
            facts={"logits": describe(logits)},
            fixes=[("there is one token to choose from", "logits = logits[None]")],
        )
    return logits


def check_probability(name: str, p: float | Array) -> None:
    """Refuses a number that is no probability above zero; an array is taken as one."""
    if isinstance(p, float | int) and not 0 < p <= 1:
        raise ConfigError(
            f"`{name}` is {p!r}, but it must be in (0, 1].",
            code="LN-VALUE-02",
            why="It is a probability, of which at least one token must have enough.",
            fixes=[
                (f"{p} percent is meant", f"{name} = {p / 100:g}")
                if 1 < p <= 100
                else ("a usual one will do", f"{name} = 0.9")
            ],
        )
