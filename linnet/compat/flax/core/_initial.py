"""First values of parameters: JAX's initialisers are traced once for each shape."""

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linnet.compat.flax.core._rng import LazyRng
from linnet.compat.flax.core._traced import is_staged, staged

_zeros, _ones = jax.nn.initializers.zeros, jax.nn.initializers.ones

# By initialisers of JAX only, which hold no arrays; those of users come and go.
_equations: dict[Callable[..., Any], Callable[..., Any]] = {}


def initial(
    init_fn: Callable[..., Any],
    stream: LazyRng | jax.Array,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """What an initialiser makes of the key of a stream, and of other arguments.

    Those of JAX are known to depend on nothing else: inside of a program that is being
    traced, they are one equation, which calls what was traced before.
    """
    if not isinstance(stream, LazyRng):
        stream = LazyRng(stream, ())
    draw = _equation_of(init_fn) if is_staged(stream.rng) and not kwargs else None
    if draw is not None:
        return draw(stream, args)
    return init_fn(stream.as_jax_rng(), *args, **kwargs)


def called(init_fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`init_fn(*args, **kwargs)`, traced once where it is an initialiser of JAX."""
    if _is_jaxs(init_fn) and args:
        return initial(init_fn, *args, **kwargs)
    return init_fn(*args, **kwargs)


def _equation_of(init_fn: Callable[..., Any]) -> Callable[..., Any] | None:
    """One equation of a stream and other arguments, if the initialiser is JAX's."""
    try:
        found = _equations.get(init_fn)
    except TypeError:  # Nothing that can be looked up.
        return None
    drawer = init_fn.init if isinstance(init_fn, Flat) else init_fn
    if found is None and _is_jaxs(drawer):
        if len(_equations) >= 512:
            _equations.clear()
        make = _fixed if drawer in (_zeros, _ones) else _drawn
        found = _equations[init_fn] = make(init_fn)
    return found


def _drawn(init_fn: Callable[..., Any]) -> Callable[..., Any]:
    def init(rng: jax.Array, digest: np.uint32 | None, *args: Any) -> Any:
        key = rng if digest is None else jax.random.fold_in(rng, digest)
        return init_fn(key, *args)

    equation = staged(init, inline=False)
    return lambda stream, args: equation((stream.rng, stream.digest()), args)


def _fixed(init_fn: Callable[..., Any]) -> Callable[..., Any]:
    def init(*args: Any) -> Any:
        return init_fn(None, *args)  # No key is needed.

    equation = staged(init, inline=False)
    return lambda stream, args: equation((), args)


def _is_jaxs(init_fn: Any) -> bool:
    module = str(getattr(init_fn, "__module__", ""))
    if not module.endswith(".nn.initializers") or hasattr(init_fn, "__wrapped__"):
        return False
    cells = getattr(init_fn, "__closure__", None) or ()
    return not any(isinstance(cell.cell_contents, jax.Array) for cell in cells)


@dataclasses.dataclass(frozen=True)
class Flat:
    """An initialiser that makes an array of one shape, and gives it another.

    Args:
        init: Makes the array, or a box with one.
        shape: The first shape.
    """

    init: Callable[..., Any]
    shape: tuple[int, ...]

    def __call__(self, key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        """Makes the array in the second shape."""
        return _reshaped(self.init(key, self.shape, dtype), shape)


# By initialiser, for as long as that lives: it may hold arrays.
_known_shapes: "weakref.WeakKeyDictionary[Any, Any]" = weakref.WeakKeyDictionary()


def shapes_of(
    init_fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[int, ...], ...]:
    """The shapes that an initialiser makes; asked at each use of a parameter."""

    def made() -> tuple[tuple[int, ...], ...]:
        tree = jax.eval_shape(lambda: init_fn(jax.random.key(0), *args, **kwargs))
        return tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(tree))

    owner: Any = init_fn
    key: tuple[Any, ...] = (args,)
    if isinstance(init_fn, Flat):
        owner, key = init_fn.init, (args, init_fn.shape)
    if kwargs:
        return made()
    try:
        known = _known_shapes.setdefault(owner, {})
        found = known.get(key)
    except TypeError:  # Nothing that can be looked up.
        return made()
    if found is None:
        found = known[key] = made()
    return found


def _reshaped(made: Any, shape: tuple[int, ...]) -> Any:
    if hasattr(made, "replace_boxed"):
        return made.replace_boxed(_reshaped(made.unbox(), shape))
    return jnp.reshape(made, shape)
