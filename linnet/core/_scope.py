"""Opening a model for the length of one call, and closing it again.

A call that may draw randomness, write state or be tapped works on a private, mutable
copy of the module tree. Arrays are shared. Each open module knows its path and the
call's scope; nothing is global.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import GetAttrKey

from linnet._errors import ScopeError, ShapeError, describe
from linnet._typing import Key
from linnet.core import _check
from linnet.core._escape import closed_over, passed_through
from linnet.core._locate import locate
from linnet.core._node import (
    Node,
    is_declared,
    is_open,
    shown,
    stop_at_modules,
)
from linnet.core._path import Path, key_of, path_words
from linnet.core._role import State
from linnet.core._trace import current_trace
from linnet.core._value import frozen, in_order_of
from linnet.core._view import at, cast, put


class Scope:
    """What one call offers to the modules that are open in it.

    Attributes:
        train: Whether this is training.
        writable: Whether declared state may be written.
        keys: The key of each stream.
        counts: Requests so far, by path and stream.
        taps: What observes and replaces intermediate values, or None.
        registry: What `nn.init` collects, or None in other calls.
        ties: For each tied array the module that ties it, the source, the function.
        indices: Positions in the scans and maps around this scope, outermost first.
        trace: JAX's trace at the opening. Effects in another one would leak.
    """

    def __init__(
        self,
        *,
        train: bool = False,
        writable: bool = False,
        keys: Mapping[str, Key] | None = None,
        taps: Any = None,
        registry: Any = None,
    ) -> None:
        self.train = train
        self.writable = writable
        self.keys = dict(keys or {})
        self.counts: dict[Any, int] = {}
        self.taps = taps
        self.registry = registry
        self.indices: tuple[Any, ...] = ()
        self.ties: dict[Path, tuple[Node, Path, Any]] = {}
        self.trace = current_trace()

    def inner(self, keys: Mapping[str, Key], index: Any = None) -> "Scope":
        """The scope of the same call inside a transform, at a position of it."""
        scope = Scope(
            train=self.train,
            writable=self.writable,
            taps=self.taps,
            registry=self.registry,
        )
        scope.counts = dict(self.counts)
        scope.indices = self.indices
        scope.keys = dict(keys)
        if index is not None:
            scope.indices = (*self.indices, index)
            scope.keys = {
                name: jax.random.fold_in(key, index) for name, key in keys.items()
            }
        return scope

    def rng(self, module: Node, path: Path, stream: str) -> Key:
        """A key for one request of one module."""
        __tracebackhide__ = True
        if self.registry is not None:
            return self.registry.rng(path, stream)  # type: ignore[no-any-return]
        source = stream if stream in self.keys else "default"
        if source not in self.keys:
            raise self._missing_stream(module, stream)
        self.check_trace(module, f"randomness (stream {stream!r})")
        count = self.counts.get((path, stream), 0)
        self.counts[path, stream] = count + 1
        return key_of(self.keys[source], path_words(path, stream, count))

    def count(self, requests: Iterable[tuple[Any, int]]) -> None:
        """Takes over requests made inside a transform."""
        for request, count in requests:
            self.counts[request] = max(count, self.counts.get(request, 0))

    def check_trace(self, module: Node, effect: str) -> None:
        """Refuses an effect inside a JAX transform that the module is not part of."""
        __tracebackhide__ = True
        if current_trace() != self.trace:
            raise closed_over(module, effect)

    def _missing_stream(self, module: Node, stream: str) -> ScopeError:
        if not (self.writable or self.train):
            return _check.plain_randomness(module, stream)
        if not self.keys:
            what = f"the random stream {stream!r} was asked for without any key."
        else:
            given = ", ".join(map(repr, self.keys))
            what = f"the random stream {stream!r} was not given a key, only {given}."
        call = "nn.training(model, {})" if self.train else "nn.stateful(model, rngs={})"
        names = ", ".join(f'"{name}"' for name in (*self.keys, stream))
        split = f"jax.random.split(key, {len(self.keys) + 1})"
        each = f"rngs = dict(zip([{names}], {split}))"
        each += f"\nout, model = {call.format('rngs')}(x)"
        one = f"out, model = {call.format('key')}(x)"
        fixes = [("one key is enough for all streams", one)]
        if self.keys:
            fixes.append(("each stream has its own key", each))
        return ScopeError(what, code="LN-RNG-02", at=locate(module), fixes=fixes)


class Opened:
    """What an open module knows: where it came from, where it is, and its call."""

    __slots__ = ("origin", "parts", "path", "scope", "written")

    def __init__(self, origin: Node, path: Path, scope: Scope) -> None:
        self.origin = origin
        self.path = path
        self.scope = scope
        self.written: dict[str, Any] = {}
        self.parts: dict[str, tuple[list[Any], Any]] = {}

    def read(self, module: Node, name: str) -> Any:
        """An attribute that is not simply in place."""
        __tracebackhide__ = True
        if name in ("_node", "_spec", "_children"):
            raise passed_through(module)
        spec = self.origin._spec
        if name not in spec.index:
            raise AttributeError(
                f"{type(module).__name__!r} object has no attribute {name!r}",
                name=name,
                obj=module,
            )
        return cast(spec.leaves, (GetAttrKey(name),), self.raw(module, name))

    def raw(self, module: Node, name: str, *, ties: bool = True) -> Any:
        """An array as it is stored, or made for the sample while initialising.

        Without `ties` a container has `None` where it holds a tied array.
        """
        __tracebackhide__ = True
        spec = self.origin._spec
        if name in self.written:
            return self.written[name]
        if name not in spec.index:
            _check.known_attribute(module, spec, name)
            return spec.static[name]
        value = self.origin._children[spec.index[name]]
        path = (*self.path, GetAttrKey(name))
        if path in self.scope.ties:
            return tied_array(self.scope, path)
        tied = self.tied_in(path, value) if ties else []
        if not tied and not _holds_declared(value):
            return value
        if self.scope.registry is None and _holds_declared(value):
            raise _check.not_initialized(module, name)
        if name in self.parts:  # with its modules open
            leaves, treedef = self.parts[name]
            value = treedef.unflatten(leaves)
        for inside in tied:
            value = put(value, inside[len(path) :], tied_array(self.scope, inside))
        made = jax.tree_util.tree_map_with_path(
            lambda keys, leaf: self._made(module, (*path, *keys), leaf),
            value,
            is_leaf=stop_at_modules,
        )
        return shown(made)

    def tied_in(self, path: Path, container: Any) -> list[Path]:
        """The tied arrays that a container holds itself, not in its modules."""
        if not self.scope.ties or isinstance(container, jax.Array | Node | None):
            return []
        modules, _ = jax.tree_util.tree_flatten_with_path(
            container, is_leaf=stop_at_modules
        )
        ends = [(*path, *keys) for keys, leaf in modules if isinstance(leaf, Node)]
        return [
            target
            for target in self.scope.ties
            if target[: len(path)] == path and target != path
            if not any(target[: len(end)] == end for end in ends)
        ]

    def _made(self, module: Node, path: Path, leaf: Any) -> Any:
        if not is_declared(leaf):
            return leaf
        return self.scope.registry.read(module, path, leaf, self.scope.indices)

    def infer(self, module: Node, name: str, shape: tuple[int | None, ...]) -> bool:
        """Tells `nn.init` a shape; False where there is nothing to infer."""
        __tracebackhide__ = True
        if self.scope.registry is None:
            return False
        spec = self.origin._spec
        _check.known_attribute(module, spec, name)
        if name not in spec.index:
            return False
        value = self.origin._children[spec.index[name]]
        if not is_declared(value):
            return False
        path = (*self.path, GetAttrKey(name))
        self.scope.registry.infer(module, path, value, shape)
        return True

    def write(self, module: Node, name: str, value: Any) -> None:
        """Assignment to a declared array in an open module."""
        __tracebackhide__ = True
        declared = self.origin._spec.leaves.get((GetAttrKey(name),))
        inside = [
            leaf for p, leaf in self.origin._spec.leaves.items() if p[0].name == name
        ]
        if self.scope.registry is not None and declared is not None:
            path = (*self.path, GetAttrKey(name))
            self.scope.registry.assign(module, path, declared, value, self.scope)
            return
        if not inside:
            raise _check.undeclared(module, name, value)
        if not all(issubclass(leaf.role, State) for leaf in inside):
            raise _check.not_state(module, name, inside[0])
        if not self.scope.writable:
            raise _check.plain_write(module, name)
        self.scope.check_trace(module, f"a write of the state `{name}`")
        old = self.raw(module, name)
        value = _of_number(old, in_order_of(old, frozen(value)))
        _check_same_kind(module, name, old, value)
        self.put(module, name, jax.tree.map(_strong, value))

    def put(self, module: Node, name: str, value: Any) -> None:
        """Stores a state without asking. Reads inside the call see it."""
        self.written[name] = value
        module.__dict__[name] = value


def _strong(array: Any) -> Any:
    """The array with a dtype of its own: a weak one would compile the next step."""
    is_weak = getattr(array, "weak_type", False)
    return jax.lax.convert_element_type(array, array.dtype) if is_weak else array


def _holds_declared(value: Any) -> bool:
    if is_declared(value):
        return True
    if isinstance(value, jax.Array | Node) or value is None:
        return False
    return any(map(is_declared, jax.tree.leaves(value, is_leaf=stop_at_modules)))


def tied_array(scope: Scope, path: Path) -> Any:
    owner, source, fn = scope.ties[path]
    return fn(_stored(owner, source))


def _stored(module: Node, path: Path) -> Any:
    """The array at a path below an open module, before any cast."""
    name, rest = path[0].name, path[1:]
    inside = module.__dict__.get(name)
    if isinstance(inside, Node):
        return _stored(inside, rest)
    state = opened_of(module)
    leaves, _ = state.parts.get(name, ([], None))
    for leaf in leaves:
        if is_open(leaf):
            keys = opened_of(leaf).path[len(state.path) + 1 :]
            if rest[: len(keys)] == keys:
                return _stored(leaf, rest[len(keys) :])
    return at(state.raw(module, name, ties=False), rest)


def opened_of(module: Node) -> Opened:
    """What an open module knows of its call."""
    return module.__dict__["_open"]  # type: ignore[no-any-return]


def _of_number(old: Any, new: Any) -> Any:
    """A Python number as the scalar state it is written to, where it fits."""
    is_number = isinstance(new, int | float | complex)
    if is_number and getattr(old, "shape", None) == ():
        if jnp.result_type(old, new) == old.dtype:
            return jnp.asarray(new, old.dtype)
    return new


def _check_same_kind(module: Node, name: str, old: Any, new: Any) -> None:
    __tracebackhide__ = True
    old_leaves, old_tree = jax.tree.flatten(old)
    new_leaves, new_tree = jax.tree.flatten(new)
    same = old_tree == new_tree and all(
        getattr(b, "shape", None) == a.shape and b.dtype == a.dtype
        for a, b in zip(old_leaves, new_leaves, strict=True)
    )
    if not same:
        raise ShapeError(
            f"the state `{name}` is {describe(old)}, but {describe(new)} was written.",
            code="LN-STATE-04",
            at=locate(module),
            why="A state keeps its shape and dtype, so that a compiled step fits the "
            "model that it returned.",
            fixes=_same_kind_fixes(name, old, new),
        )


def _same_kind_fixes(name: str, old: Any, new: Any) -> list[tuple[str, str]]:
    if not hasattr(old, "shape"):
        return []
    if isinstance(new, int | float):
        code = f"self.{name} = jnp.full_like(self.{name}, value)"
        return [("the number is for all entries", code)]
    fixes = []
    if getattr(new, "shape", None) == old.shape:
        code = f"self.{name} = value.astype(self.{name}.dtype)"
        fixes.append(("the numbers are right, their dtype is not", code))
    code = f"self.{name} = {_check.state_text(new)}"
    return [*fixes, ("the state is meant to be such (in `__init__`)", code)]
