"""Prints what plans and XLA say of the memory of training steps, as JSON.

A program of its own, as XLA has to optimise, which the tests turn off.
"""

import itertools
import json

import jax
import jax.numpy as jnp
import optax

from linnet import nn, parallel

VOCAB, FEATURES, DEPTH, BATCH, LENGTH = 512, 128, 8, 16, 128
LAYOUTS = {
    "data": ({"data": 8}, parallel.data_parallel()),
    "fsdp": ({"data": 8}, parallel.fsdp(min_size=1000)),
    "tensor": (
        {"data": 4, "model": 2},
        parallel.data_parallel() | parallel.tensor_parallel(),
    ),
}


class Model(nn.Module):
    def __init__(self, remat):
        block = nn.TransformerBlock(
            nn.Attention(4, num_kv_heads=2, causal=True, use_bias=False),
            nn.MLP(384, activation=jax.nn.silu, gated=True, use_bias=False),
            norm=nn.RMSNorm,
        )
        self.embed = nn.Embed(VOCAB, FEATURES)
        self.blocks = nn.Stack(block, DEPTH, remat=remat)

    def __call__(self, tokens):
        x = nn.shard(self.embed(tokens), "batch", "length", "features")
        return self.embed.attend(self.blocks(x))


def loss_fn(model, tokens):
    logits = model(tokens[:, :-1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    return losses.mean()


def compare(layout, remat):
    sizes, rules = LAYOUTS[layout]
    tokens = jax.ShapeDtypeStruct((BATCH, LENGTH + 1), jnp.int32)
    model = nn.abstract(Model(remat), jax.ShapeDtypeStruct((1, LENGTH), jnp.int32))
    tx = optax.adam(1e-3)
    found = parallel.plan(
        model, tokens, sizes, rules, tx, loss=loss_fn, axes=("batch",)
    )
    state = jax.eval_shape(tx.init, model)

    def step(model, state, tokens):
        grads = nn.value_and_grad(lambda m: loss_fn(m, tokens))(model)[1]
        updates, state = tx.update(grads, state, model)
        return optax.apply_updates(model, updates), state

    def with_sharding(x, sharding):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    with parallel.use(parallel.make_mesh(**sizes), rules):
        kept = parallel.shardings((model, state))
        where = (*kept, parallel.shardings(tokens, axes=("batch",)))
        args = jax.tree.map(with_sharding, (model, state, tokens), where)
        jitted = jax.jit(step, donate_argnums=(0, 1), out_shardings=kept)
        analysis = jitted.lower(*args).compile().memory_analysis()
    return {
        "arguments": (found.arguments, analysis.argument_size_in_bytes),
        "total": (
            found.total,
            analysis.argument_size_in_bytes + analysis.temp_size_in_bytes,
        ),
    }


if __name__ == "__main__":
    cases = itertools.product(LAYOUTS, (False, True))
    print(json.dumps({f"{at} {remat}": compare(at, remat) for at, remat in cases}))
