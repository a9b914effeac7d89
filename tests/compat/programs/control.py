"""Brax trains a policy by PPO."""

import jax
import jax.numpy as jnp

# Brax 0.14.2 calls what JAX 0.10 does not have any more.
jax.device_put_replicated = lambda tree, devices: jax.tree.map(
    lambda x: jnp.stack([x] * len(devices)), tree
)

from brax import envs  # noqa: E402
from brax.training.agents.ppo import train as ppo  # noqa: E402

rewards = []
ppo.train(
    environment=envs.get_environment("fast"),
    num_timesteps=8192,
    num_evals=3,
    episode_length=128,
    num_envs=16,
    batch_size=16,
    num_minibatches=4,
    unroll_length=8,
    num_updates_per_batch=2,
    normalize_observations=True,
    learning_rate=3e-4,
    seed=0,
    progress_fn=lambda step, found: rewards.append(float(found["eval/episode_reward"])),
)
print(*rewards)
