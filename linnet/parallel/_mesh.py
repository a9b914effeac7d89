"""Meshes: devices under the names of axes."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

from linnet._errors import ConfigError


def make_mesh(
    *, devices: Sequence[Any] | None = None, explicit: bool = False, **axes: int
) -> Mesh:
    """Arranges the devices as a grid whose axes have names.

    The first axis changes slowest: put the axis that communicates least in front, as
    "data", and the one that communicates most last, as "model", which then lies on
    neighbours.

    Args:
        devices: Those to use; by default all, of all processes.
        explicit: Whether shardings are part of the types of arrays (JAX's explicit
            mode), instead of being found by the compiler.
        **axes: Names and sizes in order. One may be -1 and takes what is left.

    Raises:
        ConfigError: The sizes do not multiply to the number of devices.

    Example:
        >>> mesh = parallel.make_mesh(data=-1, model=1)
        >>> mesh.axis_names
        ('data', 'model')

    Differs from: `jax.make_mesh`, which takes shapes and names apart, knows no -1, and
    makes explicit axes by default.
    """
    count = len(jax.devices()) if devices is None else len(devices)
    sizes = _sizes(axes, count)
    kind = AxisType.Explicit if explicit else AxisType.Auto
    return jax.make_mesh(
        tuple(sizes.values()),
        tuple(sizes),
        axis_types=(kind,) * len(sizes),
        devices=devices,
    )


def _sizes(axes: dict[str, int], count: int) -> dict[str, int]:
    """The sizes with -1 replaced."""
    open_axes = [name for name, size in axes.items() if size == -1]
    known = math.prod(size for size in axes.values() if size != -1)
    are_sizes = all(isinstance(s, int) and (s > 0 or s == -1) for s in axes.values())
    fits = are_sizes and known > 0 and count % known == 0
    if axes and fits and len(open_axes) <= 1 and (open_axes or known == count):
        return {n: count // known if s == -1 else s for n, s in axes.items()}
    given = ", ".join(f"{name}={size}" for name, size in axes.items())
    first = next(iter(axes), "data")
    rest = "".join(f", {n}=1" for n in axes if n != first)
    raise ConfigError(
        f"the mesh ({given}) does not fit {count} device{'s' * (count != 1)}.",
        code="LN-MESH-01",
        why="The sizes multiply to the number of devices; one of them may be -1.",
        fixes=[
            (
                "the first axis takes all",
                f"mesh = parallel.make_mesh({first}=-1{rest})",
            )
        ],
    )
