"""For each primitive the division of its results, from that of its operands."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jax.sharding import PartitionSpec

from linnet.parallel._flow import Flow, Spec, Value
from linnet.parallel._rules import MeshAxes

Rule = Callable[[Flow, Mapping[str, Any], Any, Any], None]


def like_operands(flow: Flow, params: Any, inputs: Any, outputs: Any) -> None:
    """Axes of the same place and size are divided alike."""
    del flow, params
    for out in outputs:
        parts: list[MeshAxes] = [()] * len(out.shape)
        same_rank = [v for v in inputs if len(v.shape) == len(out.shape)]
        told = [v for v in same_rank if v.spec is not None]
        for value in told:
            for i, part in enumerate(value.known):
                if not parts[i] and value.shape[i] == out.shape[i]:
                    parts[i] = part
        if told:
            out.spec = _unique(parts)
            for value in same_rank:
                is_open = value.spec is None or value.is_made
                if is_open and value.shape == out.shape:
                    value.spec = out.spec


def _unique(parts: Sequence[MeshAxes]) -> Spec:
    """The parts, with an axis of the mesh in the first alone that has it."""
    used: set[str] = set()
    kept = []
    for part in parts:
        kept.append(tuple(axis for axis in part if axis not in used))
        used.update(part)
    return tuple(kept)


def _but(parts: Sequence[MeshAxes], axes: Sequence[str]) -> Spec:
    return tuple(tuple(a for a in part if a not in axes) for part in parts)


def _flat(parts: Sequence[MeshAxes]) -> list[str]:
    return [axis for part in parts for axis in part]


def _broadcast_in_dim(flow: Flow, params: Any, inputs: Any, outputs: Any) -> None:
    value, (out,) = inputs[0], outputs
    parts: list[MeshAxes] = [()] * len(out.shape)
    for i, at in enumerate(params["broadcast_dimensions"]):
        if value.shape[i] == out.shape[at]:
            parts[at] = value.known[i]
    out.spec = tuple(parts) if any(parts) else None
    out.is_made = True


def _transpose(flow: Flow, params: Any, inputs: Any, outputs: Any) -> None:
    if inputs[0].spec is not None:
        outputs[0].spec = tuple(inputs[0].spec[i] for i in params["permutation"])


def _squeeze(flow: Flow, params: Any, inputs: Any, outputs: Any) -> None:
    if inputs[0].spec is not None:
        gone = params["dimensions"]
        kept = [part for i, part in enumerate(inputs[0].spec) if i not in gone]
        outputs[0].spec = tuple(kept)


def _reshape(flow: Flow, params: Any, inputs: Any, outputs: Any) -> None:
    value, (out,) = inputs[0], outputs
    if value.spec is None:
        return
    parts: list[MeshAxes] = [()] * len(out.shape)
    for old, new in _same_entries(value.shape, out.shape):
        for at, i in enumerate(old):
            count = flow.count(value.spec[i])
            is_first = all(value.shape[j] == 1 for j in old[:at])
            for j in new if is_first else new[1:]:
                if value.spec[i] and not parts[j] and out.shape[j] % count == 0:
                    parts[j] = value.spec[i]
                    break
    out.spec = tuple(parts)


def _same_entries(
    old: Sequence[int], new: Sequence[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """Groups of axes before and after that hold the same entries."""
    i = j = 0
    while i < len(old) or j < len(new):
        left: list[int] = []
        right: list[int] = []
        a = b = 1
        while not (left or right) or a != b:
            if i < len(old) and (a <= b or j == len(new)):
                left.append(i)
                a *= old[i]
                i += 1
            else:
                right.append(j)
                b *= new[j]
                j += 1
        yield left, right


def _reduce(flow: Flow, params: Any, inputs: Any, outputs: Any) -> None:
    gone = params["axes"]
    for value, out in zip(inputs, outputs, strict=False):
        if value.spec is not None:
            kept = [part for i, part in enumerate(value.spec) if i not in gone]
            out.spec = tuple(kept)
            flow.summed(out, _flat([value.spec[i] for i in gone]))


def _dot_general(flow: Flow, params: Any, inputs: Any, outputs: Any) -> None:
    (lhs, rhs), (out,) = inputs, outputs
    sums, batches = params["dimension_numbers"]
    specs = _agreed(flow, (lhs, rhs), sums, batches)
    summed = _flat(_unique(_either(specs, sums)))
    batch = _either(specs, batches)
    first, last = (_free(*each) for each in zip(specs, sums, batches, strict=True))
    parts = _unique(_but([*batch, *first, *last], summed))
    is_told = lhs.spec is not None and rhs.spec is not None
    out.spec = parts if is_told or any(parts) else None
    flow.multiply(out, math.prod(lhs.shape[i] for i in sums[0]), summed)
    flow.summed(out, summed)


def _agreed(flow: Flow, factors: Any, sums: Any, batches: Any) -> list[Spec]:
    """The divisions of two factors once none stands in the way of the other.

    An axis of the mesh that divides free axes of both, or a free axis of one and the
    summed axis of the other alone, is taken out of one: that is put together.
    """
    specs = [value.known for value in factors]
    free = [_flat(_free(*each)) for each in zip(specs, sums, batches, strict=True)]
    summed = [
        _flat([spec[i] for i in at]) for spec, at in zip(specs, sums, strict=True)
    ]
    for i in (0, 1):
        clash = [a for a in summed[i] if a in free[1 - i]]
        if clash:
            specs[i] = _put_together(flow, factors[i], clash)
    both = [a for a in free[1] if a in free[0]]
    if both:
        i = min((0, 1), key=lambda i: flow.bytes(factors[i]))
        specs[i] = _put_together(flow, factors[i], both)
    return specs


def _put_together(flow: Flow, value: Value, axes: Sequence[str]) -> Spec:
    whole = Value(value.shape, value.itemsize, _but(value.known, axes))
    flow.send("all-gather", axes, whole)
    return whole.known


def _free(spec: Spec, summed: Sequence[int], batch: Sequence[int]) -> list[MeshAxes]:
    return [part for i, part in enumerate(spec) if i not in (*summed, *batch)]


def _either(specs: Sequence[Spec], at: Sequence[Sequence[int]]) -> list[MeshAxes]:
    return [specs[0][i] or specs[1][j] for i, j in zip(*at, strict=True)]


def _conv(flow: Flow, params: Any, inputs: Any, outputs: Any) -> None:
    (lhs, rhs), (out,) = inputs, outputs
    where = params["dimension_numbers"]
    parts: list[MeshAxes] = [()] * len(out.shape)
    parts[where.out_spec[0]] = lhs.known[where.lhs_spec[0]]
    parts[where.out_spec[1]] = rhs.known[where.rhs_spec[0]]
    out.spec = _unique(parts)
    summed = lhs.known[where.lhs_spec[1]]
    terms = math.prod(rhs.shape) // rhs.shape[where.rhs_spec[0]]
    flow.multiply(out, terms, summed)
    flow.summed(out, summed)


def _gather(flow: Flow, params: Any, inputs: Any, outputs: Any) -> None:
    (operand, indices), (out,) = inputs, outputs
    where = params["dimension_numbers"]
    gone = (*where.collapsed_slice_dims, *where.operand_batching_dims)
    whole = iter([i for i in range(len(operand.shape)) if i not in gone])
    lead = iter(indices.known)
    parts: list[MeshAxes] = []
    for i in range(len(out.shape)):
        if i in where.offset_dims:
            at = next(whole)
            is_whole = params["slice_sizes"][at] == operand.shape[at]
            parts.append(operand.known[at] if is_whole else ())
        else:
            parts.append(next(lead, ()))
    out.spec = _unique(parts)
    divided = _flat([operand.known[i] for i in where.collapsed_slice_dims])
    flow.send("all-reduce", divided, out)


def _scatter(flow: Flow, params: Any, inputs: Any, outputs: Any) -> None:
    (operand, _, updates), (out,) = inputs, outputs
    out.spec = operand.spec
    inside = params["dimension_numbers"].update_window_dims
    lead = [part for i, part in enumerate(updates.known) if i not in inside]
    flow.summed(out, [axis for axis in _flat(lead) if axis not in _flat(out.known)])


def _constraint(flow: Flow, params: Any, inputs: Any, outputs: Any) -> None:
    (value,), (out,) = inputs, outputs
    asked = (*params["sharding"].spec, *(None,) * len(value.shape))
    free = params.get("unconstrained_dims", ())
    parts = [
        value.known[i] if i in free else _names(asked[i])
        for i in range(len(value.shape))
    ]
    out.spec = _unique(parts)
    lost = set(_flat(value.known)) - set(_flat(parts))
    flow.send("all-gather", sorted(lost), out)
    if value.spec is None:
        value.spec = out.spec


def _names(part: Any) -> MeshAxes:
    if part is None or part is PartitionSpec.UNCONSTRAINED:
        return ()
    return (part,) if isinstance(part, str) else tuple(part)


_SUMS = ["sum", "max", "min", "and", "or", "prod"]
RULES: dict[str, Rule] = {
    "argmax": _reduce,
    "argmin": _reduce,
    "broadcast_in_dim": _broadcast_in_dim,
    "conv_general_dilated": _conv,
    "dot_general": _dot_general,
    "gather": _gather,
    "reshape": _reshape,
    "scatter-add": _scatter,
    "sharding_constraint": _constraint,
    "squeeze": _squeeze,
    "transpose": _transpose,
    **{f"reduce_{name}": _reduce for name in _SUMS},
}
