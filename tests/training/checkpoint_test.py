"""Checkpoints: what comes back, onto what, and what is refused."""

import gc
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from helpers import assert_close, normal
from linnet import nn, parallel, training

# Orbax leaves open what it could not read to the end, and reads without a target.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Sharding info not provided"),
]
KEY = jax.random.key(0)
X = normal((2, 4))
TX = optax.adam(1e-2)


def trained(model):
    model = nn.init(model, KEY, X)
    opt_state = TX.init(nn.params(model))
    grads = nn.grad(lambda model: (model(X) ** 2).sum())(model)
    updates, opt_state = TX.update(grads, opt_state)
    return {
        "model": nn.apply_updates(model, updates),
        "opt_state": opt_state,
        "step": jnp.int32(7),
        "key": jax.random.split(jax.random.key(3, impl="rbg"), 2),
    }


def like(model):
    model = nn.abstract(model, X)
    opt_state = jax.eval_shape(TX.init, nn.params(model))
    key = jax.eval_shape(lambda: jax.random.split(jax.random.key(3, impl="rbg"), 2))
    step = jax.ShapeDtypeStruct((), jnp.int32)
    return {"model": model, "opt_state": opt_state, "step": step, "key": key}


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert np.array_equal(np.asarray(x), np.asarray(y))


def stack():
    return nn.Stack(nn.MLP(3), 3)


def unrolled():
    return nn.Sequential([nn.MLP(3) for _ in range(3)])


@pytest.fixture(autouse=True)
def _leftovers_complain_here():
    yield
    gc.collect()


@pytest.fixture
def checkpoints(tmp_path):
    with training.Checkpoints(tmp_path / "run", keep_last=2) as checkpoints:
        yield checkpoints


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a checkpoint of step 1 and one of step 2, and their states."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    states = {1: trained(stack()), 2: trained(stack()) | {"step": jnp.int32(8)}}
    with training.Checkpoints(folder) as checkpoints:
        for step, state in states.items():
            checkpoints.save(step, state, config={"step": step})
    return folder, states


# ---- what comes back


def test_the_whole_state_comes_back_bit_for_bit(checkpoints):
    state = trained(nn.Sequential([nn.Dense(3, dtype=jnp.bfloat16), nn.BatchNorm()]))
    state["more"] = {
        "bf16": jnp.ones((3, 2), jnp.bfloat16),
        "complex": jnp.array([1 + 2j]),
        "bool": jnp.array([True, False]),
        "empty": jnp.zeros((0, 3)),
        "host": np.arange(3, dtype=np.int8),
    }
    checkpoints.save(3, state, data=b"\x00\xff", config={"a": [1, None]})
    found = checkpoints.restore(jax.eval_shape(lambda: state))
    assert_same(found.state, jax.tree.map(jnp.asarray, state))
    assert (found.step, found.data, found.config) == (3, b"\x00\xff", {"a": [1, None]})


def test_the_last_and_the_best_are_kept(tmp_path):
    best = ("loss", "min", 1)
    with training.Checkpoints(tmp_path, keep_last=2, keep_best=best) as checkpoints:
        for step, loss in enumerate([3.0, 1.0, 2.0, 4.0, 5.0]):
            checkpoints.save(step, {"x": jnp.float32(step)}, metrics={"loss": loss})
        checkpoints.wait()
        assert checkpoints.steps() == [1, 3, 4]
        assert checkpoints.latest() == 4
        assert checkpoints.restore({"x": jnp.float32(0)}, 1).state["x"] == 1


def test_arrays_are_listed_and_read_without_the_classes(saved):
    folder, states = saved
    with training.Checkpoints(folder) as checkpoints:
        shapes = checkpoints.paths()
        read = checkpoints.read("model/**/kernel", step=1)
    assert shapes["model/block/hidden/0/kernel"].shape == (3, 4, 3)
    assert shapes["key"].dtype == states[2]["key"].dtype
    assert set(read) == {"model/block/hidden/0/kernel", "model/block/out/kernel"}
    kernel = states[1]["model"].block.out.kernel
    assert_close(read["model/block/out/kernel"], kernel, atol=0)


@pytest.mark.parametrize(("written", "wanted"), [(stack, unrolled), (unrolled, stack)])
def test_layers_may_be_stacked_or_not(checkpoints, written, wanted):
    state = trained(written())
    checkpoints.save(1, state)
    found = checkpoints.restore(like(wanted())).state
    assert_close(found["model"](X), state["model"](X))
    again = nn.to_paths(found["opt_state"][0].mu)
    whole = nn.to_paths(state["opt_state"][0].mu)
    assert_close(sum(map(jnp.sum, again.values())), sum(map(jnp.sum, whole.values())))
    fewer = (
        nn.Stack(nn.MLP(3), 2)
        if wanted is stack
        else nn.Sequential([nn.MLP(3) for _ in range(2)])
    )
    with pytest.raises(nn.TreeError, match=r"2/hidden/0/kernel"):
        checkpoints.restore(nn.abstract(fewer, X), at="model")
    beyond = "**/2/**" if wanted is unrolled else "layers/2/**"
    fewer = nn.abstract(fewer, X)
    some = checkpoints.restore(fewer, at="model", unexpected=beyond)
    assert len(some.state) == 2


class Tied(nn.Module):
    def __init__(self):
        self.embed = nn.Embed(5, 4)
        self.head = nn.Dense(5, use_bias=False)

    def __call__(self, x):
        return self.head(x + self.embed(jnp.zeros(len(x), int)))


TIES = {"head/kernel": ("embed/embedding", jnp.transpose)}


def test_arrays_may_be_tied_or_not(checkpoints):
    tied = nn.init(nn.tie(Tied(), TIES), KEY, X)
    checkpoints.save(1, tied)
    assert_close(checkpoints.restore(nn.abstract(Tied(), X)).state(X), tied(X))
    again = checkpoints.restore(nn.abstract(nn.tie(Tied(), TIES), X)).state
    assert_same(again, tied)
    checkpoints.save(2, nn.init(Tied(), KEY, X))
    with pytest.raises(nn.TreeError, match="tied in the model"):
        checkpoints.restore(tied)
    checkpoints.restore(tied, tied="head/kernel")


def test_a_backbone_is_restored_into_a_larger_model(checkpoints):
    backbone = nn.init(nn.MLP(3), KEY, X)
    checkpoints.save(1, {"model": {"body": backbone}})
    model = nn.init({"body": nn.MLP(3), "head": nn.Dense(2)}["body"], KEY, X)
    whole = {"encoder": model, "head": nn.init(nn.Dense(2), KEY, X)}
    found = checkpoints.restore(
        whole, at="model", rename={"body": "encoder"}, missing="head/**"
    ).state
    assert_same(found, {"encoder": backbone, "head": whole["head"]})


def test_it_goes_onto_another_mesh(saved):
    folder, states = saved
    mesh = parallel.make_mesh(data=2, model=2)
    rules = parallel.fsdp(min_size=8) | parallel.Rules({"mlp": None, "out": "model"})
    with training.Checkpoints(folder) as checkpoints, parallel.use(mesh, rules):
        found = checkpoints.restore(like(stack())).state["model"]
        described = checkpoints.restore(stack(), at="model").state
    kernel = found.block.out.kernel
    assert kernel.sharding.spec == jax.P(None, None, "model")
    assert described.block.out.kernel.sharding == kernel.sharding
    assert_same(found, states[2]["model"])


# ---- what is refused


def test_a_step_is_saved_once_and_must_be_there(checkpoints):
    checkpoints.save(1, {"x": X})
    with pytest.raises(training.CheckpointError, match="LN-CKPT-01"):
        checkpoints.save(1, {"x": X})
    with pytest.raises(training.CheckpointError, match="LN-CKPT-02"):
        checkpoints.restore({"x": X}, 2)


def test_an_empty_folder_has_nothing_to_restore(checkpoints):
    assert checkpoints.latest() is None
    for call in (checkpoints.restore, checkpoints.read, checkpoints.paths):
        with pytest.raises(training.CheckpointError, match="LN-CKPT-02"):
            call(*[{"x": X}] if call == checkpoints.restore else [])


def swapped(arrays):
    a, b = "opt_state/0/mu/block/out/kernel", "opt_state/0/nu/block/out/kernel"
    return arrays | {a: arrays[b], b: arrays[a]}


def renamed(arrays):
    arrays["model/block/out/weight"] = arrays.pop("model/block/out/kernel")
    return arrays


def transposed(arrays):
    name = "model/block/out/kernel"
    return arrays | {name: arrays[name].transpose(0, 2, 1)}


def reordered(arrays):
    name = "model/block/out/kernel"
    return arrays | {name: arrays[name][::-1]}


def dropped(arrays):
    del arrays["model/block/out/kernel"]
    return arrays


def converted(arrays):
    name = "model/block/out/kernel"
    return arrays | {name: arrays[name].astype(np.float16)}


def one_bit(arrays):
    name = "model/block/out/kernel"
    bits = np.array(arrays[name]).view(np.uint32)
    bits[1, 2, 1] ^= 1
    return arrays | {name: bits.view(np.float32)}


MUTATIONS = [swapped, renamed, transposed, reordered, dropped, converted, one_bit]


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_no_change_of_the_stored_arrays_goes_unseen(saved, tmp_path, mutate):
    folder, states = saved
    copy = shutil.copytree(folder, tmp_path / "run")
    place = copy / "2" / "arrays"
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as raw:
        arrays = jax.tree.map(np.asarray, raw.restore(place))
        raw.save(place, mutate(arrays), force=True)
    with training.Checkpoints(copy) as checkpoints:
        with pytest.raises(training.CheckpointError, match="LN-CKPT-03"):
            checkpoints.restore(like(stack()), 2)
        with pytest.warns(UserWarning, match="step 2 .* is damaged"):
            found = checkpoints.restore(like(stack()))
    assert found.step == 1
    assert_same(found.state, states[1])


def test_no_truncated_file_goes_unseen(saved, tmp_path):
    folder, states = saved
    files = [p.relative_to(folder) for p in (folder / "2").rglob("*") if p.is_file()]
    for i, file in enumerate(files):
        copy = shutil.copytree(folder, tmp_path / str(i))
        content = (copy / file).read_bytes()
        (copy / file).write_bytes(content[: len(content) // 2])
        with training.Checkpoints(copy) as checkpoints:
            try:
                found = checkpoints.restore(like(stack()), 2).state
            except training.CheckpointError:
                continue
        assert_same(found, states[2])  # nothing that was read was in this file


@pytest.mark.parametrize(
    ("model", "sentence", "tolerance"),
    [
        (nn.Stack(nn.MLP(5), 3), "of another shape", {"shape": "**"}),
        (nn.Stack(nn.MLP(3, gated=True), 3), "missing", {"missing": "**/gate/**"}),
        (nn.Stack(nn.MLP(3, use_bias=False), 3), "not in", {"unexpected": "**/bias"}),
        (nn.Stack(nn.MLP(3, param_dtype=jnp.bfloat16), 3), "dtype", {"dtype": "**"}),
    ],
)
def test_another_model_is_refused_unless_the_difference_is_asked_for(
    saved, model, sentence, tolerance
):
    model = nn.init(model, KEY, X)
    with training.Checkpoints(saved[0]) as checkpoints:
        with pytest.raises(nn.TreeError, match=sentence):
            checkpoints.restore(model, at="model")
        found = checkpoints.restore(model, at="model", **tolerance).state
    assert jax.tree.structure(found) == jax.tree.structure(model)


@pytest.mark.parametrize("best", ["loss", ("loss", "least", 1), ("loss", "min", 0)])
def test_wrong_options_are_refused(tmp_path, best):
    with pytest.raises(nn.ConfigError):
        training.Checkpoints(tmp_path, keep_best=best)
    with pytest.raises(nn.ConfigError):
        training.Checkpoints(tmp_path, keep_last=0)
