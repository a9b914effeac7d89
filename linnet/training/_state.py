"""What a training step takes and gives back: model, optimiser state, step, key."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from linnet import nn
from linnet._errors import ConfigError
from linnet._typing import Array, Key, PyTree
from linnet.core._call import is_key, key_fixes, key_text
from linnet.core._grad import divide, join
from linnet.core._where import Where
from linnet.training._ema import Ema, first_average, next_average
from linnet.training._place import placed_with, unshared
from linnet.training._scale import LossScale, all_finite, checked_scale, chosen
from linnet.training._state_check import check_grads, check_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """The whole state of a training run, as one pytree.

    It is made by `TrainState.create` and does not change: each step gives a new one. No
    array is in it twice, so that it can be donated: the step then writes the new state
    into the memory of the old one, whose arrays are gone, those of the model that it
    was made from included.

    Optax's transformations are taken as they are. Clipping and schedules are theirs,
    and arguments such as `value` reach those that ask for them.

    Args:
        model: The model, or a pytree of models.
        opt_state: The optimiser's state.
        step: Steps taken, int32, those included that a `LossScale` left out.
        key: From which `next_key` takes one.
        average: Averaged parameters, with `None` for all other arrays; `ema` is the
            model with them. `None` without averaging.
        scale: Of the loss in float16, or `None`.
        tx: The optimiser. Static: a state with another object makes `jax.jit` trace
            again.
        wrt: What is trained. Static.
        averaging: How weights are averaged. Static.

    Example:
        >>> x, y = jnp.ones((8, 2)), jnp.zeros((8, 3))
        >>> tx = optax.chain(
        ...     optax.clip_by_global_norm(1.0),
        ...     optax.adamw(optax.cosine_decay_schedule(1e-2, decay_steps=100)),
        ... )
        >>> model = nn.init(nn.Dense(3), jax.random.key(0), x)
        >>> state = training.TrainState.create(model, tx, jax.random.key(1))
        >>> @jax.jit(donate_argnums=0)
        ... def step(state, x, y):
        ...     key, state = state.next_key()
        ...     def loss_fn(model):
        ...         out, model = nn.training(model, key)(x)
        ...         return ((out - y) ** 2).mean(), model
        ...     grad_fn = nn.value_and_grad(loss_fn, state.wrt, has_aux=True)
        ...     (loss, model), grads = grad_fn(state.model)
        ...     return state.apply_gradients(grads, model, value=loss), loss
        >>> state, loss = step(state, x, y)
        >>> int(state.step)
        1
    """

    model: PyTree
    opt_state: PyTree
    step: Array
    key: Key
    average: PyTree = None
    scale: LossScale | None = None
    tx: Any
    wrt: Where
    averaging: Ema | None = None

    @classmethod
    def create(
        cls,
        model: PyTree,
        tx: Any,
        key: Key,
        *,
        wrt: Where = nn.Param,
        ema: float | Ema | None = None,
        scale: LossScale | None = None,
    ) -> TrainState:
        """The state before the first step.

        Of a model of shapes alone, as `nn.abstract` gives one, it is a state of shapes,
        into which a checkpoint can be restored.

        Args:
            model: A model with arrays, or a pytree of models. The state takes its
                arrays over: where it is donated, they are gone.
            tx: An optimiser of Optax.
            key: For the randomness of the steps.
            wrt: What is trained: role, path pattern, module type, predicate
                `f(path, array)`, or a tuple of these.
            ema: The decay of an average of the weights, or how they are averaged.
            scale: For training in float16.

        Raises:
            InitError: The model has no arrays yet.
            ConfigError: `tx` is no optimiser, `key` is no key, `wrt` selects nothing,
                or an option is out of its range.
            PathError: A pattern in `wrt` matches nothing.
        """
        __tracebackhide__ = True
        _check_optimizer(tx)
        _check_key(key)
        wrt = _hashable(wrt)
        averaging = ema if isinstance(ema, Ema | None) else Ema(ema)
        params, _ = divide(model, wrt)

        def rest_of(params: PyTree, key: Key) -> dict[str, Any]:
            return {
                "opt_state": tx.init(params),
                "step": jnp.int32(0),
                "key": jax.random.clone(key),
                "average": first_average(params) if averaging else None,
                "scale": checked_scale(scale) if scale is not None else None,
            }

        if _is_abstract((model, key)):
            rest = jax.eval_shape(rest_of, params, key)
        else:
            rest = placed_with(model, rest_of(params, key))
        state = cls(model=model, tx=tx, wrt=wrt, averaging=averaging, **rest)
        return unshared(state)

    def apply_gradients(
        self, grads: PyTree, model: PyTree | None = None, **extra: Any
    ) -> TrainState:
        """The state after one step of the optimiser.

        With a `scale`, a gradient that is not finite changes nothing but the scale and
        the count of steps.

        Args:
            grads: By the arrays that `wrt` selects, with `None` for all others, as
                `nn.value_and_grad(f, state.wrt)` gives them. Not scaled.
            model: The updated model that `nn.training` returned; by default the one
                from before.
            **extra: For transformations of Optax that ask for more, as `value=loss`.

        Raises:
            TreeError: `grads` or `model` do not belong to this state's model.
        """
        __tracebackhide__ = True
        model = self.model if model is None else model
        params, _ = divide(self.model, self.wrt)
        check_model(self.model, model)
        check_grads(params, grads, self.wrt)
        update = optax.with_extra_args_support(self.tx).update
        updates, opt_state = update(grads, self.opt_state, params, **extra)
        new = self.replace(
            model=nn.apply_updates(model, updates), opt_state=opt_state
        )._averaged()
        if self.scale is not None:
            is_finite = all_finite(grads)
            new = chosen(is_finite, new, self)
            new = new.replace(scale=self.scale.after(is_finite))
        return new.replace(step=self.step + 1)

    def next_key(self) -> tuple[Key, TrainState]:
        """A key for one step, and the state that will give another one."""
        key, rest = jax.random.split(self.key)
        return key, self.replace(key=rest)

    def replace(self, **changes: Any) -> TrainState:
        """The state with other values of some attributes.

        Args:
            **changes: Names of attributes and their values.
        """
        return dataclasses.replace(self, **changes)

    @property
    def ema(self) -> PyTree:
        """The model with averaged parameters, or `None` without averaging.

        What is not trained, as batch statistics, is that of `model`.
        """
        if self.average is None:
            return None
        return join(self.average, divide(self.model, self.wrt)[1])

    def _averaged(self) -> TrainState:
        if self.averaging is None:
            return self
        count = self.step + 1
        if self.scale is not None:
            count = count - self.scale.skipped
        params, _ = divide(self.model, self.wrt)
        return self.replace(
            average=next_average(self.averaging, self.average, params, count)
        )


jax.tree_util.register_dataclass(
    TrainState,
    data_fields=["model", "opt_state", "step", "key", "average", "scale"],
    meta_fields=["tx", "wrt", "averaging"],
)


def _hashable(wrt: Where) -> Where:
    return tuple(map(_hashable, wrt)) if isinstance(wrt, tuple | list) else wrt


def _is_abstract(tree: PyTree) -> bool:
    return any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(tree))


def _check_optimizer(tx: Any) -> None:
    __tracebackhide__ = True
    if hasattr(tx, "init") and hasattr(tx, "update"):
        return
    name = getattr(tx, "__name__", type(tx).__name__)
    raise ConfigError(
        f"`tx` is {name!r}, which has no `init` and `update`.",
        code="LN-TRAIN-01",
        at="TrainState",
        why="An optimiser is a transformation of Optax, called with its options.",
        fixes=[("any optimiser will do", "tx = optax.adam(1e-3)")],
    )


def _check_key(key: Any) -> None:
    __tracebackhide__ = True
    if is_key(key) or isinstance(key, jax.ShapeDtypeStruct):
        return
    raise ConfigError(
        f"the key is {key_text(key)}, not one JAX key.",
        code="LN-RNG-03",
        at="TrainState",
        fixes=key_fixes(key),
    )
