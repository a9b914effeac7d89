"""Where a module is in the model that is being called.

An open module knows its path. A closed one does not, and needs no bookkeeping for it:
when an error is made, the calls under way are on the Python stack, and the module is
found in them by identity.
"""

import sys
import types
from collections.abc import Iterator
from typing import Any

import jax

from linnet.core._node import Node, opened_or_none, spec_or_none
from linnet.core._path import Path, dotted


def locate(module: Any, *, with_type: bool = True) -> str:
    """`encoder.blocks[3].mlp (Dense)`, as far as it is known."""
    if isinstance(module, str):
        return module
    opened = opened_or_none(module)
    path = opened.path if opened is not None else _path_on_stack(module)
    text = dotted(path)
    if not with_type:
        return text
    return f"{text} ({type(module).__name__})".strip()


def location() -> str | None:
    """The module whose method is under way, as `locate` names it, if there is one."""
    called = _modules_being_called()
    return locate(called[-1]) if called else None


def _path_on_stack(module: Node) -> Path:
    path: Path = ()
    outer: Node | None = None
    for inner in [*_modules_being_called(), module]:
        if outer is None or inner is outer:
            outer = inner
            continue
        found = _find(outer, inner)
        path = (*path, *found) if found is not None else path
        outer = inner
    return path


def is_in_call() -> bool:
    """Whether a method of some module is under way."""
    return bool(_modules_being_called())


def where_transformed(module: Node, *, passed: bool = False) -> tuple[str, list[str]]:
    """How the code around the innermost JAX transform names what it transforms.

    Args:
        module: The module that had an effect, or was passed to the transform.
        passed: Whether it was passed.

    Returns:
        `self.block`, or `f` for a function of its own, and the names of JAX's
        functions under way, outermost first.
    """
    itself = "self" if passed else "f"
    frame: types.FrameType | None = sys._getframe(1)
    inner: Node = module
    functions: list[str] = []
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        caller = _self_of(frame)
        if name == "jax" or name.startswith("jax."):
            functions.append(frame.f_code.co_name)
        elif caller is not None and (functions or passed):
            found = dotted(_way(caller, inner))
            part = f"self.{found}" if found else itself
            return part, functions[::-1]
        elif caller is not None:
            inner = caller
        frame = frame.f_back
    return itself, functions[::-1]


def _way(outer: Node, inner: Node) -> Path:
    """The path from an open module to one below it."""
    above, below = opened_or_none(outer), opened_or_none(inner)
    if above is None or below is None:
        return ()
    size = len(above.path)
    return below.path[size:] if below.path[:size] == above.path else ()


def _self_of(frame: types.FrameType) -> Node | None:
    """The module that a function of the user, or of a layer, takes first."""
    code = frame.f_code
    first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
    own = frame.f_globals.get("__package__") == __package__
    is_call = not own or code.co_name == "__call__"  # of a user, a layer or a stack
    return first if isinstance(first, Node) and is_call else None


def is_method(frame: types.FrameType, module: Node) -> bool:
    """Whether a frame runs a method of the module."""
    code = frame.f_code
    if not code.co_argcount or frame.f_locals.get(code.co_varnames[0]) is not module:
        return False
    found = (vars(cls).get(code.co_name) for cls in type(module).__mro__)
    return code.co_varnames[0] == "self" or any(
        getattr(method, "__code__", None) is code for method in found
    )


def _modules_being_called() -> list[Node]:
    """The `self` of each call on the stack, outermost first."""
    frame: types.FrameType | None = sys._getframe(1)
    modules = []
    while frame is not None:
        called = _self_of(frame)
        if called is None and frame.f_globals.get("__package__") == __package__:
            called = frame.f_locals.get("_original")
        if isinstance(called, Node):
            modules.append(called)
        frame = frame.f_back
    return modules[::-1]


def _find(tree: Node, module: Node) -> Path | None:
    for path, child in _below(tree):
        if child is module:
            return path
    # A layer sliced out of a stack is a new object with the specs of the stacked one.
    is_closed = opened_or_none(module) is None and spec_or_none(module) is not None
    if is_closed:
        wanted = jax.tree.structure(module)
        for path, child in _below(tree):
            if jax.tree.structure(child) == wanted:
                return path
    return None


def _below(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    spec = spec_or_none(tree)
    if spec is None:
        return
    values = [
        tree.__dict__.get(name, child)
        for name, child in zip(spec.names, tree._children, strict=True)
    ]
    for name, value in zip(spec.names, values, strict=True):
        key = jax.tree_util.GetAttrKey(name)
        items, _ = jax.tree_util.tree_flatten_with_path(
            value, is_leaf=lambda leaf: isinstance(leaf, Node)
        )
        for keys, leaf in items:
            if isinstance(leaf, Node):
                inside = (*path, key, *keys)
                yield inside, leaf
                yield from _below(leaf, inside)
