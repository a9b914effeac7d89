"""`jax.lax.scan` along any axis of each argument, with values that stay outside."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from linnet.compat.flax.core import partial_eval

ScanAxis = int | None

__all__ = ["broadcast", "build_shaped_array", "scan"]


class _Broadcast:
    """Marks an argument or result that is the same in each step."""

    def __repr__(self) -> str:
        return "broadcast"


broadcast = _Broadcast()


def build_shaped_array(x: Any, batch_dim: bool = False) -> jax.ShapeDtypeStruct:
    """The shape and type of an array; without its first axis if asked."""
    shape = jnp.shape(x)
    return jax.ShapeDtypeStruct(shape[1:] if batch_dim else shape, jnp.result_type(x))


def _axes_of(axes: Any, tree: Any) -> list[Any]:
    """The axis for each leaf, from a tree of axes that is a prefix of the tree."""
    if axes is None or axes is broadcast or isinstance(axes, int):
        return [axes] * len(jax.tree.leaves(tree))
    if type(axes) is tuple and type(tree) is tuple and len(axes) == len(tree):
        pairs = zip(axes, tree, strict=True)
        return [found for axis, part in pairs for found in _axes_of(axis, part)]
    found: list[Any] = []
    jax.tree.map(
        lambda axis, part: found.extend([axis] * len(jax.tree.leaves(part))),
        axes,
        tree,
        is_leaf=lambda x: x is None or x is broadcast,
    )
    return found


def _split(leaves: list[Any], axes: list[Any]) -> tuple[list[Any], list[Any]]:
    """(leaves of every step, leaves that are the same in each step)."""
    pairs = list(zip(leaves, axes, strict=True))
    return [x for x, axis in pairs if axis is not broadcast], [
        x for x, axis in pairs if axis is broadcast
    ]


def _merge(scanned: Any, fixed: Any, axes: list[Any]) -> list[Any]:
    scanned, fixed = iter(scanned), iter(fixed)
    return [next(fixed) if axis is broadcast else next(scanned) for axis in axes]


def scan(
    fn: Callable[..., Any],
    in_axes: Any,
    out_axes: Any,
    length: int | None = None,
    reverse: bool = False,
    unroll: int = 1,
    _split_transpose: bool = False,
    check_constancy_invariants: bool = True,
) -> Callable[..., Any]:
    """A scan over `fn(broadcast, carry, *args) -> (broadcast, carry, outputs)`.

    Args:
        fn: One step. Its broadcast results may not depend on the carry or on slices.
        in_axes: For each argument the axis that is sliced, or `broadcast`; a prefix.
        out_axes: The same for the outputs.
        length: The number of steps, where no argument tells.
        reverse: Whether the last slice comes first.
        unroll: As in `jax.lax.scan`.
        check_constancy_invariants: Whether broadcast results must be shown to depend on
            nothing in the loop. Without, none may be returned.

    Returns:
        A function `(broadcast, carry, *args) -> (broadcast, carry, outputs)`.
    """
    options = {"length": length, "reverse": reverse, "unroll": unroll}
    options["_split_transpose"] = _split_transpose
    return scan_of(fn, in_axes, out_axes, check_constancy_invariants, options)


def scan_of(
    fn: Callable[..., Any],
    in_axes: Any,
    out_axes: Any,
    finds_constants: bool,
    options: Mapping[str, Any],
) -> Callable[..., Any]:
    """As `scan`, with `options` for `jax.lax.scan`.

    Without `finds_constants` there can be no broadcast results, and what finds them, a
    trace of one step before the loop, is saved.
    """

    def scan_fn(broadcast_in: Any, init: Any, *args: Any) -> Any:
        leaves, tree = jax.tree.flatten(args)
        axes = _axes_of(in_axes, args)
        sliced, fixed = _split(leaves, axes)
        moved = [
            x if axis == 0 else jnp.moveaxis(x, axis, 0)
            for x, axis in zip(sliced, _split(axes, axes)[0], strict=True)
        ]
        seen: dict[str, Any] = {}

        def step(carry: Any, xs: Any, constants: Any = broadcast_in) -> Any:
            inside = tree.unflatten(_merge(xs, fixed, axes))
            return fn(constants, carry, *inside)

        constants, same = broadcast_in, None
        if finds_constants:
            constants, same = _constants(step, init, moved, out_axes)

        def body(carry: Any, xs: Any) -> Any:
            inside, carry, ys = step(carry, xs, constants)
            y_leaves, seen["tree"] = jax.tree.flatten(ys)
            seen["axes"] = _axes_of(out_axes, ys)
            every, fixed_ys = _split(y_leaves, seen["axes"])
            seen["constants"] = jax.tree.structure((inside, fixed_ys))
            return carry, every

        carry, every = jax.lax.scan(body, init, moved, **options)
        y_axes = _split(seen["axes"], seen["axes"])[0]
        every = [
            y if axis == 0 else jnp.moveaxis(y, 0, axis)
            for y, axis in zip(every, y_axes, strict=True)
        ]
        if same is None:
            constants, same = seen["constants"].unflatten([])
        return (
            constants,
            carry,
            seen["tree"].unflatten(_merge(every, same, seen["axes"])),
        )

    return scan_fn


def _constants(
    step: Any, init: Any, moved: list[Any], out_axes: Any
) -> tuple[Any, Any]:
    """What a step returns apart from the loop, computed once outside."""

    def once(carry: Any, xs: Any) -> Any:
        constants, _, ys = step(carry, xs)
        return constants, _split(jax.tree.leaves(ys), _axes_of(out_axes, ys))[1]

    slices = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in moved]
    shapes = jax.tree.map(jax.typeof, init)
    found = partial_eval.known_results(once, shapes, slices)
    if any(leaf is partial_eval.UNKNOWN for leaf in jax.tree.leaves(found)):
        raise ValueError("broadcasted variable has a data dependency on the scan body.")
    return found
