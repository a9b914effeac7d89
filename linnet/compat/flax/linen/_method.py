"""What is done around each method of a module: set-up, names, interceptors, records."""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax

from linnet.compat.flax import errors
from linnet.compat.flax.linen._adopt import is_module
from linnet.compat.flax.linen._context import context, interceptors

_UNTOUCHED = frozenset(
    {
        "__eq__",
        "__hash__",
        "__repr__",
        "__str__",
        "__init__",
        "__init_subclass__",
        "parent",
        "__post_init__",
        "__setattr__",
        "__getattr__",
        "__getattribute__",
        "__new__",
        "__reduce__",
        "__getstate__",
        "__setstate__",
        "__dir__",
        "__class_getitem__",
    }
)


def compact(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Marks the one method of a module in which submodules and variables are made."""
    fun.compact = True  # type: ignore[attr-defined]
    return fun


def nowrap(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a method that is left as it is: it does not count as one of the module."""
    fun.nowrap = True  # type: ignore[attr-defined]
    return fun


@dataclasses.dataclass(frozen=True)
class InterceptorContext:
    """What an interceptor is told about the call.

    Args:
        module: The module whose method is called.
        method_name: The name of the method.
        orig_method: The method itself, bound.
    """

    module: Any
    method_name: str
    orig_method: Callable[..., Any]


@contextlib.contextmanager
def intercept_methods(interceptor: Callable[..., Any]) -> Iterator[None]:
    """A context in which each call of a method goes through a function.

    Args:
        interceptor: `(next_fun, args, kwargs, context) -> result`, which calls
            `next_fun(*args, **kwargs)` to go on.
    """
    interceptors.push(interceptor)
    try:
        yield
    finally:
        interceptors.pop()


def run_interceptors(
    orig_method: Callable[..., Any], module: Any, *args: Any, **kwargs: Any
) -> Any:
    """Calls a method by way of the interceptors in force, the outermost first."""
    if not len(interceptors):
        return orig_method(module, *args, **kwargs)
    bound = functools.partial(orig_method, module)
    about = InterceptorContext(module, method_name(orig_method), bound)

    def step(i: int) -> Callable[..., Any]:
        if i == len(stack):
            return bound
        return lambda *args, **kwargs: stack[i](step(i + 1), args, kwargs, about)

    stack = list(interceptors)[::-1]
    return step(0)(*args, **kwargs)


# ---- names in profiles


class _NamedCall:
    enabled = True


def enable_named_call() -> None:
    """Puts the names of modules into profiles."""
    _NamedCall.enabled = True


def disable_named_call() -> None:
    """Leaves the names of modules out of profiles."""
    _NamedCall.enabled = False


@contextlib.contextmanager
def override_named_call(enable: bool = True) -> Iterator[None]:
    """A context in which names are put into profiles, or not."""
    before, _NamedCall.enabled = _NamedCall.enabled, enable
    try:
        yield
    finally:
        _NamedCall.enabled = before


def method_name(fn: Any) -> str:
    """The name of a method, of a partial one, or of what else is callable."""
    if isinstance(fn, functools.partial):
        return method_name(fn.func)
    return getattr(fn, "__name__", "unnamed_function")


def profiling_name(module: Any, name: str) -> str:
    """What profiles name a call: the module, and the method unless `__call__`."""
    of_module = module.name or type(module).__name__
    return of_module if name == "__call__" else f"{of_module}.{name}"


# ---- wrapping


def wrap_method_once(fun: Callable[..., Any]) -> Callable[..., Any]:
    """The method with what is done around it, unless it has that already."""
    if hasattr(fun, "method_handler_wrapped"):
        return fun

    name, is_compact = method_name(fun), hasattr(fun, "compact")

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if args and is_module(args[0]):
            return _call(args[0], fun, name, is_compact, args[1:], kwargs)
        return fun(*args, **kwargs)

    wrapped.method_handler_wrapped = True  # type: ignore[attr-defined]
    return wrapped


def _call(
    module: Any,
    fun: Callable[..., Any],
    name: str,
    is_compact: bool,
    args: Any,
    kwargs: Any,
) -> Any:
    """One call of a method, with what is done before and after."""
    state = module._state
    is_setup = name == "setup"
    outermost = False
    if is_setup:
        if module.scope is None:
            raise errors.CallSetupUnboundModuleError()
        outermost = not state.in_setup
        state.in_setup = True
    else:
        if not state.is_initialized and module._initialised_late:
            raise errors.IncorrectPostInitOverrideError()
        module._try_setup()
    if is_compact:
        if module.scope is None:
            raise errors.CallCompactUnboundModuleError()
        outermost = not state.in_compact_method
        state.in_compact_method = True
    context.module_stack.append(module)
    try:
        record = context.call_info_stack and not is_setup
        record = record and hasattr(type(module), name)  # No function of a module.
        if record:
            calls = context.call_info_stack[-1]
            record = calls.start(module, name, args, kwargs)
        if _NamedCall.enabled and not is_setup:
            with jax.named_scope(profiling_name(module, name)):
                y = run_interceptors(fun, module, *args, **kwargs)
        else:
            y = run_interceptors(fun, module, *args, **kwargs)
        if context.capture_stack:
            wanted = context.capture_stack[-1]
            if wanted and wanted(module, name):
                module.sow("intermediates", name, y)
        if record:
            record(y)
        return y
    finally:
        context.module_stack.pop()
        if is_compact:
            object.__setattr__(module, "scope", module.scope.rewound())
        if outermost:
            state.reset()


# ---- properties and other descriptors


class DescriptorWrapper:
    """A property, or another descriptor, of a module."""


def create_descriptor_wrapper(descriptor: Any) -> DescriptorWrapper:
    """The descriptor with what is done around methods."""

    class Wrapper(DescriptorWrapper):
        wrapped = descriptor

        if hasattr(descriptor, "__get__"):

            def __get__(self, obj: Any, objtype: Any = None) -> Any:
                if obj is None:
                    return descriptor.__get__(obj, objtype)
                if obj.scope is not None:
                    obj._try_setup()
                context.module_stack.append(obj)
                try:
                    return descriptor.__get__(obj, objtype)
                except AttributeError as error:
                    raise errors.DescriptorAttributeError() from error
                finally:
                    context.module_stack.pop()

        if hasattr(descriptor, "__set__"):

            def __set__(self, obj: Any, value: Any) -> Any:
                return descriptor.__set__(obj, value)

        if hasattr(descriptor, "__delete__"):

            def __delete__(self, obj: Any) -> Any:
                return descriptor.__delete__(obj)

        if hasattr(descriptor, "__set_name__"):

            def __set_name__(self, owner: Any, name: str) -> None:
                descriptor.__set_name__(owner, name)

        def __getattr__(self, name: str) -> Any:
            if "wrapped" not in vars(type(self)):
                raise AttributeError
            return getattr(descriptor, name)

    return Wrapper()


def wrap_descriptor_once(descriptor: Any) -> Any:
    """The descriptor with what is done around methods, unless it has that already."""
    if isinstance(descriptor, DescriptorWrapper):
        return descriptor
    return create_descriptor_wrapper(descriptor)


def wrap_members(cls: type) -> None:
    """Wraps the methods and properties that a class defines itself."""
    fields = inspect.get_annotations(cls)
    for name, member in list(vars(cls).items()):
        if name in _UNTOUCHED or name in fields or getattr(member, "nowrap", False):
            continue
        if _is_method(member):
            setattr(cls, name, wrap_method_once(member))
        elif _is_descriptor(member):
            setattr(cls, name, wrap_descriptor_once(member))


def _is_method(member: Any) -> bool:
    if inspect.isclass(member) or isinstance(member, staticmethod | classmethod):
        return False
    return inspect.isfunction(member) or isinstance(member, functools.partial)


def _is_descriptor(member: Any) -> bool:
    if isinstance(member, staticmethod | classmethod | DescriptorWrapper):
        return False
    if inspect.isclass(member) or callable(member):
        return False
    return hasattr(member, "__get__") and not type(member).__name__.endswith(
        "_descriptor"
    )
