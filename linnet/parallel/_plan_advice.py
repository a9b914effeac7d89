"""Changes of a training step that need less memory, with what each would need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import jax

from linnet import nn
from linnet._errors import ConfigError
from linnet.core._table import modules
from linnet.parallel._placement import Placement
from linnet.parallel._plan_step import Step
from linnet.parallel._rules import Rules, sequence_parallel

if TYPE_CHECKING:
    from linnet.parallel._plan import Plan


def advice(step: Step, optimizer: Any, found: Plan) -> Iterable[tuple[str, int]]:
    """Changes that need less memory, each with the bytes that it would need.

    Args:
        step: As it is.
        optimizer: Of Optax, or None.
        found: What it needs as it is.
    """
    tried: list[tuple[str, Callable[[], int]]] = [
        (
            "recompute the layers of stacks (remat=True)",
            lambda: _with_remat(step, optimizer),
        ),
        *(
            (f"accumulate the gradients of {n} parts", _in_parts(step, optimizer, n))
            for n in (2, 4, 8)
        ),
        *(
            (f"also FSDP over {axis!r}", _with(step, optimizer, Rules(fsdp=axis)))
            for axis in found.mesh
            if axis not in step.placement.rules.fsdp
        ),
        *(
            (
                f"activations divided along the sequence over {axis!r}",
                _with(step, optimizer, sequence_parallel(axis)),
            )
            for axis in found.mesh
            if axis not in step.placement.rules.of("batch")
        ),
        (
            "an optimiser with one bfloat16 number for each parameter",
            lambda: found.total - found.optimizer + found.parameters // 2,
        ),
    ]
    for text, total in tried:
        try:
            size = total()
        except (ConfigError, ValueError):
            continue  # It does not apply: a size does not divide, or there is no stack.
        if size < found.total:
            yield text, size


def _total(step: Step, optimizer: Any) -> int:
    needs = step.needs(optimizer)
    return sum(value for key, value in needs.items() if key != "flops")


def _with_remat(step: Step, optimizer: Any) -> int:
    model = step.model
    for path, module in modules(model):
        if isinstance(module, nn.Stack) and not module.remat:
            model = _replaced(model, path, module.replace(remat=True))
    return _total(step.changed(model=model), optimizer)


def _replaced(module: Any, path: Any, new: Any) -> Any:
    """The model with another module at a path of attributes."""
    if not path:
        return new
    name = getattr(path[0], "name", None)
    if name is None:
        raise ValueError("the path goes through a list or a dict")
    return module.replace(**{name: _replaced(getattr(module, name), path[1:], new)})


def _in_parts(step: Step, optimizer: Any, count: int) -> Callable[[], int]:
    def total() -> int:
        def part(x: Any) -> Any:
            if not x.shape or x.shape[0] % count:
                raise ValueError("the batch does not divide")
            return jax.ShapeDtypeStruct((x.shape[0] // count, *x.shape[1:]), x.dtype)

        smaller = step.changed(sample=jax.tree.map(part, step.shapes))
        return _total(smaller, optimizer) + step.needs(None)["gradients"]

    return total


def _with(step: Step, optimizer: Any, rules: Rules) -> Callable[[], int]:
    mesh, united = step.placement.mesh, step.placement.rules | rules
    return lambda: _total(step.changed(placement=Placement(mesh, united)), optimizer)
