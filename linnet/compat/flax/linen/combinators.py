"""Layers one after the other."""

from collections.abc import Callable, Sequence
from typing import Any

from linnet.compat.flax.linen.module import Module, compact

__all__ = ["Sequential"]


class Sequential(Module):
    """Calls layers one after the other.

    A tuple that a layer returns is handed on as arguments, a dict as keyword arguments.

    Args:
        layers: Modules and functions.
    """

    layers: Sequence[Callable[..., Any]]

    def __post_init__(self) -> None:
        """Checks the layers.

        Raises:
            ValueError: They are no sequence.
        """
        if not isinstance(self.layers, Sequence):
            raise ValueError(
                f"'layers' must be a sequence, got '{type(self.layers).__name__}'."
            )
        super().__post_init__()

    @compact
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the last layer returns.

        Raises:
            ValueError: There is no layer.
        """
        if not self.layers:
            raise ValueError(f"Empty Sequential module {self.name}.")
        outputs = self.layers[0](*args, **kwargs)
        for layer in self.layers[1:]:
            if isinstance(outputs, tuple):
                outputs = layer(*outputs)
            elif isinstance(outputs, dict):
                outputs = layer(**outputs)
            else:
                outputs = layer(outputs)
        return outputs
