"""Carrying open modules through JAX transforms.

A module that is open in one trace must have no effects in an inner one. A lifted
transform closes the modules that a function uses, passes their arrays and keys
through the transform, opens them inside, and writes back outside what they did.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax

from linnet.core._call import Call
from linnet.core._node import Node, is_module, is_open
from linnet.core._open import (
    close_module,
    descend,
    open_module,
    open_modules_below,
    states_of,
)
from linnet.core._path import Path
from linnet.core._scope import Scope, opened_of
from linnet.core._value import Static

Rebuild = Callable[[list[Any]], Any]


class Bundle:
    """The open modules that a function and its arguments use.

    Args:
        f: A function, an open module, or a bound method of one. Open modules in its
            closure are found as well.
        args: Positional arguments; open modules may be anywhere in them.
        kwargs: Keyword arguments, likewise.
    """

    def __init__(self, f: Any, args: Any, kwargs: Any) -> None:
        found: list[Node] = []
        self._f = f
        self._rebuild_f = _rebuilder(f, found, ())
        leaves, self._treedef = jax.tree.flatten((args, kwargs), is_leaf=_open_or_none)
        self.places = {
            i: _add(found, leaf) for i, leaf in enumerate(leaves) if is_open(leaf)
        }
        stripped = [None if i in self.places else x for i, x in enumerate(leaves)]
        self.args, self.kwargs = self._treedef.unflatten(stripped)
        self._found = found
        self.modules, self.routes = _roots(found)
        scopes = [opened_of(module).scope for module in self.modules]
        self.scopes: list[Scope] = list({id(s): s for s in scopes}.values())

    @property
    def initializing(self) -> bool:
        """Whether the modules are open in `nn.init`."""
        return any(scope.registry is not None for scope in self.scopes)

    @property
    def is_abstract(self) -> bool:
        """Whether the modules are open in the abstract run of `nn.init`."""
        return any(
            s.registry is not None and s.registry.is_abstract for s in self.scopes
        )

    def enter(self) -> Any:
        """The arrays of the modules: a pytree for the transform to carry."""
        return [close_module(module, fill=True) for module in self.modules]

    def keys(self) -> Any:
        """The keys of the modules' calls: a pytree for the transform to carry."""
        return [dict(scope.keys) for scope in self.scopes]

    def reopen(
        self, closed: Any, keys: Any, index: Any = None, *, writable: bool = True
    ) -> "Inside":
        """The modules inside the transform, at an index if it loops or maps."""
        inner: dict[int, Scope] = {}
        for scope, own in zip(self.scopes, keys, strict=True):
            new = scope.inner(own, index)
            new.writable = scope.writable and writable
            new.taps = None if scope.taps is None else scope.taps.fork()
            inner[id(scope)] = new
        opened = [
            open_module(value, inner[id(opened_of(old).scope)], opened_of(old).path)
            for value, old in zip(closed, self.modules, strict=True)
        ]
        return Inside(self, opened, list(inner.values()))

    def as_it_is(self) -> "Inside":
        """The open modules themselves, where nothing has to be carried."""
        return Inside(self, list(self.modules), self.scopes)

    def state_names(self) -> list[tuple[int, Path, str]]:
        """Every state of the modules, by position of the module, path and name."""
        return [
            (i, path, name)
            for i, module in enumerate(self.modules)
            for path, name in states_of(module)
        ]

    def states(self) -> list[Any]:
        """The values of `state_names`."""
        return [x for module in self.modules for x in states_of(module).values()]

    def put_states(self, values: list[Any]) -> None:
        """Writes the values of `state_names` back."""
        write_states(self.modules, self.state_names(), values)

    def absorb(self, effects: "Effects") -> None:
        """Takes over what the modules did inside the transform."""
        names, values, records, counts = effects
        write_states(self.modules, names.value, values)
        for scope, own, count in zip(self.scopes, records, counts.value, strict=True):
            scope.count(count)
            if scope.taps is not None:
                scope.taps.absorb(own)


Effects = tuple[Static, list[Any], list[Any], Static]


class Inside:
    """A bundle's modules, opened inside a transform."""

    def __init__(self, bundle: Bundle, opened: list[Any], scopes: list[Scope]) -> None:
        self._bundle = bundle
        self._scopes = scopes
        self.opened = opened

    def _found(self) -> list[Any]:
        return [descend(self.opened[root], path) for root, path in self._bundle.routes]

    def f(self) -> Any:
        """The function, using these modules."""
        rebuild = self._bundle._rebuild_f
        return self._bundle._f if rebuild is None else rebuild(self._found())

    def arguments(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Arguments without their modules, with the modules put in."""
        bundle, found = self._bundle, self._found()
        leaves = jax.tree.leaves((args, kwargs), is_leaf=_open_or_none)
        for i, module in bundle.places.items():
            leaves[i] = found[module]
        return bundle._treedef.unflatten(leaves)  # type: ignore[no-any-return]

    def call(self, args: Any, kwargs: Any) -> Any:
        """Calls the function with the modules in their places."""
        __tracebackhide__ = True
        args, kwargs = self.arguments(args, kwargs)
        return self.f()(*args, **kwargs)

    def put_states(self, values: list[Any]) -> None:
        """Gives the modules the states that a loop carries."""
        write_states(self.opened, self._bundle.state_names(), values)

    def states(self) -> list[Any]:
        """The values of the bundle's `state_names`."""
        return [x for module in self.opened for x in states_of(module).values()]

    def effects(self, *, written: bool = True) -> Effects:
        """What the modules did, as a pytree that can leave the transform."""
        names, values = [], []
        for i, root in enumerate(self.opened if written else []):
            for part in open_modules_below(root):
                opened = opened_of(part)
                for name, value in opened.written.items():
                    names.append((i, opened.path, name))
                    values.append(value)
        records = [[] if s.taps is None else s.taps.records() for s in self._scopes]
        counts = Static(tuple(tuple(s.counts.items()) for s in self._scopes))
        return Static(tuple(names)), values, records, counts


def lift(transform: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a JAX transform work on functions that use open modules.

    The transform is one whose result is called like its function: `jax.checkpoint`,
    `jax.jit`, `jax.named_call` or one of your own. For others see `nn.scan`,
    `nn.vmap`, `nn.cond`, `nn.while_loop`, `nn.grad` and `nn.custom_vjp`.

    Args:
        transform: From a function of pytrees to a function of the same pytrees.

    Returns:
        The transform, for functions, modules and bound methods. Open modules in the
        arguments and in the closure are carried through it. In a plain call it is
        the transform itself.

    Example:
        >>> class Model(nn.Module):
        ...     def __init__(self):
        ...         self.drop = nn.Dropout(0.5)
        ...     def __call__(self, x):
        ...         return nn.lift(jax.checkpoint)(self.drop)(x)
        >>> out, _ = nn.training(Model(), jax.random.key(0))(jnp.ones(8))
        >>> sorted(set(out.tolist()))
        [0.0, 2.0]
    """

    def lifted(f: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            bundle = Bundle(f, args, kwargs)
            if not bundle.modules:
                return _plainly(transform, f, args, kwargs)
            if bundle.initializing:
                return f(*args, **kwargs)

            def pure(*args: Any, carried: Any, **kwargs: Any) -> Any:
                inner = bundle.reopen(*carried)
                return inner.call(args, kwargs), inner.effects()

            carried = bundle.enter(), bundle.keys()
            out, effects = transform(pure)(
                *bundle.args, carried=carried, **bundle.kwargs
            )
            bundle.absorb(effects)
            return out

        return call

    return lifted


def _plainly(transform: Any, f: Any, args: Any, kwargs: Any) -> Any:
    """The transform by itself, in a form that lets JAX find what it compiled before."""
    __tracebackhide__ = True
    if isinstance(f, types.FunctionType | functools.partial):
        return transform(f)(*args, **kwargs)
    if is_module(f):
        f = types.MethodType(type(f).__call__, f)
    if isinstance(f, types.MethodType) and is_module(f.__self__):
        carried = jax.tree_util.Partial(f.__func__, f.__self__)
        return transform(_called)(*args, carried=carried, **kwargs)
    return transform(lambda *a, **k: f(*a, **k))(*args, **kwargs)


def _called(*args: Any, carried: Any, **kwargs: Any) -> Any:
    return carried(*args, **kwargs)


def needs_index(*bundles: Bundle) -> bool:
    """Whether the modules can tell one step, or one index, from another."""
    return any(s.keys or s.taps for bundle in bundles for s in bundle.scopes)


def write_states(modules: list[Any], names: Any, values: list[Any]) -> None:
    """Writes states of open modules, by position of the module, path and name."""
    for (i, path, name), value in zip(names, values, strict=True):
        module = modules[i]
        part = descend(module, path[len(opened_of(module).path) :])
        opened_of(part).put(part, name, value)


def _open_or_none(value: Any) -> bool:
    return value is None or is_open(value)


def _add(found: list[Node], module: Node) -> int:
    found.append(module)
    return len(found) - 1


def _roots(found: list[Node]) -> tuple[list[Node], list[tuple[int, Path]]]:
    """The outermost of the modules, and the way from them to each one.

    A module may be found along with one that contains it. Both must stay one.
    """
    unique = list({id(module): module for module in found}.values())
    inside = {
        id(part): root for root in unique for part in open_modules_below(root)[1:]
    }
    roots = [module for module in unique if id(module) not in inside]
    routes = []
    for module in found:
        for i, root in enumerate(roots):
            if any(part is module for part in open_modules_below(root)):
                start = len(opened_of(root).path)
                routes.append((i, opened_of(module).path[start:]))
                break
    return roots, routes


def _rebuilder(value: Any, found: list[Node], seen: tuple[int, ...]) -> Rebuild | None:
    """How to make a value anew with other modules, or None if it uses none."""
    if is_open(value):
        i = _add(found, value)
        return lambda modules: modules[i]
    if id(value) in seen:
        return None
    seen = (*seen, id(value))
    if isinstance(value, types.MethodType):
        owner = _rebuilder(value.__self__, found, seen)
        return owner and (lambda mods: types.MethodType(value.__func__, owner(mods)))
    if isinstance(value, Call):
        target = _rebuilder(value.target, found, seen)
        return target and (lambda mods: dataclasses.replace(value, target=target(mods)))
    if isinstance(value, functools.partial):
        parts = _rebuilder([value.func, *value.args, value.keywords], found, seen)
        return parts and (lambda mods: _partial(*parts(mods)))
    if isinstance(value, types.FunctionType):
        return _function_rebuilder(value, found, seen)
    if isinstance(value, list | tuple | Mapping):
        return _container_rebuilder(value, found, seen)
    return None


def _partial(func: Any, *rest: Any) -> Any:
    *args, keywords = rest
    return functools.partial(func, *args, **keywords)


def _container_rebuilder(
    value: Any, found: list[Node], seen: tuple[int, ...]
) -> Rebuild | None:
    leaves, treedef = jax.tree.flatten(value, is_leaf=is_open)
    rebuilders = [
        None if isinstance(leaf, jax.Array) else _rebuilder(leaf, found, seen)
        for leaf in leaves
    ]
    if not any(rebuilders):
        return None
    return lambda modules: treedef.unflatten(
        [
            leaf if rebuild is None else rebuild(modules)
            for leaf, rebuild in zip(leaves, rebuilders, strict=True)
        ]
    )


def _function_rebuilder(
    fn: types.FunctionType, found: list[Node], seen: tuple[int, ...]
) -> Rebuild | None:
    cells = fn.__closure__ or ()
    rebuilders = []
    for cell in cells:
        try:
            rebuilders.append(_rebuilder(cell.cell_contents, found, seen))
        except ValueError:  # an empty cell
            rebuilders.append(None)
    defaults = _rebuilder([fn.__defaults__, fn.__kwdefaults__], found, seen)
    if defaults is None and not any(rebuilders):
        return None

    def rebuild(modules: list[Any]) -> Any:
        closure = tuple(
            cell if make is None else types.CellType(make(modules))
            for cell, make in zip(cells, rebuilders, strict=True)
        )
        positional, keyword = fn.__defaults__, fn.__kwdefaults__
        if defaults is not None:
            positional, keyword = defaults(modules)
        copy = types.FunctionType(
            fn.__code__, fn.__globals__, fn.__name__, positional, closure
        )
        copy.__kwdefaults__ = keyword
        return copy

    return rebuild
