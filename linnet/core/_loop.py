"""Loops over time and over layers: `nn.scan` and `nn.while_loop`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from linnet._errors import ScopeError, ShapeError, describe
from linnet.core._branch import uncaptured
from linnet.core._lift import Bundle, Effects, needs_index
from linnet.core._locate import locate

_CONDITION = 0x636F6E64  # keeps the keys of a loop's condition and body apart


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
    steps = length_of(length, (layers.args, stacked))
    if fixed.initializing and not layers.modules:
        return jax.lax.scan(lambda c, x: f(c, x), init, xs, **options)  # type: ignore[arg-type]
    if layers.initializing:
        return _scan_to_initialize(f, init, layers, steps, reverse)
    if not fixed.modules and not layers.modules:
        return jax.lax.scan(lambda c, x: f(c, x), init, xs, **options)  # type: ignore[arg-type]
    closed_fixed, fixed_keys, layer_keys = fixed.enter(), fixed.keys(), layers.keys()
    indices = jnp.arange(steps) if needs_index(fixed, layers) else None

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


def length_of(length: int | None, xs: Any) -> int:
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
        done.append(uncaptured(inner.effects(written=False), "a while loop"))
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


def _module_in_carry(name: str, code: str) -> ScopeError:
    return ScopeError(
        f"a module is in the carry of `nn.{name}`.",
        code="LN-SCAN-02",
        why="The carry holds arrays. A module's state is carried along by itself.",
        fixes=[("the function uses the module from around it", code)],
    )
