"""Module: a class whose instances are immutable pytrees of plain arrays."""

import abc
import dataclasses
import inspect
import sys
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linnet._errors import FrozenError, describe
from linnet._typing import Array, Key
from linnet.core import _check
from linnet.core._locate import is_method, locate
from linnet.core._node import (
    Node,
    flatten,
    flatten_with_keys,
    opened_or_none,
    reveal,
    set_node,
    spec_or_none,
    unflatten,
)
from linnet.core._role import Declared, State, completed
from linnet.core._seal import resealed, sealed
from linnet.core._view import computed


@typing.dataclass_transform()
class ModuleMeta(abc.ABCMeta):
    """Seals an instance when its outermost `__init__` ends."""

    @property
    def __signature__(cls) -> inspect.Signature:
        """That of `__init__`, for editors, `help` and messages."""
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=[*signature.parameters.values()][1:])

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        self: Any = cls.__new__(cls)  # type: ignore[arg-type, call-arg]
        self.__init__(*args, **kwargs)
        attributes = dict(self.__dict__)
        self.__dict__.clear()
        set_node(self, *sealed(cls, attributes, {}))
        return self


class Module(Node, metaclass=ModuleMeta):
    """Base class of everything that holds parameters.

    `__init__` is ordinary assignment. Arrays are declared with `nn.param`, `nn.state`
    or `nn.constant`; modules, and lists, tuples, dicts, named tuples and registered
    dataclasses of them, become part of the tree; everything else is configuration and
    must be hashable (lists become tuples, dicts read-only). A class with annotations
    and no `__init__` gets one as a dataclass does, with `setup()` called after it;
    `class Block(nn.Module, kw_only=True)` makes its arguments keyword-only.

    Instances cannot be changed. `model.replace(...)` makes a changed copy.

    Raises:
        RoleError: An array is assigned without a role.
        ConfigError: A configuration value cannot be hashed, or a name is taken.

    Example:
        >>> class Affine(nn.Module):
        ...     features: int
        ...     def setup(self):
        ...         self.shift = nn.param(nn.initializers.zeros, (self.features,))
        ...     def __call__(self, x):
        ...         return x + self.shift
        >>> nn.init(Affine(3), jax.random.key(0), jnp.ones(3))
        Affine(features=3, shift=float32[3])
    """

    __slots__ = ()

    if typing.TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def __init_subclass__(cls, *, kw_only: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" not in cls.__dict__ and _init_is_generated(cls):
            _generate_init(cls, kw_only)
        jax.tree_util.register_pytree_with_keys(
            cls, flatten_with_keys, unflatten, flatten
        )

    def setup(self) -> None:
        """Called after the generated `__init__`, to build what the fields describe."""

    def __post_init__(self) -> None:
        self.setup()

    # Attributes

    def __getattr__(self, name: str) -> Any:
        __tracebackhide__ = True
        attributes = self.__dict__
        opened = attributes.get("_open")
        if opened is not None:
            return opened.read(self, name)
        if name in ("_node", "_spec", "_children"):
            return _absent_node(self, name)
        spec = spec_or_none(self)
        if spec is None and "_pending" in attributes:
            spec = self._spec
        if spec is not None and (name in spec.index or name in spec.static):
            if name not in attributes:
                reveal(self)
            if name in attributes:
                return attributes[name]
            value = computed(self, name)
            if type(value) is Declared:
                raise _check.not_initialized(self, name)
            return value
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}",
            name=name,
            obj=self,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        __tracebackhide__ = True
        opened = self.__dict__.get("_open")
        accessor = getattr(type(self), name, None)
        if (
            isinstance(accessor, property)
            and accessor.fset is not None
            and not _is_closed(self)
        ):
            accessor.fset(self, value)
        elif opened is not None:
            opened.write(self, name, value)
        elif _is_closed(self):
            declared = self._spec.leaves.get((jax.tree_util.GetAttrKey(name),))
            if declared is not None and issubclass(declared.role, State):
                raise _check.plain_write(self, name)
            if is_method(sys._getframe(1), self):
                if declared is not None:
                    raise _check.not_state(self, name, declared)
                raise _check.undeclared(self, name, value)
            raise _frozen(self, name)
        else:
            _check.free_name(self, Module, name)
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        __tracebackhide__ = True
        if _is_closed(self) or "_open" in self.__dict__:
            raise _frozen(self, name, "deleted")
        object.__delattr__(self, name)

    def replace(self, **changes: Any) -> typing.Self:
        """A copy with some attributes changed.

        An array takes the role of the one it replaces.

        Args:
            **changes: New values of existing attributes.

        Raises:
            ConfigError: There is no such attribute.

        Example:
            >>> nn.Dropout(0.1).replace(rate=0.2).rate
            0.2
        """
        __tracebackhide__ = True
        spec = self._spec
        for name in changes:
            _check.known_attribute(self, spec, name, "model = model.replace({}=value)")
        return unflatten(*resealed(self, changes))  # type: ignore[no-any-return]

    # What a method may ask and do

    @property
    def training(self) -> bool:
        """Whether this call was opened by `nn.training`."""
        opened = self.__dict__.get("_open")
        return opened is not None and opened.scope.train

    @property
    def initializing(self) -> bool:
        """Whether this call is made by `nn.init` or `nn.abstract`."""
        opened = self.__dict__.get("_open")
        return opened is not None and opened.scope.registry is not None

    @property
    def path(self) -> str:
        """Where this module is, such as `encoder.blocks[3]`, as messages show it."""
        return locate(self, with_type=False)

    def rng(self, stream: str = "default") -> Key:
        """A fresh key of a stream, for this module and this request.

        Args:
            stream: Name of the stream. Where a call was given one key, every stream
                derives from it.

        Raises:
            ScopeError: The call is a plain one, or the stream was not given, or the
                request is made inside a JAX transform that the module was not
                carried through.
        """
        __tracebackhide__ = True
        opened = self.__dict__.get("_open")
        if opened is None:
            raise _check.plain_randomness(self, stream)
        key: Key = opened.scope.rng(self, opened.path, stream)
        return key

    def sow(self, name: str, value: Any) -> Any:
        """Offers an intermediate value to `nn.capture`, `intervene` and `perturb`.

        Args:
            name: Of the value. Its path is the module's, then this name.
            value: Any pytree of arrays.

        Returns:
            The value, or what a tap put in its place. Use it from here on.
        """
        __tracebackhide__ = True
        opened = self.__dict__.get("_open")
        if opened is None or opened.scope.taps is None:
            return value
        path = (*opened.path, jax.tree_util.GetAttrKey(name))
        return opened.scope.taps.observe(opened.scope, path, None, value)

    def expect(self, **shapes: tuple[int | None, ...]) -> None:
        """Infers the shapes of declared arrays in `nn.init`, and checks them after.

        Args:
            **shapes: For each array the shape that this input needs, with `None` for
                a size that it leaves open. An attribute that is `None`, as a bias
                that was left out, needs none.

        Raises:
            ShapeError: An array has another shape.
            InitError: The model is not initialised.

        Example:
            >>> dense = nn.init(nn.Dense(2), jax.random.key(0), jnp.ones((1, 3)))
            >>> dense(jnp.ones((1, 5)))
            Traceback (most recent call last):
            linnet.nn.ShapeError: (Dense): `kernel` is float32[3, 2], ...
        """
        __tracebackhide__ = True
        opened = self.__dict__.get("_open")
        for name, shape in shapes.items():
            if opened is None:
                value = _raw(self, name)
            elif opened.infer(self, name, shape):
                continue
            else:
                value = opened.raw(self, name)
            if value is None and not _is_declared_array(self, name):
                continue
            if getattr(value, "shape", None) != tuple(shape):
                shape = completed(shape, getattr(value, "shape", ()))
                if getattr(value, "shape", None) != shape:
                    raise _check.unexpected(self, name, value, shape, sys._getframe(1))

    def check_input(
        self,
        x: Any,
        name: str = "x",
        *,
        ndim: int | None = None,
        min_ndim: int | None = None,
        dtype: str | None = None,
    ) -> None:
        """Refuses an input of another rank or kind of dtype than this module takes.

        Args:
            x: The input.
            name: What the message calls it.
            ndim: Exact number of axes.
            min_ndim: Least number of axes.
            dtype: `"floating"`, `"inexact"` or `"integer"`.

        Raises:
            ShapeError: The number of axes is another one.
            DTypeError: The dtype is of another kind, or `x` is no array.
        """
        __tracebackhide__ = True
        _check.input_array(self, x, name, ndim=ndim, min_ndim=min_ndim, dtype=dtype)

    # As a Python object

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other) or "_open" in self.__dict__:
            return False
        mine, my_tree = jax.tree.flatten(self)
        theirs, their_tree = jax.tree.flatten(other)
        return my_tree == their_tree and all(map(_same, mine, theirs))

    def __hash__(self) -> int:
        if "_open" in self.__dict__:
            return id(self)
        return hash(jax.tree.structure(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return unflatten, (self._spec, self._children)

    def __repr__(self) -> str:
        from linnet.core._show import show  # it shows modules, so it comes after them

        return show(self)

    def __treescope_repr__(self, path: Any, subtree_renderer: Any) -> Any:
        from linnet.core._show import treescope_repr

        return treescope_repr(self, path, subtree_renderer)

    def __dir__(self) -> list[str]:
        opened = opened_or_none(self)
        spec = spec_or_none(self) if opened is None else opened.origin._spec
        names = [] if spec is None else [*spec.names, *spec.static]
        return sorted({*object.__dir__(self), *names})


jax.tree_util.register_pytree_with_keys(Module, flatten_with_keys, unflatten, flatten)


def _is_closed(module: Node) -> bool:
    return "_pending" in module.__dict__ or spec_or_none(module) is not None


def _raw(module: Module, name: str) -> Any:
    """The array as it is stored, before any cast."""
    __tracebackhide__ = True
    children, spec = module._node
    if name not in spec.index:
        _check.known_attribute(module, spec, name)
        return spec.static[name]
    value = children[spec.index[name]]
    if value is None and spec.ties:
        value = computed(module, name)
    if type(value) is Declared:
        raise _check.not_initialized(module, name)
    return value


def _is_declared_array(module: Module, name: str) -> bool:
    opened = opened_or_none(module)
    spec = module._spec if opened is None else opened.origin._spec
    return (jax.tree_util.GetAttrKey(name),) in spec.leaves


def _absent_node(module: Module, name: str) -> Any:
    pending = module.__dict__.get("_pending")
    if pending is None:
        raise AttributeError(f"{type(module).__name__} is still being constructed")
    pending.seen = True
    del module.__dict__["_pending"]
    children, spec = pending.model._node
    set_node(module, spec, children)
    return getattr(module, name)


def _init_is_generated(cls: type) -> bool:
    init: Any = cls.__init__  # type: ignore[misc]
    return init is object.__init__ or getattr(init, "_generated", False)


def _generate_init(cls: Any, kw_only: bool) -> None:
    dataclasses.dataclass(cls, repr=False, eq=False, kw_only=kw_only)
    cls.__init__._generated = True
    for field in dataclasses.fields(cls):
        if field.init and field.name in cls.__dict__:
            delattr(cls, field.name)


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return False
    if describe(a) != describe(b):
        return False
    if isinstance(a, Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    if not isinstance(a, Array | np.ndarray):
        return bool(a == b)
    return bool(np.array_equal(np.asarray(a), np.asarray(b)))


def _frozen(module: Module, name: str, done: str = "assigned") -> FrozenError:
    spec = spec_or_none(module) or opened_or_none(module).origin._spec
    if name not in spec.index and name not in spec.static:
        fixes = [("the model should have it (in `__init__`)", f"self.{name} = value")]
    elif done == "deleted":
        fixes = [("the model does without", f"model = model.replace({name}=None)")]
    else:
        change = f'nn.select(model, "**/{name}").map(lambda {name}: 0.5 * {name})'
        fixes = [("a changed copy is wanted", f"model = model.replace({name}=value)")]
        if (jax.tree_util.GetAttrKey(name),) in spec.leaves:
            fixes.append(("all arrays of this name should change", f"model = {change}"))
    return FrozenError(
        f"`{name}` cannot be {done}: a model is immutable.",
        code="LN-FROZEN-01",
        at=locate(module),
        why="A model is a value, so that JAX can transform it and no change is unseen.",
        fixes=fixes,
    )
