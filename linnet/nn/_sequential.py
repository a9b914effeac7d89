"""Layers one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from linnet._errors import ConfigError
from linnet.core import Module
from linnet.core._node import is_open


class Sequential(Module):
    """Passes a value through a list of modules and plain functions.

    Can be indexed, sliced (which gives a `Sequential`), counted and iterated.

    Args:
        layers: Callables of one argument, first to last.

    Parameters:
        layers: Those of the modules, at `layers[0]`, `layers[1]` and so on.

    Shapes:
        x: what the first layer takes  ->  what the last one gives.

    Raises:
        ConfigError: `layers` is no list or tuple, or holds what cannot be called.

    Example:
        >>> model = nn.Sequential([nn.Dense(8), jax.nn.relu, nn.Dense(2)])
        >>> model = nn.init(model, jax.random.key(0), jnp.ones((1, 3)))
        >>> model(jnp.ones((5, 3))).shape
        (5, 2)
        >>> model[2].kernel.shape, len(model[:2])
        ((8, 2), 2)

    Differs from: PyTorch, which takes the layers as separate arguments. Flax Linen
    spreads a tuple over the next layer's arguments; here it is one value.
    Source: The composition of functions.
    """

    def __init__(self, layers: Sequence[Callable[[Any], Any]]) -> None:
        if not isinstance(layers, list | tuple):
            raise ConfigError(
                f"`layers` is a {type(layers).__name__}, but it must be a list.",
                code="LN-VALUE-04",
                at="Sequential",
                fixes=[("there is one layer", "layers = [layers]")],
            )
        for i, layer in enumerate(layers):
            if not callable(layer):
                raise ConfigError(
                    f"`layers[{i}]` is a {type(layer).__name__}, which cannot be "
                    "called.",
                    code="LN-VALUE-04",
                    at="Sequential",
                    fixes=[
                        (
                            "it can be left out",
                            "layers = list(filter(callable, layers))",
                        )
                    ],
                )
        self.layers = tuple(layers)

    def __call__(self, x: Any) -> Any:
        """Applies the layers in order.

        Args:
            x: What the first layer takes.
        """
        return _Chain(self.layers)(x)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Callable[[Any], Any]]:
        return iter(self.layers)

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...

    def __getitem__(self, index: int | slice) -> Any:
        chosen = self.layers[index]
        if not isinstance(index, slice):
            return chosen
        # Inside a call the layers are open, and no new module can hold them.
        return _Chain(chosen) if is_open(self) else Sequential(chosen)


class _Chain(tuple[Callable[[Any], Any], ...]):
    """Callables in order, as one."""

    __slots__ = ()

    def __call__(self, x: Any) -> Any:
        for layer in self:
            x = layer(x)
        return x
