"""JAX's transforms for functions that use modules, open or closed.

Each has the signature of JAX's own. In a plain call it is JAX's own.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from linnet._errors import ConfigError, ScopeError, ShapeError, describe
from linnet.core._lift import Bundle, Effects, lift
from linnet.core._locate import locate
from linnet.core._node import is_module, is_open
from linnet.core._tree import closed

_CONDITION = 0x636F6E64  # keeps the keys of a loop's condition and body apart


def remat(
    f: Callable[..., Any], *, policy: Any = None, prevent_cse: bool = True
) -> Callable[..., Any]:
    """`jax.checkpoint` for modules: recomputes intermediate values in the backward pass.

    Results, randomness included, are the same with and without it. Arguments that are
    not arrays are left as they are.

    Args:
        f: A function, a module or a bound method.
        policy: Which values are kept: one of `jax.checkpoint_policies`.
        prevent_cse: As for `jax.checkpoint`; `False` is faster inside a scan.

    Example:
        >>> model = nn.init(nn.Dense(3), jax.random.key(0), jnp.ones((1, 2)))
        >>> nn.remat(model)(jnp.ones((1, 2))).shape
        (1, 3)
    """
    checkpoint = functools.partial(
        jax.checkpoint, policy=policy, prevent_cse=prevent_cse
    )

    def rematerialised(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        _original = f  # for `locate`: what runs inside is a copy
        leaves, treedef = jax.tree.flatten((args, kwargs), is_leaf=is_open)
        fixed = {
            i: leaf
            for i, leaf in enumerate(leaves)
            if not (hasattr(leaf, "dtype") or is_open(leaf))
        }

        def on_arrays(arrays: dict[int, Any], f: Any) -> Any:
            full = [fixed[i] if i in fixed else arrays[i] for i in range(len(leaves))]
            args, kwargs = treedef.unflatten(full)
            return f(*args, **kwargs)

        arrays = {i: leaf for i, leaf in enumerate(leaves) if i not in fixed}
        if is_module(f):
            return lift(checkpoint)(on_arrays)(arrays, f)
        return lift(checkpoint)(lambda arrays: on_arrays(arrays, f))(arrays)

    return rematerialised


def jit(f: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit` for a part of a model, inside of a stateful call too.

    Args:
        f: A function, a module or a bound method.
        **options: Of `jax.jit`, such as `inline`.

    Example:
        >>> model = nn.init(nn.Dense(3), jax.random.key(0), jnp.ones((1, 2)))
        >>> nn.jit(model)(jnp.ones((1, 2))).shape
        (1, 3)
    """
    jitted: Callable[..., Any] = lift(functools.partial(jax.jit, **options))(f)
    return jitted


def scan(
    f: Callable[..., Any],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    *,
    reverse: bool = False,
    unroll: int | bool = 1,
) -> tuple[Any, Any]:
    """`jax.lax.scan` for modules, over time or over layers.

    Modules that `f` uses have the same arrays in every step; their state is carried
    along. Modules in `xs` are stacks: a step gets one layer of them. Each step has
    random keys of its own, and taps see values stacked by step.

    Args:
        f: `f(carry, x) -> (carry, y)`.
        init: First carry.
        xs: Arrays, and modules with stacked arrays, by their leading axis.
        length: Number of steps, where there are no `xs`.
        reverse: Whether to go from the last to the first.
        unroll: Steps in one iteration of the loop; `True` for no loop.

    Returns:
        The last carry, and every `y` stacked.

    Raises:
        ScopeError: A module is in the carry.
        ShapeError: The length is not clear.
        TypeError: The carry changes its shape or dtype, by JAX itself.

    Example:
        >>> cell = nn.init(nn.Dense(2), jax.random.key(0), jnp.ones(2))
        >>> step = lambda h, x: (jnp.tanh(cell(h) + x), h)
        >>> h, hs = nn.scan(step, jnp.zeros(2), jnp.ones((5, 2)))
        >>> hs.shape
        (5, 2)
    """
    __tracebackhide__ = True
    fixed, layers = Bundle(f, (init,), {}), Bundle(None, (xs,), {})
    if fixed.places:
        raise _module_in_carry(
            "scan", "carry, ys = nn.scan(lambda h, x: (self.cell(h), h), h, xs)"
        )
    options = {"length": length, "reverse": reverse, "unroll": unroll}
    stacked = layers.enter()
    steps = _length(length, (layers.args, stacked))
    if fixed.initializing and not layers.modules:
        return jax.lax.scan(lambda c, x: f(c, x), init, xs, **options)  # type: ignore[arg-type]
    if layers.initializing:
        return _scan_to_initialize(f, init, layers, steps, reverse)
    if not fixed.modules and not layers.modules:
        return jax.lax.scan(lambda c, x: f(c, x), init, xs, **options)  # type: ignore[arg-type]
    closed_fixed, fixed_keys, layer_keys = fixed.enter(), fixed.keys(), layers.keys()
    indices = jnp.arange(steps) if _needs_index(fixed, layers) else None

    def body(carry: Any, x: Any) -> Any:
        carry, states = carry
        i, part, layer = x
        inner = fixed.reopen(closed_fixed, fixed_keys, i)
        inner.put_states(states)
        own = layers.reopen(layer, layer_keys, i)
        (part,), _ = own.arguments(part, {})
        carry, y = inner.f()(carry, part)
        effects = inner.effects(written=False), own.effects()
        return (carry, inner.states()), (y, effects)

    (carry, states), (ys, (of_fixed, of_layers)) = jax.lax.scan(
        body,
        (init, fixed.states()),
        (indices, layers.args, stacked),
        **options,  # type: ignore[arg-type]
    )
    fixed.absorb(of_fixed)
    fixed.put_states(states)
    layers.absorb(of_layers)
    return carry, ys


def _needs_index(*bundles: Bundle) -> bool:
    """Whether the modules can tell one step, or one index, from another."""
    return any(s.keys or s.taps for bundle in bundles for s in bundle.scopes)


def _length(length: int | None, xs: Any) -> int:
    sizes = {x.shape[0] for x in jax.tree.leaves(xs) if x.ndim}
    if length is not None:
        sizes.add(length)
    if len(sizes) != 1:
        raise ShapeError(
            f"the length of the scan is not clear: {sorted(sizes) or 'nothing given'}.",
            code="LN-SCAN-01",
            why="It is `length`, and the size of the first axis of all `xs`.",
            fixes=_length_fixes(sizes),
        )
    return int(sizes.pop())


def _length_fixes(sizes: set[int]) -> list[tuple[str, str]]:
    if not sizes:
        return [("it is known", "carry, ys = nn.scan(f, carry, None, length=2)")]
    steps = min(sizes)
    return [
        (
            f"the first {steps} are meant",
            f"xs = jax.tree.map(lambda x: x[:{steps}], xs)\nlength = {steps}",
        )
    ]


def _scan_to_initialize(
    f: Any, init: Any, layers: Bundle, steps: int, reverse: bool
) -> tuple[Any, Any]:
    """One layer tells the shapes; to start from data, all run one after another."""
    __tracebackhide__ = True
    stacked = layers.enter()
    order = list(range(steps))[:: -1 if reverse else 1]
    carry, ys = init, {}
    for i in order[:1] if layers.is_abstract else order:
        layer, part = jax.tree.map(lambda x, i=i: x[i], (stacked, layers.args))
        own = layers.reopen(layer, layers.keys(), i)
        (part,), _ = own.arguments(part, {})
        new, ys[i] = f(carry, part)
        check_carry(layers.modules[0], carry, new, steps)
        carry = new
    first = next(iter(ys.values()))
    if len(ys) < steps:
        return carry, jax.tree.map(
            lambda y: jnp.broadcast_to(y[None], (steps, *jnp.shape(y))), first
        )
    return carry, jax.tree.map(
        lambda *each: jnp.stack(each), *(ys[i] for i in range(steps))
    )


def check_carry(layer: Any, old: Any, new: Any, steps: int) -> None:
    """Refuses a stacked layer whose result cannot be the input of the next."""
    __tracebackhide__ = True
    same = jax.tree.structure(old) == jax.tree.structure(new) and all(
        jnp.shape(a) == jnp.shape(b) and jnp.result_type(a) == jnp.result_type(b)
        for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
    )
    if not same:
        shown = [jax.tree.map(describe, x) for x in (old, new)]
        raise ShapeError(
            f"a stacked layer takes {shown[0]}, but returns {shown[1]}.",
            code="LN-STACK-01",
            at=locate(layer),
            why="The result of a layer is the input of the next, so it must look the "
            "same.",
            fixes=_carry_fixes(layer, old, new, steps),
        )


def _carry_fixes(layer: Any, old: Any, new: Any, steps: int) -> list[tuple[str, str]]:
    differ = (
        "the layers differ",
        f"model = nn.Sequential([make_layer(i) for i in range({steps})])",
    )
    if not hasattr(old, "shape") or not hasattr(new, "shape"):
        return [differ]
    if old.shape == new.shape:
        keep = "the dtype is kept (in its `__call__`)", "return y.astype(x.dtype)"
        return [keep, differ]
    cls = type(layer)
    name = ("nn." if cls.__module__.startswith("linnet.") else "") + cls.__name__
    if old.ndim and hasattr(layer, "features"):
        make = f"model = nn.Stack({name}({old.shape[-1]}), {steps})"
        return [("the layer keeps the width", make), differ]
    return [differ]


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
    initializing, needs_index = same.initializing, _needs_index(same, rows)

    def one(row: Any, *parts: Any) -> Any:
        i = jax.lax.axis_index(name) if needs_index else None
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
        axis_size = sizes[0] if sizes else _length(None, rows.enter())
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


def cond(
    pred: Any,
    true_fun: Callable[..., Any],
    false_fun: Callable[..., Any],
    *operands: Any,
) -> Any:
    """`jax.lax.cond` for modules. Only the branch that runs writes state.

    Args:
        pred: A boolean scalar.
        true_fun: Called with the operands where `pred` holds.
        false_fun: Called with them where it does not.
        *operands: Arrays and modules.

    Raises:
        ScopeError: The branches would capture different values.

    Example:
        >>> nn.cond(True, lambda x: x + 1, lambda x: x, jnp.array(1.0))
        Array(2., dtype=float32, weak_type=True)
    """
    __tracebackhide__ = True
    return switch(jnp.asarray(pred, jnp.int32), (false_fun, true_fun), *operands)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """`jax.lax.switch` for modules. Only the branch that runs writes state.

    Args:
        index: Which branch, an integer scalar; clamped to the branches there are.
        branches: Functions of the operands.
        *operands: Arrays and modules.

    Raises:
        ScopeError: The branches would capture different values.

    Example:
        >>> nn.switch(1, [jnp.sin, jnp.cos], jnp.array(0.0))
        Array(1., dtype=float32, weak_type=True)
    """
    __tracebackhide__ = True
    bundle = Bundle(tuple(branches), operands, {})
    if not bundle.modules:
        return jax.lax.switch(index, list(branches), *operands)
    if bundle.initializing:
        inside = bundle.as_it_is()

        def bare(i: int) -> Callable[..., Any]:
            return lambda *args: inside.f()[i](*inside.arguments(args, {})[0])

        return jax.lax.switch(
            index, [bare(i) for i in range(len(branches))], *bundle.args
        )
    entered, keys = bundle.enter(), bundle.keys()
    done: list[Effects] = []

    def branch(i: int) -> Callable[..., Any]:
        def run(states: Any, *args: Any) -> Any:
            inner = bundle.reopen(entered, keys)
            inner.put_states(states)
            out = inner.f()[i](*inner.arguments(args, {})[0])
            done.append(_uncaptured(inner.effects(written=False), "a branch"))
            return out, inner.states()

        return run

    runs = [branch(i) for i in range(len(branches))]
    out, states = jax.lax.switch(index, runs, bundle.states(), *bundle.args)
    for effects in done:
        bundle.absorb(effects)
    bundle.put_states(states)
    return out


def _uncaptured(effects: Effects, place: str) -> Effects:
    """The effects, which are known before the program runs if none is a value."""
    __tracebackhide__ = True
    if jax.tree.leaves(effects[2]):
        raise _tap_in(place, effects[2])
    return effects


def while_loop(
    cond_fun: Callable[..., Any], body_fun: Callable[..., Any], init_val: Any
) -> Any:
    """`jax.lax.while_loop` for modules. State is carried; the condition only reads it.

    Args:
        cond_fun: From the value to a boolean scalar.
        body_fun: From the value to the next one.
        init_val: First value.

    Raises:
        ScopeError: A module is in the value, or a value in the loop is captured.

    Example:
        >>> nn.while_loop(lambda x: x < 10, lambda x: 2 * x, jnp.array(1))
        Array(16, dtype=int32, weak_type=True)
    """
    __tracebackhide__ = True
    bundle = Bundle((cond_fun, body_fun), (init_val,), {})
    if bundle.places:
        raise _module_in_carry(
            "while_loop",
            "y = nn.while_loop(lambda y: y.sum() < 9, lambda y: self.cell(y), y)",
        )
    if not bundle.modules or bundle.initializing:
        return jax.lax.while_loop(
            lambda x: cond_fun(x), lambda x: body_fun(x), init_val
        )
    entered, keys = bundle.enter(), bundle.keys()
    apart = jax.tree.map(lambda key: jax.random.fold_in(key, _CONDITION), keys)
    done: list[Effects] = []

    def part(which: int, own: Any, carry: Any) -> tuple[Any, Any]:
        i, value, states = carry
        inner = bundle.reopen(entered, own, i, writable=which == 1)
        inner.put_states(states)
        out = inner.f()[which](value)
        done.append(_uncaptured(inner.effects(written=False), "a while loop"))
        return out, inner.states()

    def test(carry: Any) -> Any:
        return part(0, apart, carry)[0]

    def body(carry: Any) -> Any:
        return carry[0] + 1, *part(1, keys, carry)

    start = jnp.zeros((), jnp.int32), init_val, bundle.states()
    _, value, states = jax.lax.while_loop(test, body, start)
    for effects in done:
        bundle.absorb(effects)
    bundle.put_states(states)
    return value


def custom_vjp(
    f: Callable[..., Any], forward: Callable[..., Any], backward: Callable[..., Any]
) -> Callable[..., Any]:
    """`jax.custom_vjp` for functions of modules.

    Args:
        f: The function.
        forward: Takes the arguments of `f` and returns `(out, residuals)`.
        backward: Takes `(residuals, gradient of out)` and returns a gradient for each
            argument of `f`. That of a module is a tree of its structure, such as
            `nn.grad` returns; `None` stands for zero.

    Returns:
        A function with the arguments of `f`. A module gets a gradient where it is an
        argument, not where it is in a closure.

    Example:
        >>> clip = nn.custom_vjp(
        ...     lambda x: x,
        ...     lambda x: (x, None),
        ...     lambda _, g: (jnp.clip(g, -1, 1),),
        ... )
        >>> jax.grad(lambda x: 5 * clip(x))(2.0)
        Array(1., dtype=float32, weak_type=True)
    """

    def call(*args: Any) -> Any:
        __tracebackhide__ = True
        bundle = Bundle((f, forward), args, {})
        if not bundle.modules:
            plain = jax.custom_vjp(lambda *a: f(*a))
            plain.defvjp(lambda *a: forward(*a), lambda r, g: tuple(backward(r, g)))
            return plain(*args)
        if bundle.initializing:
            return f(*args)

        def run(which: int, args: Any, modules: Any, keys: Any) -> Any:
            entered = bundle.enter()
            for i, value in modules.items():
                entered[i] = value
            inner = bundle.reopen(entered, keys)
            chosen, _ = inner.arguments(args, {})
            return inner.f()[which](*chosen), inner.effects()

        place = _argument_roots(bundle, args)
        roots = {i: bundle.enter()[i] for i in place.values()}

        @jax.custom_vjp
        def pure(args: Any, modules: Any, keys: Any) -> Any:
            return run(0, args, modules, keys)

        def pure_forward(args: Any, modules: Any, keys: Any) -> Any:
            (out, residuals), effects = run(1, args, modules, keys)
            return (out, effects), residuals

        def pure_backward(residuals: Any, gradient: Any) -> Any:
            grads = list(backward(residuals, gradient[0]))
            for_modules = dict.fromkeys(roots)
            for position, root in place.items():
                for_modules[root] = closed(grads[position])
                grads[position] = None
            return tuple(grads), for_modules, None

        pure.defvjp(pure_forward, pure_backward)
        out, effects = pure(bundle.args, roots, bundle.keys())
        bundle.absorb(effects)
        return out

    return call


def _argument_roots(bundle: Bundle, args: Any) -> dict[int, int]:
    """For each argument that is a module, its position among the bundle's."""
    return {
        position: i
        for position, arg in enumerate(args)
        for i, module in enumerate(bundle.modules)
        if arg is module
    }


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


# Errors


def _module_in_carry(name: str, code: str) -> ScopeError:
    return ScopeError(
        f"a module is in the carry of `nn.{name}`.",
        code="LN-SCAN-02",
        why="The carry holds arrays. A module's state is carried along by itself.",
        fixes=[("the function uses the module from around it", code)],
    )


def _tap_in(place: str, records: list[Any]) -> ScopeError:
    names = sorted({name for scope in records for own, _ in scope for name in own})
    shown = ", ".join(map(repr, names[:3]))
    return ScopeError(
        f"{shown} inside {place} cannot be captured.",
        code="LN-TAP-02",
        why="It may be computed never or many times, so it has no one value to return.",
        fixes=[
            (
                "values outside of it are enough",
                f"where = lambda path, module: path not in ({shown},)",
            )
        ],
    )


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
