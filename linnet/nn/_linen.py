"""Modules of Flax Linen inside of native models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from linnet._errors import InitError
from linnet.core import BatchStat, Cache, Module, Param, State, param, state
from linnet.core._check import not_initialized
from linnet.core._locate import locate
from linnet.core._scope import opened_of

ROLES = {"params": Param, "batch_stats": BatchStat, "cache": Cache}


class FromLinen(Module):
    """A Linen module as a native one; `nn.from_linen` makes it.

    Args:
        module: A module of Flax Linen, the genuine one or `linnet.compat.flax`.
        variables: Its collections of variables; `None` for `nn.init` to make them.
        mode: From whether this is training to keyword arguments of the call.
        streams: The random streams that it draws from in training.

    Parameters:
        params: The collection `params`, as nested dicts.
        state: The other collections by name, as states.
    """

    def __init__(
        self,
        module: Any,
        variables: Mapping[str, Any] | None = None,
        *,
        mode: Callable[[bool], Mapping[str, Any]] | None = None,
        streams: Iterable[str] = ("dropout",),
    ) -> None:
        self.module = module
        self.mode = mode
        self.streams = tuple(streams)
        self.params: Any = None
        self.state: Any = None
        if variables is not None:
            self.params = _declared(variables.get("params", {}), "params")
            self.state = {
                name: _declared(variables[name], name)
                for name in variables
                if name not in ("params", "intermediates")
            }

    @property
    def grows(self) -> bool:
        """Whether `nn.init` has to find out which arrays there are."""
        return self.params is None

    @property
    def variables(self) -> dict[str, Any]:
        """The collections of variables, as Linen takes them."""
        return {"params": _plain(self.params), **_plain(self.state)}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the module, with the arguments that it takes itself."""
        return self.call(None, *args, **kwargs)

    def call(self, method: str | None, *args: Any, **kwargs: Any) -> Any:
        """Calls a method of the module by its name.

        In training and in `nn.stateful`, collections besides `params` are written.
        """
        __tracebackhide__ = True
        if self.mode is not None:
            kwargs = {**self.mode(self.training), **kwargs}
        if self.grows:
            return self._grow(method, args, kwargs)
        opened = self.__dict__.get("_open")
        rngs = None
        writable: list[str] = []
        if opened is not None and not self.initializing:
            writable = list(self.state) if opened.scope.writable else []
            if self.training and opened.scope.keys:
                rngs = {stream: self.rng(stream) for stream in self.streams}
        out = self.module.apply(
            self.variables,
            *args,
            method=method,
            rngs=rngs,
            mutable=writable or False,
            **kwargs,
        )
        if not writable:
            return out
        out, updates = out
        self.state = jax.tree.map(
            lambda old, new: jnp.asarray(new, old.dtype),
            _plain(self.state),
            {**_plain(self.state), **_unboxed(_plain(updates))},
        )
        return out

    def _grow(self, method: str | None, args: Any, kwargs: Any) -> Any:
        """In the abstract run of `nn.init`: what there is to make, and how."""
        __tracebackhide__ = True
        if not self.initializing:
            raise not_initialized(self, "params")
        opened = opened_of(self)
        if opened.scope.indices:
            raise _in_a_stack(self)

        def run(key: Any, args: Any, kwargs: Any) -> Any:
            rngs = {"params": key}
            for i, stream in enumerate(self.streams):
                rngs[stream] = jax.random.fold_in(key, i)
            return self.module.init_with_output(rngs, *args, method=method, **kwargs)

        out, variables = run(jax.random.key(0), args, kwargs)
        shapes = jax.tree.map(_shape_of, (args, kwargs))

        def grown(key: Any) -> FromLinen:
            if key is None:
                found = jax.tree.map(_shape_of, variables)
            else:
                args, kwargs = jax.tree.map(_zeros_of, shapes)
                found = run(key, args, kwargs)[1]
            return FromLinen(self.module, found, mode=self.mode, streams=self.streams)

        opened.scope.registry.grown[opened.path] = grown
        return out


def from_linen(
    module: Any,
    variables: Mapping[str, Any] | None = None,
    *,
    mode: Callable[[bool], Mapping[str, Any]] | None = None,
    streams: Iterable[str] = ("dropout",),
) -> FromLinen:
    """A module of Flax Linen as a native module, with its arrays as leaves.

    `params` become `nn.Param`, `batch_stats` and `cache` the roles of these names, and
    other collections `nn.State`. In training and in `nn.stateful` these are written,
    and come back with the model. At the root of a model, `nn.init` gives the very
    values that `module.init` makes of the same key.

    Args:
        module: A module of Flax Linen, the genuine one or `linnet.compat.flax`. It is
            configuration of the native module, and so must be hashable.
        variables: Its collections of variables, such as a checkpoint's; `None` for
            `nn.init` to make them from a sample.
        mode: From whether this is training to keyword arguments of the call:
            `lambda training: {"deterministic": not training}`.
        streams: The random streams that it draws from in training.

    Raises:
        InitError: It stands in an `nn.Stack` or `nn.Ensemble`, without variables.

    Example:
        >>> from linnet.compat.flax import linen
        >>> model = nn.Sequential([nn.from_linen(linen.Dense(4)), nn.Dense(2)])
        >>> model = nn.init(model, jax.random.key(0), jnp.ones((1, 3)))
        >>> [path for path in nn.to_paths(model)][:2]
        ['layers/0/params/bias', 'layers/0/params/kernel']
        >>> model(jnp.ones((5, 3))).shape
        (5, 2)
    """
    return FromLinen(module, variables, mode=mode, streams=streams)


def _is_box(x: Any) -> bool:
    return hasattr(x, "unbox") and hasattr(x, "replace_boxed")


def _unboxed(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.unbox() if _is_box(x) else x, tree, is_leaf=_is_box)


def _declared(tree: Any, collection: str) -> Any:
    """A collection with its arrays declared in the role of its name."""
    role = ROLES.get(collection, State)
    declare: Callable[..., Any] = param if role is Param else state

    def of(x: Any) -> Any:
        axes = getattr(x, "names", None) if _is_box(x) else None
        value = x.unbox() if _is_box(x) else x
        if isinstance(value, jax.ShapeDtypeStruct):
            zeros = jax.nn.initializers.zeros
            return declare(zeros, value.shape, value.dtype, axes=axes, role=role)
        return declare(jnp.asarray(value), axes=axes, role=role)

    return jax.tree.map(of, _plain(tree), is_leaf=_is_box)


def _plain(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _plain(value) for key, value in tree.items()}
    return tree


def _shape_of(x: Any) -> Any:
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return jax.ShapeDtypeStruct(x.shape, x.dtype)
    return x


def _zeros_of(x: Any) -> Any:
    return jnp.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x


def _in_a_stack(module: Module) -> InitError:
    return InitError(
        "the arrays of a Linen module in a stack are not known.",
        code="LN-INIT-11",
        at=locate(module),
        why="A stack holds the arrays of all its modules as one, which are declared "
        "before the sample is seen; a Linen module tells them when it is called.",
        fixes=[
            (
                "layers by themselves",
                "model = nn.Sequential([nn.from_linen(block) for _ in range(depth)])",
            ),
            (
                "a stack of Linen's own",
                'each = {"variable_axes": {"params": 0}, '
                '"split_rngs": {"params": True}}\n'
                "model = nn.from_linen(linen.scan(Block, **each, length=depth)())",
            ),
        ],
    )
