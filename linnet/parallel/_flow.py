"""How a traced program lies on a mesh: the division of every value, by its equations.

Specs go forward through the equations, as a compiler propagates them: an elementwise
operation keeps the division of its operands, a product of matrices that of its free
axes. Where a divided axis is summed over, the devices have to exchange what they have;
each such exchange is noted with its kind and bytes. Nothing is compiled.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from linnet.parallel._rules import MeshAxes

Spec = tuple[MeshAxes, ...]


@dataclasses.dataclass(eq=False)
class Value:
    """A value of the program.

    Args:
        shape: Of the whole value.
        itemsize: Bytes of an entry.
        spec: For each axis the axes of the mesh that divide it; None while nothing
            tells, as for a constant.
        is_made: Whether it can be made in any division, as a constant spread out.
        gathered: Axes of the mesh over which it is stored in parts, though it is used
            whole: those of `fsdp`.
    """

    shape: tuple[int, ...]
    itemsize: int
    spec: Spec | None = None
    gathered: MeshAxes = ()
    is_made: bool = False

    @property
    def known(self) -> Spec:
        """The spec, not divided where nothing tells."""
        return self.spec if self.spec is not None else ((),) * len(self.shape)

    def like(self) -> Value:
        """Another value of the same shape and division."""
        return Value(self.shape, self.itemsize, self.spec)


@dataclasses.dataclass
class Op:
    """An equation, those of inner functions among those around them.

    Args:
        name: Of the primitive.
        inputs: Its operands.
        outputs: Its results.
        params: Of the primitive.
        body: What a loop runs in each step.
    """

    name: str
    inputs: list[Value]
    outputs: list[Value]
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    body: Program | None = None


@dataclasses.dataclass
class Program:
    """Equations in order, with their cost on one device.

    Args:
        ops: The equations.
        inputs: What goes in.
        outputs: What comes out.
        products: Of each its result, the terms of an entry, and the axes of the mesh
            that divide these.
        slices: Those of the inputs that a loop cuts out of larger ones.
        flops: Of products of matrices and convolutions, on one device.
        total_flops: The same, of all devices together without repeated work.
        sent: Bytes of the results of each (collective, axes of the mesh).
    """

    ops: list[Op]
    inputs: list[Value]
    outputs: list[Value]
    products: list[tuple[Value, int, MeshAxes]] = dataclasses.field(
        default_factory=list
    )
    slices: list[Value] = dataclasses.field(default_factory=list)
    flops: float = 0.0
    total_flops: float = 0.0
    sent: dict[tuple[str, MeshAxes], float] = dataclasses.field(default_factory=dict)


class Flow:
    """Follows programs over a mesh.

    Args:
        sizes: Of the axes of the mesh.
        fsdp: The axes of the mesh over which large gradients end in parts.
        min_size: Arrays with fewer entries are not large.
    """

    def __init__(
        self, sizes: Mapping[str, int], fsdp: MeshAxes = (), min_size: int = 0
    ) -> None:
        self.sizes = dict(sizes)
        self.fsdp = fsdp
        self.min_size = min_size
        self._found = Program([], [], [])

    # ---- sizes

    def count(self, axes: Sequence[str]) -> int:
        """Devices along axes of the mesh."""
        return math.prod(self.sizes[axis] for axis in axes)

    def local(self, value: Value) -> tuple[int, ...]:
        """The shape on one device."""
        return tuple(
            -(-size // self.count(part))
            for size, part in zip(value.shape, value.known, strict=True)
        )

    def bytes(self, value: Value) -> int:
        """Bytes on one device."""
        return math.prod(self.local(value)) * value.itemsize

    # ---- programs

    def follow(self, jaxpr: Any, inputs: Sequence[Value]) -> Program:
        """The program of a closed jaxpr with inputs of known division."""
        outer, self._found = self._found, Program([], list(inputs), [])
        try:
            self._found.outputs = self._inline(jaxpr, inputs)
            _tell_operands(self._found)
            for out, terms, divided in self._found.products:
                self._count_product(out, terms, divided)
            return self._found
        finally:
            self._found = outer

    def _inline(self, closed: Any, inputs: Sequence[Value]) -> list[Value]:
        from linnet.parallel._flow_rules import RULES, like_operands

        jaxpr = closed.jaxpr
        env: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        env |= {v: value_of(v.aval) for v in jaxpr.constvars}

        def read(atom: Any) -> Value:
            return value_of(atom.aval) if isinstance(atom, core.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            operands = [read(v) for v in eqn.invars]
            inner = _inner(eqn)
            if eqn.primitive.name == "scan":
                results = self._scan(eqn, operands)
            elif inner is not None:
                taken = len(inner.jaxpr.invars)
                results = self._inline(inner, operands[len(operands) - taken :])
            else:
                results = [value_of(v.aval) for v in eqn.outvars]
                rule = RULES.get(eqn.primitive.name, like_operands)
                rule(self, eqn.params, operands, results)
                op = Op(eqn.primitive.name, operands, results, eqn.params)
                self._found.ops.append(op)
            env.update(zip(eqn.outvars, results, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _scan(self, eqn: Any, inputs: list[Value]) -> list[Value]:
        closed, length = _closed(eqn.params["jaxpr"]), eqn.params["length"]
        consts, carry = _consts_and_carry(eqn, closed)
        carried = [v.like() for v in inputs[consts : consts + carry]]
        sliced = [_slice(v) for v in inputs[consts + carry :]]
        for _ in range(2):  # The second time with the carry as a step leaves it.
            body = self.follow(
                eqn.params["jaxpr"], [*inputs[:consts], *carried, *sliced]
            )
            after = [v.like() for v in body.outputs[:carry]]
            if all(a.spec == b.spec for a, b in zip(carried, after, strict=True)):
                break
            carried = after
        body.slices = sliced
        outputs = [v.like() for v in body.outputs[:carry]]
        outputs += [_stacked(v, length) for v in body.outputs[carry:]]
        found = self._found
        found.flops += length * body.flops
        found.total_flops += length * body.total_flops
        for key, amount in body.sent.items():
            found.sent[key] = found.sent.get(key, 0.0) + length * amount
        found.ops.append(Op("scan", inputs, outputs, body=body))
        return outputs

    # ---- what the rules note

    def send(self, kind: str, axes: Sequence[str], value: Value) -> None:
        """Notes a collective over axes of the mesh with this value as its result."""
        used = tuple(axis for axis in axes if self.sizes[axis] > 1)
        if used:
            key = (kind, used)
            self._found.sent[key] = self._found.sent.get(key, 0) + self.bytes(value)

    def multiply(self, out: Value, terms: int, divided: Sequence[str]) -> None:
        """Notes a product that sums this many terms for each entry of `out`."""
        self._found.products.append((out, terms, tuple(divided)))

    def _count_product(self, out: Value, terms: int, divided: MeshAxes) -> None:
        """Adds the cost. A result that ends in parts is whole while it is summed."""
        parts = [[a for a in part if a not in divided] for part in out.known]
        devices = self.count([*divided, *(a for part in parts for a in part)])
        total = 2.0 * math.prod(out.shape) * terms
        self._found.total_flops += total
        self._found.flops += total / devices

    def summed(self, out: Value, axes: Sequence[str]) -> None:
        """Notes the sum over devices that a divided contraction needs.

        A large gradient ends in the parts of `fsdp`, any other result whole.
        """
        ends = tuple(axis for axis in axes if axis in self.fsdp)
        if ends and math.prod(out.shape) >= self.min_size:
            self.send("reduce-scatter", ends, out)
            out.spec = self._divided(out, ends)
            axes = tuple(axis for axis in axes if axis not in ends)
        self.send("all-reduce", axes, out)

    def _divided(self, value: Value, axes: MeshAxes) -> Spec:
        spec = list(value.known)
        for i in sorted(range(len(spec)), key=lambda i: -value.shape[i]):
            if not spec[i] and value.shape[i] % self.count(axes) == 0:
                spec[i] = axes
                break
        return tuple(spec)


def _tell_operands(program: Program) -> None:
    """Divides what nothing has told about, as constants, like what is made of it."""
    for op in reversed(program.ops):
        for out in op.outputs:
            for i, value in enumerate(op.inputs):
                if value.spec is None and op.name == "dot_general":
                    value.spec = _of_factor(op, i)
                elif value.spec is None and value.shape == out.shape:
                    value.spec = out.spec


def _of_factor(op: Op, i: int) -> Spec | None:
    """The division of a factor, from that of the product."""
    (out,), sums = op.outputs, op.params["dimension_numbers"][0]
    if out.spec is None:
        return None
    batch = op.params["dimension_numbers"][1]
    free = [
        [d for d in range(len(v.shape)) if d not in (*sums[j], *batch[j])]
        for j, v in enumerate(op.inputs)
    ]
    start = len(batch[0]) + (len(free[0]) if i else 0)
    spec: list[MeshAxes] = [()] * len(op.inputs[i].shape)
    for at, d in enumerate(batch[i]):
        spec[d] = out.spec[at]
    for at, d in enumerate(free[i]):
        spec[d] = out.spec[start + at]
    return tuple(spec)


def value_of(aval: Any) -> Value:
    """A value of which only shape and type are known."""
    if jax.dtypes.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return Value(tuple(aval.shape), 8)
    return Value(tuple(aval.shape), int(np.dtype(aval.dtype).itemsize))


def _slice(value: Value) -> Value:
    spec = None if value.spec is None else value.spec[1:]
    return Value(value.shape[1:], value.itemsize, spec, value.gathered)


def _stacked(value: Value, length: int) -> Value:
    spec = None if value.spec is None else ((), *value.spec)
    return Value((length, *value.shape), value.itemsize, spec)


def _inner(eqn: Any) -> Any:
    """The closed jaxpr of an equation that is a function call."""
    if eqn.primitive.name == "cond":
        return eqn.params["branches"][-1]
    if eqn.primitive.name in ("while", "scan"):
        return None
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = eqn.params.get(key)
        if inner is not None:
            return _closed(inner)
    return None


def _closed(jaxpr: Any) -> Any:
    return jaxpr if hasattr(jaxpr, "jaxpr") else core.ClosedJaxpr(jaxpr, ())


def _consts_and_carry(eqn: Any, closed: Any) -> tuple[int, int]:
    """How many operands of a scan are constants, and how many its carry.

    Slices have an axis less inside. The parameters that tell differ between versions.
    """

    def same_rank(outer: Any, inner: Any) -> int:
        pairs = zip(outer, inner, strict=True)
        return sum(a.aval.ndim == b.aval.ndim for a, b in pairs)

    whole = same_rank(eqn.invars, closed.jaxpr.invars)
    carry = same_rank(eqn.outvars, closed.jaxpr.outvars)
    return whole - carry, carry
