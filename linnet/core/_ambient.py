"""The placement in force: what `parallel.use` sets, and models read.

It is one of the contexts that JAX's caches know, so that a compiled function is made
anew under another placement. The core knows no mesh and no rules, only this protocol.
"""

from collections.abc import Iterable, Sequence
from types import EllipsisType
from typing import Any, Protocol

import jax

from linnet._errors import LinnetError, ShapeError, describe
from linnet._typing import Array
from linnet.core._locate import location
from linnet.core._role import Declared

FREE = ...
AxisName = str | EllipsisType | None


class Placement(Protocol):
    """Where arrays go."""

    def of_array(self, path: str, declared: Declared) -> Any:
        """The sharding of an array that a model declares."""

    def constrain(self, x: Array, axes: tuple[AxisName, ...]) -> Array:
        """The array, sharded by the names of its axes, but for those that are free."""


_in_force = jax.make_user_context(default_value=None)


def ambient() -> Placement | None:
    """The placement in force, or `None`."""
    found: Placement | None = _in_force.value
    return found


def in_force(placement: Placement | None) -> Any:
    """A context in which this placement is in force."""
    return _in_force(placement)


def shard(x: Array, *axes: AxisName) -> Array:
    """Says how an activation is to lie on the devices, by the names of its axes.

    Under `parallel.use(mesh, rules)` the rules say which axes of the mesh a name
    stands for; a size that they do not divide stays whole. Without a mesh this is `x`.

    Args:
        x: An array.
        *axes: A name for each of its axes, as "batch", "length", "features", "heads",
            "experts", or `None` for an axis that is not divided. `...` stands for any
            number of axes that are left to the compiler.

    Returns:
        The same numbers.

    Raises:
        ConfigError: The rules divide two of the axes over one axis of the mesh.
        ShapeError: There are more or fewer names than axes.

    Example:
        >>> nn.shard(jnp.ones((2, 3)), "batch", "features").shape
        (2, 3)
        >>> nn.shard(jnp.ones((2, 3, 4)), ..., "features").shape
        (2, 3, 4)
    """
    __tracebackhide__ = True
    gaps = axes.count(FREE)
    free = x.ndim - len(axes) + gaps
    if gaps > 1 or free < 0 or (not gaps and free):
        raise _wrong_names(x, axes)
    if gaps:
        i = axes.index(FREE)
        axes = (*axes[:i], *(FREE,) * free, *axes[i + 1 :])
    placement = ambient()
    if placement is None:
        return x
    try:
        return placement.constrain(x, axes)
    except LinnetError as error:
        error.at = location()
        raise


def _wrong_names(x: Array, axes: tuple[AxisName, ...]) -> ShapeError:
    named = [axis for axis in axes if axis is not FREE]
    if len(named) > x.ndim:
        fixes = [("the last ones are meant", _call(named[len(named) - x.ndim :]))]
    else:
        fixes = [
            ("they are of the first axes", _call([*named, FREE])),
            ("they are of the last axes", _call([FREE, *named])),
        ]
    count = "1 axis was" if len(named) == 1 else f"{len(named)} axes were"
    return ShapeError(
        f"{count} named of an array that has {x.ndim}.",
        code="LN-SHARD-04",
        at=location(),
        facts={"x": describe(x), "names": _names_text(axes)},
        why="Each axis has a name or `None`; one `...` stands for those left out.",
        fixes=fixes,
    )


def _call(axes: Sequence[AxisName]) -> str:
    return f"x = nn.shard(x{''.join(f', {_names_text([axis])}' for axis in axes)})"


def _names_text(axes: Iterable[AxisName]) -> str:
    return ", ".join("..." if axis is FREE else repr(axis) for axis in axes)
