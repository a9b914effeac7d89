"""Pipeline parallelism: the layers of a stack on different devices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from linnet import nn
from linnet._errors import ConfigError
from linnet._typing import Array, PyTree
from linnet.core._check import check_size


def pipeline(
    stack: Any,
    x: PyTree,
    *args: Any,
    axis: str = "stage",
    microbatches: int,
    repeats: int = 1,
    mesh: Any = None,
) -> PyTree:
    r"""What `stack(x, *args)` gives, with its layers divided over the stages of a mesh.

    The batch is cut into microbatches, which go from stage to stage: while the second
    stage works on the first of them, the first stage works on the second. With one
    repeat that is GPipe. With more, each stage has as many groups of layers, and a
    microbatch goes around as many times (the interleaved schedule). The share of time
    in which a stage waits is $(S - 1) / (M R + S - 1)$ for S stages, M microbatches and
    R repeats.

    Other axes of the mesh, as "data", stay with the compiler. It is called as
    prediction: blocks draw nothing and write nothing; use `remat=True` in the stack to
    keep only what stages pass to each other.

    Args:
        stack: An initialised `nn.Stack`.
        x: Input of the first layer: a pytree of arrays `[B, ...]`.
        *args: More arguments, the same for each layer and microbatch.
        axis: Of the mesh, whose size is the number S of stages.
        microbatches: Number M of parts of the batch; it divides B.
        repeats: Number R of groups of layers on each stage.
        mesh: By default the one in force.

    Returns:
        The output of the last layer.

    Raises:
        ConfigError: The stages do not divide the layers, or the microbatches the batch,
            the mesh has no such axis, or there are fewer microbatches than stages and
            more than one repeat.

    Example:
        >>> mesh = parallel.make_mesh(stage=-1)
        >>> x = jnp.ones((4, 8))
        >>> stack = nn.init(nn.Stack(nn.Dense(8), 4), jax.random.key(0), x)
        >>> y = parallel.pipeline(stack, x, microbatches=2, mesh=mesh)
        >>> bool(jnp.allclose(y, stack(x), atol=1e-5))
        True

    Source: Huang et al., "GPipe", 2019, arXiv:1811.06965. Interleaved: Narayanan et
        al., "Efficient Large-Scale Language Model Training on GPU Clusters", 2021,
        section 2.2, arXiv:2104.04473.
    """
    __tracebackhide__ = True
    m = check_size("pipeline", "microbatches", microbatches)
    r = check_size("pipeline", "repeats", repeats)
    s = _stages(jax.sharding.get_abstract_mesh() if mesh is None else mesh, axis)
    n = _layers(stack, s, r, axis)
    size = jax.tree.leaves(x)[0].shape[0]
    _check_batch(size, m, s, r)
    chunks = jax.tree.map(lambda a: a.reshape(r, s, n, *a.shape[1:]), stack.block)
    parts = jax.tree.map(lambda a: a.reshape(m, size // m, *a.shape[1:]), x)
    spec = jax.P(axis)
    run = jax.shard_map(
        lambda chunks, parts, args: _stage(
            stack, chunks, parts, args, axis, (s, m, r, n)
        ),
        mesh=mesh,
        in_specs=(jax.P(None, axis), jax.P(), jax.P()),
        out_specs=spec,
        axis_names={axis},
        check_vma=False,
    )
    outputs = jax.jit(run)(chunks, parts, args)  # [S * M, B / M, ...]
    return jax.tree.map(lambda a: a[-m:].reshape(size, *a.shape[2:]), outputs)


def _stage(
    stack: Any,
    chunks: Any,
    parts: Any,
    args: Any,
    axis: str,
    sizes: tuple[int, int, int, int],
) -> PyTree:
    """The work of one stage: its outputs `[M, B / M, ...]`, right on the last one.

    At time t stage i has microbatch (t - i) mod M in round (t - i) // M. What comes
    out of the last stage goes back to the first one and waits there for its next
    round.
    """
    s, m, r, n = sizes
    chunks = jax.tree.map(lambda a: a[:, 0], chunks)  # [R, n, ...]
    stage = jax.lax.axis_index(axis)
    first = jax.tree.map(lambda a: jnp.zeros_like(a[0]), parts)
    ring = [(i, (i + 1) % s) for i in range(s)]

    def tick(carry: Any, t: Array) -> Any:
        arrived, waiting, outputs = carry
        # What has just arrived at the first stage left the last one S ticks after
        # its microbatch entered.
        waiting = _put(waiting, arrived, (t - s) % m, (stage == 0) & (t >= s))
        place = (t - stage) % m
        turn = jnp.clip((t - stage) // m, 0, r - 1)
        fresh = jax.tree.map(lambda a: a[place], parts)
        again = jax.tree.map(lambda a: a[place], waiting)
        entering = _chosen(turn == 0, fresh, again)
        given = _chosen(stage == 0, entering, arrived)
        layers = jax.tree.map(lambda a: a[turn], chunks)
        out = stack.replace(block=layers, size=n)(given, *args)
        outputs = _put(outputs, out, place, (t - stage) >= 0)
        moved = jax.tree.map(lambda a: jax.lax.ppermute(a, axis, ring), out)
        return (moved, waiting, outputs), None

    empty = jax.tree.map(jnp.zeros_like, parts)
    times = jnp.arange(m * r + s - 1)
    (_, _, outputs), _ = jax.lax.scan(tick, (first, empty, empty), times)
    return outputs


def _put(tree: PyTree, values: PyTree, place: Array, is_valid: Array) -> PyTree:
    """The arrays with the values at one place, if they count."""
    return jax.tree.map(
        lambda a, v: a.at[place].set(jnp.where(is_valid, v, a[place])), tree, values
    )


def _chosen(is_first: Array, a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: jnp.where(is_first, x, y), a, b)


def _stages(mesh: Any, axis: str) -> int:
    if axis in mesh.shape:
        return int(mesh.shape[axis])
    sizes = ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
    raise ConfigError(
        f"the mesh has no axis {axis!r} for the stages.",
        code="LN-PIPE-01",
        at="pipeline",
        facts={"mesh": sizes or "none"},
        fixes=[("all devices are stages", f"mesh = parallel.make_mesh({axis}=-1)")],
    )


def _layers(stack: Any, s: int, r: int, axis: str) -> int:
    """The number of layers in each group."""
    if not isinstance(stack, nn.Stack):
        raise ConfigError(
            f"a pipeline divides an `nn.Stack`, not {type(stack).__name__}.",
            code="LN-PIPE-02",
            at="pipeline",
            fixes=[
                ("the layers are alike", "stack = nn.Stack.of(layers)"),
            ],
        )
    if stack.size % (s * r) == 0:
        return int(stack.size) // (s * r)
    raise ConfigError(
        f"{stack.size} layers cannot be divided over {axis}={s} with {r} groups each.",
        code="LN-PIPE-03",
        at="pipeline",
        fixes=[
            (
                "there may be more layers",
                f"depth = {-(-stack.size // (s * r)) * s * r}",
            )
        ],
    )


def _check_batch(size: int, m: int, s: int, r: int) -> None:
    if size % m:
        raise ConfigError(
            f"a batch of {size} cannot be cut into {m} microbatches.",
            code="LN-PIPE-03",
            at="pipeline",
            fixes=[
                (
                    "there may be fewer",
                    f"microbatches = {max(k for k in range(1, m) if size % k == 0)}",
                )
            ],
        )
    if r > 1 and m < s:
        raise ConfigError(
            f"{m} microbatches are too few for {s} stages that are gone through {r} "
            "times.",
            code="LN-PIPE-03",
            at="pipeline",
            why="A microbatch would be back before its turn comes.",
            fixes=[("there may be more", f"microbatches = {s}")],
        )
