"""Many devices: meshes, rules from logical axes to mesh axes, several processes."""

from linnet._errors import ProcessError
from linnet.parallel._accelerator import ACCELERATORS, Accelerator
from linnet.parallel._distributed import initialize
from linnet.parallel._launch import launch
from linnet.parallel._mesh import make_mesh
from linnet.parallel._pipeline import pipeline
from linnet.parallel._placement import use
from linnet.parallel._plan import Estimate, Plan, plan
from linnet.parallel._rules import (
    Rules,
    data_parallel,
    expert_parallel,
    fsdp,
    sequence_parallel,
    tensor_parallel,
)
from linnet.parallel._shardings import Report, report, shardings

__all__ = [
    "ACCELERATORS",
    "Accelerator",
    "Estimate",
    "Plan",
    "ProcessError",
    "Report",
    "Rules",
    "data_parallel",
    "expert_parallel",
    "fsdp",
    "initialize",
    "launch",
    "make_mesh",
    "pipeline",
    "plan",
    "report",
    "sequence_parallel",
    "shardings",
    "tensor_parallel",
    "use",
]

ProcessError.__module__ = __name__  # as one imports it
