"""Which expert gets which token, as arrays.

T tokens  K choices of a token  E experts  I features in  ... batch

Logits and probabilities are in float32 or wider: a rounded logit changes choices.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from linnet._errors import DTypeError, ShapeError, describe
from linnet._typing import Array, ArrayLike
from linnet.functional._dtype import as_array, inexact, integer, widened
from linnet.functional._expert import check_top_k
from linnet.functional._linear import dense
from linnet.functional._shape import require_shape


class Routing(NamedTuple):
    """Which experts each token goes to.

    Attributes:
        experts: `[..., T, K]`, int32, the best one first; E where a mask says so.
        weights: `[..., T, K]`, what the result of each counts for.
        probabilities: `[..., T, E]`, of all experts.
    """

    experts: Array
    weights: Array
    probabilities: Array


def router_logits(
    x: ArrayLike,
    kernel: ArrayLike,
    *,
    key: Array | None = None,
    jitter: float = 0.0,
) -> Array:
    r"""How well each expert suits each token, in float32 or wider.

    $x \odot u \cdot \mathrm{kernel}$, with $u$ uniform in
    $[1 - \mathrm{jitter}, 1 + \mathrm{jitter})$.

    Args:
        x: `[..., T, I]`, floating.
        kernel: `[I, E]`.
        key: A random key. Not used, and may be `None`, if `jitter` is 0.
        jitter: How far a feature is scaled up or down, at most.

    Returns:
        `[..., T, E]`.

    Raises:
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> F.router_logits(jnp.ones((1, 2), jnp.bfloat16), jnp.eye(2)).dtype
        dtype('float32')

    Source: Fedus, Zoph and Shazeer, "Switch Transformers", 2021, section 2.4 and
    appendix C, arXiv:2101.03961.
    """
    x = inexact(x, "x")
    x = x.astype(widened(x.dtype))
    if key is not None and jitter:
        x = x * jax.random.uniform(key, x.shape, x.dtype, 1 - jitter, 1 + jitter)
    return dense(x, kernel, dtype=x.dtype)


def top_k_routing(
    logits: ArrayLike,
    top_k: int,
    *,
    mask: ArrayLike | None = None,
    renormalize: bool = True,
) -> Routing:
    r"""Sends each token to the experts of its highest logits.

    $p = \mathrm{softmax}(\mathrm{logits})$. The weights are the K largest of $p$,
    divided by their sum if they are renormalised.

    Args:
        logits: `[..., T, E]`, floating.
        top_k: Number K of experts of each token.
        mask: `[..., T]`, booleans: `False` goes to no expert, with weight 0.
        renormalize: Whether the weights of a token sum to 1. A single one is never
            renormalised: it would be 1 whatever the router says, and teach it nothing.

    Returns:
        Experts, weights and probabilities.

    Raises:
        ConfigError: There are fewer than K experts.
        DTypeError: `logits` holds integers, or `mask` no booleans.
        ShapeError: The mask does not fit.

    Example:
        >>> from linnet import functional as F
        >>> routing = F.top_k_routing(jnp.log(jnp.array([[0.2, 0.6, 0.2]])), 2)
        >>> routing.experts, routing.weights.round(2)
        (Array([[1, 0]], dtype=int32), Array([[0.75, 0.25]], dtype=float32))

    Source: Shazeer et al., "Outrageously Large Neural Networks", 2017, section 2.1,
    arXiv:1701.06538; Lepikhin et al., "GShard", 2020, section 2.2, arXiv:2006.16668.
    """
    logits = inexact(logits, "logits")
    check_top_k(top_k, logits.shape[-1])
    if mask is not None:
        mask = _admitted(mask, logits)
    return Routing(*_best(logits, mask, top_k, renormalize))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _best(
    logits: Array, mask: Array | None, top_k: int, renormalize: bool
) -> tuple[Array, Array, Array]:
    p = jax.nn.softmax(logits.astype(widened(logits.dtype)))  # [..., T, E]
    weights, experts = lax.top_k(p, top_k)  # [..., T, K]
    if renormalize and top_k > 1:
        weights = weights / weights.sum(-1, keepdims=True)
    if mask is not None:
        admitted = mask[..., None]  # [..., T, 1]
        experts = jnp.where(admitted, experts, p.shape[-1])
        weights = jnp.where(admitted, weights, jnp.zeros_like(weights))
    return experts, weights, p


def load_balancing_loss(
    probabilities: ArrayLike, experts: ArrayLike, *, mask: ArrayLike | None = None
) -> Array:
    r"""A loss that is least where all experts get equally many tokens.

    $E \sum_e f_e P_e$, where $f_e$ is the share of the choices that fell on expert e
    and $P_e$ the mean of its probability, over all tokens: 1 if they are balanced, E
    if one expert gets them all.

    Args:
        probabilities: `[..., T, E]`.
        experts: `[..., T, K]`, integers. Gradients go through the probabilities.
        mask: `[..., T]`, booleans: `False` does not count.

    Returns:
        A number, in float32 or wider.

    Raises:
        DTypeError: `probabilities` holds integers, `experts` none, or `mask` no
            booleans.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> p = jnp.array([[0.9, 0.1], [0.1, 0.9]])
        >>> F.load_balancing_loss(p, jnp.array([[0], [1]]))
        Array(1., dtype=float32)

    Source: Fedus, Zoph and Shazeer, "Switch Transformers", 2021, eq. 4 to 6,
    arXiv:2101.03961. With several choices, the share is that of all of them.
    """
    p = inexact(probabilities, "probabilities")
    experts = integer(experts, "experts")
    wanted = (*p.shape[:-1], *experts.shape[-1:])
    require_shape(experts, wanted, "experts", "Each token has its choices.")
    if mask is not None:
        mask = _admitted(mask, p)
    loss: Array = _balance(p.astype(widened(p.dtype)), experts, mask)
    return loss


@jax.jit
def _balance(p: Array, experts: Array, mask: Array | None) -> Array:
    number, choices = p.shape[-1], experts.shape[-1]
    if mask is not None:
        experts = jnp.where(mask[..., None], experts, number)
        p = jnp.where(mask[..., None], p, jnp.zeros_like(p))
    chosen = jnp.zeros(number, p.dtype).at[experts.reshape(-1)].add(1.0, mode="drop")
    tokens = jnp.maximum(chosen.sum() / choices, 1)
    share = chosen / (tokens * choices)  # [E]
    mean = p.sum(tuple(range(p.ndim - 1))) / tokens  # [E]
    return number * (share * mean).sum()


def router_z_loss(logits: ArrayLike, *, mask: ArrayLike | None = None) -> Array:
    r"""A loss that keeps the logits of a router small.

    The mean over the tokens of $(\log \sum_e \exp \mathrm{logits}_e)^2$.

    Args:
        logits: `[..., T, E]`, floating.
        mask: `[..., T]`, booleans: `False` does not count.

    Returns:
        A number, in float32 or wider.

    Raises:
        DTypeError: `logits` holds integers, or `mask` no booleans.
        ShapeError: The mask does not fit.

    Example:
        >>> from linnet import functional as F
        >>> F.router_z_loss(jnp.log(jnp.array([[1.0, 1.0], [0.5, 0.5]]))).round(4)
        Array(0.2402, dtype=float32)

    Source: Zoph et al., "ST-MoE", 2022, eq. 5, arXiv:2202.08906.
    """
    logits = inexact(logits, "logits")
    mask = None if mask is None else _admitted(mask, logits)
    loss: Array = _mean_square(logits.astype(widened(logits.dtype)), mask)
    return loss


@jax.jit
def _mean_square(logits: Array, mask: Array | None) -> Array:
    squares = jax.nn.logsumexp(logits, -1) ** 2  # [..., T]
    if mask is None:
        return squares.sum() / max(1, squares.size)
    squares = jnp.where(mask, squares, jnp.zeros_like(squares))
    return squares.sum() / jnp.maximum(mask.sum(), 1)


def _admitted(mask: ArrayLike, of: Array) -> Array:
    mask = as_array(mask)
    if mask.dtype != jnp.bool_:
        raise DTypeError(
            f"`mask` has dtype {mask.dtype}, but it must hold booleans.",
            code="LN-DTYPE-01",
            facts={"mask": describe(mask)},
            fixes=[("tokens other than 0 count", "mask = mask != 0")],
        )
    if mask.shape != of.shape[:-1]:
        raise ShapeError(
            f"`mask` has shape {list(mask.shape)}, but the tokens have shape "
            f"{list(of.shape[:-1])}.",
            code="LN-SHAPE-01",
            facts={"mask": describe(mask)},
            fixes=[("all tokens count", "mask = None")],
        )
    return mask
