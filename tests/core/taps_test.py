"""`nn.capture`, `nn.intervene` and `nn.perturb`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn

KEY = jax.random.key(0)
X = normal((2, 3))


class Block(nn.Module):
    def __init__(self, features=3):
        self.dense = nn.Dense(features)
        self.drop = nn.Dropout(0.5)

    def __call__(self, x):
        h = self.sow("before", self.dense(x))
        return self.drop(jnp.tanh(h))

    def twice(self, x):
        return self.dense(self.dense(x))


class Net(nn.Module):
    def __init__(self):
        self.blocks = [Block(), Block()]
        self.out = nn.Dense(2)

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return self.out(x)


@pytest.fixture(scope="module")
def net():
    return nn.init(Net(), KEY, X)


@pytest.fixture(scope="module")
def block():
    return nn.init(Block(), KEY, X)


@pytest.fixture(scope="module")
def stack():
    return nn.init(nn.Stack(Block(), 3), KEY, X)


# ---- capture


@pytest.mark.parametrize(
    ("wheres", "paths"),
    [
        (["blocks/0/dense"], {"blocks/0/dense"}),
        (["blocks[0].dense"], {"blocks/0/dense"}),
        (["blocks/*/dense"], {"blocks/0/dense", "blocks/1/dense"}),
        (["**/before"], {"blocks/0/before", "blocks/1/before"}),
        ([nn.Dense], {"blocks/0/dense", "blocks/1/dense", "out"}),
        ([lambda path, module: path.endswith("1")], {"blocks/1"}),
        ([lambda path, module: isinstance(module, nn.Dropout)],
         {"blocks/0/drop", "blocks/1/drop"}),
        ([("out", Block)], {"out", "blocks/0", "blocks/1"}),
        (["out", "blocks/1"], {"out", "blocks/1"}),
        ([""], {""}),
        ([], set()),
    ],
)  # fmt: skip
def test_what_is_captured(net, wheres, paths):
    out, values = nn.capture(net, *wheres)(X)
    assert set(values) == paths
    assert_close(out, net(X), rtol=0)


def test_captured_values_are_those_of_the_call(net):
    _, values = nn.capture(net, "**")(X)
    first = net.blocks[0]
    assert_close(values["blocks/0/dense"], first.dense(X))
    assert_close(values["blocks/0/before"], first.dense(X))
    assert_close(values["blocks/0"], first(X))
    assert_close(values[""], net(X))


def test_a_module_called_twice_gives_a_tuple(block):
    _, values = nn.capture(block.twice, "dense")(X)
    one = block.dense(X)
    assert_close(values["dense"], (one, block.dense(one)))


def test_the_call_method_is_tapped_like_the_module(net):
    assert_close(nn.capture(net.__call__, "**")(X), nn.capture(net, "**")(X))


@pytest.mark.parametrize("where", ["nowhere", "blocks/2", ("out", "nowhere"), "blocks"])
def test_a_pattern_that_matches_nothing_is_refused(net, where):
    with pytest.raises(nn.PathError) as caught:
        nn.capture(net, where)(X)
    assert caught.value.code == "LN-PATH-01"
    with pytest.raises(nn.PathError):
        nn.intervene(net, {where: jnp.sin})(X)


@pytest.mark.parametrize("where", [3, None])
def test_what_selects_nothing_is_refused(net, where):
    with pytest.raises(nn.ConfigError) as caught:
        nn.capture(net, where)(X)
    assert caught.value.code == "LN-WHERE-01"


@pytest.mark.parametrize("f", [jnp.sin, None, lambda x: x])
def test_only_models_are_tapped(f):
    for tap in (nn.capture, lambda f: nn.intervene(f, {}), lambda f: nn.perturb(f, {})):
        with pytest.raises(nn.ConfigError) as caught:
            tap(f)
        assert caught.value.code == "LN-CALL-01"


# ---- intervene


def test_a_function_maps_the_value(net):
    out = nn.intervene(net, {"out": lambda y: 2 * y})(X)
    assert_close(out, 2 * net(X))


def test_an_array_takes_the_place_of_the_value(net):
    h = normal((2, 3), seed=5)
    out = nn.intervene(net, {"blocks/1": h})(X)
    assert_close(out, net.out(h))
    assert_close(nn.intervene(net, {"blocks/1/before": h})(X), net.out(jnp.tanh(h)))


def test_by_type_and_tuple_and_in_order(net):
    out = nn.intervene(net, {nn.Dense: jnp.zeros_like, "out": lambda y: y + 1})(X)
    assert_close(out, jnp.ones((2, 2)))
    both = nn.intervene(net, {("out", "blocks/0"): jnp.zeros_like})(X)
    assert_close(both, jnp.zeros((2, 2)))


@pytest.mark.parametrize("tap", [nn.intervene, nn.perturb])
def test_another_shape_is_refused(net, tap):
    with pytest.raises(nn.ShapeError, match="out") as caught:
        tap(net, {"out": jnp.zeros((2, 5))})(X)
    assert caught.value.code == "LN-TAP-01"


# ---- perturb


def captured_zeros(call, *wheres):
    _, values = nn.capture(call, *wheres)(X)
    return jax.tree.map(jnp.zeros_like, values)


def test_the_gradient_by_an_intermediate_value_is_the_analytic_one(net):
    """With y = tanh(h) W + b, the gradient of sum(y) by h is (1 - tanh(h)^2) W 1."""
    zeros = captured_zeros(net, "blocks/1/before")
    assert_close(nn.perturb(net, zeros)(X), net(X))
    grads = jax.grad(lambda by: nn.perturb(net, by)(X).sum())(zeros)
    h = net.blocks[1].dense(net.blocks[0](X))
    analytic = (1 - np.tanh(h) ** 2) * np.sum(net.out.kernel, 1)[None]
    assert_close(grads["blocks/1/before"], analytic, rtol=1e-5)


def test_a_module_called_twice_has_a_gradient_for_each_call(block):
    zeros = captured_zeros(block.twice, "dense")
    by = {"dense": tuple(z + i + 1.0 for i, z in enumerate(zeros["dense"]))}
    out = nn.perturb(block.twice, by)(X)
    assert_close(out, block.dense(block.dense(X) + 1) + 2, rtol=1e-5)
    grads = jax.grad(lambda by: nn.perturb(block.twice, by)(X).sum())(zeros)
    assert_close(grads["dense"][1], jnp.ones((2, 3)))
    first = jnp.broadcast_to(block.dense.kernel.sum(1), (2, 3))
    assert_close(grads["dense"][0], first, rtol=1e-5)


def test_a_path_that_is_not_reached_is_refused(net):
    with pytest.raises(nn.PathError):
        nn.perturb(net, {"blocks/7": X})(X)


# ---- nesting, with each other and with training


def test_a_capture_around_an_intervention_sees_what_it_made(net):
    replaced = nn.intervene(net, {"blocks/0": jnp.zeros_like})
    _, values = nn.capture(replaced, "blocks/0")(X)
    assert_close(values["blocks/0"], jnp.zeros((2, 3)))
    _, values = nn.intervene(nn.capture(net, "blocks/0"), {"blocks/0": jnp.zeros_like})(
        X
    )
    assert_close(values["blocks/0"], net.blocks[0](X))


def test_two_captures_give_two_dicts(net):
    (out, inner), outer = nn.capture(nn.capture(net, "out"), "blocks/0")(X)
    assert (set(inner), set(outer)) == ({"out"}, {"blocks/0"})
    assert_close(out, inner["out"])


def test_taps_and_training_nest_in_either_order(net):
    key = jax.random.key(1)
    desired, model = nn.training(net, key)(X)
    (out, around), values = nn.capture(nn.training(net, key), "out")(X)
    (inner, within), also = nn.training(nn.capture(net, "out"), key)(X)
    for result in (out, inner, values["out"], within["out"]):
        assert_close(result, desired)
    assert around == also == model
    zeros = jax.tree.map(jnp.zeros_like, values)
    for call in (
        nn.perturb(nn.training(net, key), zeros),
        nn.training(nn.perturb(net, zeros), key),
        nn.intervene(nn.training(net, key), {"out": lambda y: y}),
        nn.training(nn.intervene(net, {"out": lambda y: y}), key),
    ):
        assert_close(call(X), (desired, model))


def test_training_of_a_training_is_refused(net):
    with pytest.raises(nn.ConfigError):
        nn.training(nn.training(net, KEY), KEY)


class Looks(nn.Module):
    """Captures inside of itself."""

    def __init__(self):
        self.net = Net()

    def __call__(self, x):
        out, values = nn.capture(self.net, "blocks/0/before")(x)
        return out + values["blocks/0/before"][:, :2]


def test_a_tap_inside_a_model_has_paths_from_the_module_it_calls():
    """In a plain call, while initialising, and in training."""
    model = nn.init(Looks(), KEY, X)
    desired = model.net(X) + model.net.blocks[0].dense(X)[:, :2]
    assert_close(model(X), desired)
    assert_close(nn.stateful(model)(X)[0], desired)
    out, values = nn.capture(model, "net/blocks/0/before")(X)
    assert_close(out, desired)
    assert_close(values["net/blocks/0/before"], model.net.blocks[0].dense(X))
    masks = [nn.training(model, KEY)(X)[0] for _ in range(2)]
    assert_close(masks[0], masks[1])


# ---- where nothing is tapped, nothing changes


def jaxpr(f, *args):
    return str(jax.make_jaxpr(f)(*args))


@pytest.mark.parametrize("kind", ["net", "stack", "remat", "ensemble"])
def test_nothing_tapped_leaves_the_program_as_it_is(net, stack, kind):
    models = {
        "net": net,
        "stack": stack,
        "remat": stack.replace(remat=True),
        "ensemble": nn.Ensemble.of([net, net]),
    }
    model = models[kind]
    plain = jaxpr(lambda m, x: m(x), model, X)
    for tapped in (
        lambda m, x: nn.capture(m)(x)[0],
        lambda m, x: nn.intervene(m, {})(x),
        lambda m, x: nn.perturb(m, {})(x),
    ):
        assert jaxpr(tapped, model, X) == plain
    training = jaxpr(lambda m, k, x: nn.training(m, k)(x)[0], model, KEY, X)
    tapped = jaxpr(
        lambda m, k, x: nn.capture(nn.training(m, k))(x)[0][0], model, KEY, X
    )
    assert tapped == training


def test_a_plain_net_is_the_same_program_opened_or_not(net):
    plain = jaxpr(lambda m, x: m(x), net, X)
    assert jaxpr(lambda m, x: nn.stateful(m)(x)[0], net, X) == plain
    assert jaxpr(lambda m, x: nn.capture(m, "**")(x)[0], net, X) == plain


# ---- inside stacks, remat, scan, vmap, jit, grad


VARIANTS = [
    {},
    {"remat": True},
    {"unroll": True},
    {"remat": jax.checkpoint_policies.dots_saveable, "unroll": 2},
]


def layerwise(stack, x):
    """Before-values of each layer, computed one by one."""
    values = []
    for layer in list(stack):
        values.append(layer.dense(x))
        x = layer(x)
    return jnp.stack(values), x


@pytest.mark.parametrize(
    "options", VARIANTS, ids=["plain", "remat", "unrolled", "policy"]
)
def test_taps_reach_into_a_stack(stack, options):
    stack = stack.replace(**options)
    desired, last = layerwise(stack, X)
    out, values = nn.capture(stack, "block/before")(X)
    assert_close(out, last)
    assert_close(values["block/before"], desired)
    _, values = nn.capture(stack, nn.Dense)(X)
    assert set(values) == {"block/dense"}


@pytest.mark.parametrize("options", VARIANTS[:3], ids=str)
def test_gradients_by_values_inside_a_stack(stack, options):
    stack = stack.replace(**options)
    zeros = captured_zeros(stack, "block/before")

    def through_layers(by):
        x = X
        for i, layer in enumerate(list(stack)):
            x = jnp.tanh(layer.dense(x) + by[i])
        return x.sum()

    grads = jax.grad(lambda by: nn.perturb(stack, by)(X).sum())(zeros)
    desired = jax.grad(through_layers)(zeros["block/before"])
    assert_close(grads["block/before"], desired, rtol=1e-5)


@pytest.mark.parametrize("options", VARIANTS[:3], ids=str)
def test_interventions_know_the_layer(stack, options):
    stack = stack.replace(**options)

    def only_the_first(value, layer):
        return jnp.where(layer == 0, value, jnp.zeros_like(value))

    out = nn.intervene(stack, {"block/before": only_the_first})(X)
    assert_close(out, jnp.zeros((2, 3)))
    values, _ = layerwise(stack, X)
    out = nn.intervene(stack, {"block/before": 2 * values})(X)
    assert_close(out, jnp.tanh(2 * values[-1]))


class Lifted(nn.Module):
    """The block inside a transform of choice."""

    def __init__(self, how):
        self.block = Block()
        self.how = how

    def __call__(self, x):
        return self.how(self.block, x)


def in_scan(block, x):
    return nn.scan(lambda h, _: (block(h), None), x, length=3)[0]


def in_nested(block, x):
    def step(h, _):
        return nn.vmap(nn.remat(block))(h), None

    return nn.scan(step, x, length=3)[0]


HOWS = {
    "remat": (lambda block, x: nn.remat(block)(x), (2, 3)),
    "jit": (lambda block, x: nn.jit(block)(x), (2, 3)),
    "vmap": (lambda block, x: nn.vmap(block)(x), (2, 3)),
    "scan": (in_scan, (3, 2, 3)),
    "remat in vmap in scan": (in_nested, (3, 2, 3)),
}


@pytest.mark.parametrize("name", HOWS)
def test_taps_reach_through_transforms(name):
    how, shape = HOWS[name]
    model = nn.init(Lifted(how), KEY, X)
    out, values = nn.capture(model, "block/before")(X)
    assert_close(out, model(X), rtol=1e-6)
    assert values["block/before"].shape == shape
    assert_close(values["block/before"].reshape(-1, 2, 3)[0], model.block.dense(X))
    zeros = jax.tree.map(jnp.zeros_like, values)
    grads = jax.grad(lambda by: nn.perturb(model, by)(X).sum())(zeros)
    last = grads["block/before"].reshape(-1, 2, 3)[-1]
    h = values["block/before"].reshape(-1, 2, 3)[-1]
    assert_close(last, 1 - np.tanh(h) ** 2, rtol=1e-5)


def test_a_value_in_a_branch_or_while_loop_cannot_be_captured():
    for how in (
        lambda block, x: nn.cond(x.sum() < 9, block, jnp.tanh, x),
        lambda block, x: nn.while_loop(lambda h: h.sum() > 99, block, x),
    ):
        model = nn.init(Lifted(how), KEY, X)
        with pytest.raises(nn.ScopeError, match="block/before") as caught:
            nn.capture(model, "block/before")(X)
        assert caught.value.code == "LN-TAP-02"
        out, values = nn.capture(model, "")(X)
        assert_close(out, values[""])
        nn.intervene(model, {"block/before": jnp.zeros_like})(X)


def test_taps_are_pure_under_jit_vmap_and_grad(net):
    def both(net, x):
        return nn.capture(net, "blocks/*")(x)

    assert_close(jax.jit(both)(net, X), both(net, X))
    rows = jax.vmap(both, (None, 0))(net, X)
    assert_close(rows, both(net, X), rtol=1e-5)

    def loss(net):
        out, values = both(net, X)
        return out.sum() + values["blocks/0"].sum()

    grads = nn.grad(loss)(net)
    assert_close(grads.out.bias, 2 * jnp.ones(2))
    leaves = jax.tree.leaves(grads)
    assert all(np.isfinite(leaf).all() for leaf in leaves)


def test_members_of_an_ensemble_are_tapped():
    many = nn.init(nn.Ensemble(Block(), 2), KEY, X)
    _, values = nn.capture(many, "block/before")(X)
    desired = jnp.stack([member.dense(X) for member in list(many)])
    assert_close(values["block/before"], desired)
    out = nn.intervene(many, {"block/before": 0 * desired + 1})(X)
    assert_close(out, jnp.full((2, 2, 3), np.tanh(1.0)))
    nested = nn.init(nn.Ensemble(nn.Stack(Block(), 3), 2), KEY, X)
    _, values = nn.capture(nested, "block/block/before")(X)
    assert values["block/block/before"].shape == (2, 3, 2, 3)
    out = nn.perturb(nested, jax.tree.map(jnp.zeros_like, values))(X)
    assert_close(out, nested(X), rtol=1e-6)


def test_a_stack_called_twice_gives_a_tuple(stack):
    class Twice(nn.Module):
        def __init__(self):
            self.stack = nn.Stack(Block(), 3)

        def __call__(self, x):
            return self.stack(self.stack(x))

    model = nn.init(Twice(), KEY, X)
    out, values = nn.capture(model, "stack/block/before")(X)
    assert [v.shape for v in values["stack/block/before"]] == [(3, 2, 3)] * 2
    by = jax.tree.map(jnp.zeros_like, values)
    assert_close(nn.perturb(model, by)(X), out)


def test_sow_outside_of_a_tapped_call_does_nothing(block):
    assert_close(block(X), jnp.tanh(block.dense(X)))
    assert block.sow("anything", 3) == 3
