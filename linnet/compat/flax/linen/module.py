"""Linen's `Module`: a dataclass which makes variables in a scope when it is called."""

import dataclasses
import inspect
import typing
import weakref
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from linnet.compat.flax import core, errors, traceback_util
from linnet.compat.flax.configurations import config
from linnet.compat.flax.core import partial_eval
from linnet.compat.flax.core._rng import LazyRng
from linnet.compat.flax.core.frozen_dict import FrozenDict
from linnet.compat.flax.core.scope import (
    CollectionFilter,
    DenyList,
    Scope,
    Variable,
    union_filters,
)
from linnet.compat.flax.ids import FlaxId, uuid
from linnet.compat.flax.linen._adopt import ModuleBase, frozen, is_module, map_modules
from linnet.compat.flax.linen._context import ThreadLocalStack, context
from linnet.compat.flax.linen._fields import init_fields, make_dataclass
from linnet.compat.flax.linen._functional import (
    INIT_MUTABLE,
    apply,
    capture_call_intermediates,
    init,
    init_with_output,
)
from linnet.compat.flax.linen._method import (
    DescriptorWrapper,
    InterceptorContext,
    compact,
    create_descriptor_wrapper,
    disable_named_call,
    enable_named_call,
    intercept_methods,
    nowrap,
    override_named_call,
    run_interceptors,
    wrap_descriptor_once,
    wrap_members,
    wrap_method_once,
)
from linnet.compat.flax.linen._share import compact_name_scope, share_scope
from linnet.compat.flax.linen._show import module_repr
from linnet.compat.flax.linen._state import (
    ParentDescriptor,
    SetupState,
    _class_state,
    _Sentinel,
    _State,
    _unspecified_parent,
)
from linnet.compat.flax.linen._variables import (
    ModuleVariables,
    tuple_init,
    tuple_reduce,
)
from linnet.compat.flax.typing import (
    FrozenVariableDict,
    PRNGKey,
    RNGSequences,
    VariableDict,
)

K = TypeVar("K")
M = TypeVar("M", bound="Module")
T = TypeVar("T")
Args = tuple[Any]
Kwargs = dict[str, Any]
NextGetter = Callable[..., Any]
Interceptor = Callable[
    [NextGetter, tuple[Any], dict[str, Any], InterceptorContext], Any
]

__all__ = [
    "Args",
    "CollectionFilter",
    "CompactNameScope",
    "DenyList",
    "Descriptor",
    "DescriptorWrapper",
    "FlaxId",
    "FrozenDict",
    "FrozenVariableDict",
    "Interceptor",
    "InterceptorContext",
    "Kwargs",
    "Module",
    "ModuleBase",
    "NextGetter",
    "PRNGKey",
    "ParentDescriptor",
    "RNGSequences",
    "Scope",
    "SetupState",
    "TestScope",
    "ThreadLocalStack",
    "Variable",
    "VariableDict",
    "_Sentinel",
    "apply",
    "capture_call_intermediates",
    "compact",
    "compact_name_scope",
    "config",
    "create_descriptor_wrapper",
    "disable_named_call",
    "enable_named_call",
    "init",
    "init_with_output",
    "intercept_methods",
    "merge_param",
    "module_field",
    "nowrap",
    "override_named_call",
    "run_interceptors",
    "share_scope",
    "tuple_init",
    "tuple_reduce",
    "union_filters",
    "uuid",
    "wrap_descriptor_once",
    "wrap_method_once",
]


# The modules that those below a root have taken over from outside, by their id.
_adopted: "weakref.WeakKeyDictionary[Scope, Any]" = weakref.WeakKeyDictionary()


class Module(ModuleVariables):
    """A layer or a model, in the manner of Flax's Linen.

    A subclass lists its options as annotated fields, which makes it a dataclass. It
    makes its submodules and variables in `setup`, or in one method marked `@compact`.
    A module holds no arrays: `init` returns the variables, and `apply` takes them.

    Example:
        >>> import jax
        >>> from linnet.compat.flax import linen as nn
        >>> class Net(nn.Module):
        ...     features: int = 4
        ...
        ...     @nn.compact
        ...     def __call__(self, x):
        ...         return nn.Dense(self.features)(x)
        >>> variables = Net().init(jax.random.key(0), jax.numpy.ones((1, 3)))
        >>> jax.tree.map(jax.numpy.shape, variables)
        {'params': {'Dense_0': {'bias': (4,), 'kernel': (3, 4)}}}
        >>> Net().apply(variables, jax.numpy.ones((2, 3))).shape
        (2, 4)
    """

    _state: Any = _class_state
    scope: Scope | None = None
    _initialised_late = True
    if typing.TYPE_CHECKING:
        name: str | None
        parent: Any

        def __init__(self, *args: Any, **kwargs: Any): ...
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    @classmethod
    def __init_subclass__(cls, kw_only: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        make_dataclass(cls, kw_only)
        wrap_members(cls)
        cls._state = _class_state
        cls.scope = None

    # ---- construction

    def __post_init__(self) -> None:
        """Finds the parent, takes a name and a scope."""
        set_ = object.__setattr__
        set_(self, "_id", uuid())
        set_(self, "_state", _State())
        parent = self.parent
        if parent is _unspecified_parent:
            parent = context.module_stack[-1]
            self.__class__.parent.__set__(self, parent)
        if is_module(parent):
            if parent._state.in_setup and self.name is None:
                return  # It is named when it becomes an attribute.
            self._attach(parent)
        elif isinstance(parent, Scope):
            set_(self, "scope", parent)
        elif parent is not None:
            raise ValueError("parent must be None, Module or Scope")
        if self.scope is not None:
            for name in init_fields(type(self)):
                value = self.__dict__.get(name)
                if not _is_plain(value):
                    self._register_submodules(name, value)
        self._state.is_initialized = True

    def _attach(self, parent: "Module") -> None:
        state = parent._state
        if not (state.in_setup or state.in_compact_method or not state.is_initialized):
            raise errors.AssignSubModuleError(type(self).__name__)
        if self.name is None:
            prefix = type(self).__name__
            count = state.autoname_cursor.get(prefix, 0)
            object.__setattr__(self, "name", f"{prefix}_{count}")
            state.autoname_cursor[prefix] = count + 1
        name = self.name
        assert parent.scope is not None, "the parent is not bound"
        if not isinstance(name, str):
            raise TypeError(
                f"The name of a submodule has to be a string, and that of this "
                f"{type(self).__name__} in {parent.scope.path_text} is {name!r} "
                f"({type(name)})."
            )
        # Inside a transform, `setup` makes again what may have been handed in.
        again = state.in_setup and state.setup_called == SetupState.TRANSFORMED
        if not again and parent.scope.name_reserved(name):
            raise errors.NameInUseError("submodule", name, type(parent).__name__)
        state.children[name] = self
        object.__setattr__(self, "scope", parent.scope.push(name, reuse=again))

    def _register_submodules(self, name: str, value: Any) -> None:
        """Takes over the modules in the value of an attribute."""
        assert self.scope is not None
        root = self.scope.root
        cache = _adopted.setdefault(root, weakref.WeakValueDictionary())
        taken: list[Module] = []
        keep_names = getattr(
            type(self), "preserve_adopted_names", config.flax_preserve_adopted_names
        )

        def adopt(suffix: str, module: Module) -> Module:
            current = module
            if module.scope is not None and module.scope.root is not root:
                current = module.clone(name=None)
                current.__class__.parent.__set__(current, None)
            if current.parent is None or (
                is_module(current.parent) and current.scope is None
            ):
                if current.parent is None:
                    if current._id in cache:
                        return cache[current._id]
                    key = current._id
                    current = current.clone(name=current.name if keep_names else None)
                    cache[key] = current
                if current.name is None or current.scope is None:
                    current.__class__.parent.__set__(current, self)
                    if current.name is None:
                        object.__setattr__(current, "name", f"{name}{suffix}")
                    taken.append(current)
            return current

        object.__setattr__(self, name, frozen(map_modules(adopt, value)))
        for module in taken:
            module.__post_init__()

    def __setattr__(self, name: str, val: Any) -> None:
        """Sets an attribute: a field while being made, any other in `setup`.

        Raises:
            SetAttributeFrozenModuleError: The module is at work.
            SetAttributeInModuleSetupError: It is a field, and `setup` is at work.
        """
        state = self._state
        if state.in_setup:
            if name in init_fields(type(self)):
                raise errors.SetAttributeInModuleSetupError()
            self._register_submodules(name, val)
            return
        if state.is_initialized and self.scope is not None and name not in ("scope",):
            raise errors.SetAttributeFrozenModuleError(type(self).__name__, name, val)
        object.__setattr__(self, name, val)

    def __getattr__(self, name: str) -> Any:
        """An attribute that `setup` makes."""
        if not name.startswith("__") and name not in ("_state", "_id", "_parent_ref"):
            self._try_setup()
            if name in self.__dict__:
                return self.__dict__[name]
        raise AttributeError(
            f'"{type(self).__name__}" object has no attribute "{name}". If "{name}" is '
            f"defined in '.setup()', remember these fields are only accessible from "
            f"inside 'init' or 'apply'."
        )

    def __dir__(self) -> list[str]:
        """The attributes, those that `setup` makes included."""
        self._try_setup()
        return object.__dir__(self)  # type: ignore[return-value]

    def __repr__(self) -> str:
        return module_repr(self)

    def setup(self) -> None:
        """Makes submodules and variables as attributes. Called before the first use."""

    def _try_setup(self, shallow: bool = False) -> None:
        state = self._state
        if (
            self.scope is None
            or state.in_setup
            or state.setup_called == SetupState.DONE
        ):
            return
        if not state.is_initialized:
            return
        try:
            state.in_setup = True
            if type(self).setup is not Module.setup:
                self.setup()
        finally:
            state.in_setup = False
            state.setup_called = SetupState.DONE

    # ---- copies

    def clone(
        self: M,
        *,
        parent: Any = None,
        _deep_clone: bool | dict[Any, Any] = False,
        _reset_names: bool = False,
        **updates: Any,
    ) -> M:
        """A copy with another parent, and other values of some fields.

        Args:
            parent: The parent or scope of the copy; None for an unbound module.
            _deep_clone: Whether modules in fields are copied, too.
            _reset_names: Whether names that were given by the parent are dropped.
            **updates: New values of fields.
        """
        values = {
            name: getattr(self, name) for name in (*init_fields(type(self)), "name")
        }
        values.update(parent=parent, **updates)
        if _deep_clone is not False:
            cache = {} if _deep_clone is True else _deep_clone

            def copy_of(suffix: str, module: Module) -> Module:
                if module._id not in cache:
                    cache[module._id] = module.clone(
                        _deep_clone=cache,
                        _reset_names=_reset_names,
                        **({"name": None} if _reset_names else {}),
                    )
                return cache[module._id]

            values = {
                name: value if name == "parent" else map_modules(copy_of, value)
                for name, value in values.items()
            }
        return type(self)(**values)

    def copy(
        self: M,
        *,
        parent: Any = _unspecified_parent,
        name: str | None = None,
        **updates: Any,
    ) -> M:
        """A copy within the module at work, with a name of its own."""
        return self.clone(
            parent=parent, name=name, _deep_clone=True, _reset_names=False, **updates
        )

    @traceback_util.api_boundary
    def bind(
        self: M,
        variables: VariableDict,
        *args: Any,
        rngs: Any = None,
        mutable: CollectionFilter = False,
    ) -> M:
        """A copy that holds variables, to be used interactively."""
        del args
        _check_instance(self)
        rngs = self._streams(rngs)
        scope = core.scope.bind(variables, rngs=rngs, mutable=mutable)
        return self.clone(parent=scope, _deep_clone=True)

    def unbind(self: M) -> tuple[M, VariableDict]:
        """A copy without variables, and these.

        Raises:
            CallUnbindOnUnboundModuleError: The module holds none.
        """
        if self.scope is None:
            raise errors.CallUnbindOnUnboundModuleError()
        variables = self.variables
        return self.clone(_deep_clone=True, _reset_names=True, name=None), variables

    # ---- as pure functions

    @traceback_util.api_boundary
    def apply(
        self,
        variables: VariableDict,
        *args: Any,
        rngs: Any = None,
        method: Callable[..., Any] | str | None = None,
        mutable: CollectionFilter = False,
        capture_intermediates: bool | Callable[["Module", str], bool] = False,
        **kwargs: Any,
    ) -> Any:
        """Calls the module with variables.

        Args:
            variables: The collections of variables.
            *args: What the method takes.
            rngs: A key for each random stream; a single one is that of `params`.
            method: The method, or its name; by default `__call__`.
            mutable: The collections that may change.
            capture_intermediates: Whether what the modules return is kept in the
                collection `intermediates`; or a filter of (module, method name).
            **kwargs: What the method takes.

        Returns:
            What the method returns; with the mutable collections if any is.
        """
        _check_instance(self)
        rngs = self._streams(rngs)
        fn = self._method(method, "apply")
        return apply(
            fn, self, mutable=mutable, capture_intermediates=capture_intermediates
        )(variables, *args, **kwargs, rngs=rngs)

    @traceback_util.api_boundary
    def init_with_output(
        self,
        rngs: Any,
        *args: Any,
        method: Callable[..., Any] | str | None = None,
        mutable: CollectionFilter = INIT_MUTABLE,
        capture_intermediates: bool | Callable[["Module", str], bool] = False,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        """Calls the module so that it makes its variables.

        Returns:
            (what the method returns, the variables).
        """
        _check_instance(self)
        rngs = self._streams(rngs, may_be_none=False)
        fn = self._method(method, "init")
        return init_with_output(
            fn, self, mutable=mutable, capture_intermediates=capture_intermediates
        )(rngs, *args, **kwargs)

    @traceback_util.api_boundary
    def init(
        self,
        rngs: Any,
        *args: Any,
        method: Callable[..., Any] | str | None = None,
        mutable: CollectionFilter = INIT_MUTABLE,
        capture_intermediates: bool | Callable[["Module", str], bool] = False,
        **kwargs: Any,
    ) -> Any:
        """The variables that a call makes."""
        _check_instance(self)
        return self.init_with_output(
            rngs,
            *args,
            method=method,
            mutable=mutable,
            capture_intermediates=capture_intermediates,
            **kwargs,
        )[1]

    @traceback_util.api_boundary
    def lazy_init(
        self,
        rngs: Any,
        *args: Any,
        method: Callable[..., Any] | str | None = None,
        mutable: CollectionFilter = INIT_MUTABLE,
        **kwargs: Any,
    ) -> Any:
        """`init` that computes nothing but variables; inputs may be shapes alone.

        Raises:
            LazyInitError: A variable depends on the values of such an input.
        """

        def run(rngs: Any, *args: Any, **kwargs: Any) -> Any:
            return self.init(rngs, *args, method=method, mutable=mutable, **kwargs)

        _check_instance(self)
        return partial_eval.lazy_init(run)(rngs, *args, **kwargs)

    def _streams(self, rngs: Any, may_be_none: bool = True) -> Any:
        """The random streams: a single key is that of `params`."""
        if (rngs is None and may_be_none) or isinstance(rngs, Mapping):
            return rngs
        if not core.scope._is_valid_rng(rngs):
            raise errors.InvalidRngError(
                f"RNGs should be of shape (2,) or PRNGKey in Module "
                f"{type(self).__name__}, but rngs are: {rngs}"
            )
        return {"params": rngs}

    def _method(self, method: Any, caller: str) -> Callable[..., Any]:
        """The function of a method, given by itself, by name, or not at all."""
        if isinstance(method, str):
            name = method
            method = getattr(self, name)
            if is_module(method):
                return lambda module, *args, **kwargs: getattr(module, name)(
                    *args, **kwargs
                )
            if not callable(method):
                raise TypeError(
                    f"'{type(self).__name__}.{name}' must be a callable, got "
                    f"{type(method)}."
                )
        elif method is None:
            method = self.__call__
        return _unbound(method)

    # ---- tables

    def module_paths(
        self,
        rngs: Any,
        *args: Any,
        show_repeated: bool = False,
        mutable: CollectionFilter = INIT_MUTABLE,
        **kwargs: Any,
    ) -> dict[str, "Module"]:
        """The modules that a call uses, by path."""
        from linnet.compat.flax.linen import summary

        table = summary._get_module_table(
            module=self,
            depth=None,
            show_repeated=show_repeated,
            compute_flops=False,
            compute_vjp_flops=False,
        )(rngs, *args, **kwargs, mutable=mutable)
        return {"/".join(row.path): row.module_copy for row in table}

    def tabulate(
        self,
        rngs: Any,
        *args: Any,
        depth: int | None = None,
        show_repeated: bool = False,
        mutable: CollectionFilter = INIT_MUTABLE,
        console_kwargs: Mapping[str, Any] | None = None,
        table_kwargs: Mapping[str, Any] = MappingProxyType({}),
        column_kwargs: Mapping[str, Any] = MappingProxyType({}),
        compute_flops: bool = False,
        compute_vjp_flops: bool = False,
        **kwargs: Any,
    ) -> str:
        """A table of the modules that a call uses, with their inputs and variables."""
        from linnet.compat.flax.linen import summary

        return summary.tabulate(
            self,
            rngs,
            depth=depth,
            show_repeated=show_repeated,
            mutable=mutable,
            console_kwargs=console_kwargs,
            table_kwargs=table_kwargs,
            column_kwargs=column_kwargs,
            compute_flops=compute_flops,
            compute_vjp_flops=compute_vjp_flops,
        )(*args, **kwargs)


_PLAIN = (str, int, float, type)


def _is_plain(value: Any) -> bool:
    """Whether a value can hold no module, and is kept as it is."""
    if value is None or isinstance(value, _PLAIN):
        return True
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return callable(value) and not is_module(value)


def _check_instance(module: Any) -> None:
    if not is_module(module):
        raise errors.InvalidInstanceModuleError()


def _unbound(method: Any) -> Callable[..., Any]:
    if inspect.ismethod(method) and is_module(method.__self__):
        return method.__func__
    if callable(method):
        try:
            takes_any = bool(inspect.signature(method).parameters)
        except (TypeError, ValueError):
            takes_any = True
        if takes_any:
            return method
    raise errors.ApplyModuleInvalidMethodError(method)


# ---- functions of modules


def merge_param(name: str, a: T | None, b: T | None) -> T:
    """The one of two values that is given.

    Raises:
        ValueError: Neither, or both, are given.
    """
    if a is None and b is None:
        raise ValueError(
            f'Parameter "{name}" must be passed to the constructor or at call time.'
        )
    if a is not None and b is not None:
        raise ValueError(
            f'Parameter "{name}" was passed to the constructor and at call time. '
            f"Should be passed just once."
        )
    return b if a is None else a  # type: ignore[return-value]


# ---- kept for the code that imports them

_context = context
_freeze_attr = frozen


class Descriptor(typing.Protocol):
    """What a descriptor has."""

    def __get__(self, obj: Any, objtype: Any = None) -> Any: ...
    def __set__(self, obj: Any, value: Any) -> None: ...
    def __delete__(self, obj: Any) -> None: ...
    def __set_name__(self, owner: Any, name: str) -> None: ...


def module_field(*, kw_only: bool = False, default: Any = ...) -> Any:
    """A field of a module."""
    options = {} if default is ... else {"default": default}
    return dataclasses.field(kw_only=kw_only, **options)


class CompactNameScope(Module):
    """A scope of its own for one method of a module.

    Args:
        fn: The method.
        module_fn: Gives the module.
    """

    fn: Callable[..., Any]
    module_fn: Callable[[], Module]

    @compact
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the method in this scope."""
        return self.fn(self.module_fn(), *args, **kwargs)


class TestScope(Scope):
    """A scope for tests, whose random streams give the same key at each call."""

    __test__ = False

    def next_rng(self, name: str) -> LazyRng:
        """The stream, as it always is."""
        return self.rngs[name]
