"""A training step on a mesh that need not exist: traced, and followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType

from linnet import nn
from linnet._errors import ConfigError
from linnet.core._tree import refuse_described
from linnet.parallel._flow import Flow, Program, Value
from linnet.parallel._liveness import peak
from linnet.parallel._placement import Placement, use
from linnet.parallel._rules import MeshAxes
from linnet.parallel._shardings import Placed, placed


class Step:
    """One training step, traced for one placement."""

    def __init__(
        self, placement: Placement, model: Any, sample: Any, loss: Any, axes: Any
    ) -> None:
        __tracebackhide__ = True
        self.placement, self.model, self.sample = placement, model, sample
        self.loss, self.axes = loss or mean_output, axes
        self.shapes = jax.tree.map(shape_of, sample)
        with use(placement.mesh, placement.rules):
            closed = jax.make_jaxpr(self._gradient)(model, self.shapes)
        rules, mesh = placement.rules, placement.mesh
        self.flow = Flow(mesh.shape, rules.fsdp, rules.min_size)
        self.weights = placed(model, placement)
        self.data = placed(self.shapes, placement, axes)
        inputs = [self._stored(one) for one in self.weights]
        inputs += [value_at(one, _parts(one)) for one in self.data]
        self.program: Program = self.flow.follow(closed, inputs)

    def changed(self, **changes: Any) -> Step:
        """The step with another model, placement or sample."""
        given = {
            "placement": self.placement,
            "model": self.model,
            "sample": self.sample,
            "loss": self.loss,
            "axes": self.axes,
        }
        return Step(**(given | changes))

    def _gradient(self, model: Any, sample: Any) -> Any:
        return nn.value_and_grad(lambda m: self.loss(m, sample))(model)

    def _stored(self, one: Placed) -> Value:
        """A parameter as it is used: what `fsdp` divides is gathered before."""
        parts, over = _parts(one), self.placement.rules.fsdp
        gathered = tuple(axis for part in parts for axis in part if axis in over)
        kept = tuple(tuple(a for a in part if a not in over) for part in parts)
        return value_at(one, kept, gathered)

    def needs(self, optimizer: Any) -> dict[str, Any]:
        """Bytes and operations of one device."""
        trained = nn.params(self.model)
        parameters = sum(one.part for one in self.weights)
        gradients = sum(one.part for one in placed(trained, self.placement))
        state = 0
        if optimizer is not None:
            made = jax.eval_shape(optimizer.init, trained)
            state = sum(one.part for one in placed(made, self.placement))
        return {
            "parameters": parameters,
            "gradients": gradients,
            "optimizer": state,
            "batch": sum(one.part for one in self.data),
            "activations": max(peak(self.flow, self.program) - gradients, 0),
            "flops": self.program.flops,
        }

    def collectives(self) -> dict[tuple[str, MeshAxes], float]:
        """Bytes of the results of each collective on one device."""
        found = dict(self.program.sent)
        for value in self.program.inputs:
            axes = tuple(a for a in value.gathered if self.flow.sizes[a] > 1)
            if axes:  # Once to go forward, and once to go back.
                key = ("all-gather", axes)
                found[key] = found.get(key, 0.0) + 2.0 * self.flow.bytes(value)
        return dict(sorted(found.items()))

    def model_flops(self) -> float:
        """Of a step that recomputes nothing: three times those of going forward."""
        closed = jax.make_jaxpr(self.loss)(self.model, self.shapes)
        leaves = [*self.weights, *self.data]
        inputs = [value_at(one, ((),) * len(one.shape)) for one in leaves]
        return 3.0 * Flow({}).follow(closed, inputs).total_flops

    def notes(self) -> tuple[str, ...]:
        """What is not counted."""
        if not _has_while(self.program):
            return ()
        return (
            "Loops of unknown length are not counted; attention has one unless it is "
            'told kernel="xla".',
        )


def _has_while(program: Program) -> bool:
    return any(
        op.name == "while" or (op.body is not None and _has_while(op.body))
        for op in program.ops
    )


def mean_output(model: Any, sample: Any) -> Any:
    outputs = jax.tree.leaves(model(sample))
    return sum(jnp.mean(x.astype(jnp.float32)) for x in outputs)


def abstract_model(model: Any, sample: Any, loss: Any) -> Any:
    """The model as shapes."""
    __tracebackhide__ = True
    if not _is_described(model):
        return jax.tree.map(shape_of, model)
    if loss is None:
        return nn.abstract(model, jax.tree.map(shape_of, sample))
    raise ConfigError(
        "plan: the model is described only, and a loss may call it with anything.",
        code="LN-PLAN-01",
        fixes=[("its input is `x`", "model = nn.abstract(model, x)")],
    )


def _is_described(model: Any) -> bool:
    try:
        refuse_described(model)
    except nn.InitError:
        return True
    return False


def shape_of(x: Any) -> jax.ShapeDtypeStruct:
    """An array as its shape and type."""
    return jax.ShapeDtypeStruct(jnp.shape(x), jax.dtypes.result_type(x))


def mesh_of(given: Any) -> Any:
    """A mesh, which need not exist, from the names and sizes of its axes."""
    if not isinstance(given, Mapping):
        return given
    names, sizes = tuple(given), tuple(given.values())
    return AbstractMesh(sizes, names, axis_types=(AxisType.Auto,) * len(sizes))


def _parts(one: Placed) -> tuple[MeshAxes, ...]:
    spec = (*one.sharding.spec, *(None,) * len(one.shape))[: len(one.shape)]
    return tuple(
        () if part is None else (part,) if isinstance(part, str) else tuple(part)
        for part in spec
    )


def value_at(one: Placed, parts: Any, gathered: MeshAxes = ()) -> Value:
    return Value(one.shape, one.itemsize, parts, gathered)
