"""How models print: short, complete where small, and in notebooks."""

import jax
import jax.numpy as jnp
import pytest
import treescope

from helpers import normal
from linnet import nn

KEY = jax.random.key(0)
X = normal((2, 3))


class Block(nn.Module):
    def __init__(self, width, activation=jax.nn.relu):
        self.width = width
        self.activation = activation
        self.dense = nn.Dense(width)
        self.norm = nn.BatchNorm()

    def __call__(self, x):
        return self.activation(self.norm(self.dense(x)))


class Holder(nn.Module):
    def __init__(self, value):
        self.value = value

    def __call__(self, x):
        return x


def test_a_small_model_is_one_line():
    assert repr(nn.Dense(4)) == (
        "Dense(features=4, kernel=Param:float32[?, 4], bias=Param:float32[4])"
    )
    model = nn.init(nn.Dense(4), KEY, X)
    assert repr(model) == "Dense(features=4, kernel=float32[3, 4], bias=float32[4])"
    assert repr(nn.params(model)) == repr(model)
    assert "bias=None" in repr(nn.partition(model, "kernel")[0])


def test_nesting_is_indented():
    model = nn.init(Block(4, jnp.tanh), KEY, X)
    assert repr(model) == (
        "Block(\n"
        "  width=4,\n"
        "  activation=tanh,\n"
        "  dense=Dense(features=4, kernel=float32[3, 4], bias=float32[4]),\n"
        "  norm=BatchNorm(scale=float32[4], bias=float32[4], mean=float32[4], "
        "var=float32[4]),\n"
        ")"
    )
    deeper = repr(Holder([model, Holder(model)]))
    assert deeper.startswith("Holder(\n  value=(\n    Block(\n      width=4,\n")
    assert max(map(len, deeper.splitlines())) <= 88


def test_options_left_at_their_default_are_silent_and_others_are_not():
    assert "use_bias" not in repr(nn.Dense(4))
    assert "dtype=bfloat16" in repr(nn.Dense(4, dtype=jnp.bfloat16))
    assert "activation" not in repr(Block(4))
    assert "activation=gelu" in repr(Block(4, jax.nn.gelu))
    assert repr(Holder(1.0)) == "Holder(value=1.0)"
    assert repr(Holder(True)) == "Holder(value=True)"


def test_containers_are_written_as_python_writes_them():
    assert repr(Holder({"a": [1, 2], "b": "text"})) == (
        "Holder(value={'a': (1, 2), 'b': 'text'})"
    )
    assert "value=(Dense(" in repr(Holder([nn.Dense(2), jax.nn.relu])).replace(
        "\n  ", ""
    )
    assert "relu" in repr(Holder([nn.Dense(2), jax.nn.relu]))


def test_equal_neighbours_are_counted():
    text = repr(nn.Sequential([nn.Dense(4) for _ in range(50)]))
    assert "50 x Dense(" in text
    assert len(text.splitlines()) < 5


LARGE = {
    "different layers": lambda: nn.Sequential([nn.Dense(i + 1) for i in range(300)]),
    "dict": lambda: Holder({f"layer{i}": nn.Dense(i + 1) for i in range(300)}),
    "deep": lambda: _nested(30),
    "wide": lambda: Holder(
        [Holder([nn.Dense(i * j + 1) for i in range(30)]) for j in range(30)]
    ),
    "attributes": lambda: _attributes(100),
    "long text": lambda: Holder("x" * 10_000),
    "long tuple": lambda: Holder(tuple(range(10_000))),
}


def _nested(depth):
    model = nn.Dense(2)
    for i in range(depth):
        model = Holder([model, Block(i + 1)])
    return model


class _Many(nn.Module):
    def __init__(self, count):
        for i in range(count):
            setattr(self, f"block{i}", Block(i + 1))


def _attributes(count):
    return _Many(count)


@pytest.mark.parametrize("name", LARGE)
def test_large_models_stay_short(name):
    text = repr(LARGE[name]())
    assert len(text.splitlines()) <= 60
    assert len(text) < 6000


def test_what_is_left_out_is_counted():
    text = repr(LARGE["different layers"]())
    shown = text.count("Dense(")
    assert f"... {300 - shown} more" in text
    assert "features=300" in text


def test_open_models_and_tracers_print():
    texts = []

    class Printing(nn.Module):
        def __init__(self):
            self.inner = nn.Dense(2)

        def __call__(self, x):
            texts.append(repr(self.inner))
            return self.inner(x)

    model = nn.init(Printing(), KEY, X)
    jax.jit(lambda m, x: nn.training(m)(x)[0])(model, X)
    jax.jit(lambda m, x: m(x))(model, X)
    assert texts[1] == "<open Dense at inner>"
    assert texts[2] == "Dense(features=2, kernel=float32[3, 2], bias=float32[2])"


MODELS = {
    "described": lambda: Block(4),
    "ready": lambda: nn.init(Block(4), KEY, X),
    "shapes": lambda: nn.abstract(Block(4), X),
    "part": lambda: nn.partition(nn.init(Block(4), KEY, X), "**/kernel")[0],
    "containers": lambda: nn.init(Holder({"a": 1, "b": [nn.Dropout(0.5), 2]}), KEY, X),
    "tree": lambda: {"model": nn.init(Block(4), KEY, X), "step": 3},
}


@pytest.mark.parametrize("name", MODELS)
def test_treescope_shows_names_and_does_not_fail(name):
    model = MODELS[name]()
    text = treescope.render_to_text(model)
    html = treescope.render_to_html(model, compressed=False)
    names = {"containers": ["Holder", "value", "Dropout", "rate"]}.get(
        name, ["Block", "width", "dense", "Dense", "kernel", "BatchNorm"]
    )
    for part in names:
        assert part in text
        assert part in html
    for private in ("Static(", "Declared(", "_node", "Error"):
        assert private not in text
