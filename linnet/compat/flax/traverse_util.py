"""Nested dicts as flat ones, and traversals: views of parts of a tree."""

import abc
import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from linnet.compat.flax import errors, struct
from linnet.compat.flax.core import frozen_dict

PathParts = tuple[Any, ...]
VariableDict = Mapping[str, Mapping[str, Any]]

__all__ = [
    "ModelParamTraversal",
    "Traversal",
    "TraverseAttr",
    "TraverseCompose",
    "TraverseEach",
    "TraverseFilter",
    "TraverseId",
    "TraverseItem",
    "TraverseMerge",
    "TraverseTree",
    "empty_node",
    "flatten_dict",
    "path_aware_map",
    "t_identity",
    "unflatten_dict",
]


@struct.dataclass
class _EmptyNode:
    """Stands for a dict without entries."""


empty_node = _EmptyNode()


def flatten_dict(
    xs: Any,
    keep_empty_nodes: bool = False,
    is_leaf: Callable[[PathParts, Any], bool] | None = None,
    sep: str | None = None,
) -> dict[Any, Any]:
    """A nested dict as a flat one, whose keys are paths.

    Args:
        xs: The dict, frozen or not.
        keep_empty_nodes: Whether dicts without entries become `empty_node`; otherwise
            they are left out.
        is_leaf: `(path, value)` to whether a dict counts as a value.
        sep: Joins the keys of a path; without, paths are tuples.

    Example:
        >>> from linnet.compat.flax import traverse_util
        >>> traverse_util.flatten_dict({"a": {"b": 1}, "c": 2}, sep="/")
        {'a/b': 1, 'c': 2}
    """
    assert isinstance(xs, frozen_dict.FrozenDict | dict), (
        f"expected (frozen)dict; got {type(xs)}"
    )
    flat: dict[Any, Any] = {}

    def visit(value: Any, path: PathParts) -> None:
        is_dict = isinstance(value, frozen_dict.FrozenDict | dict)
        if not is_dict or (is_leaf and is_leaf(path, value)):
            flat[path if sep is None else sep.join(path)] = value
            return
        if keep_empty_nodes and not value:
            if path:
                flat[path if sep is None else sep.join(path)] = empty_node
            return
        for key, item in value.items():
            visit(item, (*path, key))

    visit(xs, ())
    return flat


def unflatten_dict(xs: Any, sep: str | None = None) -> dict[Any, Any]:
    """The nested dict of a flat one, whose keys are paths."""
    assert isinstance(xs, dict), f"input is not a dict; it is a {type(xs)}"
    nested: dict[Any, Any] = {}
    for path, value in xs.items():
        *above, last = path if sep is None else path.split(sep)
        cursor = nested
        for key in above:
            cursor = cursor.setdefault(key, {})
        cursor[last] = {} if value is empty_node else value
    return nested


def path_aware_map(f: Callable[[PathParts, Any], Any], nested_dict: Any) -> Any:
    """A nested dict with `f(path, value)` for each value."""
    flat = flatten_dict(nested_dict, keep_empty_nodes=True)
    return unflatten_dict(
        {path: x if x is empty_node else f(path, x) for path, x in flat.items()}
    )


# ---- traversals


class Traversal(abc.ABC):
    """A view of some values in a tree, to be listed and changed."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Traversal":
        return super().__new__(cls)

    @abc.abstractmethod
    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:
        """The tree with `fn` of each value in view."""

    @abc.abstractmethod
    def iterate(self, inputs: Any) -> Iterator[Any]:
        """The values in view."""

    def set(self, values: Any, inputs: Any) -> Any:
        """The tree with other values in view.

        Raises:
            ValueError: There are more or fewer of them.
        """
        left = list(values)
        count = len(left)

        def next_value(_: Any) -> Any:
            if not left:
                raise ValueError("Not enough values provided")
            return left.pop(0)

        result = self.update(next_value, inputs)
        if left:
            raise ValueError(
                f"Too many values provided: {count} values, {count - len(left)} in view"
            )
        return result

    def compose(self, other: "Traversal") -> "Traversal":
        """The view of `other` in each value of this one."""
        return TraverseCompose(self, other)

    def merge(self, *traversals: "Traversal") -> "Traversal":
        """The views of all `traversals` in each value of this one."""
        return self.compose(TraverseMerge(*traversals))

    def each(self) -> "Traversal":
        """Each item of lists, tuples and dicts."""
        return self.compose(TraverseEach())

    def tree(self) -> "Traversal":
        """Each leaf."""
        return self.compose(TraverseTree())

    def filter(self, fn: Callable[[Any], bool]) -> "Traversal":
        """The values for which `fn` holds."""
        return self.compose(TraverseFilter(fn))

    def __getattr__(self, attr: str) -> "Traversal":
        if attr.startswith("__"):
            raise AttributeError(attr)
        return self.compose(TraverseAttr(attr))

    def __getitem__(self, key: Any) -> "Traversal":
        return self.compose(TraverseItem(key))


class TraverseId(Traversal):
    """The whole tree as one value."""

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:
        """`fn` of the tree."""
        return fn(inputs)

    def iterate(self, inputs: Any) -> Iterator[Any]:
        """The tree."""
        yield inputs


class TraverseMerge(Traversal):
    """The views of several traversals, one after the other.

    Args:
        *traversals: These.
    """

    def __init__(self, *traversals: Traversal):
        self._traversals = traversals

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:
        """The tree with `fn` of each value in view."""
        for traversal in self._traversals:
            inputs = traversal.update(fn, inputs)
        return inputs

    def iterate(self, inputs: Any) -> Iterator[Any]:
        """The values in view."""
        for traversal in self._traversals:
            yield from traversal.iterate(inputs)


class TraverseCompose(Traversal):
    """A view within a view.

    Args:
        x: The outer one.
        y: The inner one.
    """

    def __init__(self, x: Traversal, y: Traversal):
        self._x = x
        self._y = y

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:
        """The tree with `fn` of each value in view."""
        return self._x.update(lambda part: self._y.update(fn, part), inputs)

    def iterate(self, inputs: Any) -> Iterator[Any]:
        """The values in view."""
        for part in self._x.iterate(inputs):
            yield from self._y.iterate(part)


class TraverseFilter(Traversal):
    """The tree, if a condition holds.

    Args:
        fn: The condition.
    """

    def __init__(self, fn: Callable[[Any], bool]):
        self._fn = fn

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:
        """`fn` of the tree, if the condition holds."""
        return fn(inputs) if self._fn(inputs) else inputs

    def iterate(self, inputs: Any) -> Iterator[Any]:
        """The tree, if the condition holds."""
        if self._fn(inputs):
            yield inputs


class TraverseAttr(Traversal):
    """One attribute of a dataclass, a named tuple or another object.

    Args:
        attr: Its name.
    """

    def __init__(self, attr: str):
        self._attr = attr

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:
        """A copy with `fn` of the attribute."""
        value = fn(getattr(inputs, self._attr))
        if isinstance(inputs, tuple) and hasattr(inputs, "_fields"):
            return inputs._replace(**{self._attr: value})  # type: ignore[attr-defined]
        if dataclasses.is_dataclass(inputs):
            return dataclasses.replace(inputs, **{self._attr: value})  # type: ignore[type-var]
        if hasattr(inputs, "replace"):
            return inputs.replace(**{self._attr: value})
        changed = copy.copy(inputs)
        setattr(changed, self._attr, value)
        return changed

    def iterate(self, inputs: Any) -> Iterator[Any]:
        """The attribute."""
        yield getattr(inputs, self._attr)


class TraverseItem(Traversal):
    """One item, or a slice, of a list, a tuple or a dict.

    Args:
        key: The key, the index or the slice.
    """

    def __init__(self, key: Any):
        self._key = key

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:
        """A copy with `fn` of the item, or of each in the slice."""
        if isinstance(inputs, dict):
            return {**inputs, self._key: fn(inputs[self._key])}
        items = list(inputs)
        if isinstance(self._key, slice):
            for i in range(*self._key.indices(len(items))):
                items[i] = fn(items[i])
        else:
            items[self._key] = fn(items[self._key])
        if isinstance(inputs, tuple) and hasattr(inputs, "_fields"):
            return type(inputs)(*items)
        return type(inputs)(items)

    def iterate(self, inputs: Any) -> Iterator[Any]:
        """The item, or those in the slice."""
        if isinstance(self._key, slice):
            yield from inputs[self._key]
        else:
            yield inputs[self._key]


class TraverseEach(Traversal):
    """Each item of a list, a tuple or a dict."""

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:
        """A copy with `fn` of each item."""
        if isinstance(inputs, dict):
            return {key: fn(value) for key, value in inputs.items()}
        items = [fn(value) for value in inputs]
        if isinstance(inputs, tuple) and hasattr(inputs, "_fields"):
            return type(inputs)(*items)
        return type(inputs)(items)

    def iterate(self, inputs: Any) -> Iterator[Any]:
        """The items."""
        yield from inputs.values() if isinstance(inputs, dict) else inputs


class TraverseTree(Traversal):
    """Each leaf of a pytree."""

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:
        """A copy with `fn` of each leaf."""
        return jax.tree.map(fn, inputs)

    def iterate(self, inputs: Any) -> Iterator[Any]:
        """The leaves."""
        yield from jax.tree.leaves(inputs)


def _is_params(inputs: Any) -> bool:
    return isinstance(inputs, dict | frozen_dict.FrozenDict)


class ModelParamTraversal(Traversal):
    """The parameters of a model whose path and value meet a condition.

    Args:
        filter_fn: `(path, value)` to whether it is in view; a path is `/a/b/kernel`.
    """

    def __init__(self, filter_fn: Callable[[str, Any], bool]):
        self._filter_fn = filter_fn

    def iterate(self, inputs: Any) -> Iterator[Any]:
        """The values in view, by path."""
        for path, value in self._sorted(inputs):
            if self._in_view(path, value):
                yield value

    def update(self, fn: Callable[[Any], Any], inputs: Any) -> Any:
        """The parameters with `fn` of each value in view."""
        flat = {
            path: fn(value) if self._in_view(path, value) else value
            for path, value in self._sorted(inputs)
        }
        if not flat and not _is_params(inputs):
            raise errors.TraverseTreeError(fn, self._filter_fn)
        new = unflatten_dict(flat)
        return (
            frozen_dict.freeze(new)
            if isinstance(inputs, frozen_dict.FrozenDict)
            else new
        )

    def _in_view(self, path: tuple[str, ...], value: Any) -> bool:
        return value is not empty_node and self._filter_fn("/" + "/".join(path), value)

    @staticmethod
    def _sorted(inputs: Any) -> list[tuple[tuple[str, ...], Any]]:
        if not _is_params(inputs):
            raise ValueError(
                f"Can only traverse a flax Model instance or a nested dict, not "
                f"{type(inputs)}"
            )
        flat = flatten_dict(inputs, keep_empty_nodes=True)
        return [(path, flat[path]) for path in sorted(flat)]


t_identity = TraverseId()
