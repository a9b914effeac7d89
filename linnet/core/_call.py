"""Calls that may do more than predict: `nn.stateful` and `nn.training`."""

import dataclasses
import threading
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax

from linnet._errors import ConfigError, ScopeError, TreeError, describe
from linnet._typing import Key
from linnet.core._node import Node, is_module, is_open
from linnet.core._scope import (
    Scope,
    close_module,
    open_module,
    open_modules_below,
    opened_of,
)
from linnet.core._taps import Tap, Taps

_new = object.__new__


@dataclasses.dataclass(frozen=True)
class Call:
    """A callable that opens a model, calls it, and returns what became of it."""

    target: Any
    keys: Mapping[str, Key] = dataclasses.field(default_factory=dict)
    train: bool = False
    writable: bool = False
    update: bool = False
    taps: tuple[Tap, ...] = ()

    @property
    def module(self) -> Any:
        """The module that is called."""
        return module_of(self.target)

    def on(self, module: Any) -> Any:
        """The target, bound to another copy of the module."""
        if isinstance(self.target, types.MethodType):
            return types.MethodType(self.target.__func__, module)
        return module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        module = self.module
        if is_open(module):
            return self._call_open(module, args, kwargs)
        taps = Taps(self.taps) if self.taps else None
        scope = Scope(
            train=self.train, writable=self.writable, keys=self.keys, taps=taps
        )
        opened = open_module(module, scope)
        out = self.on(opened)(*args, **kwargs)
        result = (out, _result(opened)) if self.update else out
        return result if taps is None else taps.results(result)

    def _call_open(self, module: Any, args: Any, kwargs: Any) -> Any:
        """A call inside a call. Without an update of its own it shares the effects."""
        if self.writable:
            snapshot = close_module(module, fill=True)
            return dataclasses.replace(self, target=self.on(snapshot))(*args, **kwargs)
        outer = opened_of(module).scope
        taps = Taps(self.taps, outer.taps)
        scope = outer.inner(outer.keys)
        scope.taps, scope.trace = taps, outer.trace
        inner = open_module(
            close_module(module, fill=True), scope, opened_of(module).path
        )
        out = self.on(inner)(*args, **kwargs)
        outer.counts.update(scope.counts)
        for old, new in zip(
            open_modules_below(module), open_modules_below(inner), strict=True
        ):
            for name, value in opened_of(new).written.items():
                opened_of(old).put(old, name, value)
        return taps.results(out)


def module_of(target: Any) -> Any:
    """The module behind a module or one of its bound methods.

    Raises:
        ConfigError: It is neither.
    """
    if is_module(target):
        return target
    if isinstance(target, types.MethodType) and is_module(target.__self__):
        return target.__self__
    raise ConfigError(
        f"a {type(target).__name__} was given instead of a module or a bound method.",
        code="LN-CALL-01",
        why="A call opens one model, and has to know which.",
        fixes=[
            ("the model is called", "call = nn.stateful(model)"),
            ("one of its methods is called", "call = nn.stateful(model.__call__)"),
        ],
    )


def stateful(
    f: Any,
    train: bool = False,
    rngs: Key | Mapping[str, Key] | None = None,
    *,
    update: bool = True,
) -> Callable[..., Any]:
    """Opens a model for one call in which it may write state and draw randomness.

    Args:
        f: A module, or one of its bound methods.
        train: What `self.training` says during the call.
        rngs: A key, or a dict of keys by stream. A stream that is not in the dict is
            derived from the one named `"default"`.
        update: Whether the model with its new state is returned. With `False` the
            update is dropped, visibly.

    Returns:
        A callable that takes the arguments of `f` and returns `(out, model)`, or
        `out` alone without `update`.

    Raises:
        ConfigError: `f` is no module, or `rngs` are no keys.

    Example:
        >>> class Counter(nn.Module):
        ...     def __init__(self):
        ...         self.count = nn.state(0)
        ...     def __call__(self):
        ...         self.count = self.count + 1
        ...         return self.count
        >>> out, counter = nn.stateful(Counter())()
        >>> int(out), int(counter.count)
        (1, 1)
    """
    module_of(f)
    return Call(f, keys=_streams(rngs), train=bool(train), writable=True, update=update)


def training(
    f: Any,
    key: Key | Mapping[str, Key] | None = None,
    *,
    update: bool = True,
) -> Callable[..., Any]:
    """Opens a model for one call of training.

    It is `nn.stateful` with `train=True`: dropout drops, and batch normalisation
    uses the batch's statistics and updates the running ones.

    Args:
        f: A module, or one of its bound methods.
        key: A key for all random streams, or a dict of keys by stream. May be left
            out where nothing is random.
        update: Whether the model with its new state is returned. With `False` the
            update is dropped, visibly.

    Returns:
        A callable that takes the arguments of `f` and returns `(out, model)`, or
        `out` alone without `update`.

    Raises:
        ConfigError: `f` is no module, or `key` is no key.

    Example:
        >>> x = jnp.ones((4, 2))
        >>> model = nn.init(nn.Dropout(0.5), jax.random.key(0), x)
        >>> out, model = nn.training(model, jax.random.key(1))(x)
        >>> sorted(set(out.ravel().tolist()))
        [0.0, 2.0]
    """
    return stateful(f, train=True, rngs=key, update=update)


def _streams(rngs: Any) -> dict[str, Key]:
    if rngs is None:
        return {}
    if not isinstance(rngs, Mapping):
        rngs = {"default": rngs}
    for name, key in rngs.items():
        if not _is_key(key):
            raise ConfigError(
                f"the random stream {name!r} is {_shortly(key)}, not one key.",
                code="LN-RNG-03",
                fixes=[
                    ("a seed was meant", "key = jax.random.key(0)"),
                    ("one of many keys was meant", "key = keys[0]"),
                ],
            )
    return dict(rngs)


def _shortly(key: Any) -> str:
    return describe(key) if hasattr(key, "shape") else repr(key)


def _is_key(key: Any) -> bool:
    if not isinstance(key, jax.Array):
        return False
    if jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key.shape == ()
    return key.dtype == "uint32" and key.ndim == 1


# A state update that nobody looks at


class Pending:
    """An updated model that was returned, until something looks at it."""

    __slots__ = ("model", "seen")

    def __init__(self, model: Node) -> None:
        self.model = model
        self.seen = False


_watching = threading.local()


def _result(opened: Node) -> Any:
    """The closed model. Whether it is ever looked at is noted where that matters."""
    origin = opened_of(opened).origin
    model = close_module(opened)
    watched = getattr(_watching, "stack", None)
    if model is origin or not watched:
        return model
    unseen = _new(type(model))
    pending = Pending(model)
    unseen.__dict__["_pending"] = pending
    watched[-1].append(pending)
    return unseen


def refusing_lost_updates(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, refusing that a state update made in it is dropped without a trace."""

    def watched(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        stack = _watching.__dict__.setdefault("stack", [])
        stack.append([])
        try:
            out = fn(*args, **kwargs)
        finally:
            updates = stack.pop()
        for update in updates:
            if not update.seen:
                raise _lost_update(update.model)
        return out

    return watched


def _lost_update(model: Node) -> TreeError:
    return TreeError(
        "the model that `nn.training` returned was not used: its new state is lost.",
        code="LN-STATE-05",
        at=type(model).__name__,
        why="Batch statistics and other state live in the returned model only.",
        fixes=[
            (
                "the update is wanted",
                "def loss_fn(model):\n"
                "    out, model = nn.training(model, key)(x)\n"
                "    return out.sum(), model\n"
                "nn.value_and_grad(loss_fn, has_aux=True)(model)",
            ),
            (
                "it is not",
                "def loss_fn(model):\n"
                "    return nn.training(model, key, update=False)(x).sum()\n"
                "nn.value_and_grad(loss_fn)(model)",
            ),
        ],
    )


__all__ = ["Call", "ScopeError", "module_of", "refusing_lost_updates", "stateful"]
