"""Helpers around JAX, for loops over several devices."""

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from linnet.compat.flax.core import partial_eval

__all__ = [
    "pad_shard_unpad",
    "partial_eval_by_shape",
    "pmean",
    "prefetch_to_device",
    "replicate",
    "scan_in_dim",
    "unreplicate",
]


def _devices() -> list[Any]:
    return sorted(jax.local_devices(), key=lambda d: (d.process_index, d.id))


def _over(devices: Sequence[Any], axis_name: str) -> jax.sharding.Sharding:
    mesh = jax.sharding.Mesh(np.array(devices), (axis_name,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(axis_name))


def replicate(
    tree: Any, devices: Any = None, axis_name: str = "_device_put_sharded"
) -> Any:
    """Arrays with a copy for each device, along a new first axis."""
    devices = list(devices or _devices())
    sharding = _over(devices, axis_name)

    def put(x: Any) -> Any:
        x = jnp.asarray(x)
        return jax.device_put(
            jnp.broadcast_to(x[None], (len(devices), *x.shape)), sharding
        )

    return jax.tree.map(put, tree)


def unreplicate(tree: Any) -> Any:
    """One of the copies, on its device.

    Raises:
        ValueError: A device has more than one slice of the first axis.
    """

    def one(x: Any) -> Any:
        if isinstance(x, jax.core.Tracer) or not isinstance(x, jax.Array):
            return x[0]
        if len(x.devices()) > 1:
            return jnp.squeeze(x.addressable_data(0), 0)
        return x[0] if x.ndim else x

    return jax.tree.map(one, tree)


def pmean(xs: Any, axis_name: str) -> Any:
    """Means over devices."""
    return jax.tree.map(lambda x: lax.pmean(x, axis_name), xs)


def prefetch_to_device(
    iterator: Iterable[Any],
    size: int,
    devices: Any = None,
    axis_name: str = "_device_put_sharded",
) -> Iterator[Any]:
    """Batches on the devices, `size` of them ahead.

    Args:
        iterator: Batches whose arrays have an entry for each device.
        size: How many are put ahead.
        devices: By default all local ones.
        axis_name: The name of the axis of devices.
    """
    waiting: collections.deque[Any] = collections.deque()
    iterator = iter(iterator)
    sharding = _over(list(devices or _devices()), axis_name)

    def take(count: int) -> None:
        for batch in itertools.islice(iterator, count):
            waiting.append(jax.tree.map(lambda x: jax.device_put(x, sharding), batch))

    take(size)
    while waiting:
        yield waiting.popleft()
        take(1)


def partial_eval_by_shape(
    fn: Callable[..., Any], input_spec: Any, *args: Any, **kwargs: Any
) -> Any:
    """What a function returns as far as it depends on the shapes of its inputs alone.

    Args:
        fn: The function.
        input_spec: Its inputs: arrays, shapes, or (shape, type) pairs.
        *args: More arguments, which are known.
        **kwargs: Likewise.
    """

    def spec(x: Any) -> jax.ShapeDtypeStruct:
        if hasattr(x, "shape") and hasattr(x, "dtype"):
            return jax.ShapeDtypeStruct(x.shape, x.dtype)
        if len(x) == 2 and hasattr(x[0], "__iter__"):
            return jax.ShapeDtypeStruct(tuple(x[0]), x[1])
        return jax.ShapeDtypeStruct(tuple(x), jnp.float32)

    shapes = [spec(x) for x in input_spec]
    found = partial_eval.known_results(lambda *xs: fn(*xs, *args, **kwargs), *shapes)
    out = jax.eval_shape(lambda *xs: fn(*xs, *args, **kwargs), *shapes)
    return jax.tree.map(lambda x, s: s if x is partial_eval.UNKNOWN else x, found, out)


def scan_in_dim(
    body_fn: Callable[..., Any],
    init: Any,
    xs: Any,
    axis: int | tuple[int, ...] = (0,),
    unroll: int | tuple[int, ...] = (1,),
    keepdims: bool = False,
) -> Any:
    """`jax.lax.scan` over several axes, the first of them outermost.

    Args:
        body_fn: `(carry, slices) -> (carry, outputs)`.
        init: The first carry.
        xs: Arrays.
        axis: Their axes.
        unroll: As in `jax.lax.scan`, for each axis.
        keepdims: Whether slices keep these axes, with size 1.
    """
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    unrolls = (unroll,) if isinstance(unroll, int) else tuple(unroll)
    unrolls = unrolls * len(axes) if len(unrolls) == 1 else unrolls

    def to_front(x: Any) -> Any:
        return jnp.moveaxis(x, axes, range(len(axes)))

    def from_front(x: Any) -> Any:
        return jnp.moveaxis(x, range(len(axes)), axes)

    def innermost(carry: Any, xs: Any) -> Any:
        if keepdims:
            xs = jax.tree.map(lambda x: jnp.expand_dims(x, axes), xs)
        carry, ys = body_fn(carry, xs)
        if keepdims:
            ys = jax.tree.map(lambda y: jnp.squeeze(y, axes), ys)
        return carry, ys

    run = innermost
    for i in reversed(range(len(axes))):
        run = functools.partial(_scanned, run, unrolls[i])
    carry, ys = run(init, jax.tree.map(to_front, xs))
    return carry, jax.tree.map(from_front, ys)


def _scanned(body: Any, unroll: int, carry: Any, xs: Any) -> Any:
    return lax.scan(body, carry, xs, unroll=unroll)


def pad_shard_unpad(
    wrapped: Callable[..., Any],
    static_argnums: Sequence[int] = (0,),
    static_argnames: Sequence[str] = (),
    static_return: bool = False,
) -> Callable[..., Any]:
    """A function of a batch on all devices that takes batches of any size.

    The batch is filled up with zeros, divided among the devices, and what is returned
    is put together and cut again.

    Args:
        wrapped: The function, which takes arrays with an axis of devices in front.
        static_argnums: Arguments that are handed on as they are.
        static_argnames: Keyword arguments that are handed on as they are.
        static_return: Whether what is returned is handed on as it is.
    """

    @functools.wraps(wrapped)
    def call(*args: Any, min_device_batch: int | None = None, **kwargs: Any) -> Any:
        count = jax.local_device_count()
        leaves = jax.tree.leaves(
            (
                [a for i, a in enumerate(args) if i not in static_argnums],
                {k: v for k, v in kwargs.items() if k not in static_argnames},
            )
        )
        sizes = {x.shape[0] for x in leaves}
        assert len(sizes) == 1, f"Inconsistent batch-sizes: {sizes}"
        size = sizes.pop()
        each = max(-(-size // count), min_device_batch or 0)
        missing = each * count - size

        def divide(x: Any) -> Any:
            x = np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) if missing else x
            return x.reshape((count, -1, *x.shape[1:]))

        def join(x: Any) -> Any:
            return jax.device_get(x).reshape((-1, *x.shape[2:]))[:size]

        args = tuple(
            a if i in static_argnums else jax.tree.map(divide, a)
            for i, a in enumerate(args)
        )
        kwargs = {
            k: v if k in static_argnames else jax.tree.map(divide, v)
            for k, v in kwargs.items()
        }
        out = wrapped(*args, **kwargs)
        return out if static_return else jax.tree.map(join, out)

    return call
