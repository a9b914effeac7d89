"""Layers as functions of a scope."""

from linnet.compat.flax.core.nn import attention, linear, normalization, stochastic
from linnet.compat.flax.core.nn.attention import (
    dot_product_attention,
    multi_head_dot_product_attention,
)
from linnet.compat.flax.core.nn.linear import (
    Embedding,
    conv,
    conv_transpose,
    dense,
    dense_general,
    embedding,
)
from linnet.compat.flax.core.nn.normalization import batch_norm, group_norm, layer_norm
from linnet.compat.flax.core.nn.stochastic import dropout
from linnet.compat.flax.linen import activation, initializers
from linnet.compat.flax.linen.activation import (
    celu,
    elu,
    gelu,
    glu,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    relu,
    sigmoid,
    silu,
    soft_sign,
    softmax,
    softplus,
    swish,
    tanh,
)
from linnet.compat.flax.linen.pooling import avg_pool, max_pool

__all__ = [
    "Embedding",
    "activation",
    "attention",
    "avg_pool",
    "batch_norm",
    "celu",
    "conv",
    "conv_transpose",
    "dense",
    "dense_general",
    "dot_product_attention",
    "dropout",
    "elu",
    "embedding",
    "gelu",
    "glu",
    "group_norm",
    "initializers",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "max_pool",
    "multi_head_dot_product_attention",
    "normalization",
    "relu",
    "sigmoid",
    "silu",
    "soft_sign",
    "softmax",
    "softplus",
    "stochastic",
    "swish",
    "tanh",
]
