"""`nn.Stack`: the layers of a list, run by one loop."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn

KEY = jax.random.key(0)
X = normal((4, 3))
OPTIONS = {
    "scan": {},
    "remat": {"remat": True},
    "policy": {"remat": jax.checkpoint_policies.dots_saveable},
    "unroll": {"unroll": True},
    "unroll 2": {"unroll": 2},
    "remat and unroll": {"remat": True, "unroll": True},
}


class Block(nn.Module):
    """Has parameters, batch statistics, a counter, a constant and randomness."""

    def __init__(self):
        self.dense, self.norm = nn.Dense(3), nn.BatchNorm(momentum=0.5)
        self.drop = nn.Dropout(0.5)
        self.count = nn.state(0)
        self.sign = nn.constant(jnp.array([1.0, -1.0, 1.0]))

    def __call__(self, x, scale=1.0, *, shift=0.0):
        if self.training:
            self.count = self.count + 1
        h = self.norm(self.dense(x)) * self.sign[None]
        return x + self.drop(jnp.tanh(self.sow("h", h))) * scale + shift


@pytest.fixture(scope="module")
def stack():
    return nn.init(nn.Stack(Block(), 3), KEY, X)


def assert_same_model(actual, desired):
    assert_close(nn.to_paths(actual), nn.to_paths(desired), rtol=1e-5)


# ---- the same as a list


def test_it_does_what_a_loop_over_its_layers_does(stack):
    x = X
    for layer in stack:
        x = layer(x)
    assert_close(stack(X), x, rtol=1e-5)


def test_training_does_what_a_loop_over_its_layers_does(stack):
    """Without dropout, whose keys differ by layer."""
    stack = nn.select(stack, nn.Dropout).map_modules(lambda m: m.replace(rate=0.0))
    out, new = nn.training(stack)(X)
    x, layers = X, []
    for layer in stack:
        x, layer = nn.training(layer)(x)
        layers.append(layer)
    assert_close(out, x, rtol=1e-4)
    assert_same_model(new, nn.Stack.of(layers))
    assert new.block.count.tolist() == [1, 1, 1]


@jax.jit
def loss_and_all(stack):
    """Everything that could depend on how it runs."""

    def loss(stack):
        call = nn.capture(nn.training(stack, jax.random.key(3)), "block/h", "block")
        (out, new), values = call(X)
        return (out**2).sum(), (new, values)

    (value, (new, values)), grads = nn.value_and_grad(loss, has_aux=True)(stack)
    return value, nn.to_paths(new), values, nn.to_paths(grads), stack(X)


@pytest.fixture(scope="module")
def desired(stack):
    return loss_and_all(stack)


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "scan"])
def test_how_it_runs_changes_nothing(stack, desired, name):
    """Values, gradients, state, dropout masks, taps and paths."""
    other = stack.replace(**OPTIONS[name])
    assert list(nn.to_paths(other)) == list(nn.to_paths(stack))
    assert_close(loss_and_all(other), desired, rtol=1e-4, atol=1e-5)


def test_how_it_runs_changes_no_initial_value(stack):
    for options in OPTIONS.values():
        other = nn.init(nn.Stack(Block(), 3, **options), KEY, X)
        assert_close(nn.to_paths(other), nn.to_paths(stack), rtol=0)


def test_each_layer_has_values_of_its_own(stack):
    kernels = np.asarray(stack.block.dense.kernel)
    assert len(np.unique(kernels)) == kernels.size
    longer = nn.init(nn.Stack(Block(), 5), KEY, X)
    assert_close(longer.block.dense.kernel[:3], kernels, rtol=0)


def test_more_arguments_are_the_same_for_each_layer(stack):
    x = X
    for layer in stack:
        x = layer(x, 2.0, shift=jnp.float32(1.0))
    assert_close(stack(X, 2.0, shift=jnp.float32(1.0)), x, rtol=1e-4)
    again = stack.replace(remat=True)
    assert_close(again(X, 2.0, shift=jnp.float32(1.0)), x, rtol=1e-4)
    assert_close(nn.stateful(again)(X, 2.0, shift=1.0)[0], x, rtol=1e-4)


class Pairs(nn.Module):
    """Takes and returns a pytree."""

    def __init__(self):
        self.dense = nn.Dense(3)

    def __call__(self, state):
        return {"x": self.dense(state["x"]), "steps": state["steps"] + 1}


def test_what_goes_through_may_be_any_pytree():
    state = {"x": X, "steps": jnp.array(0)}
    stack = nn.init(nn.Stack(Pairs(), 4), KEY, state)
    out = stack(state)
    assert int(out["steps"]) == 4
    assert out["x"].shape == X.shape


# ---- as a sequence


def test_indexing_slicing_and_iterating(stack):
    assert len(stack) == len(list(stack)) == 3
    assert_close(stack[1].dense.kernel, stack.block.dense.kernel[1], rtol=0)
    assert stack[-1] == stack[2]
    assert list(stack[1:]) == list(stack)[1:]
    assert list(stack[::2]) == [stack[0], stack[2]]
    assert isinstance(stack[1:], nn.Stack)
    assert stack[1:].size == 2
    assert_close(stack[1:](stack[0](X)), stack(X), rtol=1e-5)
    assert type(stack[0]) is Block


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_outside_is_refused(stack, index):
    with pytest.raises(IndexError):
        stack[index]


def test_an_empty_slice_is_refused(stack):
    with pytest.raises(nn.ConfigError) as caught:
        stack[3:]
    assert caught.value.code == "LN-VALUE-01"


@pytest.mark.parametrize("name", OPTIONS)
def test_to_a_list_and_back(stack, name):
    stack = stack.replace(**OPTIONS[name])
    assert nn.Stack.of(list(stack), **OPTIONS[name]) == stack


def test_single_layers_are_exchanged(stack):
    layers = list(stack)
    layers[1] = nn.select(layers[1], "dense/kernel").map(jnp.zeros_like)
    changed = nn.Stack.of(layers)
    assert_close(changed[1].dense.kernel, jnp.zeros((3, 3)))
    assert changed[2] == stack[2]


def test_it_pickles_prints_and_compares(stack):
    assert pickle.loads(pickle.dumps(stack)) == stack
    assert "Stack(" in repr(stack)
    assert nn.describe(stack) == nn.Stack(Block(), 3)
    assert hash(nn.Stack(Block(), 3)) == hash(nn.Stack(Block(), 3))
    assert nn.Stack(Block(), 3) != nn.Stack(Block(), 4)


# ---- arrays that are given as values


def test_a_layer_may_have_constants_and_first_values(stack):
    assert stack.block.sign.shape == (3, 3)
    assert stack[1].sign.tolist() == [1.0, -1.0, 1.0]
    nested = nn.Stack(nn.Stack(Block(), 2), 3)
    assert nested.block.block.count.shape == (3, 2)
    assert nn.init(nested, KEY, X)(X).shape == X.shape


# ---- what it costs


class Wide(nn.Module):
    def __init__(self, block, depth):
        self.stack = nn.Stack(block, depth)
        self.out = nn.Dense(1)

    def __call__(self, x):
        return self.out(self.stack(x))


def program(depth, remat):
    model = nn.abstract(nn.Stack(Block(), depth, remat=remat), X)

    def step(model, key, x):
        def loss(model):
            out, model = nn.training(model, key)(x)
            return out.sum(), model

        return nn.value_and_grad(loss, has_aux=True)(model)

    return jax.jit(step).lower(model, KEY, X).as_text()


@pytest.mark.parametrize("remat", [False, True])
def test_the_program_does_not_grow_with_depth(remat):
    few, many = (len(program(depth, remat).splitlines()) for depth in (2, 40))
    assert few == many


def test_remat_is_in_the_program():
    def text(**options):
        model = nn.init(nn.Stack(nn.Dense(3), 2, **options), KEY, X)
        return str(jax.make_jaxpr(jax.grad(lambda m: m(X).sum()))(model))

    assert "prevent_cse" not in text()
    inside_a_loop, unrolled = text(remat=True), text(remat=True, unroll=True)
    assert "prevent_cse=False" in inside_a_loop
    assert "prevent_cse=True" in unrolled


# ---- wrong uses


@pytest.mark.parametrize("block", [jnp.tanh, nn.Dense, [nn.Dense(3)], None])
def test_only_a_module_is_stacked(block):
    with pytest.raises(nn.ConfigError) as caught:
        nn.Stack(block, 3)
    assert caught.value.code == "LN-STACK-02"


@pytest.mark.parametrize("depth", [0, -1, 2.5, None, True])
def test_a_depth_is_a_positive_integer(depth):
    with pytest.raises(nn.ConfigError, match="depth") as caught:
        nn.Stack(nn.Dense(3), depth)
    assert caught.value.code == "LN-VALUE-01"


def test_a_layer_with_arrays_is_refused_and_the_fixes_work():
    block = nn.init(nn.Dense(3), KEY, X)
    with pytest.raises(nn.ConfigError) as caught:
        nn.Stack(block, 3)
    assert caught.value.code == "LN-STACK-03"
    for _, code in caught.value.fixes:
        scope = {"nn": nn, "block": block}
        exec(code, scope)
        assert scope["stack"].size == 3


def test_a_layer_that_changes_the_width_is_refused():
    with pytest.raises(nn.ShapeError) as caught:
        nn.init(nn.Stack(nn.Dense(4), 3), KEY, X)
    assert caught.value.code == "LN-STACK-01"


def test_a_layer_that_changes_the_dtype_is_refused():
    """Also when the stack was made for another one."""
    low = X.astype(jnp.bfloat16)
    for call in (
        lambda: nn.init(nn.Stack(nn.Dense(3), 3), KEY, low),
        lambda: nn.init(nn.Stack(nn.Dense(3), 3), KEY, X)(low),
        lambda: nn.stateful(nn.init(nn.Stack(nn.Dense(3), 3), KEY, X))(low),
    ):
        with pytest.raises(nn.ShapeError) as caught:
            call()
        assert caught.value.code == "LN-STACK-01"
    cast = nn.cast(nn.init(nn.Stack(nn.Dense(3), 3), KEY, X), jnp.bfloat16)
    assert cast(low).dtype == jnp.bfloat16


def test_layers_that_differ_are_not_stacked():
    layers = [nn.init(nn.Dense(3, use_bias=b), KEY, X) for b in (True, False)]
    with pytest.raises(nn.TreeError) as caught:
        nn.Stack.of(layers)
    assert caught.value.code == "LN-STACK-04"
    with pytest.raises(nn.InitError):
        nn.Stack.of([nn.Dense(3)])
    with pytest.raises(nn.ConfigError):
        nn.Stack.of([])


def test_a_wrong_width_names_the_layer():
    model = nn.init(Wide(Block(), 3), KEY, X)
    with pytest.raises(nn.ShapeError, match=r"stack\.block\.dense"):
        model(normal((4, 5)))


def test_parts_of_the_stack_are_initialised_before():
    model = Wide(Block(), 3)
    loaded = nn.init(model.stack, jax.random.key(5), X)
    whole = nn.init(model.replace(stack=loaded), KEY, X)
    assert whole.stack == loaded
