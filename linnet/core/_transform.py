"""Transforms called like their function: `nn.remat`, `nn.jit`, `nn.custom_vjp`."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from linnet.core._lift import Bundle, lift
from linnet.core._node import is_module, is_open
from linnet.core._tree import closed


def remat(
    f: Callable[..., Any], *, policy: Any = None, prevent_cse: bool = True
) -> Callable[..., Any]:
    """`jax.checkpoint` for modules: recomputes values in the backward pass.

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
