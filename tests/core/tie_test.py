"""Weight tying: one array behind two places."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import assert_close, normal
from linnet import nn

KEY = jax.random.key(0)
IDS = jnp.array([[0, 1, 2], [3, 4, 0]])
TIE = {"head/kernel": ("embed/embedding", jnp.transpose)}


class LM(nn.Module):
    def __init__(self, words=5, width=3):
        self.embed = nn.Embed(words, width)
        self.norm = nn.BatchNorm()
        self.head = nn.Dense(words, use_bias=False)

    def __call__(self, ids):
        return self.head(self.norm(self.embed(ids)))


class Outer(nn.Module):
    def __init__(self, inner):
        self.inner = inner

    def __call__(self, ids):
        return 2 * self.inner(ids)


TIED = nn.init(nn.tie(LM(), TIE), KEY, IDS)


def by_hand(model, table):
    """What a tied model computes, written with one array."""
    x = model.norm(jnp.take(table, IDS, axis=0))
    return x @ table.T


def cross_entropy(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, IDS).mean()


def test_a_tied_array_is_not_in_the_tree():
    assert "head/kernel" not in nn.to_paths(TIED)
    assert TIED.head.kernel.shape == (3, 5)
    assert_close(TIED.head.kernel, TIED.embed.embedding.T, rtol=0, atol=0)
    assert (
        len(jax.tree.leaves(TIED)) == len(jax.tree.leaves(nn.init(LM(), KEY, IDS))) - 1
    )


def test_it_computes_what_one_array_would():
    expected = by_hand(TIED, TIED.embed.embedding)
    assert_close(TIED(IDS), expected)
    assert_close(jax.jit(lambda m: m(IDS))(TIED), expected)
    assert_close(nn.stateful(TIED)(IDS)[0], expected)
    assert_close(nn.capture(TIED, "head")(IDS)[0], expected)


@pytest.mark.parametrize("train", [False, True])
def test_the_gradient_of_both_uses_reaches_the_source(train):
    def loss(model):
        out = nn.training(model, update=False)(IDS) if train else model(IDS)
        return cross_entropy(out)

    def loss_by_hand(table):
        model = nn.select(TIED, "embed/embedding").set(table)
        x = jnp.take(table, IDS, axis=0)
        x = nn.training(model.norm, update=False)(x) if train else model.norm(x)
        return cross_entropy(x @ table.T)

    grads = jax.jit(nn.grad(loss))(TIED)
    expected = jax.jit(jax.grad(loss_by_hand))(TIED.embed.embedding)
    assert_close(grads.embed.embedding, expected)

    def loss_of_one_use(head):
        return cross_entropy(head(TIED.norm(TIED.embed(IDS))))

    one_use = jax.jit(jax.grad(loss_of_one_use))(TIED.head)
    assert not np.allclose(expected, one_use.kernel.T)


def test_training_keeps_the_tie_under_jit():
    tx = optax.adam(3e-2)

    @jax.jit
    def step(model, state):
        def loss_fn(model):
            out, model = nn.training(model, KEY)(IDS)
            return cross_entropy(out), model

        (loss, model), grads = nn.value_and_grad(loss_fn, has_aux=True)(model)
        updates, state = tx.update(grads, state, nn.params(model))
        return nn.apply_updates(model, updates), state, loss

    model, state, losses = TIED, tx.init(nn.params(TIED)), []
    for _ in range(5):
        model, state, loss = step(model, state)
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    assert_close(model.head.kernel, model.embed.embedding.T, rtol=0, atol=0)
    assert not np.allclose(model.embed.embedding, TIED.embed.embedding)
    assert not np.allclose(model.norm.mean, TIED.norm.mean)
    assert jax.tree.structure(model) == jax.tree.structure(TIED)


def test_an_initialised_model_can_be_tied():
    loose = nn.init(LM(), KEY, IDS)
    model = nn.tie(loose, TIE)
    assert model == TIED
    assert_close(model(IDS), by_hand(loose, loose.embed.embedding))
    same = nn.tie(loose, {"head/kernel": ("embed/embedding", jnp.transpose)})
    assert jax.tree.structure(same) == jax.tree.structure(model)


def test_it_pickles_and_prints_and_travels_as_paths():
    assert pickle.loads(pickle.dumps(TIED)) == TIED
    assert "kernel=None" in repr(TIED)
    flat = nn.to_paths(TIED)
    assert nn.from_paths(nn.tie(LM(), TIE), flat) == TIED
    loose = nn.to_paths(nn.init(LM(), KEY, IDS))
    with pytest.raises(nn.TreeError, match=r"tied.*LN-PATHS-01"):
        nn.from_paths(TIED, loose)
    assert nn.from_paths(TIED, loose, tied="head/kernel") == TIED
    assert nn.from_paths(TIED, loose, tied="**") == TIED


def test_abstract_cast_summary_and_freezing():
    assert nn.abstract(nn.tie(LM(), TIE), IDS) == jax.eval_shape(lambda: TIED)
    low = nn.cast(TIED, jnp.bfloat16)
    assert low(IDS).dtype == jnp.bfloat16
    assert_close(low(IDS), TIED(IDS), rtol=0.05, atol=0.05)
    assert nn.summary(TIED, IDS).rows[0].parameters == 5 * 3 + 2 * 3
    frozen = nn.select(TIED, "embed").freeze()
    assert list(nn.to_paths(nn.params(frozen))) == ["norm/scale", "norm/bias"]
    assert_close(frozen(IDS), TIED(IDS))


@pytest.mark.parametrize("levels", [1, 2])
def test_a_tied_model_may_be_part_of_another(levels):
    model = nn.tie(LM(), TIE)
    for _ in range(levels):
        model = Outer(model)
    model = nn.init(model, KEY, IDS)
    lm = model
    for _ in range(levels):
        lm = lm.inner
    expected = 2**levels * lm(IDS)
    assert_close(lm(IDS), by_hand(lm, lm.embed.embedding))
    assert_close(model(IDS), expected)
    assert_close(nn.stateful(model)(IDS)[0], expected)
    _, trained = nn.training(model)(IDS)
    assert jax.tree.structure(trained) == jax.tree.structure(model)


class Mixer(nn.Module):
    """Two square matrices, to be tied within one layer."""

    def __init__(self):
        self.up = nn.Dense(3, use_bias=False)
        self.down = nn.Dense(3, use_bias=False)
        self.count = nn.state(0)

    def __call__(self, x):
        if self.training:
            self.count = self.count + 1
        return x + self.down(jnp.tanh(self.up(x)))


@pytest.mark.parametrize("remat", [False, True])
def test_a_tie_inside_a_stack_is_one_in_each_layer(remat):
    x = normal((2, 3))
    block = nn.tie(Mixer(), {"down/kernel": ("up/kernel", jnp.transpose)})
    model = nn.init(nn.Stack(block, 3, remat=remat), KEY, x)
    assert {p: a.shape for p, a in nn.to_paths(model).items()} == {
        "block/up/kernel": (3, 3, 3),
        "block/count": (3,),
    }
    expected = x
    for w in model.block.up.kernel:
        expected = expected + jnp.tanh(expected @ w) @ w.T
    assert_close(model(x), expected)
    out, new = nn.training(model)(x)
    assert_close(out, expected)
    assert new.block.count.tolist() == [1, 1, 1]
    assert_close(new(x), expected)
    assert_close(
        model[1](x), x + jnp.tanh(x @ model[1].up.kernel) @ model[1].up.kernel.T
    )

    def run(model):
        return nn.training(model, update=False)(x).sum()

    grads, plain = nn.grad(run)(model), nn.grad(lambda m: m(x).sum())(model)
    assert_close(grads, plain)
    assert float(jnp.abs(grads.block.up.kernel).min()) > 0


def test_a_tie_may_reach_into_a_stack_from_outside():
    class Model(nn.Module):
        def __init__(self):
            self.shared = nn.param(nn.initializers.normal(1.0), (3, 3))
            self.stack = nn.Stack(Mixer(), 2)

        def __call__(self, x):
            return self.stack(x @ self.shared)

    x = normal((2, 3))
    tie = {
        "stack/block/up/kernel": (
            "shared",
            lambda w: jnp.broadcast_to(w[None], (2, 3, 3)),
        )
    }
    model = nn.tie(nn.init(Model(), KEY, x), tie)
    expected = x @ model.shared
    for w in model.stack.block.down.kernel:
        expected = expected + jnp.tanh(expected @ model.shared) @ w
    assert_close(model(x), expected)
    out, new = nn.training(model)(x)
    assert_close(out, expected)
    assert jax.tree.structure(new) == jax.tree.structure(model)
    assert new.stack.block.count.tolist() == [1, 1]


def test_lifted_transforms_carry_tied_modules():
    class Model(nn.Module):
        def __init__(self):
            self.embed = nn.Embed(5, 3)
            self.head = nn.Dense(5, use_bias=False)

        def __call__(self, ids):
            return nn.remat(self.head)(self.embed(ids))

    model = nn.init(nn.tie(Model(), TIE), KEY, IDS)
    assert_close(nn.training(model)(IDS)[0], model(IDS))

    def loss(model):
        return cross_entropy(nn.training(model, update=False)(IDS))

    table = model.embed.embedding
    expected = jax.grad(lambda t: cross_entropy(t[IDS] @ t.T))(table)
    assert_close(nn.grad(loss)(model).embed.embedding, expected)


class Containers(nn.Module):
    def __init__(self):
        self.weights = [nn.param(nn.initializers.normal(1.0), (3,)) for _ in range(3)]
        self.layers = {"a": nn.Dense(3), "b": [nn.Dense(3)]}

    def __call__(self, x):
        for w in self.weights:
            x = x * w[None]
        return self.layers["b"][0](self.layers["a"](x))


def test_arrays_in_containers_can_be_tied():
    x = normal((2, 3))
    ties = {
        "weights/2": ("weights/0", jnp.exp),
        "layers/b/0/kernel": "layers/a/kernel",
        "layers/b/0/bias": "weights/1",
    }
    model = nn.init(nn.tie(Containers(), ties), KEY, x)
    assert list(nn.to_paths(model)) == [
        "weights/0",
        "weights/1",
        "layers/a/kernel",
        "layers/a/bias",
    ]
    w, u = model.weights[0], model.weights[1]
    a = model.layers["a"]
    expected = a(x * w[None] * u[None] * jnp.exp(w)[None]) @ a.kernel + u[None]
    assert_close(model(x), expected)
    assert_close(nn.training(model)(x)[0], expected)
    assert_close(jax.jit(lambda m: nn.stateful(m)(x)[0])(model), expected)


class Own(nn.Module):
    def __init__(self):
        self.a = nn.param(nn.initializers.normal(1.0), (3,))
        self.b = nn.param(nn.initializers.normal(1.0), (3,))
        self.c = nn.param(nn.initializers.normal(1.0), (3,))
        self.factor = 2.0

    def __call__(self, x):
        self.expect(a=x.shape, b=x.shape, c=x.shape)
        return self.factor * x * self.a + self.b - self.c


def test_arrays_of_one_module_and_several_ties_to_one_source():
    x = normal((3,))
    model = nn.init(nn.tie(Own(), {"b": "a", "c": ("a", jnp.sin)}), KEY, x)
    expected = 2 * x * model.a + model.a - jnp.sin(model.a)
    assert_close(model(x), expected)
    assert_close(nn.training(model)(x)[0], expected)
    later = nn.tie(nn.tie(nn.init(Own(), KEY, x), {"b": "a"}), {"c": ("a", jnp.sin)})
    assert_close(later(x), expected)


def test_replace_keeps_ties():
    x = normal((3,))
    model = nn.init(nn.tie(Own(), {"b": "a"}), KEY, x)
    changed = model.replace(factor=3.0)
    assert_close(changed(x), 3 * x * model.a + model.a - model.c)
    assert list(nn.to_paths(changed)) == ["a", "c"]
    lm = TIED.replace(head=TIED.head.replace(dtype=jnp.bfloat16))
    assert lm(IDS).dtype == jnp.bfloat16
    assert list(nn.to_paths(lm)) == list(nn.to_paths(TIED))
    assert "head/kernel" not in nn.to_paths(TIED.replace(head=None))


@pytest.mark.parametrize(
    "ties",
    [
        {"head/kernel": "embed/nope"},
        {"head/kernle": "embed/embedding"},
        {"head": "embed"},
    ],
)
def test_paths_that_are_no_arrays_are_refused(ties):
    with pytest.raises(nn.PathError, match="LN-PATH-01"):
        nn.tie(LM(), ties)


def test_chains_are_refused_in_one_call_and_in_two():
    with pytest.raises(nn.PathError, match="LN-TIE-01"):
        nn.tie(Own(), {"b": "a", "c": "b"})
    with pytest.raises(nn.PathError, match="LN-TIE-01"):
        nn.tie(nn.tie(Own(), {"b": "a"}), {"a": "c"})
    with pytest.raises(nn.PathError):
        nn.tie(nn.tie(Own(), {"b": "a"}), {"c": "b"})
    with pytest.raises(nn.PathError, match="LN-TIE-01"):
        nn.tie(Own(), {"a": "a"})


def test_the_same_array_twice_is_refused_and_tying_is_a_way_out():
    shared = nn.Dense(3)

    class Twice(nn.Module):
        def __init__(self):
            self.one = shared
            self.two = shared

        def __call__(self, x):
            return self.two(self.one(x))

    x = normal((2, 3))
    with pytest.raises(nn.TreeError, match="LN-SHARE-01") as caught:
        nn.init(Twice(), KEY, x)
    code = next(code for _, code in caught.value.fixes if "nn.tie" in code)
    scope = {"nn": nn, "model": Twice()}
    exec(code, scope)
    model = nn.init(scope["model"], KEY, x)
    assert list(nn.to_paths(model)) == ["one/kernel", "one/bias"]
    assert_close(model(x), model.one(model.one(x)))
