"""Calls that may do more than predict: `nn.stateful` and `nn.training`."""

import dataclasses
import inspect
import threading
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from linnet._errors import ConfigError, TreeError, describe
from linnet._typing import Key
from linnet.core._node import Node, is_module, is_open
from linnet.core._open import close_module, open_module, open_modules_below
from linnet.core._scope import Scope, opened_of
from linnet.core._taps import Tap, Taps

_new = object.__new__


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """A callable that opens a model, calls it, and returns what became of it."""

    target: Any
    keys: Mapping[str, Key] = dataclasses.field(default_factory=dict)
    train: bool = False
    writable: bool = False
    update: bool = False
    taps: tuple[Tap, ...] = ()
    within: int = 0  # so many taps were there first: theirs is part of the result

    @property
    def module(self) -> Any:
        """The module that is called."""
        return module_of(self.target)

    def on(self, module: Any) -> Any:
        """The target, bound to another copy of the module."""
        if isinstance(self.target, types.MethodType):
            method = self.target.__func__
            if method is not type(self.target.__self__).__call__:
                return types.MethodType(method, module)
        return module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        module = self.module
        if is_open(module):
            return self._call_open(module, args, kwargs)
        taps = Taps(self.taps) if self.taps else None
        scope = Scope(
            train=self.train,
            writable=self.writable,
            keys=self.keys,
            taps=taps if any(tap.actions for tap in self.taps) else None,
        )
        opened = open_module(module, scope)
        out = self.on(opened)(*args, **kwargs)
        return self._with_results(out, opened, taps)

    def _with_results(self, out: Any, opened: Any, taps: Taps | None) -> Any:
        """What the call returned, with what the taps and the update add to it."""
        if taps is not None:
            out = taps.results(out, slice(self.within))
        if self.update:
            out = out, _result(opened)
        return out if taps is None else taps.results(out, slice(self.within, None))

    def _call_open(self, module: Any, args: Any, kwargs: Any) -> Any:
        """A call inside a call. Without an update of its own it shares the effects."""
        outer, path = opened_of(module).scope, opened_of(module).path
        initializing = outer.registry is not None
        if self.writable and not initializing:
            snapshot = close_module(module, fill=True)
            return dataclasses.replace(self, target=self.on(snapshot))(*args, **kwargs)
        taps = Taps(self.taps, outer.taps, len(path))
        scope = outer.inner(outer.keys)
        scope.taps, scope.trace = taps, outer.trace
        inner = open_module(close_module(module, fill=True), scope, path)
        out = self.on(inner)(*args, **kwargs)
        if initializing:  # the model is not there yet, but may be called again
            return self._with_results(out, inner, taps)
        outer.count(scope.counts.items())
        for old, new in zip(
            open_modules_below(module), open_modules_below(inner), strict=True
        ):
            for name, value in opened_of(new).written.items():
                opened_of(old).put(old, name, value)
        return self._with_results(out, inner, taps)


def module_of(target: Any) -> Any:
    """The module behind a module or one of its bound methods.

    Raises:
        ConfigError: It is neither.
    """
    if is_module(target):
        return target
    if isinstance(target, types.MethodType) and is_module(target.__self__):
        return target.__self__
    if isinstance(target, type) and issubclass(target, Node):
        what = f"the class {target.__name__}"
        fixes = [("an instance is meant", f"model = {instance_text(target)}")]
    else:
        what = f"a {type(target).__name__}"
        fixes = [
            ("the model is called", "f = model"),
            ("one of its methods is called", "f = model.__call__"),
        ]
    raise ConfigError(
        f"{what} was given instead of a module or a bound method.",
        code="LN-CALL-01",
        why="A call opens one model, and has to know which.",
        fixes=fixes,
    )


def instance_text(cls: type) -> str:
    """`nn.Dense(features)`: a call of the class, by the names of what it needs."""
    needed = [
        p.name
        for p in inspect.signature(cls).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    prefix = "nn." if cls.__module__.startswith("linnet.") else ""
    return f"{prefix}{cls.__name__}({', '.join(needed)})"


def stateful(
    f: Any,
    train: bool = False,
    rngs: Key | Mapping[str, Key] | None = None,
    *,
    update: bool = True,
) -> Callable[..., Any]:
    """Opens a model for one call in which it may write state and draw randomness.

    Args:
        f: A module, one of its bound methods, or such a call with taps.
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
    call = f if isinstance(f, Call) and not f.writable else Call(f)
    module_of(call.target)
    return dataclasses.replace(
        call,
        keys=_streams(rngs),
        train=bool(train),
        writable=True,
        update=update,
        within=len(call.taps),
    )


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
        f: A module, one of its bound methods, or such a call with taps.
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
        if not is_key(key):
            what = "the key" if name == "default" else f"the key of stream {name!r}"
            raise ConfigError(
                f"{what} is {key_text(key)}, not one JAX key.",
                code="LN-RNG-03",
                fixes=key_fixes(key),
            )
    return dict(rngs)


def key_text(key: Any) -> str:
    """What was given in the place of a key, in short."""
    if hasattr(key, "shape"):
        return describe(key)
    return repr(key) if isinstance(key, int | str | float) else type(key).__name__


def key_fixes(key: Any) -> list[tuple[str, str]]:
    """How to give one key instead."""
    if getattr(key, "ndim", 0):
        return [
            ("one of many keys is meant", "key = key[0]"),
            ("there should be one key", "key = jax.random.key(0)"),
        ]
    seed = key if isinstance(key, int) else 0
    return [("a seed is meant", f"key = jax.random.key({seed})")]


def is_key(key: Any) -> bool:
    """Whether a value is one JAX key, of the new or the old kind."""
    if not isinstance(key, jax.Array):
        return False
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
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
    if opened_of(opened).scope.registry is not None:
        return opened
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
        "the updated model was dropped in the loss function: its new state is lost.",
        code="LN-STATE-05",
        at=type(model).__name__,
        why="Batch statistics and other state live in the returned model only.",
        fixes=[
            (
                "the update is wanted, so return the model as well",
                "def loss_fn(model):\n"
                "    out, model = nn.training(model, key)(x)\n"
                "    return out.sum(), model\n"
                "(loss, model), grads = "
                "nn.value_and_grad(loss_fn, has_aux=True)(model)",
            ),
            (
                "it is not wanted, so say so",
                "def loss_fn(model):\n"
                "    return nn.training(model, key, update=False)(x).sum()\n"
                "loss, grads = nn.value_and_grad(loss_fn)(model)",
            ),
        ],
    )
