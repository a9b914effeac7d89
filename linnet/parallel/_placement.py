"""A mesh and rules together: where arrays go, and putting that in force."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from linnet._errors import ConfigError
from linnet._typing import Array, Shape
from linnet.core import Ensemble, Stack
from linnet.core._ambient import FREE, AxisName, ambient, in_force
from linnet.core._role import Declared
from linnet.parallel._rules import MeshAxes, Rules

# Outside of compiled functions a hint with free axes needs a compiler all the same.
_hint_now = jax.jit(jax.lax.with_sharding_constraint, static_argnums=1)

STACKS = {cls._stack_axis for cls in (Stack, Ensemble)}
Names = Sequence[str | None]


@dataclasses.dataclass(frozen=True)
class Placement:
    """Rules for one mesh.

    Args:
        mesh: A mesh, which may be abstract.
        rules: Its axes are those of the mesh.
    """

    mesh: Any
    rules: Rules

    def __post_init__(self) -> None:
        for axis, names in self.rules.users().items():
            if axis not in self.mesh.shape:
                raise _unknown_axis(axis, names, self.mesh)

    def of_array(self, path: str, declared: Declared) -> NamedSharding:
        """The sharding of an array of a model, as `nn.init` asks for it."""
        shape = tuple(size or 0 for size in declared.shape)
        axes = declared.axes or (None,) * len(shape)
        spec = self.spec(path, shape, axes, is_declared=True)
        return NamedSharding(self.mesh, spec)

    def constrain(self, x: Array, axes: tuple[AxisName, ...]) -> Array:
        """The activation, sharded by the names of its axes.

        Each axis of the mesh is constrained in its own mode: by the type of the array
        if it is explicit, by a hint to the compiler if it is automatic, and not at all
        if a `jax.shard_map` handles it.
        """
        here = jax.sharding.get_abstract_mesh()
        explicit, automatic = (
            {
                a
                for a, k in zip(here.axis_names, here.axis_types, strict=True)
                if k == kind
            }
            for kind in (AxisType.Explicit, AxisType.Auto)
        )
        names = [None if name is FREE else name for name in axes]
        parts = self._parts("x", x.shape, names, manual=here.manual_axes, even=False)
        if explicit:
            old = (*jax.typeof(x).sharding.spec, *(None,) * x.ndim)
            new = [_within(part, explicit) for part in parts]
            free = [name is FREE for name in axes]
            kept = [o if f else n for o, n, f in zip(old, new, free, strict=False)]
            x = jax.sharding.reshard(x, PartitionSpec(*kept))
        if automatic:
            hints = [
                PartitionSpec.UNCONSTRAINED
                if name is FREE
                else _within(part, automatic)
                for name, part in zip(axes, parts, strict=True)
            ]
            is_traced = isinstance(x, jax.core.Tracer)
            hint = jax.lax.with_sharding_constraint if is_traced else _hint_now
            x = hint(x, PartitionSpec(*hints))
        return x

    def spec(
        self, path: str, shape: Shape, axes: Names, *, is_declared: bool = False
    ) -> PartitionSpec:
        """The axes of the mesh for each axis of an array.

        Args:
            path: For messages.
            shape: Of the array.
            axes: Their names.
            is_declared: Whether it is of a model, so that `fsdp` applies.
        """
        parts = self._parts(path, shape, axes)
        if is_declared and self.is_large(shape, axes):
            self._divide(parts, shape, _stack_depth(axes))
        while parts and not parts[-1]:
            parts.pop()
        return PartitionSpec(*(_within(part, part) for part in parts))

    def is_large(self, shape: Shape, axes: Names) -> bool:
        """Whether an array, or one layer's in a stack, is large enough for `fsdp`."""
        return math.prod(shape[_stack_depth(axes) :]) >= self.rules.min_size

    def _parts(
        self,
        path: str,
        shape: Shape,
        axes: Names,
        *,
        manual: Collection[str] = (),
        even: bool = True,
    ) -> list[MeshAxes]:
        """What the names of the axes say, before `fsdp`.

        Args:
            path: For messages.
            shape: Of the array.
            axes: Their names.
            manual: Axes of the mesh that the program handles itself here.
            even: Whether a size that does not divide is an error.
        """
        parts: list[MeshAxes] = []
        used: dict[str, str | None] = {}
        for size, name in zip(shape, axes, strict=True):
            part = tuple(axis for axis in self.rules.of(name) if axis not in manual)
            for axis in part:
                if axis in used:
                    raise _twice(path, shape, axis, used[axis], name)
                used[axis] = name
            if size % self._count(part):
                if even and size > 1:
                    raise _indivisible(path, shape, size, str(name), part, self.mesh)
                part = ()
            parts.append(part)
        return parts

    def _divide(self, parts: list[MeshAxes], shape: Shape, kept: int) -> None:
        """Adds the axes of `fsdp` to the largest part that divides."""
        used = {axis for part in parts for axis in part}
        axes = tuple(axis for axis in self.rules.fsdp if axis not in used)
        count = self._count(axes)
        whole = [i for i in range(kept, len(shape)) if not parts[i]]
        for i in sorted(whole, key=lambda i: -shape[i]):
            if count > 1 and shape[i] % count == 0:
                parts[i] = axes
                return

    def _count(self, axes: MeshAxes) -> int:
        return math.prod(self.mesh.shape[axis] for axis in axes)


@contextlib.contextmanager
def use(mesh: Mesh | AbstractMesh, rules: Rules) -> Iterator[Placement]:
    """A context in which arrays are placed on a mesh by rules.

    Within it `nn.init` makes each array directly in its sharding, so that no device
    ever holds a whole one that is divided (`initializers.orthogonal` excepted, which
    needs the whole to begin with); `nn.abstract` tells the shardings;
    `nn.shard` constrains activations; and `parallel.shardings` needs no arguments.
    The mesh is JAX's own as well (`jax.set_mesh`).

    Args:
        mesh: Of `parallel.make_mesh` or `jax.make_mesh`; or a
            `jax.sharding.AbstractMesh`, for shapes (`nn.abstract`) without devices.
        rules: From logical axes to those of the mesh.

    Raises:
        ConfigError: The rules name an axis that the mesh does not have.

    Example:
        >>> mesh = parallel.make_mesh(data=-1)
        >>> with parallel.use(mesh, parallel.fsdp()):
        ...     x = jnp.ones((len(jax.devices()), 4))
        ...     model = nn.init(nn.Dense(8), jax.random.key(0), x)
        >>> model.kernel.sharding.mesh.axis_names
        ('data',)
    """
    __tracebackhide__ = True
    placement = Placement(mesh, rules)
    with _mesh_of_jax(mesh), in_force(placement):
        yield placement


def _mesh_of_jax(mesh: Mesh | AbstractMesh) -> Any:
    if isinstance(mesh, AbstractMesh):
        return jax.sharding.use_abstract_mesh(mesh)
    return jax.set_mesh(mesh)


def placement_of(mesh: Any, rules: Rules | None) -> Placement:
    """The placement of both, or the one in force."""
    __tracebackhide__ = True
    found = ambient()
    if mesh is None and rules is None and isinstance(found, Placement):
        return found
    if isinstance(found, Placement):
        mesh = found.mesh if mesh is None else mesh
        rules = found.rules if rules is None else rules
    if mesh is None or rules is None:
        raise ConfigError(
            f"there is no {'mesh' if mesh is None else 'rule'} to place arrays by.",
            code="LN-SHARD-05",
            fixes=[
                (
                    "they are in force for a part of the program",
                    "with parallel.use(mesh, rules):\n"
                    "    shardings = parallel.shardings(tree)",
                ),
                ("they are given", "shardings = parallel.shardings(tree, mesh, rules)"),
            ],
        )
    return Placement(mesh, rules)


def _stack_depth(axes: Names) -> int:
    depth = 0
    while depth < len(axes) and axes[depth] in STACKS:
        depth += 1
    return depth


def _within(part: MeshAxes, axes: Collection[str]) -> Any:
    """An entry of a `PartitionSpec`, of those axes of the mesh only."""
    kept = tuple(axis for axis in part if axis in axes)
    return kept[0] if len(kept) == 1 else kept or None


def _sizes_text(mesh: Any) -> str:
    return ", ".join(f"{name}={size}" for name, size in mesh.shape.items())


def _unknown_axis(axis: str, names: list[str], mesh: Any) -> ConfigError:
    sizes = _sizes_text(mesh)
    return ConfigError(
        f"the rules divide {names[0]!r} over {axis!r}, which is no axis of the mesh.",
        code="LN-SHARD-01",
        facts={"mesh": sizes},
        fixes=[
            (
                "the mesh should have it",
                f"mesh = parallel.make_mesh({sizes}, {axis}=1)",
            ),
            (
                f"nothing is to be divided over {axis!r}",
                f"rules = rules.without({', '.join(map(repr, names))})",
            ),
        ],
    )


def _indivisible(
    path: str, shape: Shape, size: int, name: str, axes: MeshAxes, mesh: Any
) -> ConfigError:
    count = math.prod(mesh.shape[axis] for axis in axes)
    more = -(-size // count) * count
    over = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in axes)
    return ConfigError(
        f"`{path}` has {size} along {name!r}, which cannot be divided by {over}.",
        code="LN-SHARD-02",
        facts={"shape": str(list(shape)), "mesh": _sizes_text(mesh)},
        why="Every device has a part of the same size.",
        fixes=[
            (f"{name!r} may stay whole", f'rules = rules.without("{name}")'),
            ("the size may be larger", f"size = {more}"),
        ],
    )


def _twice(
    path: str, shape: Shape, axis: str, first: str | None, second: str | None
) -> ConfigError:
    return ConfigError(
        f"`{path}` would be divided over {axis!r} twice, along {first!r} and "
        f"{second!r}.",
        code="LN-SHARD-03",
        facts={"shape": str(list(shape))},
        why="An axis of a mesh divides one axis of an array.",
        fixes=[
            (f"only {first!r} is divided", f'rules = rules.without("{second}")'),
            (f"only {second!r} is divided", f'rules = rules.without("{first}")'),
        ],
    )
