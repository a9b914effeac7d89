"""Sorting what `__init__` assigned into data and configuration."""

import dataclasses
import types
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from linnet._errors import ConfigError, RoleError, ScopeError, describe
from linnet.core._node import Node, is_module, stop_at_modules, unflatten
from linnet.core._path import Path, dotted
from linnet.core._role import Declared
from linnet.core._spec import Spec, intern
from linnet.core._value import ReadOnlyDict, Static, frozen, identity
from linnet.core._view import at, put

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
            _refuse_hidden_modules(cls, name, value)
            static[name] = _configuration(cls, name, value)
            continue
        for leaf_path, leaf in found.items():
            declared = _declaration(cls, leaf_path, leaf, known)
            if declared is not None:
                leaves[leaf_path] = declared
        data[name], has_statics = _as_data(cls, name, value)
        if has_statics:
            wrapped.add(name)
    spec = intern(cls, tuple(data), static, leaves, frozenset(wrapped))
    return spec, tuple(data.values())


def resealed(module: Node, changes: Mapping[str, Any]) -> tuple[Spec, tuple[Any, ...]]:
    """The spec and the children of a module with some attributes changed."""
    children, spec = module._node
    known = {
        path: leaf
        for path, leaf in spec.leaves.items()
        if not isinstance(changes.get(path[0].name), Declared)
    }
    new, new_children = sealed(spec.cls, changes, known)
    data = dict(zip(spec.names, children, strict=True))
    data |= dict(zip(new.names, new_children, strict=True))
    data = {name: child for name, child in data.items() if name not in new.static}
    static = {k: v for k, v in spec.static.items() if k not in changes}
    static.update(new.static)
    leaves = {p: leaf for p, leaf in spec.leaves.items() if p[0].name not in changes}
    leaves.update(new.leaves)
    wrapped = spec.wrapped.difference(changes) | new.wrapped
    whole = intern(spec.cls, tuple(data), static, leaves, wrapped)
    if spec.ties:
        return _retied(whole, tuple(data.values()), spec.ties)
    return whole, tuple(data.values())


def _retied(
    spec: Spec, children: tuple[Any, ...], ties: Any
) -> tuple[Spec, tuple[Any, ...]]:
    """Ties of what is still there; what took the place of a tied array is dropped."""
    module = unflatten(spec, children)
    kept = []
    for target, source, fn in ties:
        try:
            at(module, source)
            module = put(module, target, None)
        except KeyError:
            continue
        kept.append((target, source, fn))
    return spec.replace(ties=tuple(kept)), module._children


def _data_leaves(value: Any, path: Path) -> dict[Path, Any]:
    """Modules, declarations and arrays in an attribute, by their path."""
    if isinstance(value, Node | Declared) or _is_array(value):
        return {path: value}
    if isinstance(value, Iterator):
        return {}
    items, _ = jax.tree_util.tree_flatten_with_path(
        frozen(value), is_leaf=stop_at_modules
    )
    return {
        (*path, *keys): leaf
        for keys, leaf in items
        if isinstance(leaf, Node | Declared) or _is_array(leaf)
    }


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


def _as_data(cls: type, name: str, value: Any) -> tuple[Any, bool]:
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
            if isinstance(item, Static):
                return item
            _refuse_hidden_modules(cls, name, item)
            return Static(_configuration(cls, name, item))
        return jax.tree.map(leaf, item, is_leaf=stop_at_modules)

    return frozen(value, leaf), has_statics


def _configuration(cls: type, name: str, value: Any) -> Any:
    value = frozen(value)
    try:
        identity(value)
    except TypeError:
        raise _unhashable(cls, name, value) from None
    return value


def _culprit(name: str, value: Any) -> tuple[str, Any]:
    """What cannot be hashed, inside of containers that Linnet makes hashable."""
    if isinstance(value, ReadOnlyDict | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            try:
                identity(item)
            except TypeError:
                return _culprit(f"{name}[{key!r}]", item)
    return name, value


def _refuse_hidden_modules(cls: type, name: str, value: Any) -> None:
    """Refuses modules where a pytree does not see them, rather than lose them."""
    found = _hidden_modules(value)
    if found is not None:
        what, why, (when, code) = found
        raise ConfigError(
            f"`{name}` {what}.",
            code="LN-STATIC-02",
            at=cls.__name__,
            why=why,
            fixes=[(when, code.replace("NAME", name))],
        )


def _hidden_modules(value: Any) -> tuple[str, str, tuple[str, str]] | None:
    """How a value hides modules, why that is refused, and the way out."""
    if isinstance(value, set | frozenset) and any(map(is_module, value)):
        return (
            "holds modules in a set",
            "A set has no order, so its modules would have no path.",
            ("the modules are a sequence", "self.NAME = tuple(NAME)"),
        )
    if isinstance(value, Iterator):
        return (
            f"is a {type(value).__name__}",
            "An iterator can be read once, and what it yields is no part of a model.",
            ("its items are meant", "self.NAME = tuple(NAME)"),
        )
    if isinstance(value, types.MethodType) and is_module(value.__self__):
        return (
            "is a bound method of a module",
            "The method would use the module as it is now, without its arrays.",
            ("the module is a part of this one", "self.NAME = NAME.__self__"),
        )
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (getattr(value, f.name, None) for f in dataclasses.fields(value))
        if any(_data_leaves(field, ()) for field in fields):
            kind = type(value).__name__
            return (
                f"is a {kind} with modules, and no pytree for JAX",
                "Arrays inside it would be neither initialised nor trained.",
                ("its class is yours", f"jax.tree_util.register_dataclass({kind})"),
            )
    return None


def _no_role(cls: type, path: Path, value: Any) -> RoleError:
    name = dotted(path)
    return RoleError(
        f"the array assigned to `{name}` has no role.",
        code="LN-ROLE-01",
        at=cls.__name__,
        facts={name: describe(value)},
        why="Whether an array is trained, written or fixed must not be guessed.",
        fixes=_role_fixes(name, value),
    )


def _role_fixes(name: str, value: Any) -> list[tuple[str, str]]:
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return [
            ("randomness is drawn in the call (in `__call__`)", "key = self.rng()"),
            ("it is a fixed key", f"self.{name} = nn.constant({name})"),
        ]
    fixes = [
        ("it is trained", f"self.{name} = nn.param({name})"),
        ("the model writes it, as running averages", f"self.{name} = nn.state({name})"),
        ("it is never trained and never written", f"self.{name} = nn.constant({name})"),
    ]
    if value.ndim < 2 and value.size <= 16:
        plain = f"tuple({name}.tolist())" if value.ndim else f"{name}.item()"
        fixes.append(("it is configuration", f"self.{name} = {plain}"))
    return fixes


def _open_inside_new(cls: type, path: Path) -> ScopeError:
    return ScopeError(
        f"`{dotted(path)}` is a module that is open in a running call.",
        code="LN-SCOPE-07",
        at=cls.__name__,
        why="It lives for the length of that call; a model made from it would not.",
        fixes=[
            ("it is used in this call only, without a new module", "y = part(x)"),
            ("the new model needs what the module is", "part = nn.describe(part)"),
        ],
    )


def _unhashable(cls: type, name: str, value: Any) -> ConfigError:
    name, value = _culprit(name, value)
    kind = type(value).__name__
    if isinstance(value, set):
        fixes = [("its members are fixed", f"self.{name} = frozenset({name})")]
    elif dataclasses.is_dataclass(value):
        code = "@dataclasses.dataclass(frozen=True)"
        fixes = [(f"its class is yours (above `class {kind}`)", code)]
    elif hasattr(value, "__dict__"):
        code = "def __hash__(self):\n    return hash(tuple(sorted(vars(self).items())))"
        fixes = [(f"its class is yours (in `class {kind}`)", code)]
    else:
        fixes = [("its items are fixed", f"self.{name} = tuple({name})")]
    return ConfigError(
        f"`{name}` is a {kind}, which cannot be hashed.",
        code="LN-STATIC-01",
        at=cls.__name__,
        why="Configuration is part of what `jax.jit` compiles for, so it is compared "
        "and hashed.",
        fixes=fixes,
    )
