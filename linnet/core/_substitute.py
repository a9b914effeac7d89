"""Calls in which some arrays are others, as for kernels normalised before each use."""

from collections.abc import Callable, Mapping
from typing import Any

from linnet._errors import TreeError
from linnet._typing import PyTree
from linnet.core import _check
from linnet.core._call import Call, module_of
from linnet.core._locate import locate
from linnet.core._node import is_declared, is_open
from linnet.core._open import close_module, open_module, open_modules_below
from linnet.core._path import dotted
from linnet.core._scope import opened_of
from linnet.core._table import Entry, slots
from linnet.core._where import Where, selected


def substitute(
    f: Any, replacements: Mapping[Where, Callable[[Any], Any]]
) -> Callable[..., Any]:
    """A call in which some arrays of a module are computed from what they are.

    The module itself keeps its arrays: they are parameters, with gradients that go
    through the functions. Within an open module, as in the `__call__` of another
    one, the call shares state and randomness, and the functions may be modules.

    Args:
        f: A module or one of its bound methods.
        replacements: From a role, a path pattern, a module type or a predicate, as
            for `nn.select`, to a function of the array. Several apply in turn.

    Returns:
        A callable that takes the arguments of `f` and returns what `f` returns.

    Raises:
        PathError: A pattern matches nothing.
        TreeError: The array belongs to a stack inside the module.

    Example:
        >>> class Positive(nn.Module):
        ...     def __init__(self, layer):
        ...         self.layer = layer
        ...     def __call__(self, x):
        ...         return nn.substitute(self.layer, {"kernel": jnp.exp})(x)
        >>> zero = nn.Dense(1, kernel_init=nn.initializers.zeros)
        >>> x = jnp.ones((1, 3))
        >>> nn.init(Positive(zero), jax.random.key(0), x)(x)
        Array([[3.]], dtype=float32)
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        _original = module_of(f)  # under this name `locate` finds it
        if is_open(_original):
            return _call_open(f, _original, replacements, args, kwargs)

        def made(entry: Entry, leaf: Any) -> Any:
            if is_declared(leaf):
                raise _check.not_initialized(_original, dotted(entry.path))
            return leaf

        changed = _changed(_original, _original, replacements, made)
        return Call(f).on(changed)(*args, **kwargs)

    return call


def _call_open(f: Any, module: Any, replacements: Any, args: Any, kwargs: Any) -> Any:
    """The call of a copy that has other arrays, is open in the same scope."""
    __tracebackhide__ = True
    scope, path = opened_of(module).scope, opened_of(module).path
    registry = scope.registry
    if registry is not None and registry.is_abstract:
        f(*args, **kwargs)  # as it is, to learn the shapes of its arrays

    def made(entry: Entry, leaf: Any) -> Any:
        if registry is None or not is_declared(leaf):
            return leaf
        return registry.read(module, (*path, *entry.path), leaf, scope.indices)

    closed = close_module(module, fill=True)
    ties = dict(scope.ties)
    copy = open_module(_changed(module, closed, replacements, made), scope, path)
    try:
        out = Call(f).on(copy)(*args, **kwargs)
    finally:
        scope.ties = ties
    for old, new in zip(
        open_modules_below(module), open_modules_below(copy), strict=True
    ):
        for name, value in opened_of(new).written.items():
            opened_of(old).put(old, name, value)
    return out


def _changed(
    module: Any,
    model: PyTree,
    replacements: Mapping[Where, Callable[[Any], Any]],
    made: Callable[[Entry, Any], Any],
) -> Any:
    """The closed model with functions of the selected arrays in their places."""
    __tracebackhide__ = True
    for where, function in replacements.items():
        leaves, treedef, entries = slots(model)
        chosen = selected(where, entries, leaves)
        for entry, hit in zip(entries, chosen, strict=True):
            if hit and entry.stack:
                raise _stacked(module, entry)
        model = treedef.unflatten(
            [
                function(made(entry, leaf)) if hit else leaf
                for leaf, entry, hit in zip(leaves, entries, chosen, strict=True)
            ]
        )
    return model


def _stacked(module: Any, entry: Entry) -> TreeError:
    return TreeError(
        f"`{dotted(entry.path)}` holds the arrays of {entry.stack[0][1]} modules, "
        "which cannot be substituted as one.",
        code="LN-STACK-05",
        at=locate(module),
        why="The function is for the array of one module, and would see all of them.",
        fixes=[
            (
                "the layers are wrapped, not their stack",
                "model = nn.Stack(Wrapped(block), depth)",
            )
        ],
    )
