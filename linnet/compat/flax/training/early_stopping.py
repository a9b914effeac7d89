"""Stopping when a metric no longer becomes better."""

from typing import Any

from linnet.compat.flax import struct

__all__ = ["EarlyStopping"]


class EarlyStopping(struct.PyTreeNode):
    """Tells when a metric, of which less is better, has stopped to improve.

    Args:
        min_delta: The least change that counts as better.
        patience: How many updates without one are borne.
        best_metric: The best so far.
        patience_count: The updates since.
        should_stop: Whether patience is at its end.
        has_improved: Whether the last update was better.
    """

    min_delta: float = 0
    patience: int = 0
    best_metric: float = float("inf")
    patience_count: int = 0
    should_stop: bool = False
    has_improved: bool = False

    def reset(self) -> "EarlyStopping":
        """As before the first update."""
        return self.replace(
            best_metric=float("inf"),
            patience_count=0,
            should_stop=False,
            has_improved=False,
        )

    def update(self, metric: Any) -> "EarlyStopping":
        """After one more value of the metric."""
        import math

        if math.isinf(self.best_metric) or self.best_metric - metric > self.min_delta:
            return self.replace(best_metric=metric, patience_count=0, has_improved=True)
        return self.replace(
            patience_count=self.patience_count + 1,
            should_stop=self.patience_count >= self.patience or self.should_stop,
            has_improved=False,
        )
