"""A hook that ends a run on numbers that are not finite, and says where they began."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from linnet import nn
from linnet._errors import NonFiniteError, describe
from linnet._typing import PyTree
from linnet.training._every import Every
from linnet.training._fit import Run
from linnet.training._origin import first_non_finite, is_finite


class StopOnNonFinite(Every):
    """Raises an error when the metrics of a step are not finite, and says where from.

    The error names the first module whose output was not finite, by calling the model
    once more, for prediction: as it was at the last look, on the batch of the step.
    With `every=1` that is the model which the step was given. The error also names the
    parameters that are not finite after the step.

    `Save` does not save at a step at which this raises an error.

    Args:
        every: Steps between two looks, each of which waits for the device. With more
            than are between two checkpoints, what was not looked at is saved.
        inputs: From a batch to the arguments of the model, as a tuple. With it the
            model is copied at each look; without it no module can be named.

    Attributes:
        model: That copy: what is left of the state before a step that donated it. With
            `every=1` it is the model before the step that gave the error.
    """

    def __init__(
        self, every: int = 1, inputs: Callable[[Any], tuple[Any, ...]] | None = None
    ) -> None:
        super().__init__(every)
        self.inputs = inputs
        self.model: Any = None
        self._step = 0  # whose model that is

    def on_start(self, run: Run) -> None:
        """Copies the model."""
        super().on_start(run)
        self._copy(run)

    def _act(self, run: Run) -> None:
        if not all(map(is_finite, jax.tree.leaves(run.metrics))):
            raise self._error(run)
        self._copy(run)

    def _copy(self, run: Run) -> None:
        if self.inputs is not None:
            self.model, self._step = _copied(_model_of(run)), run.step

    def _error(self, run: Run) -> NonFiniteError:
        facts = {}
        began = "the model was not looked at"
        if self.inputs is not None:
            place, output = first_non_finite(self.model, *self.inputs(run.batch))
            began = "outputs of the model were finite"
            if place is not None:
                began = f"the first was the output of {place}"
                facts["output"] = describe(output)
            if self._step < run.step - 1:
                began += f", with the model of step {self._step}"
        wrong = [p for p, x in nn.to_paths(_model_of(run)).items() if not is_finite(x)]
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            facts["parameters"] = ", ".join(wrong[:3]) + more
        return NonFiniteError(
            f"step {run.step} gave numbers that are not finite; {began}.",
            code="LN-FIT-03",
            at="fit",
            facts=facts,
            fixes=[
                (
                    "gradients grow too large",
                    "tx = optax.chain(optax.clip_by_global_norm(1.0), tx)",
                ),
                ("steps are too large", "learning_rate = learning_rate / 1000"),
            ],
        )


def _model_of(run: Run) -> Any:
    return getattr(run.state, "model", run.state)


@jax.jit
def _copied(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, tree)
