"""JAX's transforms for functions of scopes.

Each takes a function whose first argument is a scope (or a tree of scopes) and hands
collections and random streams through the transform of JAX of the same name.
"""

import collections
import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import jax

from linnet.compat.flax.core._filter import (
    CollectionFilter,
    DenyList,
    Filter,
    PRNGSequenceFilter,
    group_collections,
    in_filter,
    intersect_filters,
    is_filter_empty,
    subtract_filters,
    union_filters,
)
from linnet.compat.flax.core._job import Job
from linnet.compat.flax.core._lift_axes import (
    In,
    InOutAxis,
    InOutScanAxis,
    Out,
    scan,
    vmap,
)
from linnet.compat.flax.core._lift_control import cond, switch, while_loop
from linnet.compat.flax.core._lift_gradients import custom_vjp, jvp, value_and_grad, vjp
from linnet.compat.flax.core._pack import pack, packed
from linnet.compat.flax.core._rng import LazyRng, tree_map_rngs
from linnet.compat.flax.core.frozen_dict import freeze, unfreeze
from linnet.compat.flax.core.scope import Scope

A = TypeVar("A")
C = TypeVar("C")

__all__ = [
    "CollectionFilter",
    "CountsHolder",
    "DenyList",
    "Filter",
    "In",
    "InOutAxis",
    "InOutScanAxis",
    "LazyRng",
    "Out",
    "PRNGSequenceFilter",
    "Scope",
    "TransformContext",
    "checkpoint",
    "cond",
    "custom_vjp",
    "fold_rngs",
    "freeze",
    "group_collections",
    "id_fn",
    "in_filter",
    "intersect_filters",
    "is_filter_empty",
    "jit",
    "jvp",
    "map_variables",
    "pack",
    "remat",
    "remat_scan",
    "scan",
    "set_from_dict",
    "subtract_filters",
    "swap_collection",
    "switch",
    "tree_map_rngs",
    "unfreeze",
    "union_filters",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
]


def id_fn(x: Any) -> Any:
    """Its argument."""
    return x


def jit(
    fn: Callable[..., Any],
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
    donate_argnums: int | Sequence[int] = (),
    device: Any = None,
    backend: str | None = None,
) -> Callable[..., Any]:
    """`jax.jit` of `fn(scope, *args)`; `static_argnums` counts the scope as 0.

    A compiled program is kept as long as what is returned here, for scopes which agree
    in their paths, mutable collections, flags and counts of random keys drawn.
    """
    shifted = {
        "static_argnums": (0, *_after(static_argnums, 2)),
        "donate_argnums": _after(donate_argnums, 2),
        "static_argnames": static_argnames,
        "device": device,
        "backend": backend,
    }
    options = {key: value for key, value in shifted.items() if value not in (None, ())}
    if static_argnames:
        options["static_argnames"] = static_argnames

    @functools.partial(jax.jit, **options)
    def run(
        job: Job, variable_groups: Any, rng_groups: Any, *args: Any, **kwargs: Any
    ) -> Any:
        scope = job.scope_fn(variable_groups, rng_groups)
        y = fn(scope, *args, **kwargs)
        return y, job.repack(scope), job.counts()

    def inner(
        scope_fn: Any, repack: Any, variable_groups: Any, rng_groups: Any, *args: Any
    ) -> Any:
        *given, kwargs = args
        with Job.of(scope_fn, repack) as job:
            y, out, counts = run(job, variable_groups, rng_groups, *given, **kwargs)
            job.restore(counts)
        return y, out

    return packed(inner, (variables,), (variables,), (rngs,), "jit", True, True)


def _after(positions: int | Sequence[int], shift: int) -> tuple[int, ...]:
    positions = (positions,) if isinstance(positions, int) else tuple(positions)
    return tuple(i + shift if i >= 0 else i for i in positions)


def checkpoint(
    fn: Callable[..., Any],
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
    concrete: bool = False,
    prevent_cse: bool = True,
    static_argnums: int | Sequence[int] = (),
    policy: Callable[..., bool] | None = None,
) -> Callable[..., Any]:
    """`jax.checkpoint` of `fn(scope, *args)`: its backward pass computes it again."""
    del concrete  # Of no effect in JAX any more.

    def inner(
        scope_fn: Any, repack: Any, variable_groups: Any, rng_groups: Any, *args: Any
    ) -> Any:
        *given, kwargs = args

        @functools.partial(
            jax.checkpoint,
            policy=policy,
            prevent_cse=prevent_cse,
            static_argnums=_after(static_argnums, 1),
        )
        def run(
            variable_groups: Any, rng_groups: Any, *args: Any, **kwargs: Any
        ) -> Any:
            scope = scope_fn(variable_groups, rng_groups)
            y = fn(scope, *args, **kwargs)
            return y, repack(scope)

        return run(variable_groups, rng_groups, *given, **kwargs)

    return pack(inner, (variables,), (variables,), (rngs,), "remat", enable_kwargs=True)


remat = checkpoint


def remat_scan(
    body_fn: Callable[..., Any],
    lengths: Sequence[int],
    policy: Callable[..., bool] | None = None,
    variable_broadcast: CollectionFilter = False,
    variable_carry: CollectionFilter = False,
    variable_axes: Mapping[CollectionFilter, InOutScanAxis] = {True: 0},
    split_rngs: Mapping[PRNGSequenceFilter, bool] = {True: True},
) -> Callable[..., Any]:
    """Nested scans of `body_fn(scope, x) -> x`, each recomputed in the backward pass.

    Args:
        body_fn: One layer.
        lengths: The number of steps on each level; their product is the depth.
    """
    scan_fn = functools.partial(
        scan,
        variable_broadcast=variable_broadcast,
        variable_carry=variable_carry,
        variable_axes=variable_axes,
        split_rngs=split_rngs,
    )
    first, *rest = lengths
    if not rest:

        def layer(scope: Any, carry: Any) -> Any:
            return body_fn(scope, carry), ()

        def run(scope: Any, carry: Any) -> Any:
            return scan_fn(layer, length=first)(scope, carry)[0]

        return run

    @functools.partial(remat, policy=policy, prevent_cse=False)
    def level(scope: Any, carry: Any) -> Any:
        deeper = remat_scan(
            body_fn,
            rest,
            policy,
            variable_broadcast,
            variable_carry,
            variable_axes,
            split_rngs,
        )
        return deeper(scope, carry), ()

    return lambda scope, carry: scan_fn(level, length=first)(scope, carry)[0]


def map_variables(
    fn: Callable[..., Any],
    mapped_collections: CollectionFilter,
    map_in_fn: Callable[[Any], Any] = id_fn,
    map_out_fn: Callable[[Any], Any] = id_fn,
    init: bool = False,
    mutable: bool = False,
    rngs: PRNGSequenceFilter = True,
    variables: CollectionFilter = True,
) -> Callable[..., Any]:
    """`fn(scope, *args)` that sees some collections through a function.

    Args:
        fn: The function.
        mapped_collections: The collections that it sees changed.
        map_in_fn: From the collections outside to those inside.
        map_out_fn: From the collections inside to those outside.
        init: Whether variables may be made inside when initialising.
        mutable: Whether variables may be changed inside.
        rngs: The random streams that go in.
        variables: The other collections that go in.
    """
    writes = mutable or init

    def inner(
        scope_fn: Any,
        repack: Any,
        variable_groups: Any,
        rng_groups: Any,
        *args: Any,
    ) -> Any:
        *given, kwargs = args
        target, others = variable_groups
        if init:
            scopes = scope_fn((target, others), rng_groups)
            if any(map(_may_make_mapped, jax.tree.leaves(scopes))):
                fn(scopes, *given, **kwargs)
                target = tuple(map(map_out_fn, repack(scopes)[0]))
        inside = tuple(map(map_in_fn, target))
        scopes = scope_fn((inside, others), rng_groups)
        y = fn(scopes, *given, **kwargs)
        out_target, out_others = repack(scopes)
        if writes:
            out_target = tuple(map(map_out_fn, out_target))
        return y, (out_target, out_others)

    def _may_make_mapped(scope: Scope) -> bool:
        return not is_filter_empty(intersect_filters(scope.mutable, mapped_collections))

    return pack(
        inner,
        (mapped_collections, variables),
        (
            mapped_collections if writes else False,
            subtract_filters(variables, mapped_collections),
        ),
        (rngs,),
        "map_variables",
        enable_kwargs=True,
    )


def swap_collection(
    fn: Callable[..., Any], col_a: str, col_b: str
) -> Callable[..., Any]:
    """`fn(scope, ...)` to which two collections appear under each other's name."""

    def swap(target: dict[str, Any]) -> dict[str, Any]:
        a, b = target.get(col_a, {}), target.get(col_b, {})
        return {col_b: a, col_a: b}

    return map_variables(fn, (col_a, col_b), swap, swap, mutable=True)


def fold_rngs(
    fn: Callable[..., Any],
    variables: CollectionFilter = True,
    rngs: PRNGSequenceFilter = True,
) -> Callable[..., Any]:
    """`fn(scope, ...)` in which the path of the scope is folded into its keys."""

    def inner(
        scope_fn: Any, repack: Any, variable_groups: Any, rng_groups: Any, *args: Any
    ) -> Any:
        *given, kwargs = args
        scope = scope_fn(variable_groups, rng_groups)
        y = fn(scope, *given, **kwargs)
        return y, repack(scope)

    name = "fold_rngs"
    return packed(inner, (variables,), (variables,), (rngs,), name, True, True)


def named_call(fn: Callable[..., Any], name: str) -> Callable[..., Any]:
    """`fn` whose operations carry the name in profiles."""
    return jax.named_scope(name)(fn)


# ---- kept for the code that imports them


def set_from_dict(original: dict[Any, Any], updates: Mapping[Any, Any]) -> None:
    """Changes a dict, in place, to hold the entries of another."""
    for key in list(original):
        if key not in updates:
            del original[key]
    for key, value in updates.items():
        if isinstance(value, Mapping) and isinstance(original.get(key), dict):
            set_from_dict(original[key], value)
        else:
            original[key] = value


class CountsHolder:
    """Counts of random streams, one for each scope.

    Args:
        flat_d: The counts by place and stream.
    """

    def __init__(self, flat_d: Mapping[Any, int]):
        self.flat_d = collections.OrderedDict(flat_d)

    @classmethod
    def make(cls, d: Mapping[Any, Any]) -> "CountsHolder":
        """Counts from a nested dict."""
        from linnet.compat.flax.traverse_util import flatten_dict

        return cls(flatten_dict(unfreeze(dict(d))))

    def sub(self, other: "CountsHolder") -> "CountsHolder":
        """What has been counted since `other`."""
        return CountsHolder(
            {key: n - other.flat_d.get(key, 0) for key, n in self.flat_d.items()}
        )

    def add(self, other: "CountsHolder") -> "CountsHolder":
        """The sum of both."""
        keys = {**self.flat_d, **other.flat_d}
        return CountsHolder(
            {k: self.flat_d.get(k, 0) + other.flat_d.get(k, 0) for k in keys}
        )

    def unflat(self) -> dict[Any, Any]:
        """The counts as a nested dict."""
        from linnet.compat.flax.traverse_util import unflatten_dict

        return unflatten_dict(dict(self.flat_d))


@dataclasses.dataclass
class TransformContext(Generic[A], threading.local):
    """A stack of values, one for each transform at work in this thread.

    Args:
        stack: The values, the innermost last.
    """

    stack: list[A] = dataclasses.field(default_factory=list)

    @contextlib.contextmanager
    def push(self, a: A) -> Iterator[None]:
        """A context in which the value is the innermost."""
        self.stack.append(a)
        try:
            yield
        finally:
            self.stack.pop()

    def get(self) -> A:
        """The innermost value."""
        return self.stack[-1]
