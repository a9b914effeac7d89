"""Modules as pytrees, and their effects. See README.md for the order of reading."""

from linnet.core._ambient import shard
from linnet.core._branch import cond, switch
from linnet.core._call import stateful, training
from linnet.core._capture import capture, intervene, perturb
from linnet.core._cast import cast
from linnet.core._check import check_option, check_positive, check_rate, check_size
from linnet.core._grad import grad, value_and_grad
from linnet.core._init import abstract, describe, init
from linnet.core._lift import lift
from linnet.core._loop import scan, while_loop
from linnet.core._map import shard_map, vmap
from linnet.core._module import Module
from linnet.core._paths import from_paths, to_paths
from linnet.core._role import (
    BatchStat,
    Cache,
    Constant,
    Frozen,
    Param,
    Role,
    State,
    constant,
    from_data,
    param,
    state,
)
from linnet.core._select import Selection, select
from linnet.core._stack import Ensemble, Stack
from linnet.core._substitute import substitute
from linnet.core._summary import summary
from linnet.core._tie import tie
from linnet.core._transform import custom_vjp, jit, remat
from linnet.core._tree import apply_updates, merge, params, partition

__all__ = [
    "BatchStat",
    "Cache",
    "Constant",
    "Ensemble",
    "Frozen",
    "Module",
    "Param",
    "Role",
    "Selection",
    "Stack",
    "State",
    "abstract",
    "apply_updates",
    "capture",
    "cast",
    "check_option",
    "check_positive",
    "check_rate",
    "check_size",
    "cond",
    "constant",
    "custom_vjp",
    "describe",
    "from_data",
    "from_paths",
    "grad",
    "init",
    "intervene",
    "jit",
    "lift",
    "merge",
    "param",
    "params",
    "partition",
    "perturb",
    "remat",
    "scan",
    "select",
    "shard",
    "shard_map",
    "state",
    "stateful",
    "substitute",
    "summary",
    "switch",
    "tie",
    "to_paths",
    "training",
    "value_and_grad",
    "vmap",
    "while_loop",
]
