"""`nn.capture`, `nn.intervene` and `nn.perturb`: taps on a call."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from linnet.core._call import Call, module_of
from linnet.core._taps import Tap
from linnet.core._where import Where


def capture(f: Any, *wheres: Where) -> Callable[..., Any]:
    """A call that also returns intermediate values.

    Values are the results of modules, by the module's path, and what modules pass to
    `self.sow`, by the module's path and the name. Values inside a stack or a scan are
    stacked by layer or step.

    Args:
        f: A module, a bound method, or a call made by `nn.training`, `nn.stateful`,
            `nn.intervene`, `nn.perturb` or `nn.capture`.
        *wheres: Path patterns (of the whole path), module types, predicates
            `f(path, module)`, or tuples of these. With none, nothing is captured.

    Returns:
        A callable that returns `(result of f, captured)`. `captured` maps a path to
        the value, or to a tuple of values where it was computed more than once.

    Raises:
        PathError: A pattern matches nothing in the call.

    Example:
        >>> model = nn.Sequential([nn.Dense(4), jax.nn.relu, nn.Dense(2)])
        >>> x = jnp.ones((1, 3))
        >>> model = nn.init(model, jax.random.key(0), x)
        >>> out, values = nn.capture(model, nn.Dense)(x)
        >>> {path: value.shape for path, value in values.items()}
        {'layers/0': (1, 4), 'layers/2': (1, 2)}
    """
    return _tapped(f, Tap("capture", tuple((where, None) for where in wheres)))


def intervene(f: Any, replacements: Mapping[Where, Any]) -> Callable[..., Any]:
    """A call with some intermediate values replaced.

    Args:
        f: A module, a bound method, or another such call.
        replacements: From a path pattern, module type or predicate to what takes the
            value's place: an array, or a function of the value. Inside a stack an
            array has a leading axis for the layers, and a function is told the layer
            if it has a parameter named `layer`.

    Returns:
        A callable that returns what `f` returns.

    Raises:
        PathError: A pattern matches nothing in the call.
        ShapeError: An array has another shape than the value.

    Example:
        >>> model = nn.Sequential([nn.Dense(4), jax.nn.relu, nn.Dense(2)])
        >>> x = jnp.ones((1, 3))
        >>> model = nn.init(model, jax.random.key(0), x)
        >>> nn.intervene(model, {"layers/0": jnp.zeros_like})(x)
        Array([[0., 0.]], dtype=float32)
    """
    return _tapped(f, Tap("intervene", tuple(replacements.items())))


def perturb(f: Any, perturbations: Mapping[str, Any]) -> Callable[..., Any]:
    """A call with something added to intermediate values.

    With zeros it changes nothing, and its derivative by them is the derivative by the
    intermediate values.

    Args:
        f: A module, a bound method, or another such call.
        perturbations: From a path to what is added, as `nn.capture` returned it.

    Returns:
        A callable that returns what `f` returns.

    Raises:
        PathError: A path is not reached in the call.
        ShapeError: An array has another shape than the value.

    Example:
        >>> model = nn.Sequential([nn.Dense(4), jax.nn.relu, nn.Dense(2)])
        >>> x = jnp.ones((1, 3))
        >>> model = nn.init(model, jax.random.key(0), x)
        >>> _, values = nn.capture(model, "layers/2")(x)
        >>> zeros = jax.tree.map(jnp.zeros_like, values)
        >>> jax.grad(lambda by: nn.perturb(model, by)(x).sum())(zeros)
        {'layers/2': Array([[1., 1.]], dtype=float32)}
    """
    return _tapped(f, Tap("perturb", tuple(perturbations.items())))


def _tapped(f: Any, tap: Tap) -> Call:
    if isinstance(f, Call):
        return dataclasses.replace(f, taps=(*f.taps, tap))
    module_of(f)
    return Call(f, taps=(tap,))
