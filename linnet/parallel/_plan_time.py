"""How long a planned step takes on an accelerator: from full overlap to none."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from linnet.parallel._accelerator import Accelerator
from linnet.parallel._rules import MeshAxes

if TYPE_CHECKING:
    from linnet.parallel._plan import Plan

# Times that each byte of the result crosses a link, on a ring of many.
RING = {"all-reduce": 2.0, "all-gather": 1.0, "reduce-scatter": 1.0}


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A training step on one kind of accelerator.

    Args:
        accelerator: What it can do.
        fits: Whether the step's memory is not more than it has.
        compute: Seconds of its products at the highest rate.
        traffic: Seconds to read and write what the step keeps once.
        communication: Seconds of all collectives at the highest rate.
        step_time: Seconds from the best case, in which all three go on at once, to the
            worst, in which each waits for the others.
        utilization: Of the highest rate by the model's own operations (MFU), at the
            worst and at the best.
        hardware_utilization: The same by all operations, recomputed ones included.
    """

    accelerator: Accelerator
    fits: bool
    compute: float
    traffic: float
    communication: float
    step_time: tuple[float, float]
    utilization: tuple[float, float]
    hardware_utilization: tuple[float, float]


def estimate(found: Plan, chip: Accelerator, slow: Mapping[str, float]) -> Estimate:
    """The step on one kind of accelerator.

    Args:
        found: What a device needs.
        chip: What it can do.
        slow: Bytes per second of the axes that are not on its links.
    """
    compute = found.flops / chip.flops
    kept = found.arguments + found.gradients + found.activations
    traffic = 2 * kept / chip.memory_bandwidth
    communication = sum(
        _seconds(found.mesh, kind, axes, amount, chip, slow)
        for (kind, axes), amount in found.collectives.items()
    )
    best = max(compute, traffic, communication)
    worst = compute + traffic + communication
    rate = found.devices * chip.flops
    times = worst, best
    hardware = found.devices * found.flops
    return Estimate(
        accelerator=chip,
        fits=found.total <= chip.memory,
        compute=compute,
        traffic=traffic,
        communication=communication,
        step_time=(best, worst),
        utilization=_rates(found.model_flops / rate, times),
        hardware_utilization=_rates(hardware / rate, times),
    )


def _rates(seconds: float, times: tuple[float, float]) -> tuple[float, float]:
    worst, best = (seconds / time if time else 0.0 for time in times)
    return worst, best


def _seconds(
    mesh: Mapping[str, int],
    kind: str,
    axes: MeshAxes,
    amount: float,
    chip: Accelerator,
    slow: Mapping[str, float],
) -> float:
    """Of a collective over a ring, the slow axes after the fast ones."""
    total = 0.0
    fast = [axis for axis in axes if axis not in slow]
    rings = [(math.prod(mesh[a] for a in fast), chip.link_bandwidth)]
    rings += [(mesh[a], slow[a]) for a in axes if a in slow]
    for count, bandwidth in rings:
        total += RING[kind] * amount * (count - 1) / count / bandwidth
        amount /= count if kind != "all-gather" else 1
    return total
