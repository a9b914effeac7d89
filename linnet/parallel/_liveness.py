"""The memory that a program needs at its fullest, on one device.

Values live from the equation that makes them to the last that reads them. What a
compiler fuses is never stored: an elementwise result that only elementwise operations
and sums read. Views share the memory of what they show.
"""

from __future__ import annotations

from linnet.parallel._flow import Flow, Op, Program, Value

_VIEWS = {"reshape", "squeeze", "expand_dims", "stop_gradient", "sharding_constraint"}
_SUMS = {"reduce_sum", "reduce_max", "reduce_min", "argmax", "argmin", "reduce_and"}
_COSTLY = {
    "exp",
    "log",
    "logistic",
    "tanh",
    "erf",
    "div",
    "rsqrt",
    "sqrt",
    "pow",
    "sin",
    "cos",
}
_IN_PLACE = {"scatter-add", "scatter", "dynamic_update_slice"}
_WHOLE = {
    "dot_general",
    "conv_general_dilated",
    "scan",
    "while",
    "gather",
    "scatter-add",
    "scatter",
    "sort",
    "top_k",
    "cumsum",
    "cumlogsumexp",
    "cumprod",
    "cummax",
    "fft",
    "dynamic_update_slice",
}


def peak(flow: Flow, program: Program) -> int:
    """Bytes beyond the inputs at the fullest moment, the outputs among them.

    Args:
        flow: Knows the mesh.
        program: Its equations.
    """
    stored = _Stored(program)
    first, last = stored.lives()
    fullest = live = 0
    held: dict[int, int] = {}
    for i, op in enumerate(program.ops):
        for value in (*first.get(i, ()), *op.outputs):
            if stored.is_stored(value):
                held[id(value)] = flow.bytes(value)
                live += held[id(value)]
        within = peak(flow, op.body) if op.body else _turned(flow, op)
        fullest = max(fullest, live + within)
        for key in last.get(i, ()):
            live -= held.pop(key, 0)
    return fullest


def _turned(flow: Flow, op: Op) -> int:
    """Copies of factors whose summed axis is not the one that is read fastest."""
    if op.name != "dot_general":
        return 0
    (of_lhs, of_rhs), (batch, _) = op.params["dimension_numbers"]
    lhs, rhs = op.inputs
    copied = [lhs] if of_lhs and len(lhs.shape) - 1 not in of_lhs else []
    copied += [rhs] if of_rhs and len(batch) not in of_rhs else []
    return sum(map(flow.bytes, copied))


def _starts(op: Op, value: Value) -> bool:
    """Whether the operation writes into the memory of this operand."""
    return op.name in _IN_PLACE and op.inputs[0] is value


class _Stored:
    """Which values of a program are stored, and until when they are needed."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.maker = {id(v): op for op in program.ops for v in op.outputs}
        self.outputs = {id(v) for v in program.outputs}
        self.readers: dict[int, list[Op]] = {}
        for op in program.ops:
            for value in op.inputs:
                self.readers.setdefault(id(value), []).append(op)
        self._known: dict[int, bool] = {}

    def is_stored(self, value: Value) -> bool:
        """Whether the value has memory of its own."""
        key = id(value)
        if key not in self._known:
            op = self.maker.get(key)
            if op is None:
                self._known[key] = self._is_put_together(value)
            elif op.name in _VIEWS:
                self._known[key] = False
            else:
                is_made_whole = op.name in _WHOLE or op.name in _SUMS
                is_kept = len(self.readers.get(key, ())) > 1
                self._known[key] = (
                    is_made_whole or is_kept or self._is_read_whole(value)
                )
        return self._known[key]

    def _is_put_together(self, value: Value) -> bool:
        """Whether an input is cut out of a larger one, or gathered from its parts.

        A loop gathers the parts of one step at a time.
        """
        if any(value is v for v in self.program.slices):
            return self._is_read_whole(value)
        readers = {op.name for op in self.readers.get(id(value), ())}
        return bool(value.gathered) and bool(readers - {"scan", "while"})

    def _is_read_whole(self, value: Value) -> bool:
        """Whether something reads it that cannot be fused with it."""
        if id(value) in self.outputs:
            return True
        return any(
            (op.name in _WHOLE and not _starts(op, value))
            or (op.name in _VIEWS and self._is_read_whole(op.outputs[0]))
            for op in self.readers.get(id(value), ())
        )

    def lives(self) -> tuple[dict[int, list[Value]], dict[int, list[int]]]:
        """For each equation the inputs that begin there, and what ends there."""
        ops, end = self.program.ops, len(self.program.ops)
        until = {id(v): end for v in self.program.outputs}
        since: dict[int, int] = {}
        for i, op in reversed(list(enumerate(ops))):
            # What is not stored is computed, or seen, where it is read.
            ends = [until.get(id(v), i) for v in op.outputs if not self.is_stored(v)]
            for value in op.inputs:
                until[id(value)] = max([until.get(id(value), i), i, *ends])
                since[id(value)] = i
        first: dict[int, list[Value]] = {}
        last: dict[int, list[int]] = {}
        for value in self.program.inputs:
            first.setdefault(since.get(id(value), end), []).append(value)
            last.setdefault(until.get(id(value), end), []).append(id(value))
        for i, op in enumerate(ops):
            for value in op.outputs:
                last.setdefault(until.get(id(value), i), []).append(id(value))
        return first, last
