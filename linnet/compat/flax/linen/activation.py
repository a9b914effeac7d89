"""Activation functions, those of JAX, and PReLU."""

import jax.numpy as jnp
from jax.nn import (
    celu,
    elu,
    gelu,
    glu,
    hard_sigmoid,
    hard_silu,
    hard_swish,
    hard_tanh,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    logsumexp,
    one_hot,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    soft_sign,
    softmax,
    softplus,
    standardize,
    swish,
)
from jax.numpy import tanh

from linnet.compat.flax.linen.linear import Dense
from linnet.compat.flax.linen.module import Module, compact
from linnet.compat.flax.typing import Array, Dtype

__all__ = [
    "Dense",
    "PReLU",
    "celu",
    "elu",
    "gelu",
    "glu",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "normalize",
    "one_hot",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "soft_sign",
    "softmax",
    "softplus",
    "standardize",
    "swish",
    "tanh",
]

normalize = standardize


class PReLU(Module):
    """A rectifier with a slope for negative numbers that is learnt.

    Args:
        param_dtype: The type of the slope.
        negative_slope_init: Its first value.
    """

    param_dtype: Dtype = jnp.float32
    negative_slope_init: float = 0.01

    @compact
    def __call__(self, inputs: Array) -> Array:
        """Applies it to each number."""
        slope = self.param(
            "negative_slope",
            lambda key: jnp.asarray(self.negative_slope_init, self.param_dtype),
        )
        slope = jnp.asarray(slope, inputs.dtype)
        return jnp.where(inputs >= 0, inputs, slope * inputs)
