"""Opening a model for the length of one call, and closing it again.

A call that may draw randomness, write state or be tapped works on a private, mutable
copy of the module tree. Arrays are shared. Each open module knows its path and the
call's scope; nothing is global.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.extend.core import get_opaque_trace_state
from jax.tree_util import GetAttrKey

from linnet._errors import RoleError, ScopeError, ShapeError, describe
from linnet._typing import Key
from linnet.core import _check
from linnet.core._locate import locate
from linnet.core._node import (
    Node,
    is_declared,
    is_open,
    shown,
    stop_at_modules,
    unflatten,
)
from linnet.core._path import Path, path_words
from linnet.core._role import Declared, State
from linnet.core._value import frozen
from linnet.core._view import cast

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
        self.root: Any = None
        self.ties: dict[Path, tuple[Path, Any]] = {}
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

    def check_trace(self, module: Node, effect: str) -> None:
        """Refuses an effect inside a JAX transform that the module is not part of."""
        __tracebackhide__ = True
        if get_opaque_trace_state() != self.trace:
            raise _closed_over(module, effect)

    def _missing_stream(self, module: Node, stream: str) -> ScopeError:
        if not self.keys:
            return _check.plain_randomness(module, stream)
        given = ", ".join(map(repr, self.keys))
        return ScopeError(
            f"the random stream {stream!r} was not given.",
            code="LN-RNG-02",
            at=locate(module),
            facts={"given": given},
            fixes=[
                (
                    "one key is enough for all streams",
                    "out, model = nn.training(model, key)(x)",
                ),
                (
                    "each stream has its own key",
                    f'rngs = {{**rngs, "{stream}": jax.random.key(1)}}',
                ),
            ],
        )


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

    def raw(self, module: Node, name: str) -> Any:
        """An array as it is stored, or made for the sample while initialising."""
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
        if not _holds_declared(value):
            return value
        if self.scope.registry is None:
            raise _check.not_initialized(module, name)
        if name in self.parts:  # with its modules open
            leaves, treedef = self.parts[name]
            value = treedef.unflatten(leaves)
        made = jax.tree_util.tree_map_with_path(
            lambda keys, leaf: self._made(module, (*path, *keys), leaf),
            value,
            is_leaf=stop_at_modules,
        )
        return shown(made)

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
            raise _undeclared(module, name)
        if not all(issubclass(leaf.role, State) for leaf in inside):
            raise _not_state(module, name, inside[0])
        if not self.scope.writable:
            raise _check.plain_write(module, name)
        self.scope.check_trace(module, f"a write of the state `{name}`")
        value = frozen(value)
        _check_same_kind(module, name, self.raw(module, name), value)
        self.put(module, name, value)

    def put(self, module: Node, name: str, value: Any) -> None:
        """Stores a state without asking. Reads inside the call see it."""
        self.written[name] = value
        module.__dict__[name] = value


def _holds_declared(value: Any) -> bool:
    if is_declared(value):
        return True
    if isinstance(value, jax.Array | Node) or value is None:
        return False
    return any(map(is_declared, jax.tree.leaves(value, is_leaf=stop_at_modules)))


def _tied(scope: Scope, path: Path) -> Any:
    source, fn = scope.ties[path]
    module = descend(scope.root, source[:-1])
    return fn(opened_of(module).raw(module, source[-1].name))


def opened_of(module: Node) -> Opened:
    """What an open module knows of its call."""
    return module.__dict__["_open"]  # type: ignore[no-any-return]


def open_module(module: Node, scope: Scope, path: Path = ()) -> Any:
    """An open copy of a closed module and of all below it."""
    opened = _open(module, scope, path)
    spec = module._spec
    if spec.ties:
        scope.root = opened
        scope.ties = {target: (source, fn) for target, source, fn in spec.ties}
    return opened


def _open(module: Node, scope: Scope, path: Path) -> Any:
    children, spec = module._node
    cls = spec.cls if scope.taps is None else scope.taps.tapped(spec.cls)
    copy = _new(cls)
    state = Opened(module, path, scope)
    attributes = copy.__dict__
    attributes.update(spec.static)
    attributes["_open"] = state
    for name, child in zip(spec.names, children, strict=True):
        if isinstance(child, Node):
            attributes[name] = _open(child, scope, (*path, GetAttrKey(name)))
        elif isinstance(child, jax.Array):
            if name not in spec.veiled:
                attributes[name] = child
        elif not is_declared(child) and child is not None:
            _open_container(state, attributes, name, child)
        elif child is None and (*path, GetAttrKey(name)) not in scope.ties:
            attributes[name] = None
    for target, _, _ in spec.ties:
        if len(target) == 1:
            attributes.pop(target[0].name, None)
    return copy


def _open_container(
    state: Opened, attributes: dict[str, Any], name: str, child: Any
) -> None:
    path = (*state.path, GetAttrKey(name))
    items, treedef = jax.tree_util.tree_flatten_with_path(
        child, is_leaf=stop_at_modules
    )
    leaves = [
        _open(leaf, state.scope, (*path, *keys)) if isinstance(leaf, Node) else leaf
        for keys, leaf in items
    ]
    if any(isinstance(leaf, Node) for leaf in leaves):
        state.parts[name] = leaves, treedef
    if any(map(is_declared, leaves)):
        return  # made at each access while initialising
    whole = cast(
        state.origin._spec.leaves, (GetAttrKey(name),), treedef.unflatten(leaves)
    )
    attributes[name] = shown(whole)


def close_module(module: Node, *, fill: bool = False) -> Any:
    """The closed value of an open module; the very original where nothing changed.

    Args:
        module: An open module.
        fill: Put tied arrays in their places, for a part that leaves its root.
    """
    state = opened_of(module)
    children, spec = state.origin._node
    closed = []
    for name, child in zip(spec.names, children, strict=True):
        if isinstance(child, Node):
            child = close_module(module.__dict__[name], fill=fill)
        elif name in state.parts:
            child = _close_container(child, *state.parts[name], fill=fill)
        elif name in state.written:
            child = state.written[name]
        elif fill and (path := (*state.path, GetAttrKey(name))) in state.scope.ties:
            child = _tied(state.scope, path)
        closed.append(child)
    if all(new is old for new, old in zip(closed, children, strict=True)):
        return state.origin
    return unflatten(spec, tuple(closed))


def _close_container(child: Any, leaves: list[Any], treedef: Any, *, fill: bool) -> Any:
    closed = [close_module(x, fill=fill) if is_open(x) else x for x in leaves]
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
            fixes=[
                (
                    "the numbers are right, their dtype is not",
                    f"self.{name} = jnp.broadcast_to(value, self.{name}.shape)"
                    f".astype(self.{name}.dtype)",
                )
            ],
        )


def _undeclared(module: Node, name: str) -> RoleError:
    return RoleError(
        f"`{name}` was assigned in a call, but is not a declared state.",
        code="LN-STATE-02",
        at=locate(module),
        why="What a call may write is declared, so that every update is returned.",
        fixes=[
            (
                "it is state that the model keeps (in `__init__`)",
                f"self.{name} = nn.state(nn.initializers.zeros, ())",
            ),
            ("it is needed in this call only", f"{name} = ..."),
            ("it should be seen from outside", f"self.sow({name!r}, value)"),
        ],
    )


def _not_state(module: Node, name: str, declared: Declared) -> RoleError:
    return RoleError(
        f"`{name}` was assigned in a call, but its role is {declared.role.__name__}.",
        code="LN-STATE-03",
        at=locate(module),
        why="Parameters are changed by the optimiser, constants by nobody.",
        fixes=[
            (
                "the model itself writes it (in `__init__`)",
                f"self.{name} = nn.state(nn.initializers.zeros, (3,))",
            ),
            (
                "the model should hold other values",
                f"model = model.replace({name}=value)",
            ),
        ],
    )


def _closed_over(module: Node, effect: str) -> ScopeError:
    return ScopeError(
        f"{effect} inside a JAX transform that the module was not carried through.",
        code="LN-SCOPE-01",
        at=locate(module),
        why="The effect would leak a tracer, or be the same in every iteration.",
        fixes=_LIFTED,
    )


def _passed_through(module: Node) -> ScopeError:
    return ScopeError(
        "an open module was passed to a JAX function.",
        code="LN-SCOPE-02",
        at=locate(module),
        why="During a stateful call a module is not a pytree: what the function did "
        "to a copy of it would be lost.",
        fixes=[
            *_LIFTED[:2],
            ("only its parameters are needed", "kernel = nn.params(self.block)"),
        ],
    )


_LIFTED = [
    ("the transform has a lifted form", "y = nn.remat(self.block)(x)"),
    (
        "it is one without, and is called like the function",
        "y = nn.lift(jax.checkpoint)(self.block)(x)",
    ),
    (
        "a loop over time or layers",
        "carry, ys = nn.scan(lambda c, x: (self.block(x), c), x, None, length=2)",
    ),
]
