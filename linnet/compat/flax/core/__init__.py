"""Functions of scopes, and what they are made of."""

from linnet.compat.flax.core.axes_scan import broadcast
from linnet.compat.flax.core.frozen_dict import (
    FrozenDict,
    copy,
    freeze,
    pop,
    pretty_repr,
    unfreeze,
)
from linnet.compat.flax.core.lift import (
    custom_vjp,
    jit,
    jvp,
    remat,
    remat_scan,
    scan,
    vjp,
    vmap,
    while_loop,
)
from linnet.compat.flax.core.meta import AxisMetadata, map_axis_meta, unbox
from linnet.compat.flax.core.scope import (
    Array,
    DenyList,
    Scope,
    apply,
    bind,
    init,
    lazy_init,
)
from linnet.compat.flax.core.tracers import check_trace_level, current_trace

__all__ = [
    "Array",
    "AxisMetadata",
    "DenyList",
    "FrozenDict",
    "Scope",
    "apply",
    "bind",
    "broadcast",
    "check_trace_level",
    "copy",
    "current_trace",
    "custom_vjp",
    "freeze",
    "init",
    "jit",
    "jvp",
    "lazy_init",
    "map_axis_meta",
    "pop",
    "pretty_repr",
    "remat",
    "remat_scan",
    "scan",
    "unbox",
    "unfreeze",
    "vjp",
    "vmap",
    "while_loop",
]
