"""Rules: which axes of a mesh a logical axis is divided over, and their presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

MeshAxes = tuple[str, ...]
MIN_SIZE = 2**16


@dataclasses.dataclass(frozen=True, init=False)
class Rules:
    """From the logical axes of arrays to the axes of a mesh.

    Parameters name their axes in their declaration ("in", "out", "heads", "kv_heads",
    "mlp", "vocab", "experts", "features"), activations in `nn.shard` ("batch",
    "length", "features", "heads", "mlp", "vocab", "experts"). What no rule names is
    not divided. Rules are put together by `|`; a name that both have is divided over
    the axes of both.

    A parameter's size that does not divide is an error, and so is an axis of the mesh
    that would divide an array twice: `rules.without("vocab")` and a larger size are
    the ways out. An axis of one entry stays whole, and so does an activation's that
    does not divide.

    Args:
        axes: From a logical axis to an axis of the mesh, or several. `None` and an
            empty tuple divide nothing.
        fsdp: Axes of the mesh over which every large array of a model is divided along
            its largest axis that the other rules have left whole and that divides
            evenly. The axis of a stack of layers is never divided.
        min_size: Arrays with fewer entries, in a stack those of one layer, are not
            divided by `fsdp`.

    Example:
        >>> rules = parallel.Rules({"batch": "data", "mlp": "model"})
        >>> rules | parallel.fsdp("data")
        Rules(batch='data', mlp='model', fsdp='data')
    """

    axes: tuple[tuple[str, MeshAxes], ...]
    fsdp: MeshAxes
    min_size: int

    def __init__(
        self,
        axes: Mapping[str, str | Iterable[str] | None] | None = None,
        *,
        fsdp: str | Iterable[str] | None = None,
        min_size: int = MIN_SIZE,
    ) -> None:
        named = {name: _names(value) for name, value in (axes or {}).items()}
        kept = tuple((name, value) for name, value in named.items() if value)
        object.__setattr__(self, "axes", kept)
        object.__setattr__(self, "fsdp", _names(fsdp))
        object.__setattr__(self, "min_size", int(min_size) if fsdp else MIN_SIZE)

    def of(self, name: str | None) -> MeshAxes:
        """The axes of the mesh that a logical axis is divided over.

        Args:
            name: A logical axis; `None` is divided over none.
        """
        return dict(self.axes).get(name, ()) if name else ()

    def users(self) -> dict[str, list[str]]:
        """Each axis of a mesh that is used, with the names that are divided over it."""
        found: dict[str, list[str]] = {}
        for name, value in (*self.axes, ("fsdp", self.fsdp)):
            for axis in value:
                found.setdefault(axis, []).append(name)
        return found

    def without(self, *names: str) -> Rules:
        """The rules but for some logical axes.

        Args:
            *names: Logical axes; "fsdp" stands for that option.
        """
        axes = {name: value for name, value in self.axes if name not in names}
        fsdp = () if "fsdp" in names else self.fsdp
        return Rules(axes, fsdp=fsdp, min_size=self.min_size)

    def __or__(self, other: Rules) -> Rules:
        axes = dict(self.axes)
        for name, value in other.axes:
            axes[name] = _united(axes.get(name, ()), value)
        fsdp = _united(self.fsdp, other.fsdp)
        sizes = [rules.min_size for rules in (self, other) if rules.fsdp]
        return Rules(axes, fsdp=fsdp, min_size=min(sizes, default=MIN_SIZE))

    def __repr__(self) -> str:
        parts = [f"{name}={_shown(value)}" for name, value in self.axes]
        parts += [f"fsdp={_shown(self.fsdp)}"] if self.fsdp else []
        return f"Rules({', '.join(parts)})"


def _names(value: str | Iterable[str] | None) -> MeshAxes:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _united(a: MeshAxes, b: MeshAxes) -> MeshAxes:
    return tuple(dict.fromkeys((*a, *b)))


def _shown(value: MeshAxes) -> str:
    return repr(value[0]) if len(value) == 1 else repr(value)


def data_parallel(axis: str = "data") -> Rules:
    """Each device has the whole model and a part of the batch.

    Args:
        axis: Of the mesh.
    """
    return Rules({"batch": axis})


def fsdp(axis: str = "data", *, min_size: int = MIN_SIZE) -> Rules:
    """Each device has a part of the batch, and of every large array of the model.

    The parts are put together where they are used. Source: Rajbhandari et al., "ZeRO",
    2020, arXiv:1910.02054, stage 3.

    Args:
        axis: Of the mesh.
        min_size: Arrays with fewer entries, in a stack those of one layer, stay whole
            on each device.
    """
    return Rules({"batch": axis}, fsdp=axis, min_size=min_size)


def tensor_parallel(axis: str = "model") -> Rules:
    """Heads, the inside of MLPs and the vocabulary are divided.

    The first product of a pair is divided by its outputs and the second by its inputs,
    so that one sum over the devices is needed for both. Source: Shoeybi et al.,
    "Megatron-LM", 2019, arXiv:1909.08053.

    Args:
        axis: Of the mesh.
    """
    return Rules(dict.fromkeys(("heads", "kv_heads", "mlp", "vocab"), axis))


def sequence_parallel(axis: str = "sequence") -> Rules:
    """Activations are divided along the sequence.

    Args:
        axis: Of the mesh.
    """
    return Rules({"length": axis})


def expert_parallel(axis: str = "expert") -> Rules:
    """Each device has some of the experts of mixtures of experts.

    Args:
        axis: Of the mesh.
    """
    return Rules({"experts": axis})
