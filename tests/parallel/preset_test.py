"""Each preset trains like one device: a small transformer on four."""

import jax
import jax.numpy as jnp
import optax
import pytest

from helpers import assert_close
from linnet import nn, parallel

TOKENS = jax.random.randint(jax.random.key(1), (8, 17), 0, 32)
TX = optax.sgd(0.1)
SMALL = parallel.fsdp(min_size=64)
TENSOR, SEQUENCE = parallel.tensor_parallel(), parallel.sequence_parallel()
PRESETS = {
    "data": ({"data": 4}, parallel.data_parallel()),
    "fsdp": ({"data": 4}, SMALL),
    "tensor": ({"data": 2, "model": 2}, parallel.data_parallel() | TENSOR),
    "fsdp, tensor": ({"data": 2, "model": 2}, SMALL | TENSOR),
    "sequence": ({"data": 2, "sequence": 2}, parallel.data_parallel() | SEQUENCE),
    "expert": (
        {"data": 2, "expert": 2},
        parallel.data_parallel() | parallel.expert_parallel(),
    ),
}


class Model(nn.Module):
    def __init__(self, mlp):
        attention = nn.Attention(4, num_kv_heads=2, causal=True, position=nn.Rotary())
        block = nn.TransformerBlock(attention, mlp, norm=nn.RMSNorm)
        self.embed = nn.Embed(32, 16)
        self.blocks = nn.Stack(block, 2)

    def __call__(self, tokens):
        x = nn.shard(self.embed(tokens), "batch", "length", "features")
        x = nn.shard(self.blocks(x), "batch", "length", "features")
        return self.embed.attend(x)


@jax.jit
def step(model, tokens):
    def loss_fn(model):
        logits = model(tokens[:, :-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return losses.mean()

    loss, grads = nn.value_and_grad(loss_fn)(model)
    updates, _ = TX.update(grads, TX.init(nn.params(model)))
    return nn.apply_updates(model, updates), loss


def losses(model, tokens):
    model = nn.init(model, jax.random.key(0), jnp.zeros((2, 4), int))
    found = []
    for _ in range(20):
        model, loss = step(model, tokens)
        found.append(loss)
    return jnp.stack(found)


@pytest.fixture(scope="module")
def alone():
    return {kind: losses(model_of(kind), TOKENS) for kind in (False, True)}


def model_of(is_mixture):
    mlp = nn.MoE(4, 32, top_k=2) if is_mixture else nn.MLP(32, gated=True)
    return Model(mlp)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_twenty_losses_are_those_of_one_device(name, alone):
    sizes, rules = PRESETS[name]
    with parallel.use(parallel.make_mesh(**sizes), rules):
        place = parallel.shardings(TOKENS, axes=("batch",))
        found = losses(model_of(name == "expert"), jax.device_put(TOKENS, place))
    assert_close(found, alone[name == "expert"], rtol=1e-5)
    assert found[-1] < found[0]
