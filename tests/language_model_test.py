"""The language model: its data and its measures, and a short run of all of it."""

import math
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples_test import ROOT, load_example
from helpers import assert_close
from linnet import nn

SCRIPT = ROOT / "examples" / "language_model" / "train.py"
lm = load_example(SCRIPT)
SETTINGS = lm.Settings(**lm.SMOKE)


def run(*flags, devices=1):
    flags = ["--smoke", "--tokenizer", "bytes", *map(str, flags)]
    count = f"--xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, SCRIPT, *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": count},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_file_is_in_both_parts():
    train, test = lm.read_texts([], 200)
    assert len(train) + len(test) == 200
    assert 0 < len(test) < 40
    one = ROOT / "README.md"
    parts = lm.read_texts([one], 0)
    assert "".join(parts[0] + parts[1]) == one.read_text("utf-8")


def test_bytes_come_back():
    text = "def f(ä):\n\treturn 'é'"
    tokens = lm.Bytes().encode(text)
    assert lm.Bytes().decode([263, *tokens]) == text


def test_batches_depend_on_seed_and_step_alone():
    tokens = np.arange(100)
    one, again = (lm.windows(tokens, SETTINGS, 3) for _ in range(2))
    assert one.shape == (8, 33)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, lm.windows(tokens, SETTINGS, 4))
    assert (np.diff(one) == 1).all()


def test_a_model_that_knows_nothing_needs_the_bits_of_its_alphabet():
    tokens = np.random.default_rng(0).integers(0, 256, 700)
    model = nn.init(lm.make_model(SETTINGS, 264), jax.random.key(0), tokens[None, :8])
    nothing = nn.select(model, "**").map(jnp.zeros_like)
    bits = lm.bits_per_byte(nothing, tokens, len(tokens), SETTINGS)
    assert_close(bits, math.log2(264))


@pytest.mark.parametrize("preset", lm.PRESETS)
def test_every_preset_is_a_model(preset):
    shape = lm.PRESETS[preset]
    model = nn.abstract(lm.Model(shape, 4096), jnp.zeros((1, 8), int))
    sizes = nn.to_paths(model)
    kernel = sizes["blocks/block/attention/key/kernel"]
    head_dim = shape.features // shape.num_heads
    assert kernel.shape == (shape.depth, shape.features, shape.num_kv_heads * head_dim)
    assert ("head/kernel" in sizes) == (not shape.tied)


@pytest.mark.slow
def test_a_short_run_learns_goes_on_and_writes(tmp_path):
    out = run("--out", tmp_path)
    held_out = [float(x) for x in re.findall(r"held out ([\d.]+)", out)]
    assert held_out[0] > held_out[1]
    assert (tmp_path / "curves.png").stat().st_size > 5000
    more = run("--out", tmp_path, "--resume", "--steps", 45)
    assert "step 45: " in more
    assert "step 15: " not in more
    written = run("--out", tmp_path, "--continue", "import ")
    assert written.startswith("import ")
    assert "tokens a second" in written


@pytest.mark.slow
def test_on_a_mesh_it_learns_the_same(tmp_path):
    alone = run("--out", tmp_path / "1")
    many = run("--out", tmp_path / "4", "--mesh", "data=2,model=2", devices=4)
    pattern = r"([\d.]+) bits per byte, held out ([\d.]+)"
    found, desired = (re.findall(pattern, text) for text in (many, alone))
    assert_close(np.float64(found), np.float64(desired), atol=2e-3)
