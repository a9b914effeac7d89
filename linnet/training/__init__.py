"""Training: a state, a loop with hooks, metrics, data, checkpoints."""

__all__: list[str] = []
