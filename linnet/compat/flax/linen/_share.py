"""Scopes that are not where the module is: shared ones, and those of a method."""

import functools
from collections.abc import Callable
from typing import Any

from linnet.compat.flax import errors
from linnet.compat.flax.linen._adopt import ModuleBase, is_module


def share_scope(module: Any, other: Any, /) -> None:
    """Lets `other` keep its variables in the scope of `module`, as if it were that."""
    if module.scope is None or other.scope is None:
        raise errors.CallShareScopeOnUnboundModuleError()

    path = module.scope.path
    if other.scope.root is not module.scope.root or other.scope.path[: len(path)] != (
        path
    ):
        module, other = other, module  # It is no part of the module, but made outside.
    _move(other, module.scope)


def _move(module: Any, scope: Any) -> None:
    """Gives a module another scope, and its submodules scopes within that."""
    object.__setattr__(module, "scope", scope)
    for name, child in module._state.children.items():
        if is_module(child) and child.scope is not None:
            _move(child, scope.push(name, reuse=True))


def compact_name_scope(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a method whose submodules and variables are named within its own name."""

    @functools.wraps(fun)
    def in_own_scope(module: ModuleBase, *args: Any, **kwargs: Any) -> Any:
        scope, state = module.scope, module._state
        if scope is None:
            raise errors.CallCompactUnboundModuleError()
        inner = scope.push(fun.__name__, reuse=True)
        before = state.in_compact_method, state.autoname_cursor
        object.__setattr__(module, "scope", inner)
        state.in_compact_method, state.autoname_cursor = True, {}
        try:
            return fun(module, *args, **kwargs)
        finally:
            object.__setattr__(module, "scope", scope)
            state.in_compact_method, state.autoname_cursor = before

    return in_own_scope
