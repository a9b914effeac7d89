"""Roles: what an array of a model is for. They live in the spec, beside the arrays."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linnet._errors import RoleError, describe
from linnet._typing import Array
from linnet.core._value import ReadOnlyDict, identity


class Role:
    """What an array is for. Subclass one of the roles below to make your own."""


class Param(Role):
    """Trained: gradients are taken with respect to it."""


class State(Role):
    """Written by the model in a stateful call, and returned with it."""


class BatchStat(State):
    """Running statistics of the data."""


class Cache(State):
    """What a model remembers between calls, such as keys and values in decoding."""


class Constant(Role):
    """Never trained, never written."""


class Frozen(Constant):
    """A parameter that `nn.select(...).freeze()` took out of training."""


def from_data(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Marks an array whose first value the module computes from the sample.

    The module assigns it while `self.initializing` is true.

    Args:
        key: Not used: this stands where an initialiser stands, and is never called.
        shape: Likewise.
        dtype: Likewise.

    Example:
        >>> class ActNorm(nn.Module):
        ...     def __init__(self, features):
        ...         self.scale = nn.param(nn.from_data, (features,))
        ...     def __call__(self, x):
        ...         if self.initializing:
        ...             self.scale = 1 / x.std(0)
        ...         return x * self.scale
        >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
        >>> nn.init(ActNorm(2), jax.random.key(0), x).scale
        Array([1. , 0.1], dtype=float32)
    """
    raise RuntimeError("from_data is a mark and is never called; report this")


@dataclasses.dataclass(frozen=True, eq=False)
class Declared:
    """An array that a module declares: role, shape, dtype and how it is made.

    In a described model it stands where the array will be. As a pytree it has no
    leaves, so an uninitialised model is a tree without arrays.
    """

    role: type[Role]
    init: Any
    shape: tuple[int | None, ...]
    dtype: Any
    axes: tuple[str | None, ...] | None = None
    tags: Any = ()
    thawed: type[Role] | None = None
    compute_dtype: Any = None
    value: Any = dataclasses.field(default=None, repr=False)
    _key: Any = dataclasses.field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        names = [field.name for field in dataclasses.fields(self) if field.init]
        fields = [name for name in names if name != "value"]
        key = tuple(identity(getattr(self, name)) for name in fields)
        object.__setattr__(self, "_key", key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Declared) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __repr__(self) -> str:
        return f"{self.role.__name__}:{describe(self)}"

    def __treescope_repr__(self, path: Any, subtree_renderer: Any) -> Any:
        from treescope import rendering_parts

        line = rendering_parts.text(repr(self))
        return rendering_parts.build_one_line_tree_node(line=line, path=path)

    def __reduce__(self) -> tuple[Any, ...]:
        # The key holds code objects, which do not pickle and are found anew.
        names = (field.name for field in dataclasses.fields(self) if field.init)
        return Declared, tuple(getattr(self, name) for name in names)

    def replace(self, **changes: Any) -> "Declared":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


jax.tree_util.register_pytree_node(
    Declared, lambda declared: ((), declared), lambda declared, _: declared
)


def completed(
    shape: Iterable[int | None], sizes: tuple[int | None, ...]
) -> tuple[int | None, ...]:
    """A shape with other sizes where it has none, if both have as many axes."""
    shape = tuple(shape)
    if len(shape) != len(sizes):
        return shape
    return tuple(b if a is None else a for a, b in zip(shape, sizes, strict=True))


def declare(
    role: type[Role],
    init: Any,
    shape: Iterable[int | None] | None,
    dtype: Any,
    axes: Iterable[str | None] | None,
    tags: Any,
) -> Declared:
    """The declaration of an array, from an initialiser and a shape or from a value."""
    if not (isinstance(role, type) and issubclass(role, Role)):
        raise RoleError(
            f"a role is a subclass of nn.Role, not {role!r}.",
            code="LN-ROLE-03",
            fixes=[("the array is trained", "role = nn.Param")],
        )
    tags = ReadOnlyDict(tags) if isinstance(tags, Mapping) else tuple(tags)
    if callable(init):
        return _declare_by_initializer(role, init, shape, dtype, axes, tags)
    value = _strong(init, dtype)
    if shape is not None and tuple(shape) != value.shape:
        raise RoleError(
            f"the value has shape {value.shape}, but {tuple(shape)} was declared.",
            code="LN-ROLE-04",
            fixes=[("the value is right", f"shape = {value.shape}")],
        )
    axes = _checked_axes(axes, value.shape)
    return Declared(role, None, value.shape, value.dtype, axes, tags, value=value)


def _declare_by_initializer(
    role: type[Role], init: Any, shape: Any, dtype: Any, axes: Any, tags: Any
) -> Declared:
    if shape is None:
        raise RoleError(
            "an initialiser needs the shape of the array it makes.",
            code="LN-ROLE-04",
            why="Sizes that the input decides may be None and are inferred.",
            fixes=[
                (
                    "the sizes are known",
                    "kernel = nn.param(nn.initializers.zeros, (3, 4))",
                ),
                (
                    "the input decides (`self.expect` tells which)",
                    "kernel = nn.param(nn.initializers.zeros, (None, 4))",
                ),
            ],
        )
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    shape = tuple(None if size is None else int(size) for size in sizes)
    dtype = jax.dtypes.canonicalize_dtype(jnp.float32 if dtype is None else dtype)
    return Declared(role, init, shape, dtype, _checked_axes(axes, shape), tags)


def _strong(value: Any, dtype: Any) -> Any:
    """The value as an array whose dtype is its own, not a Python scalar's."""
    if isinstance(value, jax.Array) and dtype is None:
        weak = getattr(value, "weak_type", False)
        return jnp.array(value, value.dtype) if weak else value
    if isinstance(value, jax.ShapeDtypeStruct):
        return value
    if dtype is None:
        dtype = jax.dtypes.canonicalize_dtype(np.asarray(value).dtype)
    return jnp.array(value, dtype)


def _checked_axes(given: Any, shape: tuple[Any, ...]) -> tuple[str | None, ...] | None:
    if given is None:
        return None
    axes: tuple[str | None, ...] = tuple(given)
    if len(axes) != len(shape):
        raise RoleError(
            f"`axes` is {axes}, but the shape {shape} has {len(shape)} axes.",
            code="LN-ROLE-05",
            fixes=[
                (
                    "some axes have no name",
                    f"axes = {(*axes, *(None,) * len(shape))[: len(shape)]}",
                )
            ],
        )
    return axes


def param(
    init: Any,
    shape: Iterable[int | None] | None = None,
    dtype: Any = None,
    *,
    axes: Iterable[str | None] | None = None,
    tags: Any = (),
    role: type[Role] = Param,
) -> Any:
    """Declares a trained array, in a module's `__init__` or `setup`.

    Args:
        init: Initialiser `f(key, shape, dtype)`, or the array itself.
        shape: Sizes; `None` for those that `self.expect` infers from the sample.
        dtype: Of the array; float32 by default, or the value's own.
        axes: A logical name, or `None`, for each axis. Sharding rules refer to them.
        tags: Free-form metadata: a dict, or a tuple of anything hashable.
        role: `nn.Param` or a subclass.

    Raises:
        RoleError: Shape, axes or role do not fit together.

    Example:
        >>> class Scale(nn.Module):
        ...     def __init__(self):
        ...         self.scale = nn.param(nn.initializers.ones, (None,))
        ...     def __call__(self, x):
        ...         self.expect(scale=(x.shape[-1],))
        ...         return x * self.scale
        >>> nn.init(Scale(), jax.random.key(0), jnp.zeros((2, 3))).scale
        Array([1., 1., 1.], dtype=float32)
    """
    return declare(role, init, shape, dtype, axes, tags)


def state(
    init: Any,
    shape: Iterable[int | None] | None = None,
    dtype: Any = None,
    *,
    axes: Iterable[str | None] | None = None,
    tags: Any = (),
    role: type[Role] = State,
) -> Any:
    """Declares an array that the model itself writes, in stateful calls only.

    Args:
        init: Initialiser `f(key, shape, dtype)`, or the first value itself.
        shape: Sizes; `None` for those that `self.expect` infers from the sample.
        dtype: Of the array; float32 by default, or the value's own.
        axes: A logical name, or `None`, for each axis.
        tags: Free-form metadata: a dict, or a tuple of anything hashable.
        role: `nn.State` or a subclass, such as `nn.BatchStat` and `nn.Cache`.

    Raises:
        RoleError: Shape, axes or role do not fit together.

    Example:
        >>> class Counter(nn.Module):
        ...     def __init__(self):
        ...         self.count = nn.state(0)
        ...     def __call__(self):
        ...         self.count = self.count + 1
        ...         return self.count
        >>> out, counter = nn.stateful(Counter())()
        >>> counter.count
        Array(1, dtype=int32)
    """
    return declare(role, init, shape, dtype, axes, tags)


def constant(
    value: Any,
    shape: Iterable[int | None] | None = None,
    dtype: Any = None,
    *,
    axes: Iterable[str | None] | None = None,
    tags: Any = (),
    role: type[Role] = Constant,
) -> Any:
    """Declares an array that is neither trained nor written.

    Args:
        value: The array, or an initialiser `f(key, shape, dtype)`.
        shape: Sizes, where an initialiser is given.
        dtype: Of the array; the value's own by default.
        axes: A logical name, or `None`, for each axis.
        tags: Free-form metadata: a dict, or a tuple of anything hashable.
        role: `nn.Constant` or a subclass.

    Raises:
        RoleError: Shape, axes or role do not fit together.

    Example:
        >>> class Shift(nn.Module):
        ...     def __init__(self):
        ...         self.by = nn.constant(jnp.array([1.0, 2.0]))
        ...     def __call__(self, x):
        ...         return x + self.by
        >>> Shift()(jnp.zeros(2))
        Array([1., 2.], dtype=float32)
    """
    return declare(role, value, shape, dtype, axes, tags)
