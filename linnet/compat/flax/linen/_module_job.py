"""What modules in a compiled function are known by, so that they share a program."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from linnet.compat.flax import serialization
from linnet.compat.flax.configurations import config
from linnet.compat.flax.core._pack import frozen
from linnet.compat.flax.core.scope import Variable
from linnet.compat.flax.linen._adopt import is_module
from linnet.compat.flax.linen._context import context, interceptors
from linnet.compat.flax.linen._slot import Slots, module_fields


@jax.tree_util.register_static
class ModuleJob:
    """The modules of one call, as a part of a tree's structure.

    Args:
        slots: What is taken out of the arguments.
        module_slot: The module in these slots.
    """

    def __init__(self, slots: Slots, module_slot: Any):
        self.slots = slots
        self.module_slot = module_slot
        self._fingerprint: Any = None
        self._hash = 0

    @classmethod
    @contextlib.contextmanager
    def of(cls, module: Any) -> Iterator["ModuleJob"]:
        """The job of a call; it is kept by JAX afterwards, without modules."""
        slots = Slots()
        job = cls(slots, slots.take(module))
        try:
            yield job
        finally:
            job.slots = Slots()

    def identify(self) -> None:
        """Finds what the job is known by, when all has been taken."""
        try:
            self._fingerprint = self._find_fingerprint()
            self._hash = hash(self._fingerprint)
        except TypeError:
            self._fingerprint = object()
            self._hash = hash(self._fingerprint)

    def _find_fingerprint(self) -> Any:
        if context.call_info_stack or len(interceptors):
            return object()  # They are to see each call.
        return (
            _frozen(self.module_slot),
            tuple(self.slots.places),
            tuple(
                _of_taken(x, fields)
                for x, fields in zip(self.slots.taken, self.slots.fields, strict=True)
            ),
            frozen(context.capture_stack),
            tuple(config._values.items()),
        )

    def state_of(self, module: Any) -> "ModuleState":
        """What a call has done to the state of the module."""
        if not is_module(module) or module.scope is None:
            return ModuleState(None)
        return ModuleState(module._state.export())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModuleJob) and self._fingerprint == other._fingerprint

    def __hash__(self) -> int:
        return self._hash


@jax.tree_util.register_static
class ModuleState:
    """The state of a module, as a part of a result's structure.

    Args:
        state: The state.
    """

    def __init__(self, state: Any):
        self.state = state

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModuleState) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> Any:
        return None if self.state is None else self.state.key()


def _of_taken(x: Any, slots: Mapping[str, Any]) -> Any:
    if isinstance(x, Variable):
        return x.collection, x.name, x.unbox
    return _of_module(x, slots), x._state.key()


def _of_module(module: Any, slots: Mapping[str, Any]) -> Any:
    fields = tuple(
        (name, _frozen(slots.get(name, value))) for name, value in module_fields(module)
    )
    return type(module), fields


def _frozen(value: Any) -> Any:
    if is_module(value):
        return _of_module(value, {})
    if isinstance(value, Mapping):
        return type(value), tuple((k, _frozen(v)) for k, v in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_frozen, value))
    if isinstance(value, np.ndarray):
        return type(value), value.dtype, value.shape, value.tobytes()
    try:
        return frozen(value)
    except Exception:  # Whatever its `__hash__` raises.
        if dataclasses.is_dataclass(value):
            fields = dataclasses.fields(value)
            return type(value), tuple(_frozen(getattr(value, f.name)) for f in fields)
        if serialization.is_serializable(value):
            return type(value), _frozen(serialization.to_state_dict(value))
        raise
