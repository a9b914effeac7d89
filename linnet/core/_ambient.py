"""The placement in force: what `parallel.use` sets, and models read.

It is one of the contexts that JAX's caches know, so that a compiled function is made
anew under another placement. The core knows no mesh and no rules, only this protocol.
"""

from typing import Any, Protocol

import jax

from linnet._errors import ShapeError, describe
from linnet._typing import Array
from linnet.core._role import Declared


class Placement(Protocol):
    """Where arrays go."""

    def of_array(self, path: str, declared: Declared) -> Any:
        """The sharding of an array that a model declares."""

    def constrain(self, x: Array, axes: tuple[str | None, ...]) -> Array:
        """The array, sharded by the names of its axes."""


_in_force = jax.make_user_context(default_value=None)


def ambient() -> Placement | None:
    """The placement in force, or `None`."""
    found: Placement | None = _in_force.value
    return found


def in_force(placement: Placement | None) -> Any:
    """A context in which this placement is in force."""
    return _in_force(placement)


def shard(x: Array, *axes: str | None) -> Array:
    """Says how an activation is to lie on the devices, by the names of its axes.

    Under `parallel.use(mesh, rules)` the rules say which axes of the mesh a name
    stands for; an axis that does not divide, as the batch of a single prompt, stays
    whole. Without a mesh this is `x`.

    Args:
        x: An array.
        *axes: A name for each of its axes, as "batch", "length", "features", "heads",
            "experts", or `None` for an axis that is not divided. Fewer names are those
            of the last axes, and the ones in front are left to the compiler.

    Returns:
        The same numbers.

    Raises:
        ShapeError: There are more names than axes.
        ConfigError: The rules do not fit the array or the mesh.

    Example:
        >>> nn.shard(jnp.ones((2, 3)), "batch", "features").shape
        (2, 3)
    """
    __tracebackhide__ = True
    if len(axes) > x.ndim:
        raise ShapeError(
            f"{len(axes)} axes were named of an array that has {x.ndim}.",
            code="LN-SHARD-04",
            facts={"x": describe(x), "names": ", ".join(map(repr, axes))},
            fixes=[
                (
                    "the last ones are meant",
                    f"x = nn.shard(x, {', '.join(map(repr, axes[-x.ndim :]))})",
                )
            ]
            if x.ndim
            else [("a number is not divided", "x = nn.shard(x)")],
        )
    placement = ambient()
    return x if placement is None else placement.constrain(x, axes)
