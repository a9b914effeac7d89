"""Rules from logical axis names to mesh axes, and constraints by name."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Sharding = tuple[str | tuple[str, ...] | None, ...]
LogicalRules = Sequence[tuple[str, str | tuple[str, ...] | None]]

__all__ = [
    "LogicalRules",
    "Sharding",
    "apply_rules",
    "composite_rules",
    "from_sharding_rules",
    "get_logical_axis_rules",
    "get_mesh",
    "get_pspec",
    "logical_axis_rules",
    "map_sharding",
    "set_logical_axis_rules",
    "shard_value",
]


class _Rules(threading.local):
    rules: LogicalRules = ()


_current = _Rules()


def set_logical_axis_rules(rules: LogicalRules) -> None:
    """Puts rules in force in this thread."""
    _current.rules = rules


def get_logical_axis_rules() -> LogicalRules:
    """The rules in force in this thread."""
    return _current.rules


@contextlib.contextmanager
def logical_axis_rules(rules: LogicalRules) -> Iterator[None]:
    """A context in which rules are in force."""
    before = _current.rules
    _current.rules = rules
    try:
        yield
    finally:
        _current.rules = before


def composite_rules(rule1: Any, rule2: Any) -> Any:
    """One tuple of rules; those of `rule1` come after, for what `rule2` leaves out."""
    if not rule1 and not rule2:
        return ()
    if rule1 and not rule2:
        return rule1
    if rule2 and not rule1:
        return rule2
    rules = {alias: value for alias, value in rule1}
    for alias, value in rule2:
        if alias in rules and rules[alias] != value:
            raise ValueError(
                f"Inconsistent logical annotations for {alias}: {rules[alias]} != "
                f"{value}"
            )
        rules[alias] = value
    return tuple(rules.items())


def from_sharding_rules(sharding: Any, sharding_rules: Any) -> Any:
    """The mesh axes for logical names, names without a rule as they are."""
    rules = {alias: on_mesh for alias, on_mesh in sharding_rules}
    return tuple(
        rules.get(name, name) if isinstance(name, str) else name for name in sharding
    )


def apply_rules(sharding: Any, sharding_rules: Any) -> Any:
    """The sharding over mesh axes, by the rules given and those in force."""
    rules = composite_rules(get_logical_axis_rules(), sharding_rules)
    return map_sharding(lambda name: from_sharding_rules((name,), rules)[0], sharding)


def map_sharding(f: Any, sharding: Any) -> Any:
    """A sharding or its names, with `f` of the entry for each axis."""
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, map_sharding(f, sharding.spec))
    if isinstance(sharding, PartitionSpec | tuple):
        return PartitionSpec(*map(f, sharding))
    return None


def get_pspec(sharding: Any, sharding_rules: Any = None) -> Any:
    """A partition spec for logical names; a sharding, for one with such names."""
    return apply_rules(sharding, sharding_rules)


def get_mesh(sharding: Any) -> Any:
    """The mesh of a sharding; None for names alone."""
    return sharding.mesh if isinstance(sharding, NamedSharding) else None


def mesh_in_force() -> Any:
    """The mesh of `jax.set_mesh`, or of a `with mesh:` block, or None."""
    abstract = jax.sharding.get_abstract_mesh()
    if not abstract.empty:
        return abstract
    from jax._src.mesh import thread_resources  # The `with mesh:` of older code.

    physical = thread_resources.env.physical_mesh
    return None if physical.empty else physical


def constrain(value: Any, spec: PartitionSpec) -> Any:
    """The array with a constraint over the mesh in force."""
    mesh = mesh_in_force()
    if mesh is None:
        return value
    if isinstance(mesh, Mesh):
        return jax.lax.with_sharding_constraint(value, NamedSharding(mesh, spec))
    return jax.lax.with_sharding_constraint(value, spec)


def shard_value(value: Any, out_sharding: Any, sharding_rules: Any, mesh: Any) -> Any:
    """The array constrained to logical names, over `mesh` or the one in force.

    Raises:
        ValueError: Names are given, and there is no mesh.
    """
    if not out_sharding:
        return value
    place = get_pspec(out_sharding, sharding_rules)
    if isinstance(place, PartitionSpec):
        mesh = mesh or mesh_in_force()
        if mesh is None:
            raise ValueError(
                f"The sharding {place} needs a mesh, and none is in force. Enter one "
                f"with `with jax.set_mesh(mesh):`."
            )
        place = NamedSharding(mesh, place)
    return jax.lax.with_sharding_constraint(value, place)
