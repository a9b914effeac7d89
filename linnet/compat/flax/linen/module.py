"""Linen's `Module`: a dataclass which makes variables in a scope when it is called."""

import contextlib
import dataclasses
import enum
import functools
import inspect
import typing
import weakref
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from linnet.compat.flax import core, errors, traceback_util
from linnet.compat.flax.configurations import config
from linnet.compat.flax.core import partial_eval
from linnet.compat.flax.core.frozen_dict import FrozenDict
from linnet.compat.flax.core.scope import (
    CollectionFilter,
    DenyList,
    Scope,
    Variable,
    union_filters,
)
from linnet.compat.flax.ids import FlaxId, uuid
from linnet.compat.flax.linen import kw_only_dataclasses
from linnet.compat.flax.linen._adopt import frozen, is_module, map_modules
from linnet.compat.flax.linen._context import ThreadLocalStack, context
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
from linnet.compat.flax.linen._show import module_repr
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


class _Sentinel:
    """Marks that no parent is given: it is the module at work."""

    def __copy__(self) -> "_Sentinel":
        return self

    def __deepcopy__(self, memo: Any) -> "_Sentinel":
        return self

    def __reduce__(self) -> Any:
        return _unspecified_sentinel, ()


def _unspecified_sentinel() -> _Sentinel:
    return _unspecified_parent


_unspecified_parent = _Sentinel()


class SetupState(enum.IntEnum):
    """How far the set-up of a module has come."""

    NEW = 0
    TRANSFORMED = 1
    DONE = 2


class _State:
    """What a module keeps besides its fields."""

    __slots__ = (
        "autoname_cursor",
        "children",
        "in_compact_method",
        "in_setup",
        "is_initialized",
        "setup_called",
    )

    def __init__(self) -> None:
        self.in_compact_method = False
        self.in_setup = False
        self.setup_called = SetupState.NEW
        self.is_initialized = False
        self.autoname_cursor: dict[str, int] = {}
        self.children: dict[str, Any] = {}

    def reset(self) -> None:
        """The state after a compact method or a set-up."""
        self.in_compact_method = False
        self.in_setup = False
        self.autoname_cursor = {}

    def export(self) -> "_State":
        """The state for the clone of a module inside a transform."""
        state = _State()
        state.in_compact_method = self.in_compact_method
        state.in_setup = self.in_setup
        state.is_initialized = self.is_initialized
        state.autoname_cursor = dict(self.autoname_cursor)
        if self.setup_called != SetupState.NEW:
            state.setup_called = SetupState.TRANSFORMED
        return state

    def key(self) -> Any:
        """What a call can depend on."""
        return (
            self.in_compact_method,
            self.in_setup,
            self.is_initialized,
            self.setup_called,
            frozenset(self.autoname_cursor.items()),
        )

    def reimport(self, other: "_State") -> None:
        """Takes over the state of such a clone."""
        self.in_compact_method = other.in_compact_method
        self.in_setup = other.in_setup
        self.is_initialized = other.is_initialized
        self.autoname_cursor = dict(other.autoname_cursor)

    def __reduce__(self) -> Any:
        return _State, ()


_class_state = _State()


class ModuleBase:
    """What every module is, for those that ask by `isinstance`."""

    scope: Scope | None
    _state: Any
    _parent_ref: Any
    _id: Any


class ParentDescriptor:
    """The parent of a module, held weakly."""

    def __get__(self, obj: Any, objtype: Any = None) -> Any:
        """The parent; of the class, the descriptor itself."""
        if obj is None:
            return self
        parent = obj.__dict__.get("_parent_ref", _unspecified_parent)
        return parent() if isinstance(parent, weakref.ReferenceType) else parent

    def __set__(self, obj: Any, value: Any) -> None:
        """Sets the parent."""
        if is_module(value):
            value = weakref.ref(value)
        obj.__dict__["_parent_ref"] = value


class Descriptor(typing.Protocol):
    """What a descriptor has."""

    def __get__(self, obj: Any, objtype: Any = None) -> Any: ...
    def __set__(self, obj: Any, value: Any) -> None: ...
    def __delete__(self, obj: Any) -> None: ...
    def __set_name__(self, owner: Any, name: str) -> None: ...


# The modules that those below a root have taken over from outside, by their id.
_adopted: "weakref.WeakKeyDictionary[Scope, Any]" = weakref.WeakKeyDictionary()


def tuple_reduce(xs: tuple[Any, ...], x: Any) -> tuple[Any, ...]:
    """The tuple with one more entry."""
    return (*xs, x)


def tuple_init() -> tuple[Any, ...]:
    """The tuple without an entry."""
    return ()


def capture_call_intermediates(_: Any, method_name: str) -> bool:
    """Whether the method is `__call__`."""
    return method_name == "__call__"


def module_field(*, kw_only: bool = False, default: Any = ...) -> Any:
    """A field of a module."""
    options = {} if default is ... else {"default": default}
    return dataclasses.field(kw_only=kw_only, **options)


_INIT_MUTABLE = DenyList("intermediates")


class Module(ModuleBase):
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

    _flax_linen_module = True
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
        _make_dataclass(cls, kw_only)
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
            for name in _init_fields(type(self)):
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
            if name in _init_fields(type(self)):
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
            name: getattr(self, name) for name in (*_init_fields(type(self)), "name")
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
        mutable: CollectionFilter = _INIT_MUTABLE,
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
        mutable: CollectionFilter = _INIT_MUTABLE,
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
        mutable: CollectionFilter = _INIT_MUTABLE,
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

    # ---- variables and random streams

    def variable(
        self,
        col: str,
        name: str,
        init_fn: Callable[..., Any] | None = None,
        *init_args: Any,
        unbox: bool = True,
        **init_kwargs: Any,
    ) -> Variable[Any]:
        """A reference to a variable, made by `init_fn` if it does not exist.

        Args:
            col: The collection.
            name: The name in it.
            init_fn: Makes the first value: `init_fn(*init_args, **init_kwargs)`.
            unbox: Whether the reference gives the array without metadata.
        """
        scope = self._own_scope("Variables", "variable", name, col)
        made = scope.variable(
            col, name, init_fn, *init_args, unbox=unbox, **init_kwargs
        )
        self._state.children[name] = col
        return made

    def param(
        self,
        name: str,
        init_fn: Callable[..., Any],
        *init_args: Any,
        unbox: bool = True,
        **init_kwargs: Any,
    ) -> Any:
        """A parameter, made by `init_fn(key, *init_args)` if it does not exist."""
        scope = self._own_scope("Parameters", "param", name, "params")
        value = scope.param(name, init_fn, *init_args, unbox=unbox, **init_kwargs)
        self._state.children[name] = "params"
        return value

    def _own_scope(self, what: str, kind: str, name: str, col: str) -> Scope:
        state = self._state
        if not (state.in_setup or state.in_compact_method or not state.is_initialized):
            raise ValueError(
                f"{what} must be initialized in `setup()` or in a method wrapped in "
                f"`@compact`"
            )
        if self.scope is None:
            raise AssertionError(
                f"{type(self).__name__} is not bound: {what.lower()} exist only inside "
                f"`init` and `apply`."
            )
        if self.scope.name_reserved(name, col):
            raise errors.NameInUseError(kind, name, type(self).__name__)
        return self.scope

    def _bound(self, message: str) -> Scope:
        if self.scope is None:
            raise ValueError(message)
        return self.scope

    def has_variable(self, col: str, name: str) -> bool:
        """Whether a variable of the module exists."""
        scope = self._bound("Can't access variables on unbound modules")
        return scope.has_variable(col, name)

    def get_variable(self, col: str, name: str, default: Any = None) -> Any:
        """The value of a variable of the module."""
        scope = self._bound("Can't access variables on unbound modules")
        return scope.get_variable(col, name, default)

    def put_variable(self, col: str, name: str, value: Any) -> None:
        """Sets a variable of the module, in a mutable collection."""
        scope = self._bound("Can't access variables on unbound modules")
        scope.put_variable(col, name, value)

    @property
    def variables(self) -> VariableDict:
        """All collections of the module."""
        return self._bound("Can't access variables on unbound modules").variables()

    @property
    def path(self) -> tuple[str, ...]:
        """The names from the root to the module."""
        return self._bound("Can't access module paths on unbound modules.").path

    def is_mutable_collection(self, col: str) -> bool:
        """Whether the collection may be changed."""
        scope = self._bound("Can't check mutability on unbound modules")
        return scope.is_mutable_collection(col)

    def has_rng(self, name: str) -> bool:
        """Whether a random stream exists."""
        return self._bound("Can't query for RNGs on unbound modules").has_rng(name)

    def make_rng(self, name: str = "params") -> PRNGKey:
        """A fresh key of a random stream."""
        return self._bound("Can't use RNGs on unbound modules").make_rng(name)

    def is_initializing(self) -> bool:
        """Whether `init` is at work."""
        scope = self._bound("Can't check if running under init() on unbound modules")
        return scope.get_flag("initializing", False)

    def sow(
        self,
        col: str,
        name: str,
        value: Any,
        reduce_fn: Callable[[Any, Any], Any] = tuple_reduce,
        init_fn: Callable[[], Any] = tuple_init,
    ) -> bool:
        """Leaves a value in a collection, if that is mutable.

        Args:
            col: The collection.
            name: The name in it.
            value: The value.
            reduce_fn: From what was left and the value; by default a tuple grows.
            init_fn: What stands for nothing left before.

        Returns:
            Whether it was left.
        """
        scope = self._bound("Can't store variables on unbound modules")
        if not scope.is_mutable_collection(col):
            return False
        if scope.has_variable(col, name):
            before = scope.get_variable(col, name)
        else:
            scope.reserve(name, col)
            self._state.children[name] = col
            before = init_fn()
        scope.put_variable(col, name, reduce_fn(before, value))
        return True

    def perturb(self, name: str, value: T, collection: str = "perturbations") -> T:
        """The value plus a zero, whose gradient is that of the value.

        The zero is made by `init`; without the collection nothing is added.
        """
        if self.is_initializing() and self.is_mutable_collection(collection):
            if not self.scope.has_variable(collection, name):  # type: ignore[union-attr]
                self.scope.reserve(name, collection)  # type: ignore[union-attr]
                self._state.children[name] = collection
                self.put_variable(collection, name, jax.tree.map(jnp.zeros_like, value))
        if collection in self.scope.root._variables:  # type: ignore[union-attr]
            if not self.has_variable(collection, name):
                if self.is_mutable_collection(collection):
                    return value
                raise ValueError(
                    f"Perturbation collection {collection} present, but missing "
                    f"perturbation variable {name}"
                )
            zero = self.get_variable(collection, name)
            return jax.tree.map(jnp.add, value, zero)
        return value

    # ---- tables

    def module_paths(
        self,
        rngs: Any,
        *args: Any,
        show_repeated: bool = False,
        mutable: CollectionFilter = _INIT_MUTABLE,
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
        mutable: CollectionFilter = _INIT_MUTABLE,
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


# ---- classes


def _make_dataclass(cls: type[Module], kw_only: bool) -> None:
    annotations = inspect.get_annotations(cls)
    if "parent" in annotations or "name" in annotations:
        raise errors.ReservedModuleAttributeError(annotations)
    if "__annotations__" not in cls.__dict__:
        cls.__annotations__ = {}
    extra = [
        (
            "parent",
            Module | Scope | _Sentinel | None,
            kw_only_dataclasses.field(
                repr=False, default=_unspecified_parent, kw_only=True
            ),
        ),
        ("name", str | None, kw_only_dataclasses.field(default=None, kw_only=True)),
    ]
    kw_only_dataclasses.dataclass(
        cls,
        unsafe_hash="__hash__" not in cls.__dict__,
        repr=False,
        kw_only=kw_only,
        extra_fields=extra,
    )
    cls.parent = ParentDescriptor()
    if "__hash__" in cls.__dict__:
        cls.__hash__ = _hash_of_unbound(cls.__hash__)  # type: ignore[method-assign, assignment]


def _hash_of_unbound(of_fields: Callable[[Any], int]) -> Callable[[Any], int]:
    @functools.wraps(of_fields)
    def __hash__(self: Any) -> int:
        if self.scope is not None:
            raise TypeError("Can't call __hash__ on modules that hold variables.")
        return of_fields(self)

    return __hash__


def _find_init_fields(cls: Any) -> tuple[str, ...]:
    """The fields that the constructor takes, without `parent` and `name`."""
    return tuple(
        name
        for name, of in cls.__dataclass_fields__.items()
        if of.init and name not in ("parent", "name")
    )


_init_fields: Callable[[Any], tuple[str, ...]] = functools.cache(_find_init_fields)


def _is_plain(value: Any) -> bool:
    """Whether a value can hold no module, and is kept as it is."""
    return (
        value is None
        or isinstance(value, str | int | float | type)
        or (callable(value) and not is_module(value))
    )


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


@contextlib.contextmanager
def _capturing(which: Any) -> Any:
    context.capture_stack.append(capture_call_intermediates if which is True else which)
    try:
        yield
    finally:
        context.capture_stack.pop()


def apply(
    fn: Callable[..., Any],
    module: Module,
    mutable: CollectionFilter = False,
    capture_intermediates: bool | Callable[[Module, str], bool] = False,
) -> Callable[..., Any]:
    """`fn(module, ...)` as a function of variables: `(variables, *args, rngs=None)`."""
    if capture_intermediates:
        mutable = union_filters(mutable, "intermediates")

    @functools.wraps(fn)
    def in_scope(scope: Scope, *args: Any, **kwargs: Any) -> Any:
        with _capturing(capture_intermediates):
            return fn(module.clone(parent=scope, _deep_clone=True), *args, **kwargs)

    return core.scope.apply(in_scope, mutable=mutable)


def init_with_output(
    fn: Callable[..., Any],
    module: Module,
    mutable: CollectionFilter = _INIT_MUTABLE,
    capture_intermediates: bool | Callable[[Module, str], bool] = False,
) -> Callable[..., Any]:
    """`fn(module, ...)` as a function of keys, to (result, variables made)."""
    if capture_intermediates:
        mutable = union_filters(mutable, "intermediates")

    @functools.wraps(fn)
    def in_scope(scope: Scope, *args: Any, **kwargs: Any) -> Any:
        with _capturing(capture_intermediates):
            return fn(module.clone(parent=scope, _deep_clone=True), *args, **kwargs)

    return core.scope.init(in_scope, mutable=mutable)


def init(
    fn: Callable[..., Any],
    module: Module,
    mutable: CollectionFilter = _INIT_MUTABLE,
    capture_intermediates: bool | Callable[[Module, str], bool] = False,
) -> Callable[..., Any]:
    """`fn(module, ...)` as a function of keys, to the variables made."""
    with_output = init_with_output(fn, module, mutable, capture_intermediates)

    @functools.wraps(fn)
    def variables_of(*args: Any, **kwargs: Any) -> Any:
        return with_output(*args, **kwargs)[1]

    return variables_of


def share_scope(module: Module, other: Module, /) -> None:
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


def compact_name_scope(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a method whose submodules and variables are named within its own name."""

    @functools.wraps(fun)
    def in_own_scope(module: Module, *args: Any, **kwargs: Any) -> Any:
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


class TestScope(Scope):
    """A scope for tests, whose random streams give the same key at each call."""

    __test__ = False

    def make_rng(self, name: str) -> PRNGKey:  # type: ignore[override]
        """The key of the stream."""
        return self.rngs[name].as_jax_rng()
