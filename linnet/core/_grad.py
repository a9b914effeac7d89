"""Gradients with respect to part of a model."""

from collections.abc import Callable
from typing import Any

import jax

from linnet._errors import ConfigError, describe
from linnet.core._call import refusing_lost_updates
from linnet.core._lift import Bundle
from linnet.core._node import is_module, is_open
from linnet.core._path import Path
from linnet.core._role import Param
from linnet.core._tree import closed, merge, partition, refuse_described
from linnet.core._view import put
from linnet.core._where import Where


def value_and_grad(
    f: Callable[..., Any],
    wrt: Where = Param,
    *,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """The value of a function, and its gradient by part of its first argument.

    Args:
        f: Takes a model, or a pytree of models, or arrays, and returns a scalar, or
            `(scalar, aux)` with `has_aux`.
        wrt: Role, path pattern, module type, predicate `f(path, array)`, or a tuple
            of these. Where the first argument holds no model, it is taken as a whole.
        has_aux: Whether `f` returns more than the value, as the updated model.

    Returns:
        A function with the arguments of `f` that returns `(value, gradient)`, or
        `((value, aux), gradient)`. The gradient has the structure of the first
        argument, with `None` where nothing was asked for.

    Raises:
        TreeError: `f` dropped the updated state of `nn.training`.
        ConfigError: `f` returns something else than `has_aux` says.
        PathError: A pattern matches nothing.
        InitError: The model is not initialised.

    Example:
        >>> model = nn.init(nn.Dense(3), jax.random.key(0), jnp.ones((1, 2)))
        >>> loss, grads = nn.value_and_grad(lambda m: m(jnp.ones((4, 2))).sum())(model)
        >>> grads.bias
        Array([4., 4., 4.], dtype=float32)
    """

    def differentiated(first: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        bundle = Bundle(f, (first, *args), {})
        if bundle.modules:
            return _in_open_model(bundle, f, first, wrt, has_aux, args, kwargs)
        return _plain(f, first, wrt, has_aux, args, kwargs)

    return differentiated


def grad(
    f: Callable[..., Any],
    wrt: Where = Param,
    *,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """The gradient of a function by part of its first argument.

    Args:
        f: As for `nn.value_and_grad`.
        wrt: As for `nn.value_and_grad`.
        has_aux: Whether `f` returns `(scalar, aux)`.

    Returns:
        A function with the arguments of `f` that returns the gradient, or
        `(gradient, aux)`.

    Raises:
        TreeError: `f` dropped the updated state of `nn.training`.
        ConfigError: `f` returns something else than `has_aux` says.
        PathError: A pattern matches nothing.
        InitError: The model is not initialised.

    Example:
        >>> model = nn.init(nn.Dense(3), jax.random.key(0), jnp.ones((1, 2)))
        >>> nn.grad(lambda m: m.bias.sum(), "bias")(model).kernel is None
        True
    """
    both = value_and_grad(f, wrt, has_aux=has_aux)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        value, grads = both(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return gradient


def _plain(
    f: Any, first: Any, wrt: Where, has_aux: bool, args: Any, kwargs: Any
) -> Any:
    __tracebackhide__ = True
    wanted, rest = divide(first, wrt)

    def function(wanted: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        out = f(join(wanted, rest), *args, **kwargs)
        _check_output(out, has_aux)
        return out

    run = jax.value_and_grad(function, has_aux=has_aux)
    return refusing_lost_updates(run)(wanted, *args, **kwargs)


def _in_open_model(
    bundle: Bundle,
    f: Any,
    first: Any,
    wrt: Where,
    has_aux: bool,
    args: Any,
    kwargs: Any,
) -> Any:
    """Inside a module: state and randomness of the open modules go in and out."""
    __tracebackhide__ = True
    if bundle.initializing:
        return _while_initializing(f, first, has_aux, args, kwargs)
    entered, keys = bundle.enter(), bundle.keys()
    model = closed(first)
    wanted, rest = divide(model, wrt)

    places = _open_places(bundle, first)

    def function(wanted: Any) -> Any:
        point = join(wanted, rest)
        inner = bundle.reopen(_with_parts(bundle, entered, places, point), keys)
        given, _ = inner.arguments(bundle.args, {})
        out = inner.f()(given[0] if places else point, *given[1:], **kwargs)
        _check_output(out, has_aux)
        value, aux = out if has_aux else (out, None)
        return value, (aux, inner.effects())

    (value, (aux, effects)), grads = jax.value_and_grad(function, has_aux=True)(wanted)
    bundle.absorb(effects)
    return ((value, aux) if has_aux else value), grads


def _open_places(bundle: Bundle, first: Any) -> dict[int, tuple[int, Path]]:
    """The open modules of the first argument: by leaf, their root and way from it."""
    leaves = jax.tree.leaves(first, is_leaf=lambda x: x is None or is_open(x))
    places = bundle.places.items()
    return {leaf: bundle.routes[i] for leaf, i in places if leaf < len(leaves)}


def _with_parts(
    bundle: Bundle, entered: list[Any], places: dict[int, tuple[int, Path]], point: Any
) -> list[Any]:
    """The closed modules of the bundle, with those that are differentiated put in."""
    parts = jax.tree.leaves(point, is_leaf=lambda x: x is None or is_module(x))
    entered = list(entered)
    for leaf, (root, path) in places.items():
        entered[root] = put(entered[root], path, parts[leaf])
    return entered


def _while_initializing(
    f: Any, first: Any, has_aux: bool, args: Any, kwargs: Any
) -> Any:
    """The function runs for the shapes; the gradient looks like its argument."""
    if not any(map(is_module, jax.tree.leaves(first, is_leaf=is_module))):
        bare = jax.value_and_grad(lambda x: f(x, *args, **kwargs), has_aux=has_aux)
        return bare(first)
    return f(first, *args, **kwargs), first


def divide(first: Any, wrt: Where) -> tuple[Any, Any]:
    """What is differentiated by, and the rest, as `join` takes them.

    Args:
        first: A model, or a pytree of models, or arrays, which are taken as a whole.
        wrt: As for `nn.value_and_grad`.

    Raises:
        ConfigError: It selects no array.
        InitError: The model is not initialised.
        PathError: A pattern matches nothing.
    """
    __tracebackhide__ = True
    if not any(map(is_module, jax.tree.leaves(first, is_leaf=is_module))):
        return first, None
    refuse_described(first)
    wanted, rest = partition(first, wrt)
    if not jax.tree.leaves(wanted):
        raise ConfigError(
            f"`wrt={getattr(wrt, '__name__', wrt)!s}` selects no array of the model.",
            code="LN-GRAD-02",
            at=type(first).__name__,
            fixes=_NO_PARAMETERS if wrt is Param else _PARAMETERS,
        )
    return wanted, rest


_PARAMETERS = [("all parameters are meant", "wrt = nn.Param")]
_NO_PARAMETERS = [
    (
        "the gradient by the input is meant",
        "value, grads = nn.value_and_grad(lambda x: model(x).sum())(x)",
    )
]


def join(wanted: Any, rest: Any) -> Any:
    """The parts of `divide`, put together again."""
    return wanted if rest is None else merge(wanted, rest)


def _check_output(out: Any, has_aux: bool) -> None:
    __tracebackhide__ = True
    is_pair = isinstance(out, tuple) and len(out) == 2
    if has_aux == is_pair:
        return
    returned = (
        f"({', '.join(map(describe, out))})"
        if isinstance(out, tuple)
        else describe(out)
    )
    raise ConfigError(
        f"the function returned {returned} with `has_aux={has_aux}`.",
        code="LN-GRAD-01",
        why="With `has_aux` it returns `(loss, aux)`, where the updated model belongs; "
        "without it, the loss alone.",
        fixes=[
            (
                "it returns the updated model as well",
                "def loss_fn(model):\n"
                "    out, model = nn.training(model, key)(x)\n"
                "    return out.sum(), model\n"
                "(loss, model), grads = "
                "nn.value_and_grad(loss_fn, has_aux=True)(model)",
            ),
            (
                "it returns the loss alone",
                "loss, grads = nn.value_and_grad(lambda model: model(x).sum())(model)",
            ),
        ],
    )
