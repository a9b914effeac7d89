"""Linnet's public API: modules, their effects, and the layers."""

from jax.nn import (
    celu,
    elu,
    gelu,
    glu,
    hard_sigmoid,
    hard_silu,
    hard_swish,
    hard_tanh,
    identity,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    logsumexp,
    mish,
    one_hot,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    soft_sign,
    softmax,
    softplus,
    sparse_plus,
    sparse_sigmoid,
    squareplus,
    swish,
    tanh,
)

from linnet._errors import (
    ConfigError,
    DTypeError,
    ExtraError,
    FrozenError,
    InitError,
    LinnetError,
    PathError,
    RoleError,
    ScopeError,
    ShapeError,
    TreeError,
)
from linnet.core import (
    BatchStat,
    Cache,
    Constant,
    Ensemble,
    Frozen,
    Module,
    Param,
    Role,
    Selection,
    Stack,
    State,
    abstract,
    apply_updates,
    capture,
    cast,
    check_option,
    check_positive,
    check_rate,
    check_size,
    cond,
    constant,
    custom_vjp,
    describe,
    from_data,
    from_paths,
    grad,
    init,
    intervene,
    jit,
    lift,
    merge,
    param,
    params,
    partition,
    perturb,
    remat,
    scan,
    select,
    shard,
    shard_map,
    state,
    stateful,
    substitute,
    summary,
    switch,
    tie,
    to_paths,
    training,
    value_and_grad,
    vmap,
    while_loop,
)
from linnet.functional import (
    LinearScaling,
    Llama3Scaling,
    NTKScaling,
    YaRNScaling,
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    initializers,
    max_pool,
    min_pool,
    pixel_shuffle,
    pixel_unshuffle,
    resize,
)
from linnet.nn._act_norm import ActNorm
from linnet.nn._activation import PReLU
from linnet.nn._attention import (
    Attention,
)
from linnet.nn._batch_norm import BatchNorm
from linnet.nn._cache import (
    CacheIndex,
    KVCache,
)
from linnet.nn._conv import (
    Conv,
)
from linnet.nn._conv_depthwise import (
    DepthwiseConv,
    SeparableConv,
)
from linnet.nn._conv_local import (
    ConvLocal,
)
from linnet.nn._conv_lstm import (
    ConvLSTMCell,
)
from linnet.nn._conv_transpose import (
    ConvTranspose,
)
from linnet.nn._decode import (
    limit_cache,
    reorder_cache,
    with_cache,
    without_cache,
)
from linnet.nn._dropout import Dropout, DropPath
from linnet.nn._einsum import (
    Einsum,
)
from linnet.nn._embed import (
    Embed,
)
from linnet.nn._fp8 import (
    Fp8Dense,
    fp8,
)
from linnet.nn._generate import (
    Generation,
    generate,
)
from linnet.nn._group_norm import GroupNorm, InstanceNorm
from linnet.nn._linear import (
    Bilinear,
    Dense,
    DenseGeneral,
)
from linnet.nn._linear_recurrence import (
    RGLRU,
    S5,
)
from linnet.nn._linen import from_linen
from linnet.nn._lora import (
    lora,
    merge_lora,
)
from linnet.nn._mlp import (
    MLP,
)
from linnet.nn._moe import (
    MoE,
)
from linnet.nn._norm import LayerNorm, RMSNorm
from linnet.nn._patch import (
    PatchEmbed,
)
from linnet.nn._position import (
    LearnedPosition,
    SinusoidalPosition,
)
from linnet.nn._quantize import (
    dequantize,
    quantize,
)
from linnet.nn._quantize_error import (
    quantization_error,
)
from linnet.nn._recurrent import (
    GRUCell,
    LSTMCell,
    MGUCell,
    SimpleCell,
)
from linnet.nn._relative import (
    ALiBi,
    RelativeBias,
)
from linnet.nn._rnn import (
    RNN,
    Bidirectional,
)
from linnet.nn._role import (
    LoRAParam,
)
from linnet.nn._rotary import (
    Rotary,
)
from linnet.nn._sequential import (
    Sequential,
)
from linnet.nn._transformer import (
    TransformerBlock,
)
from linnet.nn._weight_norm import SpectralNorm, WeightNorm

__all__ = [
    "MLP",
    "RGLRU",
    "RNN",
    "S5",
    "ALiBi",
    "ActNorm",
    "Attention",
    "BatchNorm",
    "BatchStat",
    "Bidirectional",
    "Bilinear",
    "Cache",
    "CacheIndex",
    "ConfigError",
    "Constant",
    "Conv",
    "ConvLSTMCell",
    "ConvLocal",
    "ConvTranspose",
    "DTypeError",
    "Dense",
    "DenseGeneral",
    "DepthwiseConv",
    "DropPath",
    "Dropout",
    "Einsum",
    "Embed",
    "Ensemble",
    "ExtraError",
    "Fp8Dense",
    "Frozen",
    "FrozenError",
    "GRUCell",
    "Generation",
    "GroupNorm",
    "InitError",
    "InstanceNorm",
    "KVCache",
    "LSTMCell",
    "LayerNorm",
    "LearnedPosition",
    "LinearScaling",
    "LinnetError",
    "Llama3Scaling",
    "LoRAParam",
    "MGUCell",
    "MoE",
    "Module",
    "NTKScaling",
    "PReLU",
    "Param",
    "PatchEmbed",
    "PathError",
    "RMSNorm",
    "RelativeBias",
    "Role",
    "RoleError",
    "Rotary",
    "ScopeError",
    "Selection",
    "SeparableConv",
    "Sequential",
    "ShapeError",
    "SimpleCell",
    "SinusoidalPosition",
    "SpectralNorm",
    "Stack",
    "State",
    "TransformerBlock",
    "TreeError",
    "WeightNorm",
    "YaRNScaling",
    "abstract",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "apply_updates",
    "avg_pool",
    "capture",
    "cast",
    "celu",
    "check_option",
    "check_positive",
    "check_rate",
    "check_size",
    "cond",
    "constant",
    "custom_vjp",
    "dequantize",
    "describe",
    "elu",
    "fp8",
    "from_data",
    "from_linen",
    "from_paths",
    "gelu",
    "generate",
    "glu",
    "grad",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "identity",
    "init",
    "initializers",
    "intervene",
    "jit",
    "leaky_relu",
    "lift",
    "limit_cache",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "lora",
    "max_pool",
    "merge",
    "merge_lora",
    "min_pool",
    "mish",
    "one_hot",
    "param",
    "params",
    "partition",
    "perturb",
    "pixel_shuffle",
    "pixel_unshuffle",
    "quantization_error",
    "quantize",
    "relu",
    "relu6",
    "remat",
    "reorder_cache",
    "resize",
    "scan",
    "select",
    "selu",
    "shard",
    "shard_map",
    "sigmoid",
    "silu",
    "soft_sign",
    "softmax",
    "softplus",
    "sparse_plus",
    "sparse_sigmoid",
    "squareplus",
    "state",
    "stateful",
    "substitute",
    "summary",
    "swish",
    "switch",
    "tanh",
    "tie",
    "to_paths",
    "training",
    "value_and_grad",
    "vmap",
    "while_loop",
    "with_cache",
    "without_cache",
]

# Tracebacks name an error as one imports it.
for _error in (
    ConfigError,
    DTypeError,
    ExtraError,
    FrozenError,
    InitError,
    LinnetError,
    PathError,
    RoleError,
    ScopeError,
    ShapeError,
    TreeError,
):
    _error.__module__ = __name__
del _error
