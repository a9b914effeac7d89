"""Taking models apart and putting them together: partition, merge, updates."""

from typing import Any

import jax
import jax.numpy as jnp

from linnet._errors import InitError, ShapeError, TreeError, describe
from linnet._typing import PyTree
from linnet.core._node import Node, is_declared, is_open
from linnet.core._open import close_module
from linnet.core._path import dotted
from linnet.core._role import Param
from linnet.core._table import slots, table
from linnet.core._value import Static
from linnet.core._where import Where, selected


def partition(model: PyTree, *wheres: Where) -> tuple[PyTree, ...]:
    """Splits a model into trees of the same structure, one for each `where`.

    An array goes to the first `where` that selects it, and to the last tree if none
    does. Everywhere else a tree has `None`.

    Args:
        model: A module, or a tuple, dict or other pytree of modules.
        *wheres: Roles, module types, path patterns or predicates `f(path, array)`.

    Returns:
        One tree for each `where`, and one with the rest.

    Raises:
        PathError: A pattern matches nothing.

    Example:
        >>> model = nn.init(nn.Dense(3), jax.random.key(0), jnp.ones((1, 2)))
        >>> kernel, rest = nn.partition(model, "kernel")
        >>> rest
        Dense(features=3, kernel=None, bias=float32[3])
    """
    leaves, treedef = jax.tree.flatten(closed(model))
    entries = table(treedef)
    masks = [selected(where, entries, leaves) for where in wheres]
    taken = [False] * len(leaves)
    trees = []
    for mask in [*masks, [True] * len(leaves)]:
        own = [hit and not gone for hit, gone in zip(mask, taken, strict=True)]
        trees.append([x if hit else None for x, hit in zip(leaves, own, strict=True)])
        taken = [gone or hit for gone, hit in zip(taken, own, strict=True)]
    return tuple(treedef.unflatten(tree) for tree in trees)


def merge(*trees: PyTree) -> PyTree:
    """Puts the trees of a partition together again.

    Args:
        *trees: Trees of one structure, in which each array is in one tree only.

    Raises:
        TreeError: The trees belong to different models, or hold an array twice.

    Example:
        >>> model = nn.init(nn.Dense(3), jax.random.key(0), jnp.ones((1, 2)))
        >>> nn.merge(*nn.partition(model, "kernel")) == model
        True
    """
    __tracebackhide__ = True
    columns, treedef = aligned(
        *trees,
        fixes=[
            (
                "they should be the parts of one model",
                "model = nn.merge(*nn.partition(model, nn.Param))",
            ),
            _MOVE,
        ],
    )
    merged = []
    for i, column in enumerate(zip(*columns, strict=True)):
        values = [value for value in column if value is not None]
        if len(values) > 1:
            raise TreeError(
                f"{len(values)} of the trees hold an array at "
                f"`{dotted(table(treedef)[i].path)}`.",
                code="LN-TREE-02",
                fixes=[
                    (
                        "the trees should be parts of one partition",
                        "model = nn.merge(*nn.partition(model, nn.Param))",
                    )
                ],
            )
        merged.append(values[0] if values else None)
    return treedef.unflatten(merged)


def params(model: PyTree) -> PyTree:
    """The trained arrays of a model, with `None` in the place of all others.

    This is the tree that optimisers take.

    Args:
        model: A module, open or closed, or a pytree of modules.

    Raises:
        InitError: The model is not initialised.

    Example:
        >>> model = nn.init(nn.BatchNorm(), jax.random.key(0), jnp.ones((2, 3)))
        >>> nn.params(model).mean is None
        True
    """
    __tracebackhide__ = True
    model = closed(model)
    refuse_described(model)
    return partition(model, Param)[0]


def apply_updates(model: PyTree, updates: PyTree) -> PyTree:
    """Adds an optimiser's updates to a model. Dtypes stay as they are.

    Args:
        model: A module or a pytree of modules.
        updates: A tree of the same structure; `None` leaves an array as it is.

    Raises:
        TreeError: The updates belong to another model.
        ShapeError: An update has another shape than its array.

    Example:
        >>> model = nn.init(nn.Dense(3), jax.random.key(0), jnp.ones((1, 2)))
        >>> updates = jax.tree.map(jnp.ones_like, nn.params(model))
        >>> nn.apply_updates(model, updates).bias
        Array([1., 1., 1.], dtype=float32)
    """
    __tracebackhide__ = True
    (old, new), treedef = aligned(model, updates, fixes=[_OWN_UPDATES])
    changed = []
    for i, (array, update) in enumerate(zip(old, new, strict=True)):
        if update is None or array is None:
            changed.append(array)
            continue
        if array.shape != update.shape:
            raise ShapeError(
                f"the update is {describe(update)}, its array {describe(array)}.",
                code="LN-TREE-03",
                at=dotted(table(treedef)[i].path),
                fixes=[_OWN_UPDATES],
            )
        wide = jnp.promote_types(array.dtype, update.dtype)
        changed.append((array.astype(wide) + update.astype(wide)).astype(array.dtype))
    return treedef.unflatten(changed)


_OWN_UPDATES = (
    "the gradient or the optimiser's state is that of another model",
    "grads = nn.grad(loss_fn)(model)\n"
    "updates, opt_state = tx.update(grads, tx.init(nn.params(model)))",
)
_MOVE = (
    "arrays should move from one model to another",
    "model = nn.from_paths(model, nn.to_paths(other))",
)


def closed(model: PyTree) -> PyTree:
    """The tree with its open modules closed, to be read as a value."""
    if not any(map(is_open, jax.tree.leaves(model, is_leaf=is_open))):
        return model
    return jax.tree.map(
        lambda leaf: close_module(leaf, fill=True) if is_open(leaf) else leaf,
        model,
        is_leaf=is_open,
    )


def refuse_described(model: PyTree) -> None:
    """Refuses a model that has no arrays yet where arrays are meant."""
    __tracebackhide__ = True
    leaves, _, entries = slots(model)
    for leaf, entry in zip(leaves, entries, strict=True):
        if is_declared(leaf):
            raise InitError(
                f"`{dotted(entry.path)}` has no value yet: the model is described, "
                "not initialised.",
                code="LN-INIT-01",
                at=type(model).__name__,
                why="Constructors describe; `nn.init` makes the arrays.",
                fixes=[
                    (
                        "arrays are wanted",
                        "model = nn.init(model, jax.random.key(0), x)",
                    )
                ],
            )


def aligned(
    *trees: PyTree, fixes: list[tuple[str, str]]
) -> tuple[list[list[Any]], Any]:
    """The leaves of trees that agree where they have arrays, with `None` as a leaf.

    Args:
        *trees: The trees.
        fixes: What to say where they do not.

    Raises:
        TreeError: They do not agree.
    """
    __tracebackhide__ = True
    flat = [jax.tree.flatten(tree, is_leaf=lambda x: x is None) for tree in trees]
    treedef = flat[0][1]
    for other, (_, other_treedef) in zip(trees[1:], flat[1:], strict=True):
        if other_treedef != treedef:
            raise _different(trees[0], other, fixes)
    return [leaves for leaves, _ in flat], treedef


def _different(
    first: PyTree, second: PyTree, fixes: list[tuple[str, str]]
) -> TreeError:
    where, one, two = _first_difference(first, second, "") or ("", "one", "another")
    return TreeError(
        f"the trees belong to different models: they differ at `{where or '.'}`.",
        code="LN-TREE-01",
        at=type(first).__name__,
        facts={"first": one, "second": two},
        why="A tree of updates, gradients or parts has the structure of its model, "
        "configuration included.",
        fixes=fixes,
    )


def _first_difference(a: Any, b: Any, where: str) -> tuple[str, str, str] | None:
    if isinstance(a, Node) and isinstance(b, Node):
        mine, theirs = a._spec, b._spec
        if mine.cls is not theirs.cls or mine.names != theirs.names:
            return where, _kind(a), _kind(b)
        for name in {**mine.static, **theirs.static}:
            one, two = (s.static.get(name, "absent") for s in (mine, theirs))
            if one is not two and Static(one) != Static(two):
                return f"{where}.{name}".strip("."), repr(one), repr(two)
        if mine is not theirs:
            return where, "other declarations", "other declarations"
        for name, x, y in zip(mine.names, a._children, b._children, strict=True):
            found = _first_difference(x, y, f"{where}.{name}".strip("."))
            if found:
                return found
        return None
    same = jax.tree.structure(a, is_leaf=_stop) == jax.tree.structure(b, is_leaf=_stop)
    if not same:
        return where, _kind(a), _kind(b)
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(a, is_leaf=_stop),
        jax.tree.leaves(b, is_leaf=_stop),
        strict=True,
    )
    for (path, x), y in pairs:
        if isinstance(x, Node) or isinstance(y, Node):
            found = _first_difference(x, y, where + jax.tree_util.keystr(path))
            if found:
                return found
    return None


def _stop(value: Any) -> bool:
    return value is None or isinstance(value, Node)


def _kind(value: Any) -> str:
    if isinstance(value, Node):
        return f"{type(value).__name__}({', '.join(value._spec.names)})"
    return describe(value)
