"""A small transformer that learns to add, then by adapters to subtract.

    python train.py            5 minutes on 2 busy cores; 0.99 of sums are right
    python train.py --smoke    20 seconds, for the tests

Problems such as `348+71=` are made here. The answer is written backwards, `914.`, since
a carry goes from right to left. Training sees answers all at once; afterwards the model
writes them digit by digit with `nn.generate`, which keeps keys and values of what it
has read. `nn.lora` then freezes the model and puts small adapters into it that learn to
subtract, and `nn.quantize` stores its kernels in eight bits.

To make it yours: copy the file. `problems` and `Model` are the two places to change.
Source: Nogueira et al., "Investigating the Limitations of Transformers with Simple
Arithmetic Tasks", 2021, arXiv:2102.13019; Hu et al., "LoRA", 2021, arXiv:2106.09685.
"""

import argparse
import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from linnet import nn

# Settings


@dataclasses.dataclass(frozen=True)
class Settings:
    """What can be changed from the command line: each is a flag."""

    seed: int = 0  # of the initial values, the adapters and the problems
    digits: int = 3  # of the largest number in a problem
    features: int = 96  # of each token
    num_heads: int = 4  # of the attention
    depth: int = 2  # blocks
    steps: int = 1200  # batches of additions
    adapter_steps: int = 600  # batches of subtractions
    rank: int = 8  # of the adapters
    batch_size: int = 128  # problems per batch
    learning_rate: float = 3e-3  # at its highest: it rises, then falls to zero
    target: float = 0.93  # share of right answers below which the run has failed


SMOKE = {"digits": 1, "steps": 80, "adapter_steps": 40, "target": 0.3}

# Data: tokens int32[N, T], lengths of the problems and of the whole int32[N]

PLUS, MINUS, EQUALS, END = 10, 11, 12, 13
SYMBOLS = "0123456789+-=."


def problems(rng, count, digits, sign):
    """Problems with their answers, padded by the end sign."""
    sizes = 10 ** rng.integers(1, digits + 1, (2, count))  # short ones are as frequent
    a, b = np.sort(rng.integers(0, sizes), axis=0)[::-1]
    tokens = np.full((count, 3 * digits + 4), END, np.int32)
    starts, ends = np.zeros((2, count), np.int32)
    answers = a + b if sign == PLUS else a - b
    for i, answer in enumerate(answers):
        question = f"{a[i]}{SYMBOLS[sign]}{b[i]}="
        text = f"{question}{str(answer)[::-1]}."
        tokens[i, : len(text)] = [SYMBOLS.index(symbol) for symbol in text]
        starts[i], ends[i] = len(question), len(text)
    return {"tokens": tokens, "starts": starts, "ends": ends}


def text_of(tokens):
    return "".join(SYMBOLS[token] for token in tokens)


# Model


class Model(nn.Module):
    """Scores for the next token at each position."""

    def __init__(self, features, num_heads, depth):
        block = nn.TransformerBlock(
            nn.Attention(num_heads, causal=True, position=nn.Rotary(), use_bias=False),
            nn.MLP(4 * features, activation=jax.nn.silu, gated=True, use_bias=False),
            norm=nn.RMSNorm,
        )
        self.embed = nn.Embed(len(SYMBOLS), features)
        self.blocks = nn.Stack(block, depth)
        self.norm = nn.RMSNorm()
        self.head = nn.Dense(len(SYMBOLS))

    def __call__(self, tokens):  # [B, T]
        x = self.blocks(self.embed(tokens))  # [B, T, D]
        return self.head(self.norm(x))  # [B, T, V]


# Loss


def loss_of(model, batch):
    """The mean over the tokens of the answers, in nats."""
    tokens, starts, ends = batch["tokens"], batch["starts"], batch["ends"]
    logits = model(tokens[:, :-1])  # [B, T - 1, V]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    position = jnp.arange(1, tokens.shape[1])[None]
    counts = (position >= starts[:, None]) & (position < ends[:, None])
    return jnp.mean(losses, where=counts)


# One step


def optimizer(settings, steps):
    rate = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, warmup_steps=steps // 10, decay_steps=steps
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


@functools.partial(jax.jit, static_argnames=("settings", "steps"), donate_argnums=1)
def train_step(model, opt_state, batch, settings, steps):
    loss, grads = nn.value_and_grad(loss_of)(model, batch)
    tx = optimizer(settings, steps)
    updates, opt_state = tx.update(grads, opt_state, nn.params(model))
    return nn.apply_updates(model, updates), opt_state, loss


# Evaluation


def answers(model, batch):
    """What the model writes after each problem, with what was to be written."""
    longest = batch["starts"].max()
    written = nn.generate(
        model,
        batch["tokens"][:, :longest],
        lengths=batch["starts"],
        max_new_tokens=int((batch["ends"] - batch["starts"]).max()),
        stop_tokens=END,
    )
    rows = zip(batch["tokens"], batch["starts"], batch["ends"], strict=True)
    right = [text_of(tokens[start:end]) for tokens, start, end in rows]
    rows = zip(np.asarray(written.tokens), np.asarray(written.lengths), strict=True)
    return [text_of(tokens[:length]) for tokens, length in rows], right


def accuracy(model, batch):
    return np.mean([a == b for a, b in zip(*answers(model, batch), strict=True)])


# Command line: a flag for each setting


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="a short run, for tests")
    for field in dataclasses.fields(Settings):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=type(field.default), default=field.default)
    if parser.parse_args(argv).smoke:
        parser.set_defaults(**SMOKE)
    flags = vars(parser.parse_args(argv))
    del flags["smoke"]
    return Settings(**flags)


# main


def train(model, settings, steps, sign, rng):
    """The model after so many steps on problems of one kind."""
    opt_state = optimizer(settings, steps).init(nn.params(model))
    for step in range(1, steps + 1):
        batch = problems(rng, settings.batch_size, settings.digits, sign)
        model, opt_state, loss = train_step(model, opt_state, batch, settings, steps)
        if step % 100 == 0 or step == steps:
            print(f"step {step:4}  loss {loss:.4f}")
    return model


def main(argv=None):
    start, settings = time.perf_counter(), parse(argv)
    rng = np.random.default_rng(settings.seed)
    key, adapter_key = jax.random.split(jax.random.key(settings.seed))
    sums, differences = (
        problems(np.random.default_rng(1), 500, settings.digits, sign)
        for sign in (PLUS, MINUS)
    )
    model = Model(settings.features, settings.num_heads, settings.depth)
    model = nn.init(model, key, sums["tokens"][:1])

    model = train(model, settings, settings.steps, PLUS, rng)
    can_add = accuracy(model, sums)
    print(f"of 500 sums it writes {can_add:.3f} rightly, with 8-bit kernels", end=" ")
    print(f"{accuracy(nn.quantize(model, nn.Dense), sums):.3f}")

    adapted = nn.lora(model, nn.TransformerBlock, settings.rank, 16.0, adapter_key)
    adapted = train(adapted, settings, settings.adapter_steps, MINUS, rng)
    merged = nn.merge_lora(adapted)
    can_subtract = accuracy(merged, differences)
    trained = sum(a.size for a in jax.tree.leaves(nn.params(adapted)))
    whole = sum(a.size for a in jax.tree.leaves(nn.params(model)))
    print(f"adapters of {trained:,} numbers, where the model has {whole:,}: of 500")
    print(f"differences it writes {can_subtract:.3f} rightly, such as")
    written, _ = answers(merged, differences)
    for answer, tokens in zip(written[:3], differences["tokens"], strict=False):
        question = text_of(tokens).partition("=")[0]
        print(f"    {question} = {answer.rstrip('.')[::-1]}")
    seconds, right = time.perf_counter() - start, min(can_add, can_subtract)
    print(f"right {right:.3f} in {seconds:.0f} seconds")
    assert right >= settings.target, f"below the target of {settings.target}"


if __name__ == "__main__":
    main()
