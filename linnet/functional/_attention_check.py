"""What attention can be given, and the refusal of the rest.

T query length  S key length  H heads  G key-value heads  D, E head sizes
"""

from __future__ import annotations

import functools
import math
import numbers
from typing import Any

import jax.numpy as jnp
import numpy as np

from linnet._errors import ConfigError, DTypeError, ShapeError, describe
from linnet._typing import Array, ArrayLike, DType, Shape
from linnet.functional._dtype import as_array, is_integer

KERNELS = ("auto", "xla", "blockwise", "cudnn")


@functools.cache
def _is_real(dtype: DType) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))


def floating(x: ArrayLike, name: str) -> Array:
    """`x` as an array of real floating numbers, or a `DTypeError`."""
    x = as_array(x)
    if not _is_real(x.dtype):
        raise DTypeError(
            f"`{name}` has dtype {x.dtype}, but it must be floating.",
            code="LN-DTYPE-01",
            facts={name: describe(x)},
            why="Attention compares quantities; a softmax of complex numbers or of "
            "class numbers has no meaning.",
            fixes=[("the numbers are real", f"{name} = {name}.astype(jnp.float32)")],
        )
    return x


def check_heads(queries: Array, keys: Array, values: Array) -> None:
    """Refuses queries, keys and values that do not fit together."""
    named = {"queries": queries, "keys": keys, "values": values}
    facts = {name: describe(x) for name, x in named.items()}
    for name, x in named.items():
        if x.ndim < 3:
            raise ShapeError(
                f"`{name}` has {x.ndim} axes, but at least 3 are needed: "
                "[..., length, heads, features].",
                code="LN-SHAPE-02",
                facts=facts,
                fixes=[("there is one head", f"{name} = {name}[..., None, :]")]
                if x.ndim == 2
                else [],
            )
    if keys.shape[:-1] != values.shape[:-1]:
        raise ShapeError(
            f"`values` of shape {list(values.shape)} does not go with `keys` of shape "
            f"{list(keys.shape)}.",
            code="LN-SHAPE-01",
            facts=facts,
            why="Each key has one value, so only the last axes may differ.",
            fixes=[
                *_cut("the last ones are left over", keys=keys, values=values),
                ("the keys are the values", "values = keys"),
            ],
        )
    if keys.shape[:-3] != queries.shape[:-3]:
        raise ShapeError(
            f"`keys` has leading axes {list(keys.shape[:-3])}, but `queries` has "
            f"{list(queries.shape[:-3])}.",
            code="LN-SHAPE-01",
            facts=facts,
            why="Each example attends to keys of its own.",
            fixes=_shared({"queries": queries}, keys.shape[:-3])
            + _shared({"keys": keys, "values": values}, queries.shape[:-3])
            or _cut("only the first belong together", -3, **named),
        )
    if keys.shape[-1] != queries.shape[-1]:
        raise ShapeError(
            f"each head of `keys` has {keys.shape[-1]} features, but those of "
            f"`queries` have {queries.shape[-1]}.",
            code="LN-SHAPE-01",
            facts=facts,
            why="A logit is the inner product of a query and a key.",
            fixes=[
                (
                    "only the first are compared",
                    "n = min(queries.shape[-1], keys.shape[-1])\n"
                    "queries, keys = queries[..., :n], keys[..., :n]",
                )
            ],
        )
    _check_groups(queries, keys, facts)


def _cut(when: str, end: int = -1, **named: Array) -> list[tuple[str, str]]:
    """How all arrays get the least size of each axis before `end`."""
    shapes = [x.shape[:end] for x in named.values()]
    if len(set(map(len, shapes))) > 1:
        return []
    index = ", ".join(f":{min(sizes)}" for sizes in zip(*shapes, strict=True))
    return [(when, "\n".join(f"{name} = {name}[{index}]" for name in named))]


def _shared(named: dict[str, Array], lead: Shape) -> list[tuple[str, str]]:
    """How arrays are given that are the same for all examples."""
    own = next(iter(named.values())).shape[:-3]
    tail = lead[len(lead) - len(own) :]
    if len(own) > len(lead) or any(
        n not in (1, m) for n, m in zip(own, tail, strict=True)
    ):
        return []
    code = "\n".join(
        f"{name} = jnp.broadcast_to({name}, {(*lead, *x.shape[-3:])})"
        for name, x in named.items()
    )
    return [(f"all examples share the {' and '.join(named)}", code)]


def _check_groups(queries: Array, keys: Array, facts: dict[str, str]) -> None:
    heads, groups = queries.shape[-2], keys.shape[-2]
    if groups and heads % groups == 0:
        return
    names = ("queries", "keys", "values")
    fixes = []
    if queries.ndim == 3 and queries.shape[0] == keys.shape[0]:
        code = "\n".join(f"{name} = {name}[..., None, :]" for name in names)
        fixes.append(("there is one head, and the first axis is the batch", code))
    lengths = queries.shape[-3], keys.shape[-3]
    if lengths[1] and lengths[0] % lengths[1] == 0:
        code = "\n".join(f"{name} = jnp.swapaxes({name}, -2, -3)" for name in names)
        fixes.append(("the heads come before the positions", code))
    if not fixes and groups:
        code = "keys, values = keys[..., :1, :], values[..., :1, :]"
        fixes.append(("all heads share the first of the keys", code))
    raise ShapeError(
        f"the {heads} heads of `queries` cannot share the {groups} of `keys` evenly.",
        code="LN-SHAPE-01",
        facts=facts,
        why="Arrays are [..., length, heads, features], and each head of the keys "
        "serves as many heads of the queries.",
        fixes=fixes,
    )


def check_mask(
    mask: ArrayLike, lead: Shape, heads: int, size: tuple[int, int]
) -> Array:
    """The mask with as many axes as the logits, or an error."""
    mask = as_array(mask)
    if mask.dtype != jnp.bool_:
        fixes = [("entries other than 0 may be attended to", "mask = mask != 0")]
        if _is_real(mask.dtype):
            fixes.insert(0, ("the numbers are added to the logits", _AS_BIAS))
        raise DTypeError(
            f"`mask` has dtype {mask.dtype}, but it must hold booleans.",
            code="LN-DTYPE-01",
            facts={"mask": describe(mask)},
            why="`True` lets a query attend to a key. What is added to the logits is "
            "the `bias`.",
            fixes=fixes,
        )
    return fitted(mask, "mask", lead, heads, size)


_AS_BIAS = "bias, mask = mask, None"


def fitted(
    x: Array, name: str, lead: Shape, heads: int, size: tuple[int, int]
) -> Array:
    """`x` with as many axes as the logits, or a `ShapeError`."""
    full = (*lead, heads, *size)
    ndim = len(full)
    whole = x.ndim == ndim or x.ndim == 2
    if whole and all(
        n in (1, m) for n, m in zip(x.shape, full[-x.ndim :], strict=True)
    ):
        return x.reshape((1,) * (ndim - x.ndim) + x.shape)
    error = ShapeError(
        f"`{name}` of shape {list(x.shape)} does not fit the logits, which are "
        f"{list(full)}.",
        code="LN-SHAPE-01" if whole else "LN-SHAPE-02",
        facts={
            name: describe(x),
            "logits": f"[{'..., ' if lead else ''}heads, queries, keys]",
        },
        why=f"It has {ndim} axes, each of the same size or 1"
        + (", or just those of queries and keys." if ndim > 2 else "."),
        fixes=_placements(x.shape, name, full),
    )
    raise error


def _placements(shape: Shape, name: str, full: Shape) -> list[tuple[str, str]]:
    """Where the axes of an array could lie among those of the logits."""
    lead, (heads, queries, keys) = full[:-3], full[-3:]
    every = ":, " * len(lead)
    known = [
        ("each example has its own for each key", (*lead, keys), "None, None, :"),
        ("each example has its own", (*lead, queries, keys), "None, :, :"),
    ]
    fixes = [
        (when, f"{name} = {name}[{every}{rest}]")
        for when, fitting, rest in known
        if lead and shape == fitting
    ]
    if shape == (heads, queries, keys) and lead:
        code = f"{name} = {name}[{'None, ' * len(lead)}:, :, :]"
        fixes.append(("each head has its own", code))
    if shape == (keys,):
        fixes.append(("there is one for each key", f"{name} = {name}[None, :]"))
    return fixes or [("it was left over", f"{name} = None")]


def whole_numbers(x: ArrayLike, name: str, lead: Shape, length: int) -> Array:
    """Positions or segments as integers `[..., length]` with all leading axes."""
    x = as_array(x)
    if not is_integer(x.dtype):
        raise DTypeError(
            f"`{name}` has dtype {x.dtype}, but it must hold integers.",
            code="LN-DTYPE-01",
            facts={name: describe(x)},
            fixes=[("the numbers are whole", f"{name} = {name}.astype(jnp.int32)")],
        )
    x = x.astype(jnp.int32)  # distances of unsigned numbers would wrap around
    full = (*lead, length)
    if x.shape == (length,):
        return x.reshape((1,) * len(lead) + (length,))
    if x.ndim != len(full) or any(
        n not in (1, m) for n, m in zip(x.shape[:-1], lead, strict=True)
    ):
        fits = False
    else:
        fits = x.shape[-1] == length
    if not fits:
        raise ShapeError(
            f"`{name}` has shape {list(x.shape)}, but {list(full)} or [{length}] is "
            "needed.",
            code="LN-SHAPE-01",
            facts={name: describe(x)},
            why="There is one number for each position.",
            fixes=[
                ("they count up from zero", f"{name} = jnp.arange({length})"),
            ]
            if "positions" in name
            else [("all belong together", f"{name} = jnp.zeros({length}, int)")],
        )
    return x


def check_scale(scale: Any, features: int, ndim: int = 4) -> float:
    """The factor of the logits, for queries of so many features and axes."""
    if scale is None:
        return float(max(features, 1) ** -0.5)
    if not is_number(scale):
        fixes = [("the usual one will do", "scale = None")]
        if np.ndim(scale) == 0 and hasattr(scale, "dtype"):
            fixes = [("it is learned", "queries, scale = queries * scale, 1.0")]
        elif np.ndim(scale) == 1:
            shape = (*(1,) * (ndim - 2), np.size(scale), 1)
            code = f"queries, scale = queries * scale.reshape({shape}), 1.0"
            fixes = [("each head has its own", code)]
        raise ConfigError(
            f"`scale` is {_kind(scale)}, but it must be a number.",
            code="LN-VALUE-04",
            why="The factor of all logits is part of the compiled program.",
            fixes=fixes,
        )
    return float(scale)


def check_softcap(softcap: Any) -> float | None:
    """The bound of the logits."""
    if softcap is None:
        return None
    if not is_number(softcap) or not 0.0 < float(softcap) < math.inf:
        raise ConfigError(
            f"`softcap` is {_kind(softcap)}, but it must be positive and finite.",
            code="LN-VALUE-03",
            why="It is the c of c tanh(logits / c).",
            fixes=[
                ("the logits have no bound", "softcap = None"),
                ("they have one, as in Gemma 2", "softcap = 50.0"),
            ],
        )
    return float(softcap)


def check_dropout(rate: Any, key: Any) -> float:
    """The probability of dropping a weight."""
    if not is_number(rate) or not 0.0 <= float(rate) < 1.0:
        raise ConfigError(
            f"`dropout_rate` is {_kind(rate)}, but a probability of dropping is in "
            "[0, 1).",
            code="LN-VALUE-02",
            fixes=[("nothing should be dropped", "dropout_rate = 0.0")],
        )
    if rate and key is None:
        raise ConfigError(
            f"`key` is None, but a `dropout_rate` of {rate} draws random numbers.",
            code="LN-VALUE-06",
            fixes=[
                ("nothing should be dropped", "dropout_rate = 0.0"),
                (
                    "every call may drop the same weights",
                    "key = jax.random.key(0)",
                ),
            ],
        )
    return float(rate)


def check_block_size(block_size: Any) -> tuple[int, int] | None:
    """The lengths of blocks of queries and of keys."""
    pair = (block_size, block_size) if is_count(block_size, 1) else block_size
    if pair is None:
        return None
    is_pair = isinstance(pair, tuple | list) and len(pair) == 2
    if not is_pair or not all(is_count(n, 1) for n in pair):
        raise ConfigError(
            f"`block_size` is {_kind(block_size)}, but it must be a positive integer "
            "or a pair of them.",
            code="LN-VALUE-01",
            why="It is the number of queries, and of keys, in one block.",
            fixes=[("the library should choose", "block_size = None")],
        )
    return int(pair[0]), int(pair[1])


def is_number(value: Any) -> bool:
    """Whether this is a real number of Python or NumPy."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_count(value: Any, least: int) -> bool:
    """Whether this is an integer of at least `least`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and int(value) >= least


def _kind(value: Any) -> str:
    return describe(value) if hasattr(value, "dtype") else repr(value)


def check_lengths(**lengths: Any) -> None:
    """Refuses what is not the number of queries or keys."""
    for name, length in lengths.items():
        if not is_count(length, 0):
            raise ConfigError(
                f"`{name}` is {_kind(length)}, but it must be an integer, 0 or more.",
                code="LN-VALUE-01",
                why="It is the number of queries or keys.",
                fixes=[("a size is meant", f"{name} = {_nearest(length)}")],
            )


def _nearest(length: Any) -> int:
    usable = is_number(length) and math.isfinite(length)
    return abs(round(float(length))) if usable else 1


def check_kernel(kernel: Any) -> None:
    """Refuses what is not the name of a kernel."""
    if kernel not in KERNELS:
        raise ConfigError(
            f"`kernel` is {kernel!r}, but it must be one of "
            f"{', '.join(map(repr, KERNELS))}.",
            code="LN-VALUE-04",
            fixes=[("the library should choose", "kernel = 'auto'")],
        )
