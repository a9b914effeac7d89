"""Calls of modules as pure functions of variables and keys."""

import functools
from collections.abc import Callable
from typing import Any

from linnet.compat.flax.core import scope
from linnet.compat.flax.core.scope import (
    CollectionFilter,
    DenyList,
    Scope,
    union_filters,
)
from linnet.compat.flax.linen._adopt import ModuleBase
from linnet.compat.flax.linen._context import context

INIT_MUTABLE = DenyList("intermediates")


def capture_call_intermediates(_: Any, method_name: str) -> bool:
    """Whether the method is `__call__`."""
    return method_name == "__call__"


def _in_scope(
    fn: Callable[..., Any], module: Any, capture_intermediates: Any
) -> Callable[..., Any]:
    """`fn(module, ...)` as a function of the scope of the module."""
    wanted = capture_intermediates
    if wanted is True:
        wanted = capture_call_intermediates

    @functools.wraps(fn)
    def in_scope(scope: Scope, *args: Any, **kwargs: Any) -> Any:
        context.capture_stack.append(wanted)
        try:
            return fn(module.clone(parent=scope, _deep_clone=True), *args, **kwargs)
        finally:
            context.capture_stack.pop()

    return in_scope


def apply(
    fn: Callable[..., Any],
    module: ModuleBase,
    mutable: CollectionFilter = False,
    capture_intermediates: bool | Callable[[Any, str], bool] = False,
) -> Callable[..., Any]:
    """`fn(module, ...)` as a function of variables: `(variables, *args, rngs=None)`."""
    if capture_intermediates:
        mutable = union_filters(mutable, "intermediates")
    in_scope = _in_scope(fn, module, capture_intermediates)
    return scope.apply(in_scope, mutable=mutable)


def init_with_output(
    fn: Callable[..., Any],
    module: ModuleBase,
    mutable: CollectionFilter = INIT_MUTABLE,
    capture_intermediates: bool | Callable[[Any, str], bool] = False,
) -> Callable[..., Any]:
    """`fn(module, ...)` as a function of keys, to (result, variables made)."""
    if capture_intermediates:
        mutable = union_filters(mutable, "intermediates")
    in_scope = _in_scope(fn, module, capture_intermediates)
    return scope.init(in_scope, mutable=mutable)


def init(
    fn: Callable[..., Any],
    module: ModuleBase,
    mutable: CollectionFilter = INIT_MUTABLE,
    capture_intermediates: bool | Callable[[Any, str], bool] = False,
) -> Callable[..., Any]:
    """`fn(module, ...)` as a function of keys, to the variables made."""
    with_output = init_with_output(fn, module, mutable, capture_intermediates)

    @functools.wraps(fn)
    def variables_of(*args: Any, **kwargs: Any) -> Any:
        return with_output(*args, **kwargs)[1]

    return variables_of
