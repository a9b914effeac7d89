"""A hook that ends a run on numbers that are not finite, and says where they began."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from linnet import nn
from linnet._errors import NonFiniteError, describe
from linnet._typing import PyTree
from linnet.core._check import check_size
from linnet.training._fit import Run


class StopOnNonFinite:
    """Raises an error when the metrics of a step are not finite, and says where from.

    The error names the first module whose output was not finite, by calling the model
    once more: as it was at the last look, on the batch of the step. If that is finite,
    it names the parameters that are not.

    Args:
        every: Steps between two looks, each of which waits for the device.
        inputs: From a batch to the arguments of the model, as a tuple. With it the
            model is copied at each look; without it no module can be named.
    """

    def __init__(
        self, every: int = 1, inputs: Callable[[Any], tuple[Any, ...]] | None = None
    ) -> None:
        self.every = check_size("StopOnNonFinite", "every", every)
        self.inputs = inputs
        self._model: Any = None

    def on_start(self, run: Run) -> None:
        """Copies the model."""
        if self.inputs is not None:
            self._model = jax.tree.map(jnp.copy, _model_of(run))

    def on_step(self, run: Run) -> None:
        """Looks, if it is time."""
        if run.step % self.every and not run.is_last:
            return
        if not all(map(_is_finite, jax.tree.leaves(run.metrics))):
            raise self._error(run)
        self.on_start(run)

    def _error(self, run: Run) -> NonFiniteError:
        place, output = None, None
        if self.inputs is not None:
            args = self.inputs(run.batch)
            place, output = first_non_finite(self._model, *args)
        wrong = [p for p, x in nn.to_paths(_model_of(run)).items() if not _is_finite(x)]
        facts = {} if place is None else {"output": describe(output)}
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            facts["parameters"] = ", ".join(wrong[:3]) + more
        began = "the model was not looked at"
        if place is not None:
            began = f"the first was the output of `{place}`"
        elif self.inputs is not None:
            began = "outputs of the model were finite"
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


def first_non_finite(model: PyTree, *args: Any) -> tuple[str | None, Any]:
    """The path of the first module whose output is not finite, and the output.

    Args:
        model: A model.
        *args: What it is called with.
    """
    _, seen = nn.capture(model, lambda path, module: True)(*args)
    for path, output in seen.items():
        for leaf in jax.tree.leaves(output):
            if not _is_finite(leaf):
                return path or type(model).__name__, leaf
    return None, None


def _model_of(run: Run) -> Any:
    return getattr(run.state, "model", run.state)


def _is_finite(x: Any) -> bool:
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return True
    return bool(jnp.isfinite(x).all())
