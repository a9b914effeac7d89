"""One function for many indices: `nn.vmap` and `nn.shard_map`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from linnet._errors import ConfigError, ScopeError
from linnet.core._lift import Bundle, needs_index
from linnet.core._locate import locate
from linnet.core._loop import length_of
from linnet.core._node import is_module, is_open


def vmap(
    f: Callable[..., Any],
    in_axes: Any = 0,
    out_axes: Any = 0,
    *,
    axis_name: str | None = None,
    axis_size: int | None = None,
    keys: str = "split",
) -> Callable[..., Any]:
    """`jax.vmap` for modules.

    A module that is mapped (`in_axes=0`) has stacked arrays, one set for each index.
    All others have the same arrays for every index. Every index has random keys of
    its own, unless `keys="shared"` asks for one key for all: the same dropout mask in
    every row.

    Args:
        f: A function, a module or a bound method.
        in_axes: As for `jax.vmap`; 0 or `None` for an argument that holds modules.
        out_axes: As for `jax.vmap`.
        axis_name: As for `jax.vmap`.
        axis_size: As for `jax.vmap`.
        keys: `"split"` or `"shared"`.

    Raises:
        ScopeError: A module that is not mapped writes another state for each index.
        ConfigError: A module is mapped along another axis than 0, or `keys` is
            neither of the two.

    Example:
        >>> dense = nn.init(nn.Dense(2), jax.random.key(0), jnp.ones(3))
        >>> nn.vmap(dense)(jnp.ones((4, 3))).shape
        (4, 2)
    """
    if keys not in ("split", "shared"):
        raise ConfigError(
            f"`keys` is {keys!r}, but it must be 'split' or 'shared'.",
            code="LN-VMAP-01",
            fixes=[
                ("each index has its own randomness", 'keys = "split"'),
                ("all have the same, as the same mask", 'keys = "shared"'),
            ],
        )

    def mapped(*args: Any) -> Any:
        __tracebackhide__ = True
        axes = (
            list(in_axes)
            if isinstance(in_axes, tuple | list)
            else [in_axes] * len(args)
        )
        has = [any(map(is_open, jax.tree.leaves(a, is_leaf=is_open))) for a in args]
        for axis, holds in zip(axes, has, strict=True):
            if holds and axis not in (0, None):
                raise _wrong_module_axis(axis)
        stack = [h and axis == 0 for h, axis in zip(has, axes, strict=True)]
        same = Bundle(
            f, tuple(None if s else a for a, s in zip(args, stack, strict=True)), {}
        )
        rows = Bundle(
            None, tuple(a if s else None for a, s in zip(args, stack, strict=True)), {}
        )
        options: Any = {"axis_name": axis_name, "axis_size": axis_size}
        if not same.modules and not rows.modules:
            return jax.vmap(lambda *a: f(*a), tuple(axes), out_axes, **options)(*args)
        if rows.initializing:
            return _vmap_to_initialize(f, args, axes, out_axes, same, rows, axis_size)
        return _vmap_open(f, axes, out_axes, options, keys, same, rows, stack)

    return mapped


def _vmap_open(
    f: Any,
    axes: list[Any],
    out_axes: Any,
    options: dict[str, Any],
    keys: str,
    same: Bundle,
    rows: Bundle,
    stack: list[bool],
) -> Any:
    __tracebackhide__ = True
    scopes = same.scopes or rows.scopes
    name = options["axis_name"] or f"linnet_vmap_{len(scopes[0].indices)}"
    closed_same, same_keys, row_keys = same.enter(), same.keys(), rows.keys()
    initializing, indexed = same.initializing, needs_index(same, rows)

    def one(row: Any, *parts: Any) -> Any:
        i = jax.lax.axis_index(name) if indexed else None
        if initializing:
            inner, own = same.as_it_is(), rows.as_it_is()
        else:
            inner = _mapped_inside(same, closed_same, same_keys, i, keys)
            own = _mapped_inside(rows, row, row_keys, i, keys)
        of_same, _ = inner.arguments(tuple(p[0] for p in parts), {})
        of_rows, _ = own.arguments(tuple(p[1] for p in parts), {})
        chosen = [
            r if s else a for s, a, r in zip(stack, of_same, of_rows, strict=True)
        ]
        out = inner.f()(*chosen)
        names, values, records, counts = inner.effects(written=not initializing)
        return (
            out,
            values,
            (names, records, counts),
            own.effects(written=not initializing),
        )

    parts = list(zip(same.args, rows.args, strict=True))
    run = jax.vmap(
        one,
        in_axes=(0, *((a, a if s else None) for a, s in zip(axes, stack, strict=True))),
        out_axes=(out_axes, None, 0, 0),
        axis_name=name,
        axis_size=options["axis_size"],
    )
    try:
        out, values, (names, records, counts), of_rows = run(rows.enter(), *parts)
    except ValueError as error:
        if "out_axes is None" not in str(error):
            raise
        raise _state_per_index(same) from error
    if not initializing:
        same.absorb((names, values, records, counts))
        rows.absorb(of_rows)
    return out


def _mapped_inside(
    bundle: Bundle, closed_modules: Any, own: Any, i: Any, keys: str
) -> Any:
    inner = bundle.reopen(closed_modules, own, i)
    if keys == "shared":
        for scope, outer in zip(inner._scopes, own, strict=True):
            scope.keys = dict(outer)
    return inner


def _vmap_to_initialize(
    f: Any,
    args: Any,
    axes: list[Any],
    out_axes: Any,
    same: Bundle,
    rows: Bundle,
    axis_size: int | None,
) -> Any:
    """One member tells the shapes; to start from data, all run one after another."""
    if axis_size is None:
        sizes = [
            jnp.shape(x)[axis]
            for arg, axis in zip(same.args, axes, strict=True)
            if axis is not None
            for x in jax.tree.leaves(arg)
        ]
        axis_size = sizes[0] if sizes else length_of(None, rows.enter())
    outs = []
    for i in range(1 if rows.is_abstract else axis_size):
        member = jax.tree.map(lambda x, i=i: x[i], rows.enter())
        own = rows.reopen(member, rows.keys(), i)
        of_rows, _ = own.arguments(rows.args, {})
        chosen = [
            r
            if any(map(is_open, jax.tree.leaves(r, is_leaf=is_open)))
            else _row(a, axis, i)
            for a, r, axis in zip(args, of_rows, axes, strict=True)
        ]
        outs.append(f(*chosen))
    outs *= axis_size if rows.is_abstract else 1
    return jax.tree.map(lambda *each: jnp.stack(each, out_axes), *outs)


def _row(arg: Any, axis: int | None, i: int) -> Any:
    if axis is None:
        return arg
    return jax.tree.map(lambda x: jnp.take(x, i, axis), arg)


def shard_map(
    f: Callable[..., Any],
    *,
    mesh: Any = None,
    in_specs: Any,
    out_specs: Any,
    keys: str = "split",
    **options: Any,
) -> Callable[..., Any]:
    """`jax.shard_map` for modules.

    Modules are replicated: each device has all their arrays, and state that they write
    must be the same on every device, as after `BatchNorm(axis_name=...)`.

    Args:
        f: A function, a module or a bound method.
        mesh: As for `jax.shard_map`.
        in_specs: As for `jax.shard_map`, one for each argument; that of a module
            does not matter.
        out_specs: As for `jax.shard_map`.
        keys: `"split"`: each device has random keys of its own. `"shared"`: all have
            the same.
        **options: Of `jax.shard_map`, such as `check_vma`.

    Raises:
        ScopeError: State differs between devices.

    Example:
        >>> from jax.sharding import PartitionSpec as P
        >>> mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
        >>> dense = nn.init(nn.Dense(2), jax.random.key(0), jnp.ones(3))
        >>> rows = P("data")
        >>> run = nn.shard_map(dense, mesh=mesh, in_specs=rows, out_specs=rows)
        >>> run(jnp.ones((4, 3))).shape
        (4, 2)
    """

    def call(*args: Any) -> Any:
        __tracebackhide__ = True
        bundle = Bundle(f, args, {})
        specs = in_specs if isinstance(in_specs, tuple) else (in_specs,) * len(args)
        where = {} if mesh is None else {"mesh": mesh}
        everywhere = jax.sharding.PartitionSpec()
        if not bundle.modules:
            return jax.shard_map(
                lambda *a: f(*a),
                in_specs=tuple(
                    everywhere if is_module(arg) else spec
                    for arg, spec in zip(args, specs, strict=True)
                ),
                out_specs=out_specs,
                **where,
                **options,
            )(*args)
        if bundle.initializing:
            return f(*args)
        axes = (mesh or jax.sharding.get_abstract_mesh()).axis_names
        axes = tuple(options.get("axis_names", axes))

        wrote: list[Any] = []

        def one(carried: Any, *args: Any) -> Any:
            entered, own = carried
            index = jax.lax.axis_index(axes)
            inner = _mapped_inside(bundle, entered, own, index, keys)
            chosen, _ = inner.arguments(args, {})
            out = inner.f()(*chosen)
            names, values, records, counts = inner.effects()
            wrote.extend(names.value)
            records = jax.tree.map(lambda x: jnp.expand_dims(x, 0), records)
            return out, (names, values, records, counts)

        run = jax.shard_map(
            one,
            in_specs=(everywhere, *specs),
            out_specs=(
                out_specs,
                (everywhere, everywhere, jax.sharding.PartitionSpec(axes), everywhere),
            ),
            **where,
            **options,
        )
        try:
            out, effects = run((bundle.enter(), bundle.keys()), *bundle.args)
        except ValueError as error:
            if not wrote or not _blames_effects(str(error)):
                raise
            raise _state_per_index(bundle) from error
        bundle.absorb(effects)
        return out

    return call


def _blames_effects(text: str) -> bool:
    """Whether JAX finds that not the result differs between devices, but a state."""
    return "replicat" in text and ("out_specs[" not in text or "out_specs[1]" in text)


def _wrong_module_axis(axis: Any) -> ConfigError:
    return ConfigError(
        f"a module is mapped along axis {axis!r}.",
        code="LN-VMAP-02",
        why="The arrays of stacked modules are stacked along their first axis.",
        fixes=[
            ("the module is the same for all", "in_axes = (None, 0)"),
            ("it is stacked", "in_axes = (0, 0)"),
        ],
    )


def _state_per_index(bundle: Bundle) -> ScopeError:
    return ScopeError(
        "a module writes another state for each index, but is not mapped itself.",
        code="LN-VMAP-03",
        at=locate(bundle.modules[0]),
        why="One model has one state; which of many values it takes must not be "
        "guessed.",
        fixes=[
            (
                "the statistics are those of all indices",
                'self.norm = nn.BatchNorm(axis_name="batch")\n'
                'y = nn.vmap(self.norm, axis_name="batch")(x)',
            ),
            (
                "each index has a module of its own",
                "self.norm = nn.Ensemble(nn.BatchNorm(), size, in_axis=0)\n"
                "y = self.norm(x)",
            ),
        ],
    )
