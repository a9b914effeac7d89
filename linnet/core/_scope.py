"""Opening a model for the length of one call, and closing it again.

A call that may draw randomness, write state or be tapped works on a private, mutable
copy of the module tree. Arrays are shared. Each open module knows its path and the
call's scope; nothing is global.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state
from jax.tree_util import GetAttrKey

from linnet._errors import ScopeError, ShapeError, describe
from linnet._typing import Key
from linnet.core import _check
from linnet.core._locate import locate, where_transformed
from linnet.core._node import (
    Node,
    is_declared,
    is_open,
    shown,
    stop_at_modules,
    unflatten,
)
from linnet.core._path import Path, path_words
from linnet.core._role import State
from linnet.core._value import frozen, in_order_of
from linnet.core._view import at, cast, put

_new = object.__new__


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
        self.trace = get_opaque_trace_state()

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
        first, second = path_words(path, stream, count)
        return jax.random.fold_in(jax.random.fold_in(self.keys[source], first), second)

    def count(self, requests: Iterable[tuple[Any, int]]) -> None:
        """Takes over requests made inside a transform."""
        for request, count in requests:
            self.counts[request] = max(count, self.counts.get(request, 0))

    def check_trace(self, module: Node, effect: str) -> None:
        """Refuses an effect inside a JAX transform that the module is not part of."""
        __tracebackhide__ = True
        if get_opaque_trace_state() != self.trace:
            raise _closed_over(module, effect)

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
            raise _passed_through(module)
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
            return _tied(self.scope, path)
        tied = self.tied_in(path, value) if ties else []
        if not tied and not _holds_declared(value):
            return value
        if self.scope.registry is None and _holds_declared(value):
            raise _check.not_initialized(module, name)
        if name in self.parts:  # with its modules open
            leaves, treedef = self.parts[name]
            value = treedef.unflatten(leaves)
        for inside in tied:
            value = put(value, inside[len(path) :], _tied(self.scope, inside))
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

    def infer(self, module: Node, name: str, shape: tuple[int, ...]) -> bool:
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


def _tied(scope: Scope, path: Path) -> Any:
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


def open_module(module: Node, scope: Scope, path: Path = ()) -> Any:
    """An open copy of a closed module and of all below it."""
    children, spec = module._node
    cls = spec.cls if scope.taps is None else scope.taps.tapped(spec.cls)
    copy = _new(cls)
    state = Opened(module, path, scope)
    attributes = copy.__dict__
    attributes.update(spec.static)
    attributes["_open"] = state
    for target, source, fn in spec.ties:
        scope.ties[(*path, *target)] = copy, source, fn
    for name, child in zip(spec.names, children, strict=True):
        if isinstance(child, Node):
            attributes[name] = open_module(child, scope, (*path, GetAttrKey(name)))
        elif isinstance(child, jax.Array):
            if name not in spec.veiled:
                attributes[name] = child
        elif not is_declared(child) and child is not None:
            _open_container(state, attributes, name, child)
        elif child is None and (*path, GetAttrKey(name)) not in scope.ties:
            attributes[name] = None
    return copy


def _open_container(
    state: Opened, attributes: dict[str, Any], name: str, child: Any
) -> None:
    path = (*state.path, GetAttrKey(name))
    items, treedef = jax.tree_util.tree_flatten_with_path(
        child, is_leaf=stop_at_modules
    )
    leaves = [
        open_module(leaf, state.scope, (*path, *keys))
        if isinstance(leaf, Node)
        else leaf
        for keys, leaf in items
    ]
    if any(isinstance(leaf, Node) for leaf in leaves):
        state.parts[name] = leaves, treedef
    if any(map(is_declared, leaves)) or state.tied_in(path, child):
        return  # made at each access
    whole = cast(
        state.origin._spec.leaves, (GetAttrKey(name),), treedef.unflatten(leaves)
    )
    attributes[name] = shown(whole)


def close_module(module: Node, *, fill: bool = False) -> Any:
    """The closed value of an open module; the very original where nothing changed.

    Args:
        module: An open module.
        fill: Put tied arrays in their places, for a part that leaves the module which
            ties them.
    """
    closed = _closed(module)
    state = opened_of(module)
    if fill:
        for path, (owner, _, _) in state.scope.ties.items():
            here = len(state.path)
            if path[:here] == state.path and len(opened_of(owner).path) < here:
                closed = put(closed, path[here:], _tied(state.scope, path))
    return closed


def _closed(module: Node) -> Any:
    state = opened_of(module)
    children, spec = state.origin._node
    closed = []
    for name, child in zip(spec.names, children, strict=True):
        if isinstance(child, Node):
            child = _closed(module.__dict__[name])
        elif name in state.parts:
            child = _closed_container(child, *state.parts[name])
        elif name in state.written:
            child = state.written[name]
        closed.append(child)
    if all(new is old for new, old in zip(closed, children, strict=True)):
        return state.origin
    return unflatten(spec, tuple(closed))


def _closed_container(child: Any, leaves: list[Any], treedef: Any) -> Any:
    closed = [_closed(x) if is_open(x) else x for x in leaves]
    originals = [opened_of(x).origin if is_open(x) else x for x in leaves]
    if all(new is old for new, old in zip(closed, originals, strict=True)):
        return child
    return treedef.unflatten(closed)


def descend(module: Node, path: Path) -> Any:
    """The open module at a path below an open module."""
    while path:
        name = path[0].name
        inside = module.__dict__.get(name)
        if isinstance(inside, Node):
            module, path = inside, path[1:]
            continue
        state = opened_of(module)
        leaves, treedef = state.parts[name]
        keyed, _ = jax.tree_util.tree_flatten_with_path(
            treedef.unflatten(range(len(leaves)))
        )
        keys, i = next((k, i) for k, i in keyed if path[1 : 1 + len(k)] == k)
        module, path = leaves[i], path[1 + len(keys) :]
    return module


def open_modules_below(module: Node) -> list[Node]:
    """An open module and all open modules below it."""
    state = opened_of(module)
    found = [module]
    for name in state.origin._spec.names:
        inside = module.__dict__.get(name)
        if isinstance(inside, Node):
            found += open_modules_below(inside)
        elif name in state.parts:
            for leaf in state.parts[name][0]:
                if is_open(leaf):
                    found += open_modules_below(leaf)
    return found


def states_of(
    module: Node, keep: Callable[[Node, str], bool] = lambda module, name: True
) -> dict[tuple[Path, str], Any]:
    """The states at and below an open module, by path and name."""
    found = {}
    for part in open_modules_below(module):
        state = opened_of(part)
        for path, leaf in state.origin._spec.leaves.items():
            name = path[0].name
            if issubclass(leaf.role, State) and keep(part, name):
                found[state.path, name] = state.raw(part, name)
    return found


def was_written(module: Node, name: str) -> bool:
    """Whether this call wrote a state."""
    return name in opened_of(module).written


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


def _closed_over(module: Node, effect: str) -> ScopeError:
    part, functions = where_transformed(module)
    transform = _transform(functions)
    name = f"`{transform[0]}`" if transform else "JAX transform"
    return ScopeError(
        f"{effect} inside a plain {name}, which does not carry the module.",
        code="LN-SCOPE-01",
        at=locate(module),
        why="The effect would leak a tracer, or be the same in every iteration.",
        fixes=_lifted(part, transform),
    )


def _passed_through(module: Node) -> ScopeError:
    part, functions = where_transformed(module, passed=True)
    read = "only its parameters are needed", f"parameters = nn.params({part})"
    if _ON_TREES.intersection(functions):
        name, fixes = "`jax.tree` function", [read]
    else:
        # `jax.jit` flattens its arguments in C++, unseen.
        transform = _transform(functions or ["cache_miss"])
        name = f"`{transform[0]}`" if transform else "JAX function"
        fixes = [*_lifted(part, transform), read]
    return ScopeError(
        f"an open module was passed to a plain {name}.",
        code="LN-SCOPE-02",
        at=locate(module),
        why="During a stateful call a module is not a pytree: what the function did "
        "to a copy of it would be lost.",
        fixes=fixes,
    )


_ON_TREES = {"map", "map_with_path", "leaves", "leaves_with_path", "flatten"}
_REMAT = "jax.checkpoint", "y = nn.remat({part})(x)"
_SCAN = (
    "jax.lax.scan",
    "carry, ys = nn.scan(lambda c, x: ({part}(c), None), x, None, length=2)",
)
_VMAP = "jax.vmap", "y = nn.vmap({part})(x)"
_TRANSFORMS = {  # by the name of the function in JAX that runs it
    "fun_remat": _REMAT,
    "scan": _SCAN,
    "fori_loop": ("jax.lax.fori_loop", _SCAN[1]),
    "vmap_f": _VMAP,
    "cache_miss": ("jax.jit", "y = nn.jit({part})(x)"),
    "cond": ("jax.lax.cond", "y = nn.cond(x.sum() > 0, {part}, lambda x: x, x)"),
    "while_loop": (
        "jax.lax.while_loop",
        "y = nn.while_loop(lambda y: y.sum() < 0, {part}, x)",
    ),
    "value_and_grad_f": (
        "jax.grad",
        "grads = nn.grad(lambda x: {part}(x).sum())(x)",
    ),
}


def _transform(functions: list[str]) -> tuple[str, str] | None:
    """The JAX transform that is under way, and the lifted form to use instead."""
    return next((_TRANSFORMS[name] for name in functions if name in _TRANSFORMS), None)


def _lifted(part: str, transform: tuple[str, str] | None) -> list[tuple[str, str]]:
    """The lifted form of the transform, or the most usual ones, and the general one."""
    if transform is None:
        usual = [(f"it is `{name}`", code) for name, code in (_REMAT, _SCAN, _VMAP)]
    else:
        named = " (`f` is the function)" if part == "f" else ""
        usual = [(f"the lifted form carries the module{named}", transform[1])]
    general = (
        "another transform, whose result is called like its function, is lifted",
        "y = nn.lift(jax.checkpoint)({part})(x)",
    )
    return [(when, code.format(part=part)) for when, code in [*usual, general]]
