"""The state of a training loop."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from linnet.compat.flax import core, struct

OVERWRITE_WITH_GRADIENT = "_overwrite_with_gradient"

__all__ = ["OVERWRITE_WITH_GRADIENT", "TrainState"]


class TrainState(struct.PyTreeNode):
    """Parameters, the state of the optimiser, and a count of steps.

    Args:
        step: The number of steps done.
        apply_fn: Usually `model.apply`.
        params: The parameters.
        tx: The optimiser, of Optax.
        opt_state: Its state.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from linnet.compat.flax.training import train_state
        >>> state = train_state.TrainState.create(
        ...     apply_fn=None, params={"w": jnp.ones(2)}, tx=optax.sgd(0.1)
        ... )
        >>> state = state.apply_gradients(grads={"w": jnp.ones(2)})
        >>> int(state.step), float(state.params["w"][0])
        (1, 0.8999999761581421)
    """

    step: int | jax.Array
    apply_fn: Callable[..., Any] = struct.field(pytree_node=False)
    params: core.FrozenDict[str, Any] = struct.field(pytree_node=True)
    tx: optax.GradientTransformation = struct.field(pytree_node=False)
    opt_state: optax.OptState = struct.field(pytree_node=True)

    def apply_gradients(self, *, grads: Any, **kwargs: Any) -> "TrainState":
        """The state after an update.

        Args:
            grads: Gradients like `params`.
            **kwargs: New values of other fields.
        """
        # Statistics of fp8 have new values in the place of gradients.
        has_both = _has_both(grads)
        trained = self.params["params"] if has_both else self.params
        gradients = grads["params"] if has_both else grads
        updates, opt_state = self.tx.update(gradients, self.opt_state, trained)
        new = optax.apply_updates(trained, updates)
        if has_both:
            new = {
                "params": new,
                OVERWRITE_WITH_GRADIENT: grads[OVERWRITE_WITH_GRADIENT],
            }
        return self.replace(
            step=self.step + 1, params=new, opt_state=opt_state, **kwargs
        )

    @classmethod
    def create(cls, *, apply_fn: Any, params: Any, tx: Any, **kwargs: Any) -> Any:
        """The state before the first step."""
        trained = params["params"] if _has_both(params) else params
        return cls(
            step=0,
            apply_fn=apply_fn,
            params=params,
            tx=tx,
            opt_state=tx.init(trained),
            **kwargs,
        )


def _has_both(tree: Any) -> bool:
    """Whether there are arrays that a gradient overwrites, next to parameters."""
    is_dict = isinstance(tree, dict | core.FrozenDict)
    return is_dict and OVERWRITE_WITH_GRADIENT in tree
