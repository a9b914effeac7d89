"""The mathematics of the layers: arrays in, arrays out, no modules and no state."""

from linnet.functional import initializers
from linnet.functional._act_norm import act_norm
from linnet.functional._activation import prelu
from linnet.functional._adaptive_pool import adaptive_avg_pool, adaptive_max_pool
from linnet.functional._attention import attention
from linnet.functional._attention_mask import attention_mask
from linnet.functional._augment import cutmix, label_smoothing, mixup
from linnet.functional._batch_norm import batch_norm, batch_statistics, moving_average
from linnet.functional._conv import conv
from linnet.functional._conv_local import conv_local
from linnet.functional._conv_transpose import conv_transpose
from linnet.functional._dropout import drop_path, dropout
from linnet.functional._einsum import einsum_dense
from linnet.functional._embed import attend, embed
from linnet.functional._expert import (
    ExpertSlots,
    expert_capacity,
    expert_combine,
    expert_dispatch,
    expert_slots,
)
from linnet.functional._expert_dense import expert_dense
from linnet.functional._fp8 import fp8_dense, fp8_remember, fp8_scale
from linnet.functional._group_norm import group_norm, instance_norm
from linnet.functional._kernel import masked
from linnet.functional._linear import bilinear, dense, dense_general
from linnet.functional._linear_recurrence import (
    linear_recurrence,
    rg_lru_terms,
    s5_readout,
    s5_terms,
    zero_order_hold,
)
from linnet.functional._moe import (
    Routing,
    load_balancing_loss,
    router_logits,
    router_z_loss,
    top_k_routing,
)
from linnet.functional._norm import layer_norm, rms_norm
from linnet.functional._pool import avg_pool, max_pool, min_pool
from linnet.functional._position import sinusoidal_position
from linnet.functional._quantize import (
    dequantize,
    quantize,
    quantized_attend,
    quantized_dense,
    quantized_embed,
)
from linnet.functional._recurrent import (
    conv_lstm_step,
    gru_step,
    lstm_step,
    mgu_step,
    simple_step,
)
from linnet.functional._relative import (
    alibi_bias,
    alibi_slopes,
    relative_position_bias,
    relative_position_bucket,
)
from linnet.functional._resize import pixel_shuffle, pixel_unshuffle, resize
from linnet.functional._rotary import rotary, rotary_frequencies
from linnet.functional._rotary_scaling import (
    LinearScaling,
    Llama3Scaling,
    NTKScaling,
    YaRNScaling,
)
from linnet.functional._sampling import (
    keep_min_p,
    keep_top_k,
    keep_top_p,
    repetition_penalty,
)
from linnet.functional._weight_norm import power_iteration, weight_norm

__all__ = [
    "ExpertSlots",
    "LinearScaling",
    "Llama3Scaling",
    "NTKScaling",
    "Routing",
    "YaRNScaling",
    "act_norm",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "alibi_bias",
    "alibi_slopes",
    "attend",
    "attention",
    "attention_mask",
    "avg_pool",
    "batch_norm",
    "batch_statistics",
    "bilinear",
    "conv",
    "conv_local",
    "conv_lstm_step",
    "conv_transpose",
    "cutmix",
    "dense",
    "dense_general",
    "dequantize",
    "drop_path",
    "dropout",
    "einsum_dense",
    "embed",
    "expert_capacity",
    "expert_combine",
    "expert_dense",
    "expert_dispatch",
    "expert_slots",
    "fp8_dense",
    "fp8_remember",
    "fp8_scale",
    "group_norm",
    "gru_step",
    "initializers",
    "instance_norm",
    "keep_min_p",
    "keep_top_k",
    "keep_top_p",
    "label_smoothing",
    "layer_norm",
    "linear_recurrence",
    "load_balancing_loss",
    "lstm_step",
    "masked",
    "max_pool",
    "mgu_step",
    "min_pool",
    "mixup",
    "moving_average",
    "pixel_shuffle",
    "pixel_unshuffle",
    "power_iteration",
    "prelu",
    "quantize",
    "quantized_attend",
    "quantized_dense",
    "quantized_embed",
    "relative_position_bias",
    "relative_position_bucket",
    "repetition_penalty",
    "resize",
    "rg_lru_terms",
    "rms_norm",
    "rotary",
    "rotary_frequencies",
    "router_logits",
    "router_z_loss",
    "s5_readout",
    "s5_terms",
    "simple_step",
    "sinusoidal_position",
    "top_k_routing",
    "weight_norm",
    "zero_order_hold",
]
