"""A language model on the source text of Python's own standard library.

    python train.py                       14 minutes on 2 busy cores; beats gzip -9
    python train.py --smoke               half a minute, for the tests
    python train.py --resume              go on from the last checkpoint
    python train.py --continue "def add(" write on from a prompt, token by token
    python train.py --text a.txt b.txt    your own text
    python train.py --preset palm --mesh data=4,model=2 --steps 20000
    python -m linnet.parallel 2 train.py --mesh data=2       in two processes

A decoder-only transformer, compared with what gzip, bz2 and xz make of the same
held-out files. To make it yours: copy the file. `read_texts` and `Model` are the places
to change. Source: Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762;
for the presets Touvron et al., "LLaMA", 2023, arXiv:2302.13971, and Chowdhery et al.,
"PaLM", 2022, arXiv:2204.02311; for the optimiser Jordan et al., "Muon", 2024.
"""

import argparse
import bz2
import contextlib
import dataclasses
import gzip
import hashlib
import lzma
import math
import pathlib
import sys
import sysconfig
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import tokenizers
from jax.experimental import multihost_utils

from linnet import nn, parallel, training

# Settings


@dataclasses.dataclass(frozen=True)
class Settings:
    """What can be changed from the command line: each is a flag."""

    preset: str = "nano"  # one of PRESETS
    tokenizer: str = "bpe"  # or "bytes"
    vocab: int = 4096  # entries of the byte-pair encoding
    files: int = 0  # of the text, as many are taken at most; 0 takes all
    context: int = 256  # tokens that the model sees
    batch_size: int = 8  # windows per step
    steps: int = 900  # of training
    muon_rate: float = 0.02  # at its highest, for matrices; it falls to zero
    adam_rate: float = 3e-3  # likewise, for embeddings and vectors
    dtype: str = "auto"  # of the computation: bfloat16, but float32 on a CPU
    remat: bool = False  # compute activations again in the backward pass
    eval_every: int = 150  # steps from one test, sample and checkpoint to the next
    eval_batches: int = 24  # of each test but the last, which takes all held-out text
    seed: int = 0  # of initial values and batches
    mesh: str = ""  # as "data=4,model=2": FSDP over data, tensor parallelism over model
    out: str = "runs/language_model"  # folder of checkpoints, curves and tokenizer
    target: float = (
        1.0  # of the bits per byte of gzip -9, above which the run has failed
    )


SMOKE = {"vocab": 300, "context": 32, "steps": 30, "eval_every": 15, "eval_batches": 2}
SMOKE |= {"files": 300, "preset": "smoke", "target": 10.0}


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a model."""

    features: int
    depth: int
    num_heads: int
    num_kv_heads: int
    hidden: int
    tied: bool = True
    is_parallel: bool = False  # attention and MLP side by side, as in PaLM


PRESETS = {
    "smoke": Shape(32, 2, 2, 1, 64),
    "nano": Shape(256, 4, 4, 2, 704),
    "gpt2-small": Shape(768, 12, 12, 12, 2048),
    "llama-1b": Shape(2048, 16, 32, 8, 8192, tied=False),
    "palm": Shape(1024, 16, 16, 1, 4096, is_parallel=True),
}

# Data: texts of files, split by a hash of their names; tokens int32[N]


def read_texts(paths, count):
    """The text of each file, to train on and to test on."""
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    if not paths:
        paths = sorted(root.rglob("*.py"))
        paths = [path for path in paths if "site-packages" not in path.parts]
    texts = [], []
    paths = paths[: count or None]
    for path in map(pathlib.Path, paths):
        name = path.relative_to(root).as_posix() if root in path.parents else path.name
        is_held_out = hashlib.sha256(name.encode()).digest()[0] < 13  # 5% of files
        text = path.read_bytes().decode("utf-8", "replace")
        if len(paths) < 20:  # too few files to leave some out: a part of each
            cut = len(text) * 19 // 20
            texts[0].append(text[:cut])
            texts[1].append(text[cut:])
        else:
            texts[is_held_out].append(text)
    return texts


def compressed(texts):
    """Bits per byte that compressors reach on the texts as one file."""
    data = "".join(texts).encode()
    tools = {
        "gzip -9": lambda x: gzip.compress(x, 9),
        "bz2 -9": lambda x: bz2.compress(x, 9),
        "xz -9": lambda x: lzma.compress(x, preset=9),
    }
    return {name: 8 * len(tool(data)) / len(data) for name, tool in tools.items()}


class Bytes:
    """A token for each byte, and one that begins a file."""

    size = 264  # a few are unused: devices divide it better

    def encode(self, text):
        return list(text.encode())

    def decode(self, tokens):
        return bytes(t for t in tokens if t < 256).decode("utf-8", "replace")


class BytePairs:
    """A byte-level byte-pair encoding, learnt from the texts to train on."""

    def __init__(self, path, texts, size):
        if not path.exists():
            learnt = tokenizers.ByteLevelBPETokenizer()
            learnt.train_from_iterator(texts, size - 1, show_progress=False)
            path.parent.mkdir(parents=True, exist_ok=True)
            mine = path.with_suffix(f".{jax.process_index()}")
            learnt.save(str(mine))
            mine.replace(path)  # of several processes each makes the same one
        self.learnt = tokenizers.Tokenizer.from_file(str(path))
        self.size = size

    def encode(self, text):
        return self.learnt.encode(text).ids

    def decode(self, tokens):
        return self.learnt.decode([t for t in tokens if t < self.size - 1])


def make_tokenizer(settings, texts=()):
    if settings.tokenizer == "bytes":
        return Bytes()
    path = pathlib.Path(settings.out) / f"bpe{settings.vocab}.json"
    return BytePairs(path, texts, settings.vocab)


def tokens_of(tokenizer, texts):
    """All texts as one array, each after the token that begins a file."""
    first = [tokenizer.size - 1]
    coded = [np.array(first + tokenizer.encode(text), np.int32) for text in texts]
    return np.concatenate(coded)


def windows(tokens, settings, step):
    """The batch of a step: int32[B, T + 1], the same for the same step and seed."""
    rng = np.random.default_rng((settings.seed, step))
    starts = rng.integers(0, len(tokens) - settings.context, settings.batch_size)
    return tokens[starts[:, None] + np.arange(settings.context + 1)]


def placed(batch):
    """The batch on the devices of the mesh in force, if there is one."""
    if jax.sharding.get_mesh().empty:
        return batch
    sharding = parallel.shardings(batch, axes=("batch",))
    return jax.make_array_from_callback(batch.shape, sharding, lambda i: batch[i])


# Model


class Model(nn.Module):
    """Scores for the next token at each position."""

    def __init__(self, shape, vocab, *, remat=False):
        block = nn.TransformerBlock(
            nn.Attention(
                shape.num_heads,
                num_kv_heads=shape.num_kv_heads,
                causal=True,
                position=nn.Rotary(),
                use_bias=False,
            ),
            nn.MLP(shape.hidden, activation=jax.nn.silu, gated=True, use_bias=False),
            norm=nn.RMSNorm,
            parallel=shape.is_parallel,
        )
        self.embed = nn.Embed(vocab, shape.features)
        self.blocks = nn.Stack(block, shape.depth, remat=remat)
        self.norm = nn.RMSNorm()
        self.head = None if shape.tied else nn.Dense(vocab, use_bias=False)

    def __call__(self, tokens):  # [B, T]
        x = nn.shard(self.embed(tokens), "batch", "length", "features")  # [B, T, D]
        x = self.norm(self.blocks(x))
        return self.embed.attend(x) if self.head is None else self.head(x)  # [B, T, V]


def make_model(settings, vocab):
    model = Model(PRESETS[settings.preset], vocab, remat=settings.remat)
    is_half = settings.dtype == "auto" and jax.default_backend() != "cpu"
    dtype = "bfloat16" if is_half else settings.dtype
    return model if dtype == "auto" else nn.cast(model, jnp.dtype(dtype))


# Loss


def loss_of(model, batch):
    """Of each predicted token, in nats: float32[B, T]."""
    logits = model(batch[:, :-1]).astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:])


# One step


def optimizer(settings):
    """Muon for matrices, Adam for embeddings and vectors, without weight decay."""

    def schedule(rate):
        warmup = min(20, settings.steps // 10)
        rise = optax.linear_schedule(0.0, rate, warmup)
        fall = optax.linear_schedule(rate, 0.0, settings.steps - warmup)
        return optax.join_schedules([rise, fall], [warmup])

    def matrices(params):
        def axes(path, array):
            name = jax.tree_util.keystr(path)
            if "kernel" not in name or "head" in name:
                return None
            ndim = array.ndim  # a stack has the axis of its layers in front
            return optax.contrib.MuonDimensionNumbers(ndim - 2, ndim - 1)

        return jax.tree_util.tree_map_with_path(axes, params)

    muon = optax.contrib.muon(
        schedule(settings.muon_rate),
        adam_learning_rate=schedule(settings.adam_rate),
        adam_b2=0.95,
        muon_weight_dimension_numbers=matrices,
    )
    return optax.chain(optax.clip_by_global_norm(1.0), muon)


@jax.jit(donate_argnums=0)
def train_step(state, batch):
    loss, grads = nn.value_and_grad(lambda m: loss_of(m, batch).mean())(state.model)
    return state.apply_gradients(grads), loss


# Evaluation


@jax.jit
def total_loss(model, batch):
    return loss_of(model, batch).sum()


def bits_per_byte(model, tokens, num_bytes, settings, batches=None):
    """Of held-out text, all of it or a sample of windows that are spread evenly."""
    size, batch = settings.context, settings.batch_size
    count = (len(tokens) - 1) // size // batch * batch
    starts = np.arange(count)
    if batches is not None:
        starts = np.linspace(0, count - 1, min(batches * batch, count)).astype(int)
        starts = starts[: len(starts) // batch * batch]
    nats = 0.0
    for part in starts.reshape(-1, batch):
        rows = tokens[part[:, None] * size + np.arange(size + 1)]
        nats += float(total_loss(model, placed(rows)))
    bytes_each = num_bytes / len(tokens)
    return nats / math.log(2) / (len(starts) * size * bytes_each)


def sample(model, tokenizer, prompt, key, count=48):
    tokens = jnp.array(tokenizer.encode(prompt))
    written = nn.generate(model, tokens, max_new_tokens=count, key=key, top_p=0.9)
    tokens = multihost_utils.process_allgather(written.tokens, tiled=True)
    return prompt + tokenizer.decode(tokens.tolist())


def write_on(model, tokenizer, prompt, settings, key):
    """Prints what follows a prompt, token by token, and how fast that went."""
    tokens = [tokenizer.size - 1, *tokenizer.encode(prompt)][-settings.context // 2 :]
    model = nn.with_cache(model, 1, settings.context)

    @jax.jit
    def step(model, tokens, key):
        logits, model = nn.stateful(model)(tokens[None])
        return jax.random.categorical(key, logits[0, -1] / 0.8), model

    text = tokenizer.decode(tokens)
    print(text, end="", flush=True)
    token, model = step(model, jnp.array(tokens), key)
    for i in range(settings.context - len(tokens)):
        if i == 2:
            start = time.perf_counter()  # both programs are compiled
        if int(token) == tokenizer.size - 1:
            break
        tokens.append(int(token))
        whole = tokenizer.decode(tokens)
        print(whole[len(text) :], end="", flush=True)
        text = whole
        token, model = step(model, token[None], jax.random.fold_in(key, i))
    seconds = time.perf_counter() - start if i > 2 else math.nan
    print(f"\n({max(i - 2, 0) / seconds:.0f} tokens a second)")


# Picture


def draw(path, history, tools):
    """The curves, and what compressors reach."""
    steps, train, test = np.transpose(history)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(steps, train, color="#a9b4bc", label="training")
    axes.plot(
        steps, test, color="#1f5673", label=f"held out, {test[-1]:.3f} at the end"
    )
    for name, bits in tools.items():
        place = {"ha": "right", "va": "top" if name == "xz -9" else "bottom"}
        axes.axhline(bits, color="#c0462f", linewidth=0.8)
        axes.annotate(f"{name} {bits:.2f}", (steps[-1], bits), **place)
    axes.set(xlabel="step", ylabel="bits per byte", ylim=(1, max(test[0], 2) + 0.2))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)


# Command line: a flag for each setting


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="a short run, for tests")
    parser.add_argument(
        "--resume", action="store_true", help="from the last checkpoint"
    )
    parser.add_argument("--continue", dest="prompt", help="write on from this text")
    parser.add_argument("--text", nargs="+", default=[], help="files to learn from")
    for field in dataclasses.fields(Settings):
        flag, kind = "--" + field.name.replace("_", "-"), type(field.default)
        options = {"action": "store_true"} if kind is bool else {"type": kind}
        parser.add_argument(flag, default=field.default, **options)
    if parser.parse_args(argv).smoke:
        parser.set_defaults(**SMOKE)
    flags = vars(parser.parse_args(argv))
    rest = {name: flags.pop(name) for name in ("smoke", "resume", "prompt", "text")}
    if flags["preset"] not in PRESETS:
        parser.error(f"--preset is one of {', '.join(PRESETS)}")
    return Settings(**flags), argparse.Namespace(**rest)


def in_force(settings):
    """The mesh of `--mesh` and the rules that go with it, in force."""
    if not settings.mesh:
        return contextlib.nullcontext()
    pairs = (part.split("=") for part in settings.mesh.split(","))
    mesh = parallel.make_mesh(**{name: int(size) for name, size in pairs})
    rules = parallel.fsdp()
    if "model" in mesh.shape:
        rules |= parallel.tensor_parallel()
    return parallel.use(mesh, rules)


# main


def first_state(settings, vocab):
    init_key, key = jax.random.split(jax.random.key(settings.seed))
    sample = jnp.zeros((1, settings.context), jnp.int32)
    model = nn.init(make_model(settings, vocab), init_key, sample)
    return training.TrainState.create(model, optimizer(settings), key)


def train(settings, args, checkpoints):
    """Trains, tests, shows and saves."""
    start = time.perf_counter()
    texts, held_out = read_texts(args.text, settings.files)
    tools, num_bytes = compressed(held_out), len("".join(held_out).encode())
    tokenizer = make_tokenizer(settings, texts)
    tokens, test_tokens = (tokens_of(tokenizer, part) for part in (texts, held_out))
    tokens_per_byte = len(tokens) / len("".join(texts).encode())
    print(f"{len(tokens):,} tokens to train on, {num_bytes:,} bytes held out, of which")
    print(", ".join(f"{name} makes {bits:.3f}" for name, bits in tools.items()), end="")
    print(" bits per byte")
    state, history, losses = first_state(settings, tokenizer.size), [], []
    if args.resume:
        found = checkpoints.restore(state)
        state, history = found.state, found.config["history"]
    size = sum(a.size for a in jax.tree.leaves(nn.params(state.model)))
    print(f"{size:,} parameters; {time.perf_counter() - start:.0f} s to prepare")

    begun, first, last = time.perf_counter(), int(state.step), settings.steps
    for step in range(first + 1, last + 1):
        state, loss = train_step(state, placed(windows(tokens, settings, step)))
        losses.append(loss)
        if step % 10 == 0 and sys.stdout.isatty():
            left = (time.perf_counter() - begun) / (step - first) * (last - step)
            print(f"\rstep {step}/{last}  {left:.0f} s left ", end="", flush=True)
        if step % settings.eval_every == 0 or step == last:
            bits = np.mean(losses) / math.log(2) * tokens_per_byte
            batches = None if step == last else settings.eval_batches
            test = bits_per_byte(state.model, test_tokens, num_bytes, settings, batches)
            history.append((step, float(bits), test))
            losses.clear()
            print(f"step {step}: {bits:.3f} bits per byte, held out {test:.3f}")
            written = sample(state.model, tokenizer, "def ", jax.random.key(step))
            print("    " + written.replace("\n", "\n    "))
            config = dataclasses.asdict(settings) | {"history": history}
            checkpoints.save(step, state, config=config)
    checkpoints.wait()
    if jax.process_index() == 0:
        draw(pathlib.Path(settings.out) / "curves.png", history, tools)
    bits, best = history[-1][2], tools["gzip -9"]
    print(f"held out {bits:.3f} bits per byte, gzip -9 {best:.3f}", end="; ")
    print(f"{time.perf_counter() - start:.0f} seconds")
    assert bits <= settings.target * best, "gzip -9 is better"


def main(argv=None):
    settings, args = parse(argv)
    parallel.initialize()  # joins the other processes, if there are any
    folder = pathlib.Path(settings.out) / "checkpoints"
    with in_force(settings), training.Checkpoints(folder) as checkpoints:
        if args.prompt is not None:
            if checkpoints.latest() is None:
                sys.exit(f"train.py: {folder} has no checkpoint; train first")
            known = checkpoints.config()
            known.pop("history")
            settings = Settings(**known | {"mesh": settings.mesh, "out": settings.out})
            tokenizer = make_tokenizer(settings)
            sample = jnp.zeros((1, settings.context), jnp.int32)
            model = nn.abstract(make_model(settings, tokenizer.size), sample)
            model = checkpoints.restore(model, at="model").state
            key = jax.random.key(settings.seed)
            write_on(model, tokenizer, args.prompt, settings, key)
            return
        if checkpoints.latest() is not None and not args.resume:
            sys.exit(f"train.py: {folder} has checkpoints: --resume, or another --out")
        train(settings, args, checkpoints)


if __name__ == "__main__":
    main()
