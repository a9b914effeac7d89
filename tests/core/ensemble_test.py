"""`nn.Ensemble`: models side by side, and ensembles and stacks in one another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn

KEY = jax.random.key(0)
X = normal((4, 3))


class Block(nn.Module):
    """Has parameters, batch statistics, a counter and randomness."""

    def __init__(self, rate=0.5):
        self.dense, self.norm = nn.Dense(3), nn.BatchNorm(momentum=0.5)
        self.drop = nn.Dropout(rate)
        self.count = nn.state(0)

    def __call__(self, x):
        if self.training:
            self.count = self.count + 1
        return self.drop(jnp.tanh(self.sow("h", self.norm(self.dense(x)))))


@pytest.fixture(scope="module")
def many():
    return nn.init(nn.Ensemble(Block(), 3), KEY, X)


def test_each_member_predicts_for_itself(many):
    assert_close(many(X), jnp.stack([member(X) for member in many]), rtol=1e-5)


def test_each_member_has_values_of_its_own(many):
    kernels = np.asarray(many.block.dense.kernel)
    assert len(np.unique(kernels)) == kernels.size


def test_each_member_trains_for_itself():
    many = nn.init(nn.Ensemble(Block(0.0), 3), KEY, X)
    out, new = nn.training(many)(X)
    outs, members = zip(*(nn.training(member)(X) for member in many), strict=True)
    assert_close(out, jnp.stack(outs), rtol=1e-4, atol=1e-5)
    assert_close(
        nn.to_paths(new), nn.to_paths(nn.Ensemble.of(members)), rtol=1e-4, atol=1e-5
    )
    assert new.block.count.tolist() == [1, 1, 1]


def test_gradients_are_those_of_the_members():
    many = nn.init(nn.Ensemble(Block(0.0), 3), KEY, X)
    grads = nn.grad(lambda m: (m(X) ** 2).sum())(many)
    own = [nn.grad(lambda m: (m(X) ** 2).sum())(member) for member in many]
    stacked = jnp.stack([g.dense.kernel for g in own])
    assert_close(grads.block.dense.kernel, stacked, rtol=1e-4)


def test_members_drop_apart_and_the_same_each_time(many):
    many = many.replace(block=nn.select(many.block, "**").map(jnp.ones_like))
    one, two = (nn.training(many, KEY)(X)[0] for _ in range(2))
    assert_close(one, two, rtol=0)
    assert len({np.asarray(row == 0).tobytes() for row in one}) == 3


@pytest.mark.parametrize(("axis", "shape"), [(0, (3, 4, 3)), (1, (4, 3, 3))])
def test_each_member_may_have_its_own_input(axis, shape):
    xs = normal(shape)
    many = nn.init(nn.Ensemble(Block(), 3, in_axis=axis), KEY, xs)
    rows = [m(jnp.take(xs, i, axis)) for i, m in enumerate(many)]
    assert_close(many(xs), jnp.stack(rows), rtol=1e-5)
    assert_close(nn.stateful(many)(xs)[0], jnp.stack(rows), rtol=1e-5)


def test_members_are_indexed_sliced_and_put_together(many):
    assert len(many) == 3
    assert many[-1] == list(many)[2]
    assert list(many[:2]) == list(many)[:2]
    assert nn.Ensemble.of(list(many)) == many
    assert many[:2](X).shape == (2, 4, 3)
    shared = nn.Ensemble.of([many[0]] * 2)
    assert_close(shared(X)[0], shared(X)[1], rtol=0)


def test_the_description_comes_back(many):
    assert nn.describe(many) == nn.Ensemble(Block(), 3)


@pytest.mark.parametrize("size", [0, -3, 1.5, None])
def test_a_size_is_a_positive_integer(size):
    with pytest.raises(nn.ConfigError) as caught:
        nn.Ensemble(nn.Dense(3), size)
    assert caught.value.code == "LN-VALUE-01"


def test_only_a_module_without_arrays_is_repeated(many):
    for block, code in ((jnp.tanh, "LN-STACK-02"), (many[0], "LN-STACK-03")):
        with pytest.raises(nn.ConfigError) as caught:
            nn.Ensemble(block, 3)
        assert caught.value.code == code
    with pytest.raises(nn.TreeError):
        nn.Ensemble.of([many[0], many])


# ---- in one another


def ensemble_of_stacks(rate=0.5, **options):
    return nn.Ensemble(nn.Stack(Block(rate), 3, **options), 2)


def stack_of_ensembles(rate=0.5, **options):
    return nn.Stack(nn.Ensemble(Block(rate), 2, in_axis=0), 3, **options)


@jax.jit
def everything(model, x):
    """Results, state, masks, taps and gradients of one training call."""

    def loss(model):
        call = nn.capture(nn.training(model, jax.random.key(1)), "**/h")
        (out, new), values = call(x)
        return (out**2).sum(), (out, new, values)

    (_, (out, new, values)), grads = nn.value_and_grad(loss, has_aux=True)(model)
    return out, nn.to_paths(new), values, nn.to_paths(grads)


@pytest.mark.parametrize("options", [{"remat": True}, {"unroll": True}], ids=str)
@pytest.mark.parametrize("make", [ensemble_of_stacks, stack_of_ensembles])
def test_nested_ones_run_the_same_either_way(make, options):
    x = X if make is ensemble_of_stacks else jnp.stack([X, X + 1])
    model, other = (nn.init(make(**o), KEY, x) for o in ({}, options))
    desired = everything(model, x)
    assert_close(everything(other, x), desired, rtol=1e-3, atol=1e-5)
    (values,) = desired[2].values()
    shape = (2, 3) if make is ensemble_of_stacks else (3, 2)
    assert values.shape == (*shape, 4, 3)


def test_an_ensemble_of_stacks_is_its_parts():
    model = nn.init(ensemble_of_stacks(0.0), KEY, X)
    out, new = nn.training(model)(X)
    for i, member in enumerate(model):
        x = X
        for j, layer in enumerate(member):
            x, layer = nn.training(layer)(x)
            assert_close(new[i][j].norm.mean, layer.norm.mean, rtol=1e-3, atol=1e-5)
        assert_close(out[i], x, rtol=1e-3, atol=1e-4)


def test_a_stack_of_ensembles_is_its_parts():
    xs = jnp.stack([X, X + 1])
    model = nn.init(stack_of_ensembles(0.0), KEY, xs)
    expected = xs
    for layer in model:
        expected = jnp.stack([m(x) for m, x in zip(layer, expected, strict=True)])
    assert_close(model(xs), expected, rtol=1e-4)
    assert_close(nn.stateful(model)(xs)[0], expected, rtol=1e-4)


def test_masks_differ_between_all_layers_of_all_members():
    model = nn.init(ensemble_of_stacks(), KEY, X)
    call = nn.capture(nn.training(model, KEY), "**/drop")
    (values,) = call(X)[1].values()
    masks = {np.asarray(mask == 0).tobytes() for mask in values.reshape(6, 4, 3)}
    assert len(masks) == 6


def test_stacks_in_stacks():
    model = nn.init(nn.Stack(nn.Stack(Block(0.0), 2), 3), KEY, X)
    x = X
    for outer in model:
        for inner in outer:
            x = inner(x)
    assert_close(model(X), x, rtol=1e-4)
    _, new = nn.training(model)(X)
    assert new.block.block.count.tolist() == [[1, 1]] * 3
