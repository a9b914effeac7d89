"""Sorting what `__init__` assigned into data and configuration."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from linnet._errors import ConfigError, RoleError, ScopeError, describe
from linnet.core._node import Node, is_module, stop_at_modules
from linnet.core._path import Path, dotted
from linnet.core._role import Declared
from linnet.core._spec import Spec, intern
from linnet.core._value import ReadOnlyDict, Static, frozen, identity

_ATOMS = (int, float, bool, str, type(None))


def sealed(
    cls: type, attributes: Mapping[str, Any], known: Mapping[Path, Declared]
) -> tuple[Spec, tuple[Any, ...]]:
    """The spec and the children of a module with these attributes.

    Args:
        cls: The module's class.
        attributes: What was assigned.
        known: Declarations of arrays that are among the attributes already.
    """
    data: dict[str, Any] = {}
    static: dict[str, Any] = {}
    leaves: dict[Path, Declared] = {}
    wrapped = set()
    for name, value in attributes.items():
        path = (jax.tree_util.GetAttrKey(name),)
        found = {} if type(value) in _ATOMS else _data_leaves(value, path)
        if not found:
            _refuse_bare_declaration(cls, name, value)
            static[name] = _configuration(cls, name, value)
            continue
        for leaf_path, leaf in found.items():
            declared = _declaration(cls, leaf_path, leaf, known)
            if declared is not None:
                leaves[leaf_path] = declared
        data[name], has_statics = _as_data(value)
        if has_statics:
            wrapped.add(name)
    spec = intern(cls, tuple(data), static, leaves, frozenset(wrapped))
    return spec, tuple(data.values())


def _data_leaves(value: Any, path: Path) -> dict[Path, Any]:
    """Modules, declarations and arrays in an attribute, by their path."""
    if isinstance(value, Node | Declared) or _is_array(value):
        return {path: value}
    items, _ = jax.tree_util.tree_flatten_with_path(
        _plain(value), is_leaf=stop_at_modules
    )
    return {
        (*path, *keys): leaf
        for keys, leaf in items
        if isinstance(leaf, Node | Declared) or _is_array(leaf)
    }


def _plain(value: Any) -> Any:
    """Read-only dicts keep their place; ordered and default dicts become plain."""
    return dict(value) if isinstance(value, dict) else value


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def _declaration(
    cls: type, path: Path, leaf: Any, known: Mapping[Path, Declared]
) -> Declared | None:
    if isinstance(leaf, Declared):
        return leaf
    if is_module(leaf):
        if "_open" in leaf.__dict__:
            raise _open_inside_new(cls, path)
        return None
    declared = known.get(path)
    if declared is None:
        raise _no_role(cls, path, leaf)
    return declared


def _as_data(value: Any) -> tuple[Any, bool]:
    """The attribute as a child: containers read-only, static values wrapped."""
    has_statics = False

    def leaf(item: Any) -> Any:
        nonlocal has_statics
        if isinstance(item, Declared):
            return item if item.value is None else item.value
        if item is None or is_module(item) or _is_array(item):
            return item
        if jax.tree_util.all_leaves([item]):
            has_statics = True
            return item if isinstance(item, Static) else Static(item)
        return jax.tree.map(leaf, item, is_leaf=stop_at_modules)

    return frozen(value, leaf), has_statics


def _configuration(cls: type, name: str, value: Any) -> Any:
    value = frozen(value)
    try:
        identity(value)
    except TypeError:
        raise _unhashable(cls, name, value) from None
    return value


def _refuse_bare_declaration(cls: type, name: str, value: Any) -> None:
    """Sets and generators hide modules from pytrees; say so rather than lose them."""
    if isinstance(value, set | frozenset) and any(map(is_module, value)):
        raise ConfigError(
            f"`{name}` of {cls.__name__} holds modules in a set.",
            code="LN-STATIC-02",
            at=cls.__name__,
            why="A set has no order, so its modules would have no path.",
            fixes=[("the modules are a sequence", f"self.{name} = tuple({name})")],
        )


def _no_role(cls: type, path: Path, value: Any) -> RoleError:
    name = dotted(path)
    return RoleError(
        f"the array assigned to `{name}` has no role.",
        code="LN-ROLE-01",
        at=cls.__name__,
        facts={name: describe(value)},
        why="Whether an array is trained, written or fixed must not be guessed.",
        fixes=[
            (
                "it is never trained and never written",
                f"self.{name} = nn.constant({name})",
            ),
            ("it is trained", f"self.{name} = nn.param({name})"),
            (
                "the model writes it, as batch statistics",
                f"self.{name} = nn.state({name})",
            ),
            (
                "it is configuration, small and fixed",
                f"self.{name} = tuple({name}.tolist())",
            ),
        ],
    )


def _open_inside_new(cls: type, path: Path) -> ScopeError:
    return ScopeError(
        f"`{dotted(path)}` is a module that is open in a running call.",
        code="LN-SCOPE-07",
        at=cls.__name__,
        why="It lives for the length of that call; a model made from it would not.",
        fixes=[("the new model needs what the module is", "part = nn.describe(part)")],
    )


def _unhashable(cls: type, name: str, value: Any) -> ConfigError:
    kind = type(value).__name__
    fixes = [
        ("it is configuration", f"self.{name} = frozenset({name})")
        if isinstance(value, set)
        else (
            "it is configuration",
            f"self.{name} = tuple(sorted(vars({name}).items()))",
        ),
        ("it holds arrays", f"self.{name} = nn.constant(jnp.array(sorted({name})))")
        if isinstance(value, set)
        else (
            "its class is yours",
            f"@dataclasses.dataclass(frozen=True)\nclass {kind}: ...",
        ),
    ]
    return ConfigError(
        f"`{name}` is a {kind}, which cannot be hashed.",
        code="LN-STATIC-01",
        at=cls.__name__,
        why="Configuration is part of what `jax.jit` compiles for, so it is compared "
        "and hashed.",
        fixes=fixes,
    )


__all__ = ["ReadOnlyDict", "sealed"]
