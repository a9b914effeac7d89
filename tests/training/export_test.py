"""Exported models, used without Linnet."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from helpers import assert_close, normal
from linnet import nn, training

X = normal((3, 4))

USE = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "linnet":
            raise ImportError("linnet is not to be imported")
sys.meta_path.insert(0, Refuse())
import jax, numpy as np
call = jax.export.deserialize(open(sys.argv[1], "rb").read()).call
x = np.load(sys.argv[2])
arrays = [dict(np.load(sys.argv[4]))] if len(sys.argv) > 4 else []
np.save(sys.argv[3], call(*arrays, x))
"""


@pytest.fixture
def model():
    layers = [nn.Stack(nn.MLP(8), 2), nn.BatchNorm(), nn.Dense(2)]
    return nn.init(nn.Sequential(layers), jax.random.key(0), X)


@pytest.mark.parametrize("weights", [True, False])
def test_a_program_runs_without_linnet_for_any_batch(model, tmp_path, weights):
    x, files = normal((7, 4), 1), [tmp_path / n for n in ("m", "x.npy", "y.npy")]
    training.export(files[0], model, X, weights=weights)
    np.save(files[1], x)
    if not weights:
        np.savez(tmp_path / "w.npz", **nn.to_paths(model))
        files.append(tmp_path / "w.npz")
    done = subprocess.run(
        [sys.executable, "-c", USE, *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert_close(np.load(files[2]), model(x), atol=1e-6)


def test_a_fixed_batch_another_method_and_another_platform(tmp_path):
    embed = nn.init(nn.Embed(5, 4), jax.random.key(0), jnp.array([0]))
    path = tmp_path / "m"
    training.export(
        path, embed, X, batch=False, method="attend", platforms=("cpu", "tpu")
    )
    made = jax.export.deserialize(path.read_bytes())
    assert made.platforms == ("cpu", "tpu")
    assert_close(made.call(X), embed.attend(X), atol=1e-6)
    with pytest.raises(ValueError, match="shape"):
        made.call(X[:1])


def test_weights_are_plain_safetensors(model, tmp_path):
    path = tmp_path / "w.safetensors"
    training.save_weights(path, nn.cast(model, jnp.bfloat16), metadata={"a": [1]})
    plain = safetensors.numpy.load_file(path)
    assert plain.keys() == nn.to_paths(model).keys()
    arrays, metadata = training.load_weights(path)
    assert metadata == {"a": [1]}
    again = nn.from_paths(nn.describe(model), arrays)
    assert_close(nn.to_paths(again), nn.to_paths(model), atol=0)


def test_without_a_sample_nothing_is_exported(model, tmp_path):
    with pytest.raises(nn.ConfigError, match="LN-EXPORT-01"):
        training.export(tmp_path / "m", model)
