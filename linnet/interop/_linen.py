"""Native modules inside of Flax Linen ones."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from jax.tree_util import keystr, tree_leaves_with_path

from linnet import nn
from linnet._errors import ConfigError
from linnet.compat.flax.traverse_util import unflatten_dict

_COLLECTIONS = (
    (nn.Param, "params"),
    (nn.BatchStat, "batch_stats"),
    (nn.Cache, "cache"),
    (nn.State, "state"),
    (nn.Role, "constants"),
)
_STATES = ("batch_stats", "cache", "state")


def to_linen(module: nn.Module, *, name: str | None = None, linen: Any = None) -> Any:
    """A native module as a module of Flax Linen, for use inside another one.

    Its arrays are variables: `nn.Param` in `params`, `nn.BatchStat` in `batch_stats`,
    `nn.Cache` in `cache`, other states in `state` and constants in `constants`, by
    their paths. `init` makes them with `nn.init` from the stream `params`.

    The call takes the arguments of the module, and `train=True` for training, in which
    keys come from the stream `dropout` and states have to be in mutable collections.
    Without it, states are written where their collection is mutable, as when decoding.

    Args:
        module: A described module.
        name: Its name in the module that it is used in.
        linen: The `flax.linen` to derive from; by default `linnet.compat.flax.linen`.

    Raises:
        ConfigError: `module` is not a native one.

    Example:
        >>> from linnet.compat.flax import linen
        >>> from linnet.interop import to_linen
        >>> class Net(linen.Module):
        ...     @linen.compact
        ...     def __call__(self, x, train=False):
        ...         x = to_linen(nn.Dense(8))(x)
        ...         x = to_linen(nn.BatchNorm())(x, train=train)
        ...         return linen.Dense(2)(x)
        >>> x = jax.numpy.ones((4, 3))
        >>> variables = Net().init(jax.random.key(0), x)
        >>> sorted(variables["params"])
        ['BatchNorm_0', 'Dense_0', 'Dense_1']
        >>> y, new = Net().apply(variables, x, train=True, mutable=["batch_stats"])
        >>> y.shape, sorted(new)
        ((4, 2), ['batch_stats'])
    """
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"{type(module).__name__} is no module of Linnet.",
            code="LN-LINEN-01",
            why="One of Linen is used in Linen as it is.",
            fixes=[("an instance is meant", "layer = interop.to_linen(nn.Dense(8))")],
        )
    if linen is None:
        from linnet.compat.flax import linen
    return _wrapper(linen, type(module).__name__)(module, name=name)


@functools.cache
def _wrapper(linen: Any, name: str) -> Any:
    """The class of wrappers, by whose name Linen names the modules."""
    members = {
        "__annotations__": {"module": Any},
        "__call__": linen.compact(_call),
        "__module__": __name__,
        "__doc__": "A native module among Linen's; `to_linen` makes it.",
    }
    return type(name, (linen.Module,), members)


def _call(self: Any, *args: Any, train: bool = False, **kwargs: Any) -> Any:
    """Calls the native module with the variables of the scope."""
    stored = self.variables
    if self.is_initializing():
        if not stored:
            made = nn.init(self.module, self.make_rng("params"), *args, **kwargs)
            _store(self, made)
            return made(*args, **kwargs)
        return _with_arrays(self.module, stored)(*args, **kwargs)
    model = _with_arrays(self.module, stored)
    writes = any(self.is_mutable_collection(name) for name in stored if name in _STATES)
    if not (train or writes):
        return model(*args, **kwargs)
    key = self.make_rng("dropout") if self.has_rng("dropout") else None
    opened = nn.stateful(model, train=train, rngs=key)
    try:
        out, model = opened(*args, **kwargs)
    except nn.ScopeError:
        if key is None:
            self.make_rng("dropout")  # Linen's error says how keys are given to it.
        raise
    for collection, tree in _by_collection(model).items():
        for top in tree if collection in _STATES else ():
            self.put_variable(collection, top, tree[top])
    return out


_call.__name__ = "__call__"


def _by_collection(model: nn.Module) -> dict[str, dict[str, Any]]:
    """The arrays of a model, as nested dicts by collection."""
    parts = nn.partition(model, *(role for role, _ in _COLLECTIONS))
    flat = {
        name: nn.to_paths(part)
        for (_, name), part in zip(_COLLECTIONS, parts, strict=False)
    }
    return {name: unflatten_dict(part, sep="/") for name, part in flat.items() if part}


def _store(self: Any, model: nn.Module) -> None:
    for collection, tree in _by_collection(model).items():
        for top, value in tree.items():
            if collection == "params":
                self.param(top, lambda _, value=value: value)
            else:
                self.variable(collection, top, lambda value=value: value)


def _with_arrays(module: nn.Module, variables: Mapping[str, Any]) -> nn.Module:
    flat = {
        keystr(path, simple=True, separator="/"): array
        for collection in variables.values()
        for path, array in tree_leaves_with_path(collection)
    }
    return nn.from_paths(module, flat)
