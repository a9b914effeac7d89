"""Models as trees: partition, merge, updates, and everyone else's pytrees."""

import dataclasses
import functools
from typing import Any

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import assert_close, normal
from linnet import nn

KEY = jax.random.key(0)
X = normal((4, 3))


class Net(nn.Module):
    def __init__(self, width=5):
        self.hidden = nn.Dense(width)
        self.norm = nn.BatchNorm()
        self.layers = [nn.Dense(4), jax.nn.relu]

    def __call__(self, x):
        return self.layers[1](self.layers[0](self.norm(self.hidden(x))))


MODEL = nn.init(Net(), KEY, X)
ROLES = [nn.Param, nn.State, nn.Constant]
WHERES = {
    "role": (nn.Param,),
    "pattern": ("**/kernel",),
    "type": (nn.BatchNorm,),
    "predicate": (lambda path, x: x.ndim == 2,),
    "tuple": (("hidden", nn.BatchStat),),
    "several": (nn.State, "**/bias", "hidden"),
    "nothing": (nn.Cache,),
}


@pytest.mark.parametrize("name", WHERES)
def test_partition_then_merge_is_the_identity(name):
    parts = nn.partition(MODEL, *WHERES[name])
    assert len(parts) == len(WHERES[name]) + 1
    assert nn.merge(*parts) == MODEL
    assert nn.merge(*reversed(parts)) == MODEL
    flat = [len(jax.tree.leaves(part)) for part in parts]
    assert sum(flat) == len(jax.tree.leaves(MODEL))
    leaves = jax.tree.leaves(nn.merge(*parts)), jax.tree.leaves(MODEL)
    assert all(a is b for a, b in zip(*leaves, strict=True))


def test_partition_agrees_with_equinox():
    spec = nn.select(MODEL, "**/kernel").mask()
    theirs = equinox.partition(MODEL, spec)
    ours = nn.partition(MODEL, "**/kernel")
    for one, other in zip(ours, theirs, strict=True):
        assert one == other
    assert equinox.combine(*theirs) == nn.merge(*ours)


def test_an_array_goes_to_the_first_part_that_selects_it():
    first, second, rest = nn.partition(MODEL, "hidden", nn.Param)
    assert list(nn.to_paths(first)) == ["hidden/kernel", "hidden/bias"]
    assert "hidden/kernel" not in nn.to_paths(second)
    assert "layers/0/kernel" in nn.to_paths(second)
    assert list(nn.to_paths(rest)) == ["norm/mean", "norm/var"]


def test_parts_print_and_pass_through_transforms():
    kernels, rest = nn.partition(MODEL, "**/kernel")
    assert "bias=None" in repr(kernels)

    @jax.jit
    def run(kernels, rest):
        return nn.merge(kernels, rest)(X)

    assert_close(run(kernels, rest), MODEL(X))
    doubled = jax.tree.map(lambda x: 2 * x, kernels)
    assert_close(nn.merge(doubled, rest).hidden.kernel, 2 * MODEL.hidden.kernel)


def test_several_models_in_a_tuple_or_dict():
    pair = (MODEL, {"b": nn.init(nn.Dense(2), KEY, X)})
    parts = nn.partition(pair, nn.Param)
    assert list(nn.to_paths(parts[0]))[:1] == ["0/hidden/kernel"]
    assert "1/b/kernel" in nn.to_paths(parts[0])
    merged = nn.merge(*parts)
    assert merged[0] == MODEL
    assert merged[1]["b"] == pair[1]["b"]


def test_merge_refuses_an_array_twice_and_other_models():
    kernels, rest = nn.partition(MODEL, "**/kernel")
    with pytest.raises(nn.TreeError, match=r"hidden\.kernel.*LN-TREE-02"):
        nn.merge(kernels, MODEL)
    with pytest.raises(nn.TreeError, match=r"hidden\.features.*LN-TREE-01"):
        nn.merge(kernels, nn.partition(nn.init(Net(6), KEY, X), "**/kernel")[1])
    assert nn.merge(rest, kernels) == MODEL


def test_params_are_the_trained_arrays():
    params = nn.params(MODEL)
    assert list(nn.to_paths(params)) == list(nn.select(MODEL, nn.Param))
    assert params.norm.mean is None
    with pytest.raises(nn.InitError, match="LN-INIT-01"):
        nn.params(Net())


def test_updates_are_added_as_optax_does():
    grads = jax.tree.map(jnp.ones_like, nn.params(MODEL))
    updates, _ = optax.sgd(0.1).update(grads, optax.sgd(0.1).init(nn.params(MODEL)))
    model = nn.apply_updates(MODEL, updates)
    assert_close(nn.params(model), optax.apply_updates(nn.params(MODEL), updates))
    assert model.norm.mean is MODEL.norm.mean


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_updates_are_rounded_once(dtype):
    model = nn.init(nn.Dense(50, param_dtype=dtype), KEY, X)
    updates = jax.tree.map(lambda x: 0.1 * normal(x.shape, 1), nn.params(model))
    ours, theirs = nn.apply_updates(model, updates), optax.apply_updates(model, updates)
    assert ours.kernel.dtype == dtype
    assert_close(ours, theirs, rtol=0, atol=0)


def test_updates_of_another_model_or_shape_are_refused():
    params = nn.params(MODEL)
    with pytest.raises(nn.TreeError, match="LN-TREE-01"):
        nn.apply_updates(MODEL, nn.params(nn.init(Net(6), KEY, X)))
    wrong = nn.select(params, "hidden/bias").map(lambda x: x[:2])
    with pytest.raises(nn.ShapeError, match=r"hidden\.bias.*LN-TREE-03"):
        nn.apply_updates(MODEL, wrong)


# ---- everyone else's pytrees


def test_jax_tree_functions_take_models():
    doubled = jax.tree.map(lambda x: 2 * x, MODEL)
    assert isinstance(doubled, Net)
    assert_close(doubled.hidden.kernel, 2 * MODEL.hidden.kernel)
    total = jax.tree.reduce(lambda n, x: n + x.size, MODEL, 0)
    assert total == sum(x.size for x in nn.to_paths(MODEL).values())
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), MODEL, MODEL))
    outer, inner = jax.tree.structure(MODEL), jax.tree.structure((0, 0))
    two = jax.tree.map(lambda x: (x, -x), MODEL)
    positive, negative = jax.tree.transpose(outer, inner, two)
    assert positive == MODEL
    assert_close(negative.hidden.kernel, -MODEL.hidden.kernel)


def test_leaves_may_be_anything():
    shapes = jax.eval_shape(lambda: MODEL)
    assert shapes == nn.abstract(MODEL, X)
    assert shapes.hidden.kernel == jax.ShapeDtypeStruct((3, 5), jnp.float32)
    assert jax.tree.map(lambda x: None, MODEL).hidden.kernel is None
    names = jax.tree.map(lambda x: "name", MODEL)
    assert names.layers[0].bias == "name"
    for tree in (shapes, names, jax.tree.map(lambda x: None, MODEL)):
        assert "Net(" in repr(tree)
        assert tree == jax.tree.map(lambda x: x, tree)


def test_numpy_arrays_serve_as_leaves():
    model = jax.tree.map(np.asarray, MODEL)
    assert isinstance(model.hidden.kernel, np.ndarray)
    assert_close(model(X), MODEL(X))
    assert_close(jax.jit(lambda m, x: m(x))(model, X), MODEL(X))
    _, new = nn.training(model, KEY)(X)
    assert_close(new.norm.mean, nn.training(MODEL, KEY)(X)[1].norm.mean)
    assert isinstance(nn.grad(lambda m: m(X).sum())(model).hidden.kernel, jax.Array)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["model", "opt"], meta_fields=[]
)
@dataclasses.dataclass
class TrainState:
    model: Any
    opt: Any


def test_models_live_inside_other_trees_and_are_donated():
    tx = optax.adam(1e-2)
    model = jax.tree.map(jnp.copy, MODEL)
    state = TrainState(model, tx.init(nn.params(model)))
    assert isinstance(state.opt[0].mu, Net)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, x):
        def loss_fn(model):
            out, model = nn.training(model, KEY)(x)
            return (out**2).mean(), model

        grad_fn = nn.value_and_grad(loss_fn, has_aux=True)
        (loss, model), grads = grad_fn(state.model)
        updates, opt = tx.update(grads, state.opt, nn.params(model))
        return TrainState(nn.apply_updates(model, updates), opt), loss

    losses = []
    for _ in range(4):
        old = state
        state, loss = step(state, X)
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    assert old.model.hidden.kernel.is_deleted()
    assert step._cache_size() == 1


def test_flattening_keeps_the_very_arrays():
    leaves, treedef = jax.tree.flatten(MODEL)
    again = treedef.unflatten(leaves)
    assert again.hidden.kernel is MODEL.hidden.kernel
    assert jax.tree.structure(again) == treedef
    assert jax.tree.unflatten(treedef, leaves) == MODEL
    with_paths, same = jax.tree_util.tree_flatten_with_path(MODEL)
    assert same == treedef
    for (_, one), other in zip(with_paths, leaves, strict=True):
        assert one is other


def test_vmap_and_scan_over_models():
    models = jax.vmap(lambda key: nn.init(Net(), key, X))(jax.random.split(KEY, 3))
    outs = jax.jit(jax.vmap(lambda m: m(X)))(models)
    run = jax.jit(lambda m: m(X))
    for i in range(3):
        assert_close(outs[i], run(jax.tree.map(lambda x, i=i: x[i], models)))
    _, scanned = jax.lax.scan(lambda _, m: (None, m(X)), None, models)
    assert_close(scanned, outs)
