"""CLU merges metrics and lists parameters."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from clu import metrics, parameter_overview


@flax.struct.dataclass
class Metrics(metrics.Collection):
    loss: metrics.Average.from_output("loss")
    accuracy: metrics.Accuracy


def of(loss):
    return Metrics.single_from_model_output(
        loss=jnp.float32(loss), logits=jnp.eye(3), labels=jnp.arange(3)
    )


model = nn.Sequential([nn.Dense(3), nn.relu, nn.Dense(2)])
params = model.init(jax.random.key(0), jnp.ones((1, 4)))["params"]
print(of(2.0).merge(of(4.0)).compute())
print(parameter_overview.get_parameter_overview(params))
