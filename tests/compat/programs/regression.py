"""NumPyro fits a curve: by a network with parameters and state, and a Bayesian one."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from flax import linen as nn
from numpyro.contrib.module import flax_module, random_flax_module
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal

X = jnp.linspace(-1, 1, 64)[:, None]
Y = jnp.sin(3 * X)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
        x = nn.Dropout(0.1, deterministic=not train)(nn.tanh(x))
        return nn.Dense(1)(x)


class Small(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.tanh(nn.Dense(8)(x)))


def observe(mean):
    numpyro.sample("y", dist.Normal(mean, 0.1).to_event(2), obs=Y)


def fitted(x):
    net = flax_module(
        "net",
        Net(),
        apply_rng=["dropout"],
        mutable=["batch_stats"],
        input_shape=(64, 1),
    )
    observe(net(x, rngs={"dropout": numpyro.prng_key()}))


def bayesian(x):
    observe(
        random_flax_module("net", Small(), dist.Normal(0, 1), input_shape=(64, 1))(x)
    )


for model, guide in ((fitted, lambda x: None), (bayesian, AutoNormal(bayesian))):
    svi = SVI(model, guide, numpyro.optim.Adam(1e-2), Trace_ELBO())
    result = svi.run(jax.random.key(0), 100, X, progress_bar=False)
    print(jax.tree.map(jnp.shape, result.params))
    print(f"{result.losses[0]:.1f} {result.losses[-1]:.1f}")
