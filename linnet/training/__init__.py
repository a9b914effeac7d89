"""Training: a state, a loop with hooks, metrics, data, checkpoints."""

from linnet._errors import CheckpointError
from linnet.training._checkpoint import Checkpoints, Restored

__all__ = ["CheckpointError", "Checkpoints", "Restored"]

CheckpointError.__module__ = __name__  # as one imports it
