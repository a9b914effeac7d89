"""What a training step would need of many devices, told without having one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jax.sharding import AbstractMesh, Mesh

from linnet._typing import PyTree
from linnet.parallel._accelerator import ACCELERATORS, Accelerator
from linnet.parallel._placement import Placement
from linnet.parallel._plan_advice import advice
from linnet.parallel._plan_step import Step, abstract_model, mesh_of
from linnet.parallel._plan_text import plan_text
from linnet.parallel._plan_time import Estimate, estimate
from linnet.parallel._rules import MeshAxes, Rules

Loss = Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a training step needs of each device. It prints as a table.

    Args:
        mesh: Sizes of the axes of the mesh.
        parameters: Bytes of the model on one device.
        gradients: Bytes of its gradients.
        optimizer: Bytes of the state of the optimiser.
        batch: Bytes of the sample.
        activations: Bytes at the fullest moment beyond all these.
        flops: Operations of one device in a step, recomputed ones included.
        model_flops: Of all devices together, without recomputed ones.
        collectives: Bytes of the results of each (collective, axes of the mesh) on one
            device.
        estimates: For each accelerator.
        advice: Changes that make it smaller, each with the bytes that it would need.
        notes: What the numbers leave out.
    """

    mesh: Mapping[str, int]
    parameters: int
    gradients: int
    optimizer: int
    batch: int
    activations: int
    flops: float
    model_flops: float
    collectives: Mapping[tuple[str, MeshAxes], float]
    estimates: tuple[Estimate, ...]
    advice: tuple[tuple[str, int], ...]
    notes: tuple[str, ...] = ()

    @property
    def devices(self) -> int:
        """How many there are."""
        return math.prod(self.mesh.values())

    @property
    def arguments(self) -> int:
        """Bytes that stay from step to step, and the sample."""
        return self.parameters + self.optimizer + self.batch

    @property
    def total(self) -> int:
        """Bytes at the fullest moment on one device."""
        return self.arguments + self.gradients + self.activations

    def __str__(self) -> str:
        return plan_text(self)

    __repr__ = __str__


def plan(
    model: Any,
    sample: PyTree,
    mesh_shape: Mapping[str, int] | Mesh | AbstractMesh,
    rules: Rules,
    optimizer: Any = None,
    *,
    loss: Loss | None = None,
    axes: tuple[str | None, ...] = ("batch", "length"),
    slow: Mapping[str, float] | None = None,
    accelerators: Iterable[Accelerator] = ACCELERATORS,
) -> Plan:
    """What a training step needs: memory, operations, communication, time.

    Neither devices nor memory are needed: the step is traced on shapes, and the
    division of each value is followed from equation to equation over a mesh that need
    not exist. The step is one gradient and one update, with arrays of the model and of
    the optimiser updated in place. Operations are those of products of matrices and
    convolutions.

    Args:
        model: A module; described, if it can be called with `sample`, or of shapes
            (`nn.abstract`).
        sample: What the loss takes, arrays or shapes, for all devices together.
        mesh_shape: Names and sizes of the axes of a mesh, or a mesh.
        rules: From logical axes to those of the mesh.
        optimizer: Of Optax; None for plain gradient descent.
        loss: From the model and the sample to a number; by default the mean of what
            the model returns.
        axes: Names of the leading axes of arrays of the sample.
        slow: Axes of the mesh whose devices are not on one fast network, as those of
            several pods, with the bytes per second that each device sends there.
        accelerators: Those to estimate times for.

    Raises:
        ConfigError: The rules do not fit the mesh or an array; a described model comes
            with a loss.

    Example:
        >>> model = nn.Sequential([nn.Dense(512), jax.nn.relu, nn.Dense(8)])
        >>> x = jax.ShapeDtypeStruct((1024, 64), jnp.float32)
        >>> found = parallel.plan(model, x, {"data": 16}, parallel.fsdp(min_size=64))
        >>> found.parameters, found.flops
        (9376, 9961472.0)

    Source: the costs of collectives on a ring are those of Thakur et al.,
    "Optimization of Collective Communication Operations in MPICH", 2005; utilisation
    (MFU, HFU) is that of Chowdhery et al., "PaLM", 2022, appendix B.
    """
    __tracebackhide__ = True
    placement = Placement(mesh_of(mesh_shape), rules)
    step = Step(placement, abstract_model(model, sample, loss), sample, loss, axes)
    needs = step.needs(optimizer)
    accelerators = tuple(accelerators)
    found = Plan(
        mesh=dict(placement.mesh.shape),
        collectives=step.collectives(),
        model_flops=step.model_flops(),
        estimates=(),
        advice=(),
        notes=step.notes(),
        **needs,
    )
    estimates = tuple(estimate(found, one, slow or {}) for one in accelerators)
    too_small = [e for e in estimates if not e.fits]
    changes = tuple(advice(step, optimizer, found)) if too_small else ()
    return dataclasses.replace(found, estimates=estimates, advice=changes)
