"""Making the arrays of a described model: shapes first, then each array by itself."""

import functools
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from linnet._errors import InitError
from linnet._errors import describe as array_text
from linnet._typing import Key
from linnet.core._ambient import ambient, in_force
from linnet.core._call import is_key, key_fixes, key_text, module_of
from linnet.core._node import Node, is_declared, is_module
from linnet.core._open import open_module
from linnet.core._path import Path, dotted, key_of, path_text, path_words
from linnet.core._registry import Registry
from linnet.core._role import Declared, Param, from_data
from linnet.core._scope import Scope
from linnet.core._share import refuse_sharing
from linnet.core._table import Entry, slots
from linnet.core._tree import closed
from linnet.core._value import Static
from linnet.core._view import put

Sharding = Any


def init(
    model: Any,
    key: Key,
    *sample: Any,
    method: Any = None,
    sharding: Callable[[str, Declared], Sharding | None] | None = None,
    **kwargs: Any,
) -> Any:
    """Makes the arrays of a described model.

    Shapes are inferred by running the model abstractly on the sample. The key of each
    array derives from its path alone, so that other parts of the model do not matter.
    Arrays that the model holds already are kept: a fresh head on a loaded backbone.

    Args:
        model: A module.
        key: A JAX key.
        *sample: Arguments of the call. Only shapes and dtypes matter, unless a module
            initialises from data; `jax.ShapeDtypeStruct` will do.
        method: What is called: a method's name, or a function of the model and the
            sample. `__call__` by default.
        sharding: From an array's path and declaration to its sharding, in which it is
            made directly; by default by the rules of `parallel.use`, if they are in
            force. The declaration's `shape` and `axes` are those of the whole array,
            with the axes of stacks in front.
        **kwargs: More arguments of the call.

    Returns:
        The model with arrays.

    Raises:
        InitError: The sample did not reach a parameter, or there is nothing to make.
        ShapeError: The sample does not fit the declared sizes.
        TreeError: A module or an array is at two places of the model.

    Example:
        >>> model = nn.init(nn.Dense(3), jax.random.key(0), jnp.ones((1, 2)))
        >>> model.kernel.shape
        (2, 3)
    """
    __tracebackhide__ = True
    module_of(model)
    _check_key(key)
    sharding = sharding or _ambient_sharding()
    described, model = model, _grown(model, key, sample, kwargs, method)
    leaves, treedef, entries = slots(model)
    missing = [is_declared(leaf) for leaf in leaves]
    refuse_sharing(model)
    if model is not described and not any(missing):
        return model
    if not any(missing) and any(e.declared and e.declared.init for e in entries):
        raise _nothing_to_make(model)
    registry = Registry()
    _run(model, registry, sample, kwargs, method)
    shapes = _resolved(model, registry, entries, missing)
    made = [
        _make(entry, shapes[entry.path], key, sharding)
        if entry.path in shapes
        else leaf
        for entry, leaf in zip(entries, leaves, strict=True)
    ]
    if any(map(is_declared, made)):
        made = _fill_from_data(
            model, treedef, made, entries, key, sample, kwargs, method, registry
        )
    return treedef.unflatten(made)


def fill(model: Any, key: Key) -> Any:
    """Makes the missing arrays of a model as `init` does, but calls nothing.

    Args:
        model: A module or a pytree of modules, in which every missing array has been
            declared with its whole shape.
        key: A JAX key.

    Raises:
        InitError: `key` is no key.
    """
    __tracebackhide__ = True
    _check_key(key)
    sharding = _ambient_sharding()
    leaves, treedef, entries = slots(model)
    return treedef.unflatten(
        [
            _make(entry, leaf.shape, key, sharding) if is_declared(leaf) else leaf
            for entry, leaf in zip(entries, leaves, strict=True)
        ]
    )


def _ambient_sharding() -> Callable[[str, Declared], Sharding] | None:
    placement = ambient()
    return None if placement is None else placement.of_array


def _check_key(key: Any) -> None:
    __tracebackhide__ = True
    if not is_key(key):
        raise InitError(
            f"`key` is {key_text(key)}, not one JAX key.",
            code="LN-INIT-03",
            why="Initial values are drawn from a JAX key.",
            fixes=key_fixes(key),
        )


def abstract(model: Any, *sample: Any, method: Any = None, **kwargs: Any) -> Any:
    """The model with shapes and dtypes (`jax.ShapeDtypeStruct`) in place of arrays.

    Args:
        model: A module.
        *sample: Arguments of the call, or their shapes.
        method: What is called; `__call__` by default.
        **kwargs: More arguments of the call.

    Returns:
        The model that `nn.init` would give, without any array.

    Raises:
        InitError: The sample did not reach a parameter.
        ShapeError: The sample does not fit the declared sizes.

    Example:
        >>> shapes = nn.abstract(nn.Dense(3), jax.ShapeDtypeStruct((1, 2), jnp.float32))
        >>> shapes.kernel.shape
        (2, 3)
    """
    __tracebackhide__ = True
    module_of(model)
    model = _grown(model, None, sample, kwargs, method)
    leaves, treedef, entries = slots(model)
    missing = [is_declared(leaf) for leaf in leaves]
    refuse_sharing(model)
    registry = Registry()
    if any(missing):
        _run(model, registry, sample, kwargs, method)
    shapes = _resolved(model, registry, entries, missing)
    sharding = _ambient_sharding()

    def shape_of(entry: Entry, leaf: Any) -> jax.ShapeDtypeStruct:
        if entry.declared is None or entry.path not in shapes:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        whole = _whole(entry, shapes[entry.path])
        where = None if sharding is None else sharding(entry.text, whole)
        return jax.ShapeDtypeStruct(whole.shape, whole.dtype, sharding=where)

    return treedef.unflatten(list(map(shape_of, entries, leaves)))


def describe(model: Any) -> Any:
    """The description of a model: declarations in the place of its arrays.

    Arrays that were given as values, and have no initialiser, stay.

    Args:
        model: A module, initialised or not.

    Returns:
        A model for `nn.init`, with the same configuration.

    Example:
        >>> x = jnp.ones((1, 2))
        >>> model = nn.init(nn.Dense(3), jax.random.key(0), x)
        >>> nn.describe(model) == nn.Dense(3)
        True
    """
    leaves, treedef, entries = slots(closed(model))
    return treedef.unflatten(
        [
            leaf if e.declared is None or e.declared.init is None else e.declared
            for leaf, e in zip(leaves, entries, strict=True)
        ]
    )


def _grown(model: Any, key: Key | None, sample: Any, kwargs: Any, method: Any) -> Any:
    """The model with modules that know their arrays, where some first have to see."""
    __tracebackhide__ = True

    def grows(x: Any) -> bool:
        return isinstance(x, Node) and getattr(x, "grows", False)

    if not any(map(grows, jax.tree.leaves(model, is_leaf=grows))):
        return model
    registry = Registry()
    _run(model, registry, sample, kwargs, method)
    for path, grown in registry.grown.items():
        own = key
        if key is not None and path:
            own = key_of(key, path_words(path))
        model = put(model, path, grown(own))
    return model


def _run(
    model: Node, registry: Registry, sample: Any, kwargs: Any, method: Any
) -> None:
    leaves, treedef = jax.tree.flatten((sample, kwargs))
    arrays = [leaf if _is_arraylike(leaf) else None for leaf in leaves]

    def dry(arrays: Any) -> None:
        filled = [b if a is None else a for a, b in zip(arrays, leaves, strict=True)]
        args, kwargs = treedef.unflatten(filled)
        opened = open_module(model, Scope(registry=registry))
        bound_method(opened, method)(*args, **kwargs)

    __tracebackhide__ = True
    with in_force(None):  # the sample may be of any size
        jax.eval_shape(dry, arrays)


def _is_arraylike(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def bound_method(opened: Node, method: Any) -> Callable[..., Any]:
    if method is None:
        return opened  # type: ignore[return-value]
    if isinstance(method, str):
        return getattr(opened, method)  # type: ignore[no-any-return]
    if isinstance(method, types.MethodType) and is_module(method.__self__):
        method = method.__func__
    return functools.partial(method, opened)


def _resolved(
    model: Any, registry: Registry, entries: tuple[Entry, ...], missing: list[bool]
) -> dict[Path, tuple[int, ...]]:
    """The shape of each array that is to be made."""
    __tracebackhide__ = True
    shapes: dict[Path, Any] = {}
    unreached = []
    for entry, is_missing in zip(entries, missing, strict=True):
        declared = entry.declared
        if not is_missing or declared is None:
            continue
        shapes[entry.path] = registry.shapes.get(entry.path, declared.shape)
        needed = issubclass(declared.role, Param) or None in declared.shape
        if needed and entry.path not in registry.reached:
            unreached.append(entry)
    if unreached:
        raise _unreached(model, entries, unreached)
    return shapes


def _make(entry: Entry, shape: tuple[int, ...], key: Key, sharding: Any) -> Any:
    declared = entry.declared
    assert declared is not None
    if declared.init is from_data:
        return declared
    where = None if sharding is None else sharding(entry.text, _whole(entry, shape))
    make = _maker(Static(declared.init), shape, declared.dtype, _sizes(entry), where)
    return make(key, path_words(entry.path))


def _whole(entry: Entry, shape: tuple[int, ...]) -> Declared:
    """The declaration with the sizes of this model, and the axes of stacks in front."""
    assert entry.declared is not None
    if not entry.stack:
        return entry.declared.replace(shape=shape)
    axes = entry.declared.axes or (None,) * len(shape)
    names = tuple(name for name, _ in entry.stack)
    shape = (*_sizes(entry), *shape)
    return entry.declared.replace(shape=shape, axes=(*names, *axes))


def _sizes(entry: Entry) -> tuple[int, ...]:
    return tuple(size for _, size in entry.stack)


@functools.lru_cache(maxsize=4096)
def _maker(
    initializer: Static, shape: Any, dtype: Any, stack: tuple[int, ...], sharding: Any
) -> Callable[..., Any]:
    """The compiled initialiser of this kind of array. Depth adds no compilation."""

    def make(key: Key, words: Any) -> Any:
        def one(key: Key) -> Any:
            array = initializer.value(key, shape, dtype)
            if array.shape != shape or array.dtype != dtype:
                raise _wrong_initializer(initializer.value, array, shape, dtype)
            return array

        def layers(key: Key, sizes: tuple[int, ...]) -> Any:
            if not sizes:
                return one(key)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(sizes[0]))
            return jax.vmap(lambda key: layers(key, sizes[1:]))(keys)

        return layers(key_of(key, words), stack)

    return jax.jit(make, out_shardings=sharding)


def _fill_from_data(
    model: Any,
    treedef: Any,
    made: list[Any],
    entries: tuple[Entry, ...],
    key: Key,
    sample: Any,
    kwargs: Any,
    method: Any,
    first: Registry,
) -> list[Any]:
    """Runs the model on the sample itself, to take the values that come from it."""
    __tracebackhide__ = True
    leaves, sample_tree = jax.tree.flatten((sample, kwargs))
    if any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves):
        raise InitError(
            "an array starts from data, but the sample has shapes only.",
            code="LN-INIT-07",
            at=type(model).__name__,
            fixes=[
                ("data is at hand", "model = nn.init(model, key, x)"),
                ("shapes are enough", "model = nn.abstract(model, sample)"),
            ],
        )
    wanted = [e.path for e in entries if e.declared and e.declared.init is from_data]
    ready = {
        e.path: value
        for e, value in zip(entries, made, strict=True)
        if not is_declared(value)
    }
    arrays = [leaf if _is_arraylike(leaf) else None for leaf in leaves]

    @jax.jit
    def second_run(key: Key, ready: Any, arrays: Any) -> Any:
        filled = [b if a is None else a for a, b in zip(arrays, leaves, strict=True)]
        args, kwargs = sample_tree.unflatten(filled)
        registry = Registry(dict(zip(paths, ready, strict=True)), key)
        opened = open_module(model, Scope(registry=registry))
        bound_method(opened, method)(*args, **kwargs)
        return [
            _stacked(registry, path, _sizes(entry), ())
            for path, entry in zip(wanted, wanted_entries, strict=True)
        ]

    wanted_entries = [e for e in entries if e.path in set(wanted)]
    paths = list(ready)
    values = second_run(key, [ready[path] for path in paths], arrays)
    found = dict(zip(wanted, values, strict=True))
    return [
        found[e.path] if is_declared(value) else value
        for e, value in zip(entries, made, strict=True)
    ]


def _stacked(registry: Registry, path: Path, sizes: Any, indices: Any) -> Any:
    if not sizes:
        return registry.assigned[path, indices]
    return jnp.stack(
        [_stacked(registry, path, sizes[1:], (*indices, i)) for i in range(sizes[0])]
    )


def _nothing_to_make(model: Any) -> InitError:
    return InitError(
        "every array of the model has a value already.",
        code="LN-INIT-04",
        at=type(model).__name__,
        why="Values are kept, so that a part can be initialised into a loaded model.",
        fixes=[
            ("fresh values are wanted", "model = nn.init(nn.describe(model), key, x)"),
            ("the model is ready", "out = model(x)"),
        ],
    )


def _unreached(
    model: Any, entries: tuple[Entry, ...], unreached: list[Entry]
) -> InitError:
    names = [dotted(entry.path) for entry in unreached]
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if names[6:] else "")
    missed = {entry.path for entry in unreached}
    reached = [entry.path for entry in entries if entry.path not in missed]
    tops = list(dict.fromkeys(_unused(entry.path, reached) for entry in unreached))
    return InitError(
        f"the sample never reached {len(names)} of the parameters: {shown}.",
        code="LN-INIT-02",
        at=type(model).__name__,
        why="A parameter that no call uses would stay untrained, unseen.",
        fixes=_unreached_fixes(model, unreached, tops),
    )


def _unused(path: Path, reached: list[Path]) -> Path:
    """The shortest beginning of a path below which nothing was reached."""
    sizes = range(1, len(path))
    unused = (n for n in sizes if all(other[:n] != path[:n] for other in reached))
    return path[: next(unused, len(path))]


def _unreached_fixes(
    model: Any, unreached: list[Entry], tops: list[Path]
) -> list[tuple[str, str]]:
    arrays = {entry.path for entry in unreached}
    if arrays & set(tops):
        return [
            (
                "another method uses it",
                "model = nn.init(model, key, x, method=lambda m, x: m.other_method(x))",
            ),
            (
                "it is not needed (where it is declared)",
                f"self.{tops[0][-1].name} = None",
            ),
        ]
    calls = ", ".join(f"m.{dotted(top)}(x)" for top in tops[:3])
    where = ", ".join(f'"{path_text(top)}"' for top in tops[:3])
    where = where if len(tops) == 1 else f"({where})"
    by_itself = "lambda m: nn.init(m, key, x)"
    return [
        (
            "another method uses it",
            f"model = nn.init(model, key, x, method=lambda m, x: (m(x), {calls}))",
        ),
        (
            "it is initialised by itself",
            f"model = nn.select(model, {where}).map_modules({by_itself})\n"
            "model = nn.init(model, key, x)",
        ),
        (
            "it is not needed",
            f"model = nn.select(model, {where}).map_modules(lambda m: None)",
        ),
    ]


def _wrong_initializer(fn: Any, array: Any, shape: Any, dtype: Any) -> InitError:
    return InitError(
        f"the initialiser {getattr(fn, '__name__', fn)} returned {array_text(array)}, "
        f"but {dtype}[{', '.join(map(str, shape))}] was asked for.",
        code="LN-INIT-10",
        fixes=[
            (
                "it should follow its arguments",
                "def initializer(key, shape, dtype):\n"
                "    return jax.random.normal(key, shape, dtype)",
            )
        ],
    )
