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
    rules = dict(sharding_rules)

    def mapped(name: Any) -> Any:
        if isinstance(name, tuple | list):
            return tuple(mapped(part) for part in name)
        return rules.get(name, name)

    return tuple(mapped(name) for name in sharding)


def apply_rules(sharding: Any, sharding_rules: Any) -> Any:
    """The mesh axes for logical names by the rules given and those in force."""
    rules = composite_rules(get_logical_axis_rules(), sharding_rules)
    return from_sharding_rules(sharding, rules) if rules else sharding


def map_sharding(f: Any, sharding: Any) -> Any:
    """`f` of each entry that names anything."""
    if isinstance(sharding, PartitionSpec):
        return PartitionSpec(*map_sharding(f, tuple(sharding)))
    if isinstance(sharding, tuple):
        return tuple(map_sharding(f, entry) for entry in sharding)
    return None if sharding is None else f(sharding)


def get_pspec(sharding: Any, sharding_rules: Any = None) -> PartitionSpec:
    """A partition spec for logical names."""
    return PartitionSpec(*apply_rules(sharding, sharding_rules or ()))


def get_mesh(sharding: Any) -> Any:
    """The mesh in force, if these names ask for one.

    Raises:
        ValueError: Names are given and no mesh is in force.
    """
    if sharding is None:
        return None
    mesh = mesh_in_force()
    if mesh is None:
        raise ValueError(
            f"The sharding {sharding} needs a mesh, and none is in force. Enter one "
            f"with `with jax.set_mesh(mesh):`."
        )
    return mesh


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
    """The array constrained to logical names, over `mesh` or the one in force."""
    if not out_sharding:
        return value
    mesh = mesh or get_mesh(out_sharding)
    spec = get_pspec(out_sharding, sharding_rules)
    return jax.lax.with_sharding_constraint(value, NamedSharding(mesh, spec))
