"""(e) A training step: the same architecture, values, batch and Adam for everyone.

Each contestant starts from the same numbers, has as many parameters as raw JAX, and
its loss must follow that of raw JAX for some steps before it may race.
"""

import math

import _convnet
import _mlp
import _transformer
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _measure import OURS, RAW, Check, Result, line_up, race

TX = optax.adam(1e-3)
STEPS_COMPARED = 5


def squared_error(out):
    """The loss: the mean square of what the model returns, less one."""
    return jnp.square(out - 1).mean()


def values_for(shape):
    """The numbers that a kernel of this shape starts from, inputs before outputs."""
    scale = 1 / math.sqrt(math.prod(shape[:-1]))
    random = np.random.default_rng(shape).normal(size=shape) * scale
    return jnp.asarray(random, jnp.float32)


def filled(params):
    """The same numbers in all kernels of a shape; vectors keep their zeros and ones."""
    return jax.tree.map(lambda a: values_for(a.shape) if a.ndim > 1 else a, params)


def filled_outputs_first(params):
    """Likewise for Equinox: axes are outputs, inputs, window, and biases are random."""

    def fill(path, a):
        if path[-1].name == "bias":
            return jnp.zeros_like(a)
        if a.ndim == 1:
            return a
        outputs, inputs, *window = a.shape
        return jnp.moveaxis(values_for((*window, inputs, outputs)), (-1, -2), (0, 1))

    return jax.tree_util.tree_map_with_path(fill, params)


class Training:
    """A run of one step, which keeps what the step returns for the next."""

    def __init__(self, step, state, params):
        self.step = step
        self.state = state
        self.size = sum(a.size for a in jax.tree.leaves(params))

    def __call__(self):
        self.state, loss = self.step(self.state)
        return loss.block_until_ready()


def functional(deep, x):
    """Of raw JAX, Linen and Haiku: parameters are an argument."""

    @jax.jit(donate_argnums=0)
    def step(state, x):
        params, opt_state = state
        loss, grads = jax.value_and_grad(lambda p: squared_error(deep.predict(p, x)))(
            params
        )
        updates, opt_state = TX.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    params = filled(deep.make())
    return Training(lambda state: step(state, x), (params, TX.init(params)), params)


def linnet(deep, x):
    """As the README does it."""
    from linnet import nn

    @jax.jit(donate_argnums=0)
    def step(state, x):
        model, opt_state = state

        def loss_fn(model):
            out, model = nn.training(model)(x)
            return squared_error(out), model

        (loss, model), grads = nn.value_and_grad(loss_fn, has_aux=True)(model)
        updates, opt_state = TX.update(grads, opt_state, nn.params(model))
        return (nn.apply_updates(model, updates), opt_state), loss

    model = filled(deep.make())
    state = model, TX.init(nn.params(model))
    return Training(lambda state: step(state, x), state, model)


def equinox(deep, x):
    """`eqx.filter_jit`."""
    import equinox as eqx

    @eqx.filter_jit(donate="all-except-first")
    def step(x, state):
        model, opt_state = state
        loss, grads = eqx.filter_value_and_grad(
            lambda model: squared_error(deep.predict(model, x))
        )(model)
        updates, opt_state = TX.update(grads, opt_state, model)
        return (eqx.apply_updates(model, updates), opt_state), loss

    arrays, static = eqx.partition(deep.make(), eqx.is_array)
    model = eqx.combine(filled_outputs_first(arrays), static)
    state = model, TX.init(eqx.filter(model, eqx.is_array))
    return Training(lambda state: step(x, state), state, arrays)


def nnx_step(deep, model, optimizer, x):
    """One step of Flax NNX, in place."""
    from flax import nnx

    loss, grads = nnx.value_and_grad(lambda m: squared_error(deep.predict(m, x)))(model)
    optimizer.update(model, grads)
    return loss


def nnx(deep, x):
    """`nnx.jit`, in place."""
    from flax import nnx

    @nnx.jit(donate_argnums=(0, 1))
    def step(model, optimizer, x):
        return nnx_step(deep, model, optimizer, x)

    model = deep.make()
    nnx.update(model, filled(nnx.state(model)))
    state = model, nnx.Optimizer(model, TX, wrt=nnx.Param)
    return Training(lambda state: (state, step(*state, x)), state, nnx.state(model))


def nnx_on_state(deep, x):
    """`jax.jit` on the state of model and optimiser."""
    from flax import nnx

    model = deep.make()
    nnx.update(model, filled(nnx.state(model)))
    graph, state = nnx.split((model, nnx.Optimizer(model, TX, wrt=nnx.Param)))

    @jax.jit(donate_argnums=0)
    def step(state, x):
        model, optimizer = nnx.merge(graph, state)
        loss = nnx_step(deep, model, optimizer, x)
        return nnx.state((model, optimizer)), loss

    return Training(lambda state: step(state, x), state, nnx.state(model))


def contestants(network):
    """By library, from a file that has the architecture for each."""
    return {
        RAW: lambda x: {RAW: functional(network.raw(), x)},
        OURS: lambda x: {OURS: linnet(network.linnet(), x)},
        "Equinox": lambda x: {"Equinox": equinox(network.equinox(), x)},
        "Flax NNX": lambda x: {
            "Flax NNX, nnx.jit": nnx(network.nnx(), x),
            "Flax NNX, jax.jit on the state": nnx_on_state(network.nnx(), x),
        },
        "Flax Linen": lambda x: {"Flax Linen": functional(network.linen(), x)},
        "Haiku": lambda x: {"Haiku": functional(network.haiku(), x)},
    }


def same_training(runs):
    """Refuses a race of different models: sizes, and losses of the first steps."""
    losses = {
        name: [float(run()) for _ in range(STEPS_COMPARED)]
        for name, run in runs.items()
    }
    for name, run in runs.items():
        if run.size != runs[RAW].size:
            raise ValueError(f"{name} has {run.size} parameters, not {runs[RAW].size}")
        np.testing.assert_allclose(losses[name], losses[RAW], rtol=1e-3, err_msg=name)
    return runs[RAW].size


def measure(quick):
    """Three races."""
    for title, network in [
        ("an MLP", _mlp),
        ("a convolutional net", _convnet),
        ("a transformer block", _transformer),
    ]:
        field = line_up(contestants(network), network.X)
        size = same_training(field.runs)
        times = race(field.runs, 5 if quick else 101, turn=0.02)
        result = Result(
            "e", f"training step of {title}", times, left_out=field.left_out
        )
        result.note = f"{size:,} parameters each; losses agree with raw JAX."
        ours = result.ratio(OURS).median
        result.checks.append(
            Check(result.title, f"{ours:.3f}", "1.00 ± 0.03", ours <= 1.03)
        )
        yield result
