"""Refusing gradients and models that are not those of a train state."""

from typing import Any

import jax

from linnet._errors import TreeError, describe
from linnet._typing import PyTree
from linnet.core._path import dotted
from linnet.core._table import table
from linnet.core._tree import aligned
from linnet.core._where import Where


def check_model(old: PyTree, new: PyTree) -> None:
    """Refuses an updated model of another structure.

    Raises:
        TreeError: It has one.
    """
    __tracebackhide__ = True
    if jax.tree.structure(old) != jax.tree.structure(new):
        aligned(old, new, fixes=[_SAME_MODEL, _CAST_ONCE])


def check_grads(params: PyTree, grads: PyTree, wrt: Where) -> None:
    """Refuses gradients by other arrays than those that are trained.

    Raises:
        TreeError: They are.
    """
    __tracebackhide__ = True
    if jax.tree.structure(params) == jax.tree.structure(grads):
        return
    (trained, given), treedef = aligned(params, grads, fixes=[_OWN_GRADS])
    entries = table(treedef)
    for entry, param, grad in zip(entries, trained, given, strict=True):
        if (param is None) != (grad is None):
            raise _other_arrays(dotted(entry.path), param, grad, wrt)


def _other_arrays(path: str, param: Any, grad: Any, wrt: Where) -> TreeError:
    name = getattr(wrt, "__name__", None)
    return TreeError(
        f"the gradients are not by the trained arrays: they differ at `{path}`.",
        code="LN-TRAIN-02",
        at="TrainState",
        facts={
            "trained": "no" if param is None else describe(param),
            "gradient": "none" if grad is None else describe(grad),
            "wrt": f"nn.{name}" if hasattr(wrt, "mro") else repr(name or wrt),
        },
        why="The state trains what its `wrt` selects, and the optimiser's state has "
        "these arrays only.",
        fixes=[
            (
                "what the state trains is meant",
                "grads = nn.grad(loss_fn, state.wrt)(state.model)",
            )
        ],
    )


_OWN_GRADS = (
    "the gradients are those of another model",
    "grads = nn.grad(loss_fn, state.wrt)(state.model)",
)
_SAME_MODEL = (
    "another model was meant",
    "out, model = nn.training(state.model, key)(x)",
)
_CAST_ONCE = (
    "it was cast within the step: cast it before the state is created",
    "state = training.TrainState.create(nn.cast(model, jnp.bfloat16), tx, key)",
)
