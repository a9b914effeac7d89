"""How a transform of scopes becomes one of modules.

The modules in the arguments of a call are taken out, as slots; the transform is given
their scopes, and inside it copies of the modules are put back, on the scopes there.
"""

import collections
import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from linnet.compat.flax import errors, struct
from linnet.compat.flax.core.scope import Scope, Variable
from linnet.compat.flax.linen._adopt import is_module
from linnet.compat.flax.linen._method import wrap_method_once
from linnet.compat.flax.linen._module_job import ModuleJob
from linnet.compat.flax.linen._slot import Slots
from linnet.compat.flax.linen.module import Module

Options = tuple[tuple[Any, ...], dict[str, Any]]


def lift_transform(
    transform: Callable[..., Any],
    target: Any,
    *trafo_args: Any,
    methods: Any = None,
    **trafo_kwargs: Any,
) -> Any:
    """Applies a transform of scopes to a class of modules, or to a function of one.

    Raises:
        TransformTargetError: The target is neither.
    """
    options = trafo_args, trafo_kwargs
    return _lifted(decorator_lift_transform, transform, target, methods, options)


def _lifted(
    decorate: Callable[..., Any],
    transform: Callable[..., Any],
    target: Any,
    methods: Any,
    options: Options,
) -> Any:
    if isinstance(target, functools.partial):
        lifted = _lifted(decorate, transform, target.func, methods, options)
        return functools.partial(lifted, *target.args, **target.keywords)
    if inspect.isclass(target) and issubclass(target, Module):
        return _lifted_class(decorate, transform, target, methods, options)
    if callable(target) and not is_module(target):
        return decorate(transform, target, *options[0], **options[1])
    raise errors.TransformTargetError(target)


def module_class_lift_transform(
    transform: Callable[..., Any],
    module_class: Any,
    *trafo_args: Any,
    methods: Any = None,
    **trafo_kwargs: Any,
) -> Any:
    """A subclass whose methods run inside the transform.

    Args:
        transform: A transform of `linnet.compat.flax.core.lift`.
        module_class: The class.
        *trafo_args: Its arguments.
        methods: The methods; by default `__call__`. As a dict, their own options.
        **trafo_kwargs: Options of the transform.
    """
    decorate, options = decorator_lift_transform, (trafo_args, trafo_kwargs)
    return _lifted_class(decorate, transform, module_class, methods, options)


def _lifted_class(
    decorate: Callable[..., Any],
    transform: Callable[..., Any],
    module_class: Any,
    methods: Any,
    options: Options,
) -> Any:
    if isinstance(methods, Mapping):
        options_of = {name: ((), dict(of)) for name, of in methods.items()}
    elif methods is None or isinstance(methods, str):
        options_of = {methods or "__call__": options}
    else:
        options_of = dict.fromkeys(methods, options)
    originals = {name: getattr(module_class, name) for name in options_of}
    # Models often lift a class anew in each call; the one made before will do.
    known = module_class.__dict__.get("_lifted_classes")
    if known is None:
        known = module_class._lifted_classes = collections.deque(maxlen=16)
    asked = decorate, transform, originals, options_of
    for given, made in tuple(known):  # Other threads may add to it.
        if _equal(given, asked):
            return made
    members: dict[str, Any] = {
        name: decorate(
            transform, _within(module_class, originals[name]), *args, **kwargs
        )
        for name, (args, kwargs) in options_of.items()
    }
    name = f"{_name_of(transform).capitalize()}{module_class.__name__}"
    members["__module__"] = module_class.__module__
    members["__doc__"] = module_class.__doc__
    made = type(module_class)(name, (module_class,), members)
    # A function with a closure is a new one each time, and may hold traced values.
    if not any(getattr(x, "__closure__", None) for x in jax.tree.leaves(options_of)):
        known.appendleft((asked, made))
    return made


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except (TypeError, ValueError):  # Arrays among the options.
        return False


def _within(cls: Any, method: Callable[..., Any]) -> Callable[..., Any]:
    """The method for a copy inside the transform: it is of the class that was lifted.

    What it calls is not transformed again.
    """

    @functools.wraps(method)
    def call(module: Any, *args: Any, **kwargs: Any) -> Any:
        if module.scope is not None:
            object.__setattr__(module, "__class__", cls)
        return method(module, *args, **kwargs)

    return call


def _name_of(transform: Any) -> str:
    while isinstance(transform, functools.partial):
        transform = transform.func
    return transform.__name__


def decorator_lift_transform(
    transform: Callable[..., Any],
    class_fn: Any,
    *trafo_args: Any,
    multi_scope: bool = True,
    **trafo_kwargs: Any,
) -> Any:
    """A method, or a function of a module, that runs inside the transform."""
    del multi_scope  # Modules in arguments always have scopes of their own.
    inner_fn = wrap_method_once(class_fn)

    @functools.wraps(inner_fn)
    def wrapped(module: Any, *args: Any, **kwargs: Any) -> Any:
        return call_lifted(
            lambda run, scopes, *rest, **kws: transform(
                run, *trafo_args, **trafo_kwargs
            )(scopes, *rest, **kws),
            [inner_fn],
            module,
            args,
            kwargs,
        )

    return wrapped


def lift_direct_transform(
    transform: Callable[..., Any],
    targets: tuple[Callable[..., Any], ...],
    mdl: Any,
    *args: Any,
    multi_scope: bool = True,
    **kwargs: Any,
) -> Any:
    """Calls a transform of scopes that takes its functions and arguments at once."""
    del multi_scope
    for target in targets:
        if inspect.isclass(target) and issubclass(target, Module):
            raise ValueError(
                f"The transform {_name_of(transform)} can only be applied on a Module "
                f"method. That is function that takes a Module instance as its first "
                f"arg."
            )
        if not callable(target):
            raise ValueError("transform target must be callable")
    fns = [wrap_method_once(_function_of(target)) for target in targets]

    def at_once(*run_then_rest: Any, **kws: Any) -> Any:
        return transform(*run_then_rest, **kws)

    return call_lifted(at_once, fns, mdl, args, {}, direct=kwargs)


def _function_of(target: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a method that is bound to a module."""
    if inspect.ismethod(target) and is_module(target.__self__):
        return target.__func__
    return target


def call_lifted(
    use: Callable[..., Any],
    fns: Sequence[Callable[..., Any]],
    module: Any,
    args: Any,
    kwargs: Any,
    direct: Mapping[str, Any] | None = None,
) -> Any:
    """Runs functions of a module inside of a transform of functions of scopes.

    Args:
        use: `(*functions of scopes, scopes, *args)` to the result.
        fns: The functions of the module.
        module: The module, or a tree of modules.
        args: Other arguments, modules and variables among them.
        kwargs: Keyword arguments of the functions.
        direct: Options of the transform itself.
    """
    slots = Slots()
    module_slot = slots.take(module)
    given = args, kwargs
    args, kwargs = taken = slots.take(given)
    main = module if is_module(module) and module.scope is not None else None

    def run_of(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def run(scopes: Any, *args: Any, **kwargs: Any) -> Any:
            made: dict[int, Any] = {}
            inner = slots.put(module_slot, scopes, made)
            if taken is not given:
                args, kwargs = slots.put((args, kwargs), scopes, made)
            result = fn(inner, *args, **kwargs)
            if main is not None:
                main._state.reimport(inner._state)
            _check_result(result, fn)
            return result

        return run

    return use(*map(run_of, fns), slots.scopes, *args, **kwargs, **(direct or {}))


def _check_result(result: Any, fn: Callable[..., Any]) -> None:
    if any(is_module(x) or isinstance(x, Variable) for x in jax.tree.leaves(result)):
        raise errors.TransformedMethodReturnValueError(fn.__name__)


def lift_transform_cached(
    transform: Callable[..., Any],
    target: Any,
    *trafo_args: Any,
    methods: Any = None,
    **trafo_kwargs: Any,
) -> Any:
    """As `lift_transform`, where like modules share what the transform keeps."""
    options = trafo_args, trafo_kwargs
    return _lifted(_decorated_cached, transform, target, methods, options)


def module_class_lift_transform_cached(
    transform: Callable[..., Any],
    module_class: Any,
    methods: Any = None,
    **trafo_kwargs: Any,
) -> Any:
    """As `module_class_lift_transform`, where like modules share what is kept."""
    options = (), trafo_kwargs
    return _lifted_class(_decorated_cached, transform, module_class, methods, options)


def decorator_lift_transform_cached(
    transform: Callable[..., Any], class_fn: Any, **trafo_kwargs: Any
) -> Any:
    """As `decorator_lift_transform`, where like modules share what is kept."""
    return _decorated_cached(transform, class_fn, **trafo_kwargs)


def _decorated_cached(
    transform: Callable[..., Any], class_fn: Any, *trafo_args: Any, **trafo_kwargs: Any
) -> Any:
    """A method whose transform is applied once, to a function.

    That function is given the modules as a part of the tree of scopes, which is equal
    for like modules. What a call does to the state of the module is a part of the
    result's structure.
    """
    inner_fn = wrap_method_once(class_fn)

    @functools.wraps(inner_fn)
    def run(tree: Any, *args: Any, **kwargs: Any) -> Any:
        job, scopes = tree
        made: dict[int, Any] = {}
        inner = job.slots.put(job.module_slot, scopes, made)
        args, kwargs = job.slots.put((args, kwargs), scopes, made)
        result = inner_fn(inner, *args, **kwargs)
        _check_result(result, inner_fn)
        return result, job.state_of(inner)

    kept = transform(run, *trafo_args, **trafo_kwargs)

    @functools.wraps(inner_fn)
    def wrapped(module: Any, *args: Any, **kwargs: Any) -> Any:
        with ModuleJob.of(module) as job:
            args, kwargs = job.slots.take(args), job.slots.take(kwargs)
            job.identify()
            result, state = kept((job, job.slots.scopes), *args, **kwargs)
            if state.state is not None:
                module._state.reimport(state.state)
            return result

    return wrapped


# ---- kept for the code that imports them


@struct.dataclass
class InstancePlaceholder:
    """Stands for a module in the arguments of a transform.

    Args:
        cls: Its class.
        attrs: Its fields.
        id: Its identity.
    """

    cls: type[Any] = struct.field(pytree_node=False)
    attrs: dict[Any, Any] = struct.field(pytree_node=False)
    id: int = struct.field(pytree_node=False)


@struct.dataclass
class VariablePlaceholder:
    """Stands for a variable in the arguments of a transform.

    Args:
        collection: Its collection.
        name: Its name.
        unbox: Whether its value comes without metadata.
        id: Its identity.
    """

    collection: str = struct.field(pytree_node=False)
    name: str = struct.field(pytree_node=False)
    unbox: bool = struct.field(pytree_node=False)
    id: int = struct.field(pytree_node=False)


def clean_clone(x: Any) -> Any:
    """Copies of the modules in a tree, with neither parent nor variables."""

    def clean(leaf: Any) -> Any:
        return leaf.clone() if is_module(leaf) else leaf

    return jax.tree.map(clean, x, is_leaf=is_module)


def get_module_scopes(
    module: Any, args: Any = None, kwargs: Any = None
) -> tuple[list[Scope], Any, Any]:
    """The scopes of a module and of those in its arguments, which become slots."""
    slots = Slots()
    slots.take(module)
    args, kwargs = slots.take(args), slots.take(kwargs)
    return slots.scopes, args, kwargs


def set_module_scopes(module: Any, args: Any, kwargs: Any, scopes: Any) -> Any:
    """Copies of a module and its arguments with other scopes."""
    slots = Slots()
    trees = slots.take(module), slots.take(args), slots.take(kwargs)
    return slots.put(trees, list(scopes), {})


@contextlib.contextmanager
def fork_rngs(module: Any) -> Iterator[None]:
    """A context in which the keys that a module makes are not seen outside."""
    before = dict(module.scope.rng_counters)
    try:
        yield
    finally:
        module.scope.rng_counters.clear()
        module.scope.rng_counters.update(before)
