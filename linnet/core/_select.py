"""Selections: reading, mapping, replacing and freezing parts of a model."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import GetAttrKey

from linnet._errors import ConfigError, ShapeError, describe
from linnet._typing import Array, PyTree
from linnet.core._node import (
    Node,
    is_declared,
    is_module,
    stop_at_modules,
    unflatten,
)
from linnet.core._path import Path, no_match, path_matches, path_text
from linnet.core._role import Declared, Frozen, Param, Role
from linnet.core._table import modules, slots
from linnet.core._tree import closed
from linnet.core._where import Where, selected


def select(model: PyTree, where: Where) -> "Selection":
    """Selects arrays of a model by role, path pattern, module type or predicate.

    Args:
        model: A module, or a pytree of modules.
        where: A role, a module type, a pattern such as `"encoder/**/kernel"`, a
            predicate `f(path, array)`, or a tuple of these, any of which may hold.
            For `map_modules` a pattern or predicate is of modules.

    Raises:
        PathError: A pattern matches nothing.

    Example:
        >>> model = nn.init(nn.Dense(3), jax.random.key(0), jnp.ones((1, 2)))
        >>> model = nn.select(model, "kernel").map(jnp.zeros_like)
        >>> model(jnp.ones((1, 2)))
        Array([[0., 0., 0.]], dtype=float32)
    """
    return Selection(model, where)


class Selection(Mapping[str, Array]):
    """Part of a model: a mapping of path to array, and ways to change the model.

    Args:
        model: As for `nn.select`, which makes it.
        where: As for `nn.select`.
    """

    def __init__(self, model: PyTree, where: Where) -> None:
        self._model = closed(model)
        self._where = where
        self._leaves, self._treedef, self._entries = slots(self._model)
        # A predicate is asked once it is clear whether arrays or modules are meant.
        for pattern in patterns_of(where):
            if not self._is_module(pattern):
                selected(pattern, self._entries, self._leaves)

    def _is_module(self, pattern: str) -> bool:
        return any(path_matches(pattern, p, whole=True) for p in self._module_paths)

    @property
    def _module_paths(self) -> list[str]:
        return [path_text(path) for path, _ in modules(self._model)]

    @functools.cached_property
    def _hits(self) -> list[bool]:
        return selected(self._where, self._entries, self._leaves)

    def _chosen(self) -> dict[str, Any]:
        triples = zip(self._hits, self._entries, self._leaves, strict=True)
        return {entry.text: leaf for hit, entry, leaf in triples if hit}

    def __getitem__(self, path: str) -> Array:
        return self._chosen()[path]  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(self._chosen())

    def __len__(self) -> int:
        return sum(self._hits)

    def __repr__(self) -> str:
        inside = ", ".join(f"{k}: {describe(v)}" for k, v in [*self.items()][:4])
        more = f", {len(self) - 4} more" if len(self) > 4 else ""
        return f"Selection({inside}{more})"

    def map(self, f: Callable[..., Any], *, with_path: bool = False) -> PyTree:
        """The model with `f(array)`, or `f(path, array)`, in the place of each array.

        Args:
            f: From an array to an array.
            with_path: Whether `f` takes the path as well.
        """
        return self._treedef.unflatten(
            [
                (f(entry.text, leaf) if with_path else f(leaf)) if hit else leaf
                for hit, entry, leaf in zip(
                    self._hits, self._entries, self._leaves, strict=True
                )
            ]
        )

    def set(self, value: Any) -> PyTree:
        """The model with other arrays in the place of those selected.

        Args:
            value: A number or array for all of them, or a dict of path to array.

        Raises:
            ShapeError: An array has another shape.
            PathError: A path of the dict is not selected.
        """
        __tracebackhide__ = True
        if isinstance(value, Mapping):
            for path in value:
                if path not in self:
                    raise no_match(path, self)
            return self.map(lambda p, x: _like(p, x, value.get(p, x)), with_path=True)
        return self.map(lambda p, x: _like(p, x, value), with_path=True)

    def mask(self) -> PyTree:
        """A tree of booleans, true where an array is selected, as Optax's masks are.

        Example:
            >>> model = nn.init(nn.Dense(3), jax.random.key(0), jnp.ones((1, 2)))
            >>> mask = nn.select(nn.params(model), "**/kernel").mask()
            >>> mask.kernel, mask.bias
            (True, False)
        """
        return self._treedef.unflatten(self._hits)

    def map_modules(self, f: Callable[..., Any], *, with_path: bool = False) -> PyTree:
        """The model with `f(module)`, or `f(path, module)`, in each one's place.

        A pattern selects modules by their own path, a type by their class, and a
        predicate is asked with path and module. Modules inside one that was replaced
        are not visited.

        The arrays of a module in a stack have the axes of the stack in front.

        Args:
            f: From a module to what takes its place.
            with_path: Whether `f` takes the path as well.

        Raises:
            PathError: No module is selected.
        """
        __tracebackhide__ = True
        for pattern in patterns_of(self._where):
            if not self._is_module(pattern):
                raise no_match(pattern, self._module_paths)
        hits = 0

        def visit(module: Any, path: Path) -> Any:
            nonlocal hits
            if _selects_module(self._where, path_text(path), module):
                hits += 1
                return f(path_text(path), module) if with_path else f(module)
            return rebuilt(module, path, visit)

        changed = over_modules(self._model, (), visit)
        if not hits:
            where = self._where
            raise no_match(getattr(where, "__name__", str(where)), self._module_paths)
        return changed

    def freeze(self, role: type[Frozen] = Frozen) -> PyTree:
        """The model with the selected parameters taken out of training.

        Args:
            role: `nn.Frozen` or a subclass, by which they can be selected again.
        """
        return self._with_roles(
            Param, lambda leaf: leaf.replace(role=role, thawed=leaf.role)
        )

    def unfreeze(self) -> PyTree:
        """The model with the selected frozen parameters trained again."""
        return self._with_roles(
            Frozen, lambda leaf: leaf.replace(role=leaf.thawed or Param, thawed=None)
        )

    def with_role(self, role: type[Role]) -> PyTree:
        """The model with another role for the selected arrays.

        Args:
            role: A subclass of `nn.Role`.
        """
        return self._with_roles(Role, lambda leaf: leaf.replace(role=role, thawed=None))

    def _with_roles(
        self, among: type[Role], change: Callable[[Declared], Declared]
    ) -> PyTree:
        chosen = {
            entry.path
            for hit, entry in zip(self._hits, self._entries, strict=True)
            if hit and entry.role is not None and issubclass(entry.role, among)
        }

        def visit(module: Any, path: Path) -> Any:
            module = rebuilt(module, path, visit)
            return map_declared(
                module,
                lambda local, leaf: (
                    change(leaf) if _below(path, local, chosen) else leaf
                ),
            )

        return over_modules(self._model, (), visit)


def _below(path: Path, local: Path, chosen: set[Path]) -> bool:
    return (*path, *local) in chosen


def map_declared(module: Node, change: Callable[[Path, Declared], Declared]) -> Any:
    """One module with changed declarations; its arrays stay."""
    children, spec = module._node
    leaves = {path: change(path, leaf) for path, leaf in spec.leaves.items()}
    new = spec.replace(leaves=leaves)

    def redeclared(path: Path, child: Any) -> Any:
        if is_declared(child):
            return leaves.get(path, child)
        if child is None or isinstance(child, Node | jax.Array):
            return child
        return jax.tree_util.tree_map_with_path(
            lambda keys, leaf: (
                redeclared((*path, *keys), leaf) if is_declared(leaf) else leaf
            ),
            child,
            is_leaf=stop_at_modules,
        )

    children = tuple(
        redeclared((GetAttrKey(name),), child)
        for name, child in zip(spec.names, children, strict=True)
    )
    return unflatten(new, children)


def rebuilt(module: Any, path: Path, visit: Callable[[Any, Path], Any]) -> Any:
    children, spec = module._node
    new = tuple(
        over_modules(child, (*path, GetAttrKey(name)), visit)
        for name, child in zip(spec.names, children, strict=True)
    )
    if all(a is b for a, b in zip(new, children, strict=True)):
        return module
    return unflatten(spec, new)


def over_modules(tree: Any, path: Path, visit: Callable[[Any, Path], Any]) -> Any:
    """The tree with `visit` applied to its outermost modules."""
    if is_module(tree):
        return visit(tree, path)
    if is_declared(tree) or tree is None or isinstance(tree, jax.Array):
        return tree
    items, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_module)
    if not any(is_module(leaf) for _, leaf in items):
        return tree
    return treedef.unflatten(
        [
            visit(leaf, (*path, *keys)) if is_module(leaf) else leaf
            for keys, leaf in items
        ]
    )


def patterns_of(where: Where) -> list[str]:
    """The patterns among what may select."""
    if isinstance(where, tuple | list):
        return [pattern for part in where for pattern in patterns_of(part)]
    return [where] if isinstance(where, str) else []


def _selects_module(where: Where, text: str, module: Any) -> bool:
    if isinstance(where, tuple | list):
        return any(_selects_module(part, text, module) for part in where)
    if isinstance(where, str):
        return path_matches(where, text, whole=True)
    if isinstance(where, type):
        if issubclass(where, Role):
            raise ConfigError(
                f"{where.__name__} is a role, which arrays have, not modules.",
                code="LN-WHERE-02",
                fixes=[
                    (
                        "the arrays are meant",
                        f"model = nn.select(model, nn.{where.__name__}).map(f)",
                    )
                ],
            )
        return isinstance(module, where)
    return bool(where(text, module))


def _like(path: str, old: Any, value: Any) -> Any:
    new = jnp.asarray(value, old.dtype)
    if new.ndim == 0 or new.shape == old.shape:
        return jnp.broadcast_to(new, old.shape)
    raise ShapeError(
        f"{describe(new)} cannot take the place of {describe(old)}.",
        code="LN-TREE-04",
        at=path,
        fixes=[("one number is for all", "model = nn.select(model, where).set(0.0)")],
    )
