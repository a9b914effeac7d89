"""Models as flat dicts: the round trip, every tolerance, and the report."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn

KEY = jax.random.key(0)
X = normal((2, 3))


class Net(nn.Module):
    def __init__(self, width=4):
        self.hidden = nn.Dense(width)
        self.blocks = [nn.Dense(width), nn.BatchNorm()]
        self.heads = {"a": nn.Dense(2)}
        self.table = nn.constant(jnp.ones((1, 2)))

    def __call__(self, x):
        x = self.hidden(x)
        for block in self.blocks:
            x = block(x)
        return self.heads["a"](x) * self.table


MODEL = nn.init(Net(), KEY, X)
FLAT = nn.to_paths(MODEL)
OTHER = nn.to_paths(nn.init(Net(), jax.random.key(1), X))


def without(*paths):
    return {path: x for path, x in OTHER.items() if path not in paths}


def test_paths_are_those_that_one_would_write():
    assert list(FLAT) == [
        "hidden/kernel",
        "hidden/bias",
        "blocks/0/kernel",
        "blocks/0/bias",
        "blocks/1/scale",
        "blocks/1/bias",
        "blocks/1/mean",
        "blocks/1/var",
        "heads/a/kernel",
        "heads/a/bias",
        "table",
    ]
    assert all(FLAT[p] is x for p, x in nn.select(MODEL, "**").items())


@pytest.mark.parametrize("model", [Net(), MODEL, nn.abstract(Net(), X)], ids=str)
def test_the_round_trip_gives_the_model(model):
    again = nn.from_paths(model, OTHER)
    assert nn.to_paths(again).keys() == OTHER.keys()
    assert all(nn.to_paths(again)[path] is x for path, x in OTHER.items())
    assert again == nn.from_paths(MODEL, OTHER)
    assert_close(again(X), nn.init(Net(), jax.random.key(1), X)(X))


def test_order_and_container_of_the_mapping_do_not_matter():
    file = io.BytesIO()
    np.savez(file, **{path.replace("/", "."): x for path, x in OTHER.items()})
    file.seek(0)
    stored = np.load(file)
    mapping = {path.replace(".", "/"): stored[path] for path in reversed(stored.files)}
    assert nn.from_paths(MODEL, mapping) == nn.from_paths(MODEL, OTHER)
    lists = {path: np.asarray(x).tolist() for path, x in OTHER.items()}
    assert nn.from_paths(MODEL, lists, dtype="**") == nn.from_paths(MODEL, OTHER)


def test_transforms_may_be_around_it():
    def run(mapping, x):
        return nn.from_paths(Net(), mapping)(x)

    assert_close(jax.jit(run)(FLAT, X), MODEL(X))
    shapes = jax.eval_shape(lambda flat: nn.from_paths(Net(), flat), FLAT)
    assert shapes == nn.abstract(Net(), X)


def test_parts_and_several_models():
    part = nn.partition(MODEL, "hidden")[0]
    assert list(nn.to_paths(part)) == ["hidden/kernel", "hidden/bias"]
    assert nn.to_paths(Net()).keys() == {"table"}
    pair = {"net": MODEL, "more": (nn.init(nn.Dense(2), KEY, X),)}
    flat = nn.to_paths(pair)
    assert "more/0/kernel" in flat
    again = nn.from_paths(pair, flat)
    assert (again["net"], again["more"]) == (MODEL, pair["more"])


# ---- tolerances: what differs, the option, a pattern that allows it

REPORTS = {
    "missing": (without("heads/a/bias"), "heads/a/bias", "missing from the mapping"),
    "unexpected": (OTHER | {"tail/w": np.ones(2)}, "tail/w", "not in the model"),
    "shape": (
        OTHER | {"heads/a/bias": np.ones(7, np.float32)},
        "heads/a/bias",
        "of another shape",
    ),
    "dtype": (
        OTHER | {"heads/a/bias": np.array([1.0, 2.0], np.float16)},
        "heads/a/bias",
        "of another dtype",
    ),
}


@pytest.mark.parametrize("kind", REPORTS)
def test_each_difference_is_reported_and_each_tolerance_allows_it(kind):
    mapping, path, words = REPORTS[kind]
    with pytest.raises(nn.TreeError, match="LN-PATHS-01") as caught:
        nn.from_paths(MODEL, mapping)
    (name, fact), *_ = caught.value.facts.items()
    assert name.startswith(words)
    assert path in fact
    scope = {"nn": nn, "model": MODEL, "mapping": mapping}
    exec(caught.value.fixes[0][1], scope)
    allowed = nn.from_paths(MODEL, mapping, **{kind: path})
    assert scope["model"] == allowed
    assert_close(allowed.hidden.kernel, OTHER["hidden/kernel"])
    kept = {"missing": FLAT, "shape": FLAT, "dtype": mapping, "unexpected": OTHER}[kind]
    assert_close(allowed.heads["a"].bias, kept["heads/a/bias"])
    assert allowed.heads["a"].bias.dtype == jnp.float32
    for other in set(REPORTS) - {kind}:
        with pytest.raises((nn.TreeError, nn.PathError)):
            nn.from_paths(MODEL, mapping, **{other: path})


def test_a_tolerance_covers_what_its_pattern_selects_only():
    mapping = without("heads/a/bias", "hidden/bias")
    with pytest.raises(nn.TreeError) as caught:
        nn.from_paths(MODEL, mapping, missing="heads")
    assert "hidden/bias" in str(caught.value)
    assert "heads" not in str(caught.value).split("Fix")[0]
    assert nn.from_paths(MODEL, mapping, missing=("heads", "hidden/*")).heads["a"] == (
        MODEL.heads["a"].replace(kernel=OTHER["heads/a/kernel"])
    )


@pytest.mark.parametrize("kind", ["missing", "unexpected", "shape", "dtype", "tied"])
def test_a_tolerance_that_matches_nothing_is_refused(kind):
    with pytest.raises(nn.PathError, match=r"'heads/z'.*LN-PATH-01"):
        nn.from_paths(MODEL, OTHER, **{kind: "heads/z"})


def test_one_report_of_everything_stays_short():
    mapping = {f"layer{i}/w": np.ones(2) for i in range(100)}
    mapping |= {"hidden/bias": np.ones(9, np.float32), "heads/a/bias": np.ones(2)}
    with pytest.raises(nn.TreeError) as caught:
        nn.from_paths(MODEL, mapping)
    assert len(str(caught.value).splitlines()) <= 20
    assert set(caught.value.facts) == {
        "missing from the mapping",
        "not in the model",
        "of another shape (model, given)",
        "of another dtype (model, given)",
    }
    assert caught.value.facts["not in the model"].startswith("100: layer0/w")
    assert "97 more" in caught.value.facts["not in the model"]


def test_a_description_may_stay_without_what_is_missing():
    backbone = {path: x for path, x in OTHER.items() if "heads" not in path}
    model = nn.from_paths(Net(), backbone, missing="heads")
    assert list(nn.to_paths(model)) == list(backbone)
    ready = nn.init(model, KEY, X)
    assert ready.hidden.kernel is OTHER["hidden/kernel"]
    assert_close(ready.heads["a"].kernel, MODEL.heads["a"].kernel, rtol=0, atol=0)


def test_a_description_checks_the_sizes_it_knows():
    with pytest.raises(nn.TreeError, match="LN-PATHS-01") as caught:
        nn.from_paths(nn.Dense(4), {"kernel": np.ones((3, 5)), "bias": np.ones(4)})
    assert "float32[?, 4]" in str(caught.value)


def test_stacks_have_one_array_for_all_layers_described_or_ready():
    stack = nn.Stack(nn.Dense(3), 4)
    ready = nn.init(stack, KEY, X)
    flat = nn.to_paths(ready)
    assert {path: x.shape for path, x in flat.items()} == {
        "block/kernel": (4, 3, 3),
        "block/bias": (4, 3),
    }
    assert nn.from_paths(stack, flat) == ready
    with pytest.raises(nn.TreeError, match="LN-PATHS-01"):
        nn.from_paths(nn.Stack(nn.Dense(3), 5), flat)


def test_two_arrays_of_one_path_are_refused():
    class Slash(nn.Module):
        def __init__(self):
            self.parts = {"a/b": nn.state(0), "a": {"b": nn.state(1)}}

    with pytest.raises(nn.PathError, match="LN-PATH-02"):
        nn.to_paths(Slash())


def test_keys_and_low_precision_travel():
    class Odd(nn.Module):
        def __init__(self):
            self.key = nn.state(jax.random.key(3))
            self.low = nn.param(jnp.ones(3, jnp.bfloat16))
            self.none = nn.param(jnp.zeros((0, 2)))

    model = Odd()
    again = nn.from_paths(
        jax.tree.map(jnp.zeros_like, nn.abstract(model)), nn.to_paths(model)
    )
    assert again == model
    assert again.low.dtype == jnp.bfloat16
