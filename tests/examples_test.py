"""The examples run, do what they say, and refuse what they cannot use."""

import dataclasses
import gzip
import importlib.util
import io
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close
from linnet import nn

ROOT = pathlib.Path(__file__).parent.parent
SCRIPT = ROOT / "examples" / "digits" / "train.py"


def load_example(script):
    """The script as a module, with nothing run but its definitions."""
    name = f"example_{script.parent.name}"
    spec = importlib.util.spec_from_file_location(name, script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where `inspect.getsource` looks
    spec.loader.exec_module(module)
    return module


digits = load_example(SCRIPT)


def run_script(*flags):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, flags)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


# ---- the whole program


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The folder of a short run, and what it printed."""
    out = tmp_path_factory.mktemp("digits")
    done = run_script("--smoke", "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_a_short_run_learns_and_leaves_a_model_and_a_picture(smoke):
    out, printed = smoke
    last = re.fullmatch(
        r"test accuracy (0\.\d{4}) in \d+ seconds", printed.splitlines()[-1]
    )
    assert 0.8 < float(last[1]) < 1
    assert printed.count("step ") == 3
    assert (out / "training.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "model.npz").is_file()


def test_a_saved_model_is_tested_again_with_the_same_result(smoke, capsys):
    out, printed = smoke
    accuracy = re.search(r"test accuracy (0\.\d{4})", printed)[1]
    digits.main(["--load", str(out / "model.npz")])
    *wrong, last = capsys.readouterr().out.splitlines()
    assert last == f"test accuracy {accuracy}"
    assert len(wrong) == round((1 - float(accuracy)) * 450)
    assert re.fullmatch(r"test digit \d+ is a \d, read as \d", wrong[0])


def test_a_run_below_its_target_fails(tmp_path, capsys):
    write_mnist(tmp_path)
    flags = ["--dataset", "mnist", "--data-dir", str(tmp_path), "--out", str(tmp_path)]
    flags += ["--steps", "1", "--batch-size", "4", "--features", "3", "--target", "1"]
    with pytest.raises(AssertionError, match=r"below the target of 1\.0"):
        digits.main(flags)
    assert "test accuracy" in capsys.readouterr().out


def test_a_mistake_of_the_user_is_one_line_without_traceback(tmp_path):
    done = run_script("--dataset", "mnist", "--data-dir", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"train.py: {tmp_path} (see --data-dir) has none of")
    assert done.stderr.count("\n") == 1


def test_the_picture_shows_the_curves_and_the_wrong_digits_first(monkeypatch):
    import matplotlib.pyplot as plt

    drawn = []
    monkeypatch.setattr(plt, "close", drawn.append)
    history = [(1, 2.5, 2.0, 0.1, 0.2), (2, 1.5, 1.0, 0.5, 0.6)]
    data = {"image": np.ones((3, 4, 4, 1)), "label": np.array([4, 1, 7])}
    logits = np.eye(10)[[4, 2, 7]] * [[1.0], [9.0], [5.0]]
    digits.draw(io.BytesIO(), history, data, logits)
    left, right, *images = drawn[0].axes
    for axes, curves in (
        (left, [[2.5, 1.5], [2, 1]]),
        (right, [[0.1, 0.5], [0.2, 0.6]]),
    ):
        assert [line.get_ydata().tolist() for line in axes.lines] == curves
    assert [axes.get_title() for axes in images] == ["1 as 2", "4", "7"]
    monkeypatch.undo()
    plt.close(drawn[0])


# ---- flags


def test_help_shows_each_setting_with_its_comment_and_default(capsys):
    with pytest.raises(SystemExit, match="0"):
        digits.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(digits.Settings):
        assert f"--{field.name.replace('_', '-')} " in shown
    assert "--batch-size int images per batch (default: 64)" in shown
    assert "--load str a saved model to test, instead of training one" in shown
    assert shown.count("(default: ") == len(dataclasses.fields(digits.Settings)) - 1


def test_flags_change_the_settings_also_those_of_a_short_run():
    assert digits.parse([]) == digits.Settings()
    given = digits.parse(["--smoke", "--steps", "7", "--features", "4", "8"])
    wanted = {**digits.SMOKE, "steps": 7, "features": (4, 8)}
    assert given == digits.Settings(**wanted)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--steps", "0"], "--steps must be at least 1"),
        (["--batch-size", "-4"], "--batch-size must be at least 1"),
        (["--dataset", "cifar"], '--dataset must be "digits" or "mnist"'),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(flags, text):
    with pytest.raises(digits.InputError, match=f"^{re.escape(text)}$"):
        digits.main(flags)


@pytest.mark.parametrize("name", ["sklearn.datasets", "matplotlib"])
def test_a_missing_package_is_named_with_the_way_to_get_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    text = f'{name} is not installed: pip install "linnet[examples]"'
    with pytest.raises(digits.InputError, match=f"^{re.escape(text)}$"):
        digits.main([])


# ---- data


def test_the_split_is_fixed_and_stratified():
    data, test = digits.load_data(digits.Settings(seed=5))
    assert data["image"].shape == (1347, 8, 8, 1)
    assert test["image"].shape == (450, 8, 8, 1)
    assert data["image"].dtype == np.float32
    assert (data["image"].min(), data["image"].max()) == (0, 1)
    counts = np.bincount(test["label"])
    assert counts.min() >= 43
    assert counts.max() <= 46
    assert test["label"][:8].tolist() == [2, 0, 4, 9, 4, 1, 2, 4]


def test_each_pass_gives_every_image_once_in_a_new_order():
    data = {"image": np.arange(12.0), "label": np.arange(12)}
    stream = digits.batches(data, 4, seed=0)
    drawn = [next(stream) for _ in range(6)]
    labels = np.stack([batch["label"] for batch in drawn]).reshape(2, 12)
    assert np.sort(labels).tolist() == [[*range(12)]] * 2
    assert not np.array_equal(labels[0], labels[1])
    assert_close(drawn[0]["image"], drawn[0]["label"])


def test_a_batch_of_more_than_all_images_is_refused():
    data = {"image": np.arange(12.0), "label": np.arange(12)}
    with pytest.raises(digits.InputError, match="--batch-size 13 is more than the 12 "):
        next(digits.batches(data, 13, seed=0))


def test_images_are_shifted_each_by_its_own_amount():
    image = np.pad(np.ones((2, 2), np.float32), 3)
    images = jnp.asarray(np.stack([image, image])[..., None])
    key = jax.random.key(0)
    assert_close(digits.augment(images, key, 0.0), images)
    moved = digits.augment(images, key, 2.0)
    assert not np.allclose(moved[0], moved[1])
    assert_close(moved.sum((1, 2, 3)), np.full(2, 4.0))
    by = jax.random.uniform(key, (2, 2), minval=-2, maxval=2)
    assert_close(centre(moved), centre(images) + np.asarray(by), rtol=1e-4)


def centre(images):
    grid = np.indices(images.shape[1:3])
    mass = np.asarray(images)[:, None, ..., 0]
    return (mass * grid).sum((2, 3)) / mass.sum((2, 3))


# ---- MNIST

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 6, 4), np.uint8)
LABELS = np.arange(10, dtype=np.uint8)


def idx(array, magic=None):
    """The bytes of an IDX file."""
    magic = bytes([0, 0, 8, array.ndim]) if magic is None else magic
    return magic + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_mnist(folder, dot="-", end=""):
    pack = gzip.compress if end else bytes
    for part in ("train", "t10k"):
        for name, array in (("images-idx3", PIXELS), ("labels-idx1", LABELS)):
            path = folder / f"{part}-{name.replace('-', dot)}-ubyte{end}"
            path.write_bytes(pack(idx(array)))


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_mnist_files_are_read_by_either_name_packed_or_not(tmp_path, dot, end):
    write_mnist(tmp_path, dot, end)
    settings = digits.Settings(dataset="mnist", data_dir=str(tmp_path))
    for data in digits.load_data(settings):
        assert_close(data["image"], PIXELS[..., None] / 255)
        assert data["label"].tolist() == LABELS.tolist()
        assert (data["image"].dtype, data["label"].dtype) == (np.float32, np.int32)


IMAGES = "train-images-idx3-ubyte"
NAMES = "train-images-idx3-ubyte, train-images-idx3-ubyte.gz, "
NAMES += "train-images.idx3-ubyte, train-images.idx3-ubyte.gz"


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        (IMAGES, None, f" (see --data-dir) has none of {NAMES}: take the file from"),
        (IMAGES, b"", f"/{IMAGES} has the magic number none, and not 00000803"),
        (IMAGES, idx(LABELS), "has the magic number 00000801, and not 00000803"),
        (IMAGES, b"<html>", "has the magic number 3c68746d, and not 00000803"),
        (IMAGES, idx(PIXELS)[:9], "has 9 bytes, where its header promises"),
        (IMAGES, idx(PIXELS)[:-1], "has 255 bytes, where its header promises 256: it"),
        (IMAGES, idx(PIXELS) + b"0", "has 257 bytes, where its header promises 256"),
        (IMAGES, idx(PIXELS[:9]), "has 9 train images, but 10 labels"),
        (IMAGES + ".gz", gzip.compress(idx(PIXELS))[:-9], ".gz is no whole gzip file"),
        (IMAGES + ".gz", idx(PIXELS), "is no whole gzip file: Not a gzipped file"),
        ("t10k-labels-idx1-ubyte", idx(LABELS + 1), "has a t10k label 10, above 9"),
    ],
)
def test_broken_mnist_files_are_refused(tmp_path, name, content, text):
    write_mnist(tmp_path)
    (tmp_path / name.removesuffix(".gz")).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    settings = digits.Settings(dataset="mnist", data_dir=str(tmp_path))
    with pytest.raises(digits.InputError, match=re.escape(text)) as caught:
        digits.load_data(settings)
    assert str(caught.value).startswith(str(tmp_path))


# ---- saving and loading


@pytest.fixture
def saved(tmp_path):
    settings = digits.Settings(features=(3,), dropout=0.2)
    model = digits.ConvNet(settings.features, settings.dropout)
    model = nn.init(model, jax.random.key(0), jnp.ones((1, *PIXELS.shape[1:], 1)))
    digits.save(tmp_path / "model.npz", model, settings)
    return tmp_path / "model.npz", model


def test_a_model_comes_back_as_it_was_saved(saved):
    path, model = saved
    assert digits.load(path) == model


def test_files_that_hold_no_model_are_refused(tmp_path):
    np.savez(tmp_path / "arrays.npz", kernel=np.ones(3))
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("arrays.npz", "text.npz", "missing.npz"):
        path = tmp_path / name
        text = f"^{re.escape(str(path))} is no model of this program: "
        with pytest.raises(digits.InputError, match=text):
            digits.load(path)


def test_a_truncated_model_is_refused(saved):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(digits.InputError, match="is no model of this program"):
        digits.load(path)


def test_a_model_of_a_later_format_is_refused_with_its_version(saved):
    path, _ = saved
    with np.load(path) as file:
        arrays = dict(file)
    arrays["__about__"] = '{"format": 2, "linnet": "9.0", "model": {}}'
    np.savez(path, **arrays)
    text = "has format 2, written by Linnet 9.0; this program reads format 1"
    with pytest.raises(digits.InputError, match=text):
        digits.load(path)


# ---- progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show_progress(monkeypatch, stream):
    monkeypatch.setattr(sys, "stdout", stream)
    with digits.progress(2) as show:
        show(1)
        show(2, "loss 0.5")
    return stream.getvalue()


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    lines = "step    2  loss 0.5\n"
    assert show_progress(monkeypatch, io.StringIO()) == lines
    bar = show_progress(monkeypatch, Terminal())
    assert "2/2" in bar
    assert "loss 0.5" in bar
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: None)
    assert show_progress(monkeypatch, Terminal()) == lines
