"""Types that the package and its users annotate with."""

import abc
import collections
import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, Union, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from linnet.compat.flax.core._lift_axes import In as In
from linnet.compat.flax.core._lift_axes import InOutAxis as InOutAxis
from linnet.compat.flax.core._lift_axes import InOutScanAxis as InOutScanAxis
from linnet.compat.flax.core._lift_axes import Out as Out
from linnet.compat.flax.core.frozen_dict import FrozenDict

A = TypeVar("A")
F = TypeVar("F", bound=Callable[..., Any])
HA = TypeVar("HA", bound=Hashable)
HB = TypeVar("HB", bound=Hashable)
K = TypeVar("K")
T = TypeVar("T")
TupleArg = TypeVar("TupleArg", bound=tuple[Any, ...])

Array = Union[jax.Array, Any]  # noqa: UP007
PRNGKey = jax.Array
RNGSequences = dict[str, PRNGKey]
Dtype = Union[jax.typing.DTypeLike, Any]  # noqa: UP007
Shape = Sequence[int]
Path = str


@runtime_checkable
class Key(Hashable, Protocol):
    """A key that can be ordered."""

    def __lt__(self: K, value: K, /) -> bool: ...


PathParts = tuple[Key, ...]
Leaf = Any
PRNGFoldable = Union[int, str]  # noqa: UP007

VariableDict = Mapping[str, Mapping[str, Any]]
FrozenVariableDict = FrozenDict[str, Mapping[str, Any]]
MutableVariableDict = dict[str, dict[str, Any]]
Collection = Mapping[str, Any]
MutableCollection = dict[str, Any]

Axis = int | None
ScanAxis = int
Axes = Union[int, Sequence[int]]  # noqa: UP007

LogicalNames = tuple[str | None, ...]
AxisName = str | tuple[str, ...] | None
LogicalRules = Sequence[tuple[str, AxisName]]
Sharding = tuple[AxisName, ...]
ArrayPytree = Any
LogicalPartitionSpec = Any
LogicalPartitionSpecPytree = Any
PartitionSpecPytree = Any

PrecisionLike = Union[  # noqa: UP007
    None,
    str,
    jax.lax.Precision,
    tuple[str, str],
    tuple[jax.lax.Precision, jax.lax.Precision],
]
DotGeneralT = Callable[..., Array]
ConvGeneralDilatedT = Callable[..., Array]
EinsumT = Callable[..., Array]
PaddingLike = Union[str, int, Sequence[Union[int, tuple[int, int]]]]  # noqa: UP007
LaxPadding = Union[str, Sequence[tuple[int, int]]]  # noqa: UP007
Initializer = Union[jax.nn.initializers.Initializer, Callable[..., Any]]  # noqa: UP007


class PromoteDtypeFn(Protocol):
    """A function that brings arrays to one type."""

    def __call__(
        self, args: TupleArg, /, *, dtype: Any = None, inexact: bool = True
    ) -> TupleArg: ...


@runtime_checkable
class ShapeDtype(Protocol):
    """What has a shape and a type."""

    shape: Shape
    dtype: Any


def has_shape_dtype(x: Any) -> bool:
    """Whether the value has a shape and a type."""
    return isinstance(x, ShapeDtype)


def is_key_like(x: Any) -> bool:
    """Whether the value can be hashed and ordered."""
    return hasattr(x, "__hash__") and hasattr(x, "__lt__")


@dataclasses.dataclass(frozen=True)
class SizeBytes:
    """A number of elements, and of the bytes that they take.

    Args:
        size: Elements.
        bytes: Bytes.
    """

    size: int
    bytes: int

    @classmethod
    def from_array(cls, x: Any) -> "SizeBytes":
        """Those of one array."""
        size = int(np.prod(x.shape))
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            itemsize = jax.eval_shape(jax.random.key_data, x).dtype.itemsize * 2
        else:
            itemsize = jnp.dtype(x.dtype).itemsize
        return cls(size, size * itemsize)

    @classmethod
    def from_any(cls, x: Any) -> "SizeBytes":
        """Those of all arrays in a tree."""
        arrays = [leaf for leaf in jax.tree.leaves(x) if has_shape_dtype(leaf)]
        return sum(map(cls.from_array, arrays), cls(0, 0))

    def __add__(self, other: "SizeBytes") -> "SizeBytes":
        return type(self)(self.size + other.size, self.bytes + other.bytes)

    def __bool__(self) -> bool:
        return bool(self.size)

    def __repr__(self) -> str:
        return f"{self.size:,} [{_bytes_text(self.bytes)}]"


def _bytes_text(count: int) -> str:
    value, unit = float(count), 0
    units = ("B", "KB", "MB", "GB", "TB", "PB")
    while value >= 1000 and unit < len(units) - 1:
        value, unit = value / 1000, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {units[unit]}"


class Missing:
    """Marks that nothing is given."""


MISSING = Missing()


class HashableMapping(Mapping[HA, HB], Hashable):
    """A mapping that can be hashed.

    Args:
        mapping: The entries.
        copy: Whether to copy them.
    """

    def __init__(self, mapping: Mapping[HA, HB], copy: bool = True):
        self._mapping = dict(mapping) if copy else mapping

    def __contains__(self, key: object) -> bool:
        return key in self._mapping

    def __getitem__(self, key: HA) -> HB:
        return self._mapping[key]

    def __iter__(self) -> Iterator[HA]:
        return iter(self._mapping)

    def __len__(self) -> int:
        return len(self._mapping)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._mapping.items())))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HashableMapping) and self._mapping == other._mapping

    def __repr__(self) -> str:
        return repr(self._mapping)

    def update(self, other: Mapping[HA, HB]) -> "HashableMapping[HA, HB]":
        """A mapping with the entries of both."""
        return type(self)({**self._mapping, **other}, copy=False)


class PytreeDeque(collections.deque[Any]):
    """A deque that is a pytree."""


jax.tree_util.register_pytree_node(
    PytreeDeque, lambda x: (tuple(x), None), lambda _, xs: PytreeDeque(xs)
)


class BaseConfigContext(abc.ABC):
    """A setting that is in force in a `with` block, or within a decorated function.

    Args:
        value: The value.
    """

    @classmethod
    @abc.abstractmethod
    def get_default(cls) -> Any:
        """The value outside of every block."""

    @classmethod
    @abc.abstractmethod
    def get_stack(cls) -> list[Any]:
        """The values of the blocks at work, the innermost last."""

    @classmethod
    def current_value(cls) -> Any:
        """The value in force."""
        stack = cls.get_stack()
        return stack[-1] if stack else cls.get_default()

    def __init__(self, value: Any, /):
        self.prev_value = self.current_value()
        self.new_value = value
        self.get_stack().append(value)

    def __enter__(self) -> None:
        stack = self.get_stack()
        if not stack or stack[-1] is not self.new_value:
            stack.append(self.new_value)

    def __exit__(self, exc_type: Any, exc: Any, tb: Any) -> None:
        self.get_stack().pop()

    def __call__(self, f: Any) -> Any:
        """The function, with the value in force while it runs."""
        self.get_stack().pop()

        @functools.wraps(f)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with type(self)(self.new_value):
                return f(*args, **kwargs)

        return wrapper
