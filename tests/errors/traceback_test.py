"""A traceback ends at the user's own line: the library's frames are left out."""

import os
import re
import subprocess
import sys

import pytest

import house
from linnet import nn
from linnet._errors import without_library_frames

MODEL = """
import jax
import jax.numpy as jnp
from linnet import nn

class Block(nn.Module):
    def __init__(self):
        self.hidden = nn.Dense(3)

    def __call__(self, x):
        return self.hidden(x)  # inner

key, x = jax.random.key(0), jnp.ones((4, 7))
model = nn.init(nn.Sequential([Block()]), key, x)
x = x[:, :5]
"""
# The mistakes; the marked lines are those that the traceback shows, in this order.
SCRIPTS = {
    "call": ("model(x)  # outer", "outer", "inner"),
    "jit": (
        """
@jax.jit
def predict(model, x):
    return model(x)  # traced

predict(model, x)  # outer
""",
        *("outer", "traced", "inner"),
    ),
    "train": (
        """
def loss_fn(model):
    out, model = nn.training(model)(x)  # loss
    return out.sum(), model

@jax.jit
def step(model):
    return nn.value_and_grad(loss_fn, has_aux=True)(model)  # step

step(model)  # outer
""",
        *("outer", "step", "loss", "inner"),
    ),
    "constructor": (
        """
def make():
    return nn.Dense(-3)  # made

make()  # outer
""",
        *("outer", "made"),
    ),
    "stack": (
        """
class Layer(nn.Module):
    def __call__(self, x):
        return x + jax.random.normal(self.rng(), x.shape)  # inside

stack = nn.Stack(Layer(), 2, remat=True)
jax.vmap(stack)(x)  # outer
""",
        *("outer", "inside"),
    ),
    "cause": (
        """
try:
    model(x)  # outer
except nn.ShapeError as error:
    raise RuntimeError("another") from error  # last
""",
        *("outer", "inner", "last"),
    ),
    "context": (
        """
try:
    model(x)  # outer
except nn.ShapeError:
    1 / 0  # last
""",
        *("outer", "inner", "last"),
    ),
    "other": ("model.hidden_layer  # outer", "outer"),
}
# Runs scripts one after another, as Python does: an exception ends in the hook.
RUNNER = """
import pathlib
import sys

for script in sys.argv[1:]:
    print("====", pathlib.Path(script).stem, file=sys.stderr)
    try:
        exec(compile(pathlib.Path(script).read_text(), script, "exec"), {})
    except Exception as error:
        error.__traceback__ = error.__traceback__.tb_next
        sys.excepthook(type(error), error, error.__traceback__)
"""
FRAME = re.compile(r'^  File "(.+)", line \d+, in', re.MULTILINE)
SHOWN = re.compile(r"# (\w+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What each script writes when its mistake goes uncaught."""
    folder = tmp_path_factory.mktemp("scripts")
    scripts = [folder / f"{name}.py" for name in SCRIPTS]
    for script in scripts:
        script.write_text(MODEL + SCRIPTS[script.stem][0], "utf-8")
    _, *parts = re.split(r"^==== (\w+)\n", run("-c", RUNNER, *scripts), flags=re.M)
    return dict(zip(parts[::2], parts[1::2], strict=True)) | {
        "alone": run(folder / "call.py")
    }


def run(*arguments):
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": str(house.ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


def test_the_hook_is_what_python_calls(printed):
    assert printed["alone"] == printed["call"]


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "other"])
def test_only_the_users_lines_are_shown(name, printed):
    text = printed[name]
    assert SHOWN.findall(text) == list(SCRIPTS[name][1:]), text
    assert {os.path.basename(file) for file in FRAME.findall(text)} == {f"{name}.py"}
    assert "JAX has removed" not in text


def test_other_exceptions_show_all_their_frames(printed):
    text = printed["other"]
    assert SHOWN.findall(text) == ["outer"]
    assert "AttributeError: 'Sequential' object has no attribute" in text
    assert str(house.ROOT / "linnet") in text


def test_the_library_has_frames_to_leave_out():
    with pytest.raises(nn.ConfigError) as caught:
        nn.Dense(-3)
    whole, shown = caught.tb, without_library_frames(caught.tb)
    assert len(list(frames(whole))) > 1
    assert list(frames(shown)) == [__file__]
    assert without_library_frames(None) is None


def frames(traceback):
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename
        traceback = traceback.tb_next
