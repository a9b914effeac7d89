"""Exponential moving averages of weights."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from linnet._typing import Array, PyTree
from linnet.core._check import check_rate


@dataclasses.dataclass(frozen=True)
class Ema:
    r"""How the weights of a `TrainState` are averaged over its steps.

    $m_t = m_{t-1} + r_t (w_t - m_{t-1})$, with $r_t = 1 - d$ for a decay $d$. Weights
    in half precision are averaged in float32: what one step adds would be rounded away.

    With `debias` the rate is $r_t = (1 - d) / (1 - d^t)$: the first average is the
    first weights after a step, the initial ones have no part in it, and the rate falls
    to $1 - d$ within about $1 / (1 - d)$ steps. That is the correction of Adam, and a
    warm-up in one. Without it the average starts from the initial weights, and keeps
    $d^t$ of them.

    Args:
        decay: The part of the average that a step keeps, from 0 up to but not
            including 1. It averages over about `1 / (1 - decay)` steps.
        debias: Whether the initial weights have no part in the average.

    Raises:
        ConfigError: `decay` lies outside.

    Example:
        >>> model = nn.init(nn.Dense(3), jax.random.key(0), jnp.ones((1, 2)))
        >>> state = training.TrainState.create(
        ...     model, optax.sgd(0.1), jax.random.key(1), ema=training.Ema(0.999)
        ... )
        >>> grads = nn.grad(lambda model: model(jnp.ones((4, 2))).sum())(state.model)
        >>> state = state.apply_gradients(grads)
        >>> bool(jnp.allclose(state.ema.kernel, state.model.kernel))
        True

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by
        Averaging", 1992; Kingma and Ba, "Adam", 2015, section 3, for the correction.
    """

    decay: float
    debias: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "decay", check_rate("Ema", "decay", self.decay))

    def rate(self, count: Array) -> Array:
        """The part of the newest weights in the average.

        Args:
            count: How many weights are in it, the newest included.
        """
        rate = 1 - self.decay
        if not self.debias:
            return jnp.float32(rate)
        # 1 - d^t without cancellation where d is close to one.
        log = math.log(self.decay) if self.decay else -math.inf
        return rate / -jnp.expm1(jnp.float32(count) * jnp.float32(log))


def first_average(params: PyTree) -> PyTree:
    """A copy of the parameters, in float32 or wider."""
    return jax.tree.map(lambda x: jnp.array(x, _wide(x), copy=True), params)


def next_average(rule: Ema, average: PyTree, params: PyTree, count: Array) -> PyTree:
    """The average with one more set of parameters in it.

    Args:
        rule: How they are averaged.
        average: So far.
        params: The new ones.
        count: How many sets are in it then.
    """
    rate = rule.rate(count)

    def step(old: Any, new: Any) -> Any:
        if not jnp.issubdtype(old.dtype, jnp.inexact):
            return new
        return old + rate.astype(old.real.dtype) * (new.astype(old.dtype) - old)

    return jax.tree.map(step, average, params)


def _wide(x: Any) -> Any:
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return x.dtype
    return jnp.promote_types(x.dtype, jnp.float32)
