"""A small convolutional network that reads handwritten digits.

    python train.py                               20 seconds on 2 cores, accuracy 0.99
    python train.py --smoke                       10 seconds, for the tests
    python train.py --load runs/digits/model.npz  test a trained model again
    python train.py --dataset mnist --data-dir FOLDER --steps 3000

To make it yours: copy the file. `load_data` and `ConvNet` are the two places to change.
Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998.
Data: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
"""

import argparse
import contextlib
import dataclasses
import gzip
import importlib.util
import inspect
import json
import math
import pathlib
import re
import sys
import time
import zipfile
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

import linnet
from linnet import nn

# Settings


@dataclasses.dataclass(frozen=True)
class Settings:
    """What can be changed from the command line: each is a flag."""

    dataset: str = "digits"  # "digits" (scikit-learn's) or "mnist" (your files)
    data_dir: str = "."  # folder of the four MNIST files
    out: str = "runs/digits"  # folder for the model and the picture
    load: str = ""  # a saved model to test, instead of training one
    seed: int = 0  # of the initial values, the order and the shifts
    features: tuple[int, ...] = (32, 64)  # channels of each block
    dropout: float = 0.3  # probability of dropping, before the last layer
    steps: int = 1000  # batches to train on
    batch_size: int = 64  # images per batch
    learning_rate: float = 3e-3  # at its highest: it rises, then falls to zero
    weight_decay: float = 1e-3  # by AdamW, relative to the learning rate
    shift: float = 1.0  # pixels by which a training image moves at most
    eval_every: int = 50  # steps from one test to the next
    target: float = 0.985  # accuracy below which the run has failed


SMOKE = {"steps": 60, "eval_every": 20, "target": 0.5}


class InputError(ValueError):
    """What the user gave cannot be used."""


def require(condition, text):
    if not condition:
        raise InputError(text)


def extra(name):
    """A module of the packages that only the examples need."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        text = f'{error.name} is not installed: pip install "linnet[examples]"'
        raise InputError(text) from error


# Data: images float32[N, H, W, 1] between 0 and 1, and labels int32[N]


def load_data(settings):
    """The data to train with and to test with."""
    if settings.dataset == "mnist":
        folder = pathlib.Path(settings.data_dir).expanduser()
        return read_mnist(folder, "train"), read_mnist(folder, "t10k")
    require(settings.dataset == "digits", '--dataset must be "digits" or "mnist"')
    digits = extra("sklearn.datasets").load_digits()
    images = np.float32(digits.images[..., None]) / 16
    labels = np.int32(digits.target)
    parts = extra("sklearn.model_selection").train_test_split(
        images, labels, test_size=0.25, stratify=labels, random_state=0
    )
    return [dict(zip(("image", "label"), parts[i::2], strict=True)) for i in (0, 1)]


def read_mnist(folder, part):
    images = read_idx(folder, f"{part}-images", 3)
    labels = read_idx(folder, f"{part}-labels", 1)
    counts = f"{len(images)} {part} images, but {len(labels)} labels"
    require(len(images) == len(labels) > 0, f"{folder} has {counts}")
    require(labels.max() < 10, f"{folder} has a {part} label {labels.max()}, above 9")
    return {"image": np.float32(images[..., None]) / 255, "label": np.int32(labels)}


def read_idx(folder, name, ndim):
    """The array in an IDX file: a magic number, the sizes, then the bytes."""
    names = [f"{name}{dot}idx{ndim}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
    path = next((folder / n for n in names if (folder / n).is_file()), None)
    looked = f"{folder} (see --data-dir) has none of {', '.join(names)}"
    require(path, f"{looked}: take the file from the MNIST distribution")
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is no whole gzip file: {error}") from error
    magic = bytes([0, 0, 8, ndim])
    wrong = f"the magic number {raw[:4].hex() or 'none'}, and not {magic.hex()}"
    require(raw[:4] == magic, f"{path} has {wrong}: it is another kind of file")
    shape = [int.from_bytes(raw[i : i + 4]) for i in range(4, 4 + 4 * ndim, 4)]
    size = 4 + 4 * ndim + math.prod(shape)
    sizes = f"{len(raw)} bytes, where its header promises {size}"
    require(len(raw) == size, f"{path} has {sizes}: it is truncated or damaged")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def batches(data, size, seed):
    """Batches without end; each pass through the data is in a new order."""
    count = len(data["label"])
    require(size <= count, f"--batch-size {size} is more than the {count} images")
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(count)
        for i in range(0, count - size + 1, size):
            chosen = order[i : i + size]
            yield {name: array[chosen] for name, array in data.items()}


def augment(images, key, shift):
    """Each image moved by a random part of `shift` pixels, up or down and sideways."""

    def moved(image, by):
        return jax.image.scale_and_translate(
            image, image.shape, (0, 1), jnp.ones(2), by, "linear", antialias=False
        )

    by = jax.random.uniform(key, (len(images), 2), minval=-shift, maxval=shift)
    return jax.vmap(moved)(images, by)


# Model


class Block(nn.Module):
    def __init__(self, features):
        self.conv = nn.Conv(features, (3, 3), use_bias=False)
        self.norm = nn.BatchNorm(momentum=0.95)

    def __call__(self, x):  # [B, H, W, C]
        x = jax.nn.relu(self.norm(self.conv(x)))  # [B, H, W, D]
        return nn.max_pool(x, (2, 2), padding="SAME")  # [B, H/2, W/2, D]


class ConvNet(nn.Module):
    def __init__(self, features, dropout):
        self.blocks = [Block(size) for size in features]
        self.drop = nn.Dropout(dropout)
        self.head = nn.Dense(10)

    def __call__(self, x):  # [B, H, W, 1]
        for block in self.blocks:
            x = block(x)
        return self.head(self.drop(x.reshape(len(x), -1)))  # [B, 10]


# Loss


def cross_entropy(logits, labels):
    """Of each image, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


# One step


def optimizer(settings):
    steps = settings.steps
    rate = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, warmup_steps=steps // 10, decay_steps=steps
    )
    return optax.adamw(rate, weight_decay=settings.weight_decay)


@jax.jit(static_argnames="settings", donate_argnames=("model", "opt_state"))
def train_step(model, opt_state, batch, key, settings):
    shift_key, model_key = jax.random.split(key)
    images = augment(batch["image"], shift_key, settings.shift)

    def loss_fn(model):
        logits, model = nn.training(model, model_key)(images)
        return cross_entropy(logits, batch["label"]).mean(), (logits, model)

    (loss, (logits, model)), grads = nn.value_and_grad(loss_fn, has_aux=True)(model)
    updates, opt_state = optimizer(settings).update(grads, opt_state, nn.params(model))
    accuracy = (logits.argmax(-1) == batch["label"]).mean()
    return nn.apply_updates(model, updates), opt_state, (loss, accuracy)


# Evaluation


@jax.jit
def predict(model, images):
    return model(images)


def evaluate(model, data, size=500):
    """The mean loss, the accuracy, and the logits of all images."""
    parts = range(0, len(data["label"]), size)
    logits = [predict(model, data["image"][i : i + size]) for i in parts]
    logits = np.concatenate(logits)
    loss = cross_entropy(logits, data["label"]).mean()
    accuracy = (logits.argmax(-1) == data["label"]).mean()
    return float(loss), float(accuracy), logits


# Saving and loading: arrays by path, and beside them what describes the model


def save(path, model, settings):
    config = {"features": settings.features, "dropout": settings.dropout}
    about = {"format": 1, "linnet": linnet.__version__, "model": config}
    np.savez(path, __about__=json.dumps(about), **nn.to_paths(model))


def load(path):
    try:
        with open(path, "rb") as file:
            arrays = dict(np.load(file))
        about = json.loads(str(arrays.pop("__about__")))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no model of this program: {error}") from error
    written = f"format {about['format']}, written by Linnet {about['linnet']}"
    require(about["format"] == 1, f"{path} has {written}; this program reads format 1")
    return nn.from_paths(ConvNet(**about["model"]), arrays)


# Picture

TEST, TRAIN, WRONG = "#1f5673", "#a9b4bc", "#c0462f"


def draw(path, history, data, logits):
    """The curves, and below them the hardest test digits, the wrong ones first."""
    plt = extra("matplotlib.pyplot")
    plt.switch_backend("agg")
    figure = plt.figure(figsize=(9, 5.2), dpi=100, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[2.4, 1], hspace=0.05)
    steps, *curves = np.transpose(history)
    left, right = above.subplots(1, 2)
    for axes, name, i in ((left, "loss", 0), (right, "accuracy", 2)):
        train, test = curves[i : i + 2]
        axes.plot(steps, train, color=TRAIN, label="training, shifted, with dropout")
        axes.plot(steps, test, color=TEST, label=f"test, {test[-1]:.4f} at the end")
        axes.set_title(name, loc="left")
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    left.set_yscale("log")
    right.set_ylim(min(0.9, test[-1] - 0.1), 1.005)
    label, read = data["label"], logits.argmax(-1)
    wrong = f"{(read != label).sum()} of {len(read)} test digits were read wrongly"
    below.suptitle(f"{wrong}; these are the hardest")
    hardest = np.lexsort([-cross_entropy(logits, label), read == label])[:10]
    row = below.subplots(1, len(hardest), squeeze=False)[0]
    for axes, i in zip(row, hardest, strict=True):
        axes.imshow(data["image"][i, ..., 0], cmap="gray_r")
        if read[i] == label[i]:
            axes.set_title(f"{label[i]}", color=TEST)
        else:
            axes.set_title(f"{label[i]} as {read[i]}", color=WRONG)
        axes.axis("off")
    figure.savefig(path)
    plt.close(figure)


# Command line: a flag for each setting, with its comment as help


def parse(argv):
    what = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(description=what, allow_abbrev=False)
    parser.add_argument("--smoke", action="store_true", help="a short run, for tests")
    comments = re.findall(r"^ +(\w+):.*?# (.*)", inspect.getsource(Settings), re.M)
    for name, comment in comments:
        default = getattr(Settings, name)
        many = {"nargs": "+"} if isinstance(default, tuple) else {}
        kind = type(default[0] if many else default)
        flag = "--" + name.replace("_", "-")
        text = comment if default == "" else f"{comment} (default: {default})"
        parser.add_argument(
            flag, type=kind, metavar=kind.__name__, default=default, help=text, **many
        )
    if parser.parse_args(argv).smoke:
        parser.set_defaults(**SMOKE)
    flags = vars(parser.parse_args(argv))
    for name in ("steps", "batch_size", "eval_every"):
        require(flags[name] > 0, f"--{name.replace('_', '-')} must be at least 1")
    del flags["smoke"]
    return Settings(**flags | {"features": tuple(flags["features"])})


@contextlib.contextmanager
def progress(steps):
    """A function `show(step, text)`: a bar on a terminal, plain lines elsewhere."""
    if not (sys.stdout.isatty() and importlib.util.find_spec("rich")):
        yield lambda step, text=None: text and print(f"step {step:4}  {text}")
        return
    bars = extra("rich.progress")
    columns = [bars.BarColumn(20), bars.MofNCompleteColumn(), bars.TimeElapsedColumn()]
    with bars.Progress(*columns, bars.TextColumn("{task.description}")) as bar:
        task = bar.add_task("compiling", total=steps)
        yield lambda step, text=None: bar.update(task, completed=step, description=text)


# main


def train(settings, data, test):
    """The trained model, and rows of step, losses and accuracies."""
    init_key, train_key = jax.random.split(jax.random.key(settings.seed))
    model = ConvNet(settings.features, settings.dropout)
    model = nn.init(model, init_key, data["image"][:1])
    opt_state = optimizer(settings).init(nn.params(model))
    stream = batches(data, settings.batch_size, settings.seed)
    history, recent = [], []
    with progress(settings.steps) as show:
        for step in range(1, settings.steps + 1):
            key = jax.random.fold_in(train_key, step)
            model, opt_state, measured = train_step(
                model, opt_state, next(stream), key, settings
            )
            recent.append(measured)
            show(step)
            if step % settings.eval_every == 0 or step == settings.steps:
                train_loss, train_accuracy = np.mean(jax.device_get(recent), axis=0)
                loss, accuracy, _ = evaluate(model, test)
                losses = f"loss {train_loss:.3f}, test {loss:.3f}"
                show(step, f"{losses}, accuracy {accuracy:.4f}")
                history.append((step, train_loss, loss, train_accuracy, accuracy))
                recent.clear()
    return model, history


def main(argv=None):
    start = time.perf_counter()
    settings = parse(argv)
    data, test = load_data(settings)
    if settings.load:
        _, accuracy, logits = evaluate(load(settings.load), test)
        read = logits.argmax(-1)
        for i in np.flatnonzero(read != test["label"]):
            print(f"test digit {i} is a {test['label'][i]}, read as {read[i]}")
        print(f"test accuracy {accuracy:.4f}")
        return
    extra("matplotlib")  # better missed now than after the training
    model, history = train(settings, data, test)

    out = pathlib.Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    save(out / "model.npz", model, settings)
    _, accuracy, logits = evaluate(model, test)
    _, _, again = evaluate(load(out / "model.npz"), test)
    assert np.array_equal(again, logits), "the loaded model predicts something else"
    draw(out / "training.png", history, test, logits)
    print(f"{out}/model.npz and {out}/training.png are written")
    seconds = time.perf_counter() - start
    print(f"test accuracy {accuracy:.4f} in {seconds:.0f} seconds")
    assert accuracy >= settings.target, f"below the target of {settings.target}"


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"train.py: {error}")
