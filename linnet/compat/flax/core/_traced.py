"""Mathematics that is traced once for each shape and configuration.

Inside of a program that is being traced, the equations of an earlier call are copied.
Outside, also in a `grad` or `vmap` there, the function runs as it is written: each
operation by itself, as in Flax.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax import api_util, typeof
from jax.extend import linear_util

F = TypeVar("F", bound=Callable[..., Any])

# Where the tracers of transforms keep the value that they stand for.
_WRAPPED = {"JVPTracer": "primal", "LinearizeTracer": "primal", "BatchTracer": "val"}

# How an equation says that it is to be copied; JAX 0.12 has several ways.
_EARLY = getattr(getattr(jax, "Inline", None), "JAX_EARLY", True)

_config: Any = jax.config  # Its attributes are made while it runs.
_UINT32 = typeof(np.uint32(0))  # Of what is folded into keys; JAX takes long to tell.


def is_staged(x: Any) -> bool:
    """Whether a value is one of a program that is being traced."""
    while isinstance(x, jax.core.Tracer):
        attribute = _WRAPPED.get(type(x).__name__)
        if attribute is None:
            return True
        x = getattr(x, attribute)
    return False


def kind_of_keys() -> str:
    """The implementation that keys without a type are taken for."""
    return _config.jax_default_prng_impl


def traced_once(arrays: int) -> Callable[[F], F]:
    """A decorator for a function of arrays and of configuration.

    Args:
        arrays: How many arguments are arrays (or None): the first ones.
    """

    def decorate(f: F) -> F:
        copied = staged(f, inline=True)

        @functools.wraps(f)
        def call(*args: Any) -> Any:
            if any(map(is_staged, args[:arrays])):
                return copied(args[:arrays], args[arrays:])
            return f(*args)

        return cast(F, call)

    return decorate


def staged(f: Callable[..., Any], inline: bool) -> Callable[[Any, Any], Any]:
    """`f(*arrays, *configuration)` as part of the program that is being traced.

    It is what `jax.jit(f)` is there, in two thirds of the time: the equation of an
    earlier call is bound again, and arguments are not sorted and checked.

    Where that cannot be, `f` is called as it is: with `jax.disable_jit`, and where the
    configuration holds arrays, as a traced epsilon.

    Args:
        f: The function.
        inline: Whether its equations are copied, or called as one.

    Returns:
        A function of two tuples, `(arrays, configuration)`.
    """
    known = linear_util.wrap_init(f, debug_info=api_util.debug_info("jit", f, (), {}))

    def call(arrays: Any, configuration: Any) -> Any:
        if _config.jax_disable_jit or not _can_be_looked_up(configuration):
            return f(*arrays, *configuration)
        leaves, tree = jax.tree.flatten(arrays)
        types = tuple([_UINT32 if type(x) is np.uint32 else typeof(x) for x in leaves])
        primitive, params, out = _equation(
            known, tree, types, configuration, inline, kind_of_keys()
        )
        return jax.tree.unflatten(out, primitive.bind(*leaves, **params))

    return call


def _can_be_looked_up(configuration: tuple[Any, ...]) -> bool:
    try:
        hash(configuration)
    except TypeError:
        return False
    return True


@linear_util.cache
def _equation(
    known: linear_util.WrappedFun,
    tree: Any,
    types: tuple[Any, ...],
    configuration: tuple[Any, ...],
    inline: bool,
    kind_of_keys: str,
) -> tuple[Any, dict[str, Any], Any]:
    """Looked up, as by `jax.jit`, for each setting of JAX: a mesh, 64 bits, ..."""
    del kind_of_keys  # Which `jax.jit` does not heed.

    @functools.wraps(known.f)
    def of_leaves(*leaves: Any) -> Any:
        return known.f(*jax.tree.unflatten(tree, leaves), *configuration)

    program, out = jax.make_jaxpr(jax.jit(of_leaves), return_shape=True)(*types)
    (equation,) = program.eqns
    params = equation.params | ({"inline": _EARLY} if inline else {})
    return equation.primitive, params, jax.tree.structure(out)
