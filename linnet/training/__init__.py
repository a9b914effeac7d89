"""Training: a state, a loop with hooks, metrics, data, checkpoints."""

from linnet._errors import CheckpointError, NonFiniteError
from linnet.training._accumulate import accumulate
from linnet.training._checkpoint import Checkpoints, Restored
from linnet.training._data import Prefetch, Windows, loader
from linnet.training._ema import Ema
from linnet.training._export import export, load_weights, save_weights
from linnet.training._finite import StopOnNonFinite
from linnet.training._fit import Hook, Run, fit
from linnet.training._hook import (
    EarlyStop,
    Evaluate,
    JsonLines,
    Profile,
    Progress,
    TensorBoard,
)
from linnet.training._metric import (
    BitsPerByte,
    Confusion,
    Mean,
    Perplexity,
    accuracy,
    compute,
    flops_utilization,
    merge,
    throughput,
)
from linnet.training._save import Save
from linnet.training._scale import LossScale
from linnet.training._state import TrainState

__all__ = [
    "BitsPerByte",
    "CheckpointError",
    "Checkpoints",
    "Confusion",
    "EarlyStop",
    "Ema",
    "Evaluate",
    "Hook",
    "JsonLines",
    "LossScale",
    "Mean",
    "NonFiniteError",
    "Perplexity",
    "Prefetch",
    "Profile",
    "Progress",
    "Restored",
    "Run",
    "Save",
    "StopOnNonFinite",
    "TensorBoard",
    "TrainState",
    "Windows",
    "accumulate",
    "accuracy",
    "compute",
    "export",
    "fit",
    "flops_utilization",
    "load_weights",
    "loader",
    "merge",
    "save_weights",
    "throughput",
]

for _error in (CheckpointError, NonFiniteError):
    _error.__module__ = __name__  # as one imports it
del _error
