"""Programs that import `flax` run on this package, unmodified."""

import subprocess
import sys

PROGRAM = """
import sys
import flax
import flax.linen as nn
from flax import nnx, struct
from flax.core import FrozenDict, freeze
from flax.training import checkpoints, train_state
import jax, jax.numpy as jnp, optax

model = nn.Sequential([nn.Dense(3), nn.relu, nn.Dense(1)])
params = model.init(jax.random.key(0), jnp.ones((1, 2)))["params"]
state = train_state.TrainState.create(
    apply_fn=model.apply, params=params, tx=optax.sgd(0.1)
)
assert flax.linen is nn and sys.modules["flax.linen"] is nn
assert not isinstance(model, nnx.Module)
try:
    nnx.Linear(1, 2)
except NotImplementedError as error:
    assert "nnx.Linear" in str(error)
assert isinstance(freeze({}), FrozenDict)
print(nn.Dense.__module__, sys.argv[1:])
"""


def run(*arguments):
    command = [sys.executable, "-m", "linnet.compat.flax", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_script_runs(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PROGRAM, "utf-8")
    found = run(str(script), "a", "--b")
    assert found == "linnet.compat.flax.linen.linear ['a', '--b']\n"


def test_a_module_runs(tmp_path):
    test = tmp_path / "flax_test.py"
    test.write_text(
        "import flax\n\n\ndef test_name():\n"
        "    assert flax.__name__ == 'linnet.compat.flax'\n",
        "utf-8",
    )
    found = run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(test))
    assert "1 passed" in found


def test_it_says_how_it_is_used():
    assert "python -m linnet.compat.flax script.py" in run("--help")


def test_each_module_can_be_the_first_one():
    program = """
import importlib, pkgutil, sys
import linnet.compat.flax as flax

for found in pkgutil.walk_packages(flax.__path__, flax.__name__ + "."):
    if not found.name.endswith("__main__"):
        for name in [n for n in sys.modules if n.startswith(flax.__name__)]:
            del sys.modules[name]
        importlib.import_module(found.name)
        print(found.name)
"""
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not found.stderr
    assert "linnet.compat.flax.training.dynamic_scale" in found.stdout
