"""What a compiled function of scopes is known by, so that calls share a program."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

from linnet.compat.flax.core._pack import copied


class Job:
    """One call of a compiled function: a static argument, equal to those of like calls.

    Args:
        scope_fn: Makes the scopes inside.
        repack: Takes out what was changed.
    """

    def __init__(self, fingerprint: Any, scope_fn: Any, repack: Any):
        self._fingerprint = fingerprint
        self._hash = hash(fingerprint)
        self.scope_fn = scope_fn
        self.repack = repack

    @classmethod
    @contextlib.contextmanager
    def of(cls, scope_fn: Any, repack: Any) -> Iterator["Job"]:
        """The job while its function runs; JAX keeps it afterwards, without arrays."""
        try:
            job = cls(scope_fn.fingerprint(), scope_fn, repack)
        except TypeError:
            job = cls(object(), scope_fn, repack)
        try:
            yield job
        finally:
            job.scope_fn = job.repack = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self._fingerprint == other._fingerprint

    def __hash__(self) -> int:
        return self._hash

    def counts(self) -> "Counts":
        """The random keys drawn by the scopes, at the end of the function."""
        return Counts([copied(s.rng_counters) for s in self.scope_fn.scopes])

    def restore(self, counts: "Counts") -> None:
        """Sets them, where the function was not traced again."""
        for scope, drawn in zip(self.scope_fn.scopes, counts.drawn, strict=True):
            _update(scope.rng_counters, drawn)


@jax.tree_util.register_static
class Counts:
    """How many random keys were drawn, as a part of the structure of a result.

    Args:
        drawn: The counters of each scope.
    """

    def __init__(self, drawn: list[dict[Any, Any]]):
        self.drawn = drawn

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counts) and self.drawn == other.drawn

    def __hash__(self) -> int:
        return len(self.drawn)


def _update(counters: dict[Any, Any], new: dict[Any, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict):
            _update(counters.setdefault(key, {}), value)
        else:
            counters[key] = value
