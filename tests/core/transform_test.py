"""`nn.remat`, `scan`, `vmap`, `cond`, `switch`, `while_loop`, `custom_vjp` and more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from helpers import assert_close, normal
from linnet import nn

KEY = jax.random.key(0)
X = normal((2, 3))


class Part(nn.Module):
    """Has parameters, counts its calls, and drops."""

    def __init__(self, rate=0.0):
        self.dense = nn.Dense(3)
        self.drop = nn.Dropout(rate)
        self.count = nn.state(0)

    def __call__(self, x):
        self.count = self.count + 1
        return self.drop(jnp.tanh(self.dense(x)))


class Runs(nn.Module):
    def __init__(self, how, part):
        self.part, self.how = part, how

    def __call__(self, *args):
        return self.how(self.part, *args)


def runs(how, part=None, x=X):
    """A model that runs a function of its part, with the part initialised."""
    part = Part() if part is None else part
    return Runs(how, nn.init(part, KEY, x))


def trained(model, *args):
    return nn.training(model, KEY)(*(args or (X,)))


def weights(part, x):
    """What the part computes, without state and dropout."""
    return jnp.tanh(part.dense(x))


# ---- remat


def test_remat_changes_neither_results_nor_gradients():
    def loss(model):
        return (nn.training(model, KEY, update=False)(X) ** 2).sum()

    plain = runs(lambda part, x: part(part(x)), Part(0.5))
    again = plain.replace(how=lambda part, x: nn.remat(part)(nn.remat(part)(x)))
    (out, model), (desired, expected) = trained(again), trained(plain)
    assert_close(out, desired, rtol=1e-5)
    assert int(model.part.count) == int(expected.part.count) == 2
    gradients = [nn.to_paths(nn.grad(loss)(m)) for m in (again, plain)]
    assert_close(*gradients, rtol=1e-4)


def products(policy):
    """How many matrix products the gradient takes."""
    model = runs(lambda part, x: nn.remat(part, policy=policy)(x))
    gradient = jax.grad(lambda x: nn.stateful(model)(x)[0].sum())
    return str(jax.make_jaxpr(gradient)(X)).count("dot_general[")


def test_the_policy_of_remat_is_used():
    policies = jax.checkpoint_policies
    assert products(policies.everything_saveable) == 2
    assert products(policies.nothing_saveable) == 3


def test_remat_is_in_the_program_with_its_options():
    model = runs(lambda part, x: nn.remat(part, prevent_cse=False)(x))
    text = str(jax.make_jaxpr(lambda m, x: nn.stateful(m)(x))(model, X))
    assert "prevent_cse=False" in text


def test_remat_leaves_what_is_no_array_alone():
    class Options(nn.Module):
        def __call__(self, x, mode, flag, shape=()):
            assert (mode, flag, shape) == ("a", True, (1, 2))
            return x

    assert_close(nn.remat(Options())(X, "a", True, shape=(1, 2)), X)
    model = Runs(lambda part, x: nn.remat(part)(x, "a", True, shape=(1, 2)), Options())
    assert_close(nn.stateful(model)(X)[0], X)


# ---- scan over time


def test_scan_shares_the_module_and_carries_its_state():
    def how(part, xs):
        return nn.scan(lambda h, x: (part(h + x), h), jnp.zeros((2, 3)), xs)

    xs = normal((4, 2, 3))
    model = runs(how)
    (h, hs), new = nn.stateful(model)(xs)
    expected = jnp.zeros((2, 3))
    for i, x in enumerate(xs):
        assert_close(hs[i], expected, rtol=1e-5)
        expected = weights(model.part, expected + x)
    assert_close(h, expected, rtol=1e-5)
    assert int(new.part.count) == 4


@pytest.mark.parametrize(
    "options", [{"reverse": True}, {"unroll": 2}, {"unroll": True}], ids=str
)
def test_scan_takes_the_options_of_jax(options):
    def how(part, xs):
        return nn.scan(lambda h, x: (part(h + x), h), xs[0], xs, **options)

    xs = normal((4, 2, 3))
    model = runs(how)
    actual, new = nn.stateful(model)(xs)
    desired = jax.lax.scan(
        lambda h, x: (weights(model.part, h + x), h), xs[0], xs, **options
    )
    assert_close(actual, desired, rtol=1e-5)
    assert int(new.part.count) == 4


def test_scan_gives_a_layer_of_the_stack_to_each_step():
    layers = [nn.init(Part(), jax.random.key(i), X) for i in range(3)]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *layers)

    def how(part, x):
        return nn.scan(lambda h, layer: (layer(h), layer.count), x, part)

    (out, counts), new = nn.stateful(Runs(how, stacked))(X)
    expected = X
    for layer in layers:
        expected = weights(layer, expected)
    assert_close(out, expected, rtol=1e-5)
    assert counts.tolist() == new.part.count.tolist() == [1, 1, 1]


def test_scan_mixes_stacks_shared_modules_and_arrays():
    class Mixed(nn.Module):
        def __init__(self):
            self.layers, self.shared = nn.Stack(Part(), 3), Part()

        def __call__(self, x):
            def step(h, inputs):
                bias, layer = inputs["bias"], inputs["layer"]
                return self.shared(layer(h)) + bias, bias

            biases = jnp.arange(3.0)
            xs = {"bias": biases, "layer": self.layers.block}
            return nn.scan(step, x, xs)[0]

    model = nn.init(Mixed(), KEY, X)
    out, new = nn.stateful(model)(X)
    expected = X
    for i, layer in enumerate(list(model.layers)):
        expected = weights(model.shared, weights(layer, expected)) + i
    assert_close(out, expected, rtol=1e-5)
    assert int(new.shared.count) == 3
    assert new.layers.block.count.tolist() == [1, 1, 1]


def test_a_module_in_the_carry_is_refused():
    for how in (
        lambda part, x: nn.scan(lambda m, _: (m, m(x)), part, length=2),
        lambda part, x: nn.while_loop(lambda m: True, lambda m: m, part),
    ):
        with pytest.raises(nn.ScopeError) as caught:
            nn.stateful(runs(how))(X)
        assert caught.value.code == "LN-SCAN-02"


def test_an_unclear_length_is_refused():
    model = nn.init(nn.Stack(nn.Dense(3), 2), KEY, X)

    def how(part, x):
        return nn.scan(lambda h, layer: (layer(h), h), x, part.block, length=5)

    with pytest.raises(nn.ShapeError) as caught:
        nn.training(Runs(how, model), KEY)(X)
    assert caught.value.code == "LN-SCAN-01"


# ---- vmap


def test_vmap_shares_the_module_among_the_rows():
    model = runs(lambda part, x: nn.vmap(part.dense)(x))
    out, _ = nn.stateful(model)(X)
    assert_close(out, model.part.dense(X), rtol=1e-5)


def test_vmap_takes_axes_as_jax_does():
    def how(part, tree, x, y):
        def f(tree, x, y):
            return part.dense(tree["a"] + tree["b"] + x) + y

        axes = ({"a": 0, "b": None}, 1, None)
        return nn.vmap(f, axes, out_axes=1)(tree, x, y)

    model = runs(how)
    args = {"a": X, "b": X[0]}, X.T, jnp.float32(2.0)
    out, _ = nn.stateful(model)(*args)
    assert_close(out, (model.part.dense(X + X[:1] + X) + 2).T, rtol=1e-5)
    assert_close(model(*args), out)


def test_mapped_modules_have_arrays_and_state_for_each_index():
    members = [nn.init(Part(), jax.random.key(i), X) for i in range(3)]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *members)

    def how(part, x):
        return nn.vmap(lambda member, x: member(x), (0, None))(part, x)

    out, new = nn.stateful(Runs(how, stacked))(X)
    assert_close(out, jnp.stack([weights(m, X) for m in members]), rtol=1e-5)
    assert new.part.count.tolist() == [1, 1, 1]


def test_batch_norm_over_the_mapped_axis_sees_the_whole_batch():
    norm = nn.BatchNorm(axis_name="rows", momentum=0.0)
    x = 3 + normal((8, 1, 3))
    how = lambda part, x: nn.vmap(part, axis_name="rows")(x)  # noqa: E731
    model = Runs(how, nn.init(norm, KEY, x[0]))
    out, new = nn.training(model)(x)
    whole = nn.init(nn.BatchNorm(momentum=0.0), KEY, x)
    desired, expected = nn.training(whole)(x)
    assert_close(out, desired, rtol=1e-4, atol=1e-5)
    assert_close(new.part.mean, expected.mean, rtol=1e-5)
    assert_close(new.part.var, expected.var, rtol=1e-4)


def test_a_state_for_each_row_is_refused():
    model = Runs(lambda part, x: nn.vmap(part)(x), nn.init(nn.BatchNorm(), KEY, X))
    with pytest.raises(nn.ScopeError, match="part") as caught:
        nn.training(model)(normal((4, 2, 3)))
    assert caught.value.code == "LN-VMAP-03"


def test_a_module_is_mapped_along_its_first_axis_only():
    how = lambda part, x: nn.vmap(lambda m, x: m(x), (1, None))(part, x)  # noqa: E731
    with pytest.raises(nn.ConfigError) as caught:
        nn.stateful(runs(how))(X)
    assert caught.value.code == "LN-VMAP-02"


# ---- branches and loops


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("jit", [False, True])
def test_only_the_branch_that_runs_writes_state(taken, jit):
    def how(part, pred, x):
        return nn.cond(pred, lambda x: part(part(x)), lambda x: 2 * x, x)

    model = runs(how)
    call = nn.stateful(model)
    out, new = (jax.jit(call) if jit else call)(jnp.array(taken), X)
    expected = weights(model.part, weights(model.part, X)) if taken else 2 * X
    assert_close(out, expected, rtol=1e-5)
    assert int(new.part.count) == (2 if taken else 0)


def test_switch_takes_modules_as_branches_and_as_operands():
    def how(part, index, x):
        branches = [lambda m, x: m(x), lambda m, x: -m.dense(x), lambda m, x: x]
        return nn.switch(index, branches, part, x)

    model = runs(how)
    expected = [weights(model.part, X), -model.part.dense(X), X]
    for index, clamped in ((0, 0), (1, 1), (2, 2), (7, 2), (-1, 0)):
        out, new = nn.stateful(model)(index, X)
        assert_close(out, expected[clamped], rtol=1e-5)
        assert int(new.part.count) == (clamped == 0)


def test_gradients_go_through_the_branch_that_runs():
    model = runs(lambda part, x: nn.cond(x.sum() < 99, part, jnp.tanh, x))

    def loss(model):
        return nn.training(model, KEY, update=False)(X).sum()

    plain = model.replace(how=lambda part, x: part(x))
    actual, desired = (nn.to_paths(nn.grad(loss)(m)) for m in (model, plain))
    assert_close(actual, desired, rtol=1e-5)


def test_cond_works_under_vmap_from_outside():
    model = runs(lambda part, x: nn.cond(x.sum() > 0, part.dense, lambda x: x, x))
    out = jax.vmap(lambda x: nn.stateful(model)(x)[0])(X)
    rows = [model.part.dense(x) if x.sum() > 0 else x for x in X]
    assert_close(out, jnp.stack(rows), rtol=1e-5)


def test_a_while_loop_carries_state():
    def how(part, x):
        return nn.while_loop(
            lambda carry: (carry[0] < 3) & (part.count < 100),
            lambda carry: (carry[0] + 1, part(carry[1])),
            (0, x),
        )

    model = runs(how)
    (steps, out), new = nn.stateful(model)(X)
    expected = X
    for _ in range(3):
        expected = weights(model.part, expected)
    assert_close(out, expected, rtol=1e-5)
    assert int(steps) == int(new.part.count) == 3


def test_the_condition_sees_the_state_but_does_not_write_it():
    reads = runs(lambda part, x: nn.while_loop(lambda _: part.count < 4, part, x))
    assert int(nn.stateful(reads)(X)[1].part.count) == 4
    writes = runs(
        lambda part, x: nn.while_loop(lambda h: part(h).sum() > 9, jnp.sin, x)
    )
    with pytest.raises(nn.ScopeError, match="count"):
        nn.stateful(writes)(X)


# ---- gradients inside a module


def test_physics_informed_gradients_by_the_input():
    """d/dx tanh(w x + b), from inside of the model."""

    class Equation(nn.Module):
        def __init__(self):
            self.net = nn.Sequential([nn.Dense(5), jnp.tanh, nn.Dense(1)])

        def __call__(self, x):
            def u(x):
                return self.net(x)[0]

            return jax.vmap(jax.grad(u))(x) if self.plain() else self.lifted(x)

        def plain(self):
            return not self.training

        def lifted(self, x):
            return nn.vmap(nn.grad(lambda x: self.net(x)[0]))(x)

    x = normal((4, 2))
    model = nn.init(Equation(), KEY, x)
    assert_close(nn.training(model)(x)[0], model(x), rtol=1e-5)
    h = np.tanh(model.net[0](x))
    analytic = ((1 - h**2) * np.asarray(model.net[2].kernel)[:, 0]) @ np.asarray(
        model.net[0].kernel
    ).T
    assert_close(model(x), analytic, rtol=1e-4)


def test_gradients_by_the_parameters_of_a_part():
    """One step of descent inside of the model, and its own gradient outside."""

    def how(part, x):
        def inner(dense):
            return (dense(x) ** 2).sum()

        value, grads = nn.value_and_grad(inner)(part.dense)
        moved = jax.tree.map(lambda p, g: p - 0.1 * g, nn.params(part.dense), grads)
        return value, moved

    model = runs(how)
    (value, moved), _ = nn.stateful(model)(X)
    dense = model.part.dense
    desired, grads = jax.value_and_grad(lambda d: (d(X) ** 2).sum())(dense)
    assert_close(value, desired, rtol=1e-5)
    assert_close(moved.kernel, dense.kernel - 0.1 * grads.kernel, rtol=1e-5)

    def outer(model):
        return nn.stateful(model)(X)[0][1].kernel.sum()

    second = jax.grad(
        lambda d: (
            d.kernel - 0.1 * jax.grad(lambda e: (e(X) ** 2).sum())(d).kernel
        ).sum()
    )(dense)
    assert_close(nn.grad(outer)(model).part.dense.kernel, second.kernel, rtol=1e-4)


def test_state_written_under_a_gradient_comes_out():
    model = runs(lambda part, x: nn.grad(lambda x: part(x).sum())(x))
    out, new = nn.stateful(model)(X)
    assert_close(out, jax.grad(lambda x: weights(model.part, x).sum())(X), rtol=1e-5)
    assert int(new.part.count) == 1


# ---- custom_vjp


def clip(tree):
    return jax.tree.map(lambda g: jnp.clip(g, -0.01, 0.01), tree)


def clipped_dense(dense, x):
    f = nn.custom_vjp(
        lambda dense, x: dense(x),
        lambda dense, x: (dense(x), (dense.kernel, x)),
        lambda saved, g: clip((_gradient_of_dense(dense, saved[1], g), g @ saved[0].T)),
    )
    return f(dense, x)


def _gradient_of_dense(dense, x, g):
    zeros = jax.tree.map(jnp.zeros_like, nn.params(dense))
    return nn.from_paths(zeros, {"kernel": x.T @ g, "bias": g.sum(0)})


@pytest.mark.parametrize("opened", [False, True])
def test_custom_vjp_gives_a_module_its_gradient(opened):
    model = Runs(clipped_dense, nn.init(nn.Dense(3), KEY, X))

    def loss(model, x):
        out = nn.stateful(model)(x)[0] if opened else model(x)
        return (out**2).sum()

    assert_close(loss(model, X), (model.part(X) ** 2).sum(), rtol=1e-6)
    plain = jax.grad(lambda m, x: (m.part(x) ** 2).sum(), (0, 1))(model, X)
    cut = jax.grad(lambda m, x, y: (m.part(x) * y).sum(), (0, 1))(
        model, X, 2 * model.part(X)
    )
    assert_close(plain, cut, rtol=1e-4)
    actual = jax.grad(loss, (0, 1))(model, X)
    assert_close(actual, clip(plain), rtol=1e-4)


def test_custom_vjp_of_a_part_whose_parent_is_in_the_closure():
    class Parent(nn.Module):
        def __init__(self):
            self.part = nn.Dense(3)
            self.scale = nn.param(jnp.float32(2.0))

        def __call__(self, x):
            f = nn.custom_vjp(
                lambda part, x: part(x) * jax.lax.stop_gradient(self.scale),
                lambda part, x: (part(x) * jax.lax.stop_gradient(self.scale), None),
                lambda _, g: (None, g),
            )
            return f(self.part, x)

    model = nn.init(Parent(), KEY, X)
    out, _ = nn.stateful(model)(X)
    assert_close(out, 2 * model.part(X), rtol=1e-5)
    grad = jax.grad(lambda x: nn.stateful(model)(x)[0].sum())(X)
    assert_close(grad, jnp.ones_like(X))


def test_custom_vjp_keeps_state_and_randomness():
    def how(part, x):
        f = nn.custom_vjp(
            lambda part, x: part(x),
            lambda part, x: (part(x), x),
            lambda x, g: (None, 3 * g),
        )
        return f(part, x)

    model = runs(how, Part(0.5))
    out, new = trained(model)
    desired, _ = trained(model.replace(how=lambda part, x: part(x)))
    assert_close(out, desired, rtol=1e-5)
    assert int(new.part.count) == 1
    grad = jax.grad(lambda x: trained(model, x)[0].sum())(X)
    assert_close(grad, 3 * jnp.ones_like(X))


# ---- shard_map


@pytest.fixture(scope="module")
def mesh():
    return jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",))


@pytest.mark.parametrize("opened", [False, True])
def test_shard_map_gives_each_device_its_rows(mesh, opened):
    def how(part, x):
        f = nn.shard_map(
            lambda m, x: m.dense(x), mesh=mesh, in_specs=P("data"), out_specs=P("data")
        )
        return f(part, x)

    x = normal((8, 3))
    model = runs(how)
    out = nn.stateful(model)(x)[0] if opened else model(x)
    assert_close(out, model.part.dense(x), rtol=1e-5)


def over(mesh, f, **options):
    return nn.shard_map(
        f, mesh=mesh, in_specs=P("data"), out_specs=P("data"), **options
    )


def test_batch_norm_over_devices_sees_the_whole_batch(mesh):
    x = 3 + normal((8, 3))
    norm = nn.init(nn.BatchNorm(axis_name="data", momentum=0.0), KEY, x)
    out, new = nn.training(Runs(lambda part, x: over(mesh, part)(x), norm))(x)
    whole = nn.init(nn.BatchNorm(momentum=0.0), KEY, x)
    desired, expected = nn.training(whole)(x)
    assert_close(out, desired, rtol=1e-4, atol=1e-5)
    assert_close(new.part.mean, expected.mean, rtol=1e-5)


def test_state_that_differs_between_devices_is_refused(mesh):
    norm = nn.init(nn.BatchNorm(), KEY, X)
    model = Runs(lambda part, x: over(mesh, part)(x), norm)
    with pytest.raises(nn.ScopeError, match="part"):
        nn.training(model)(normal((8, 3)))


@pytest.mark.parametrize("keys", ["split", "shared"])
def test_devices_draw_as_asked(mesh, keys):
    model = Runs(lambda part, x: over(mesh, part, keys=keys)(x), nn.Dropout(0.5))
    out, _ = nn.training(model, KEY)(jnp.ones((4, 64)))
    rows = {np.asarray(row).tobytes() for row in out}
    assert len(rows) == (4 if keys == "split" else 1)


def test_taps_see_values_stacked_by_device(mesh):
    model = runs(lambda part, x: over(mesh, part.dense)(x))
    x = normal((8, 3))
    out, values = nn.capture(model, "part/dense")(x)
    assert_close(values["part/dense"], out.reshape(4, 2, 3))
    zeros = jax.tree.map(jnp.zeros_like, values)
    grads = jax.grad(lambda by: nn.perturb(model, by)(x).sum())(zeros)
    assert_close(grads["part/dense"], jnp.ones((4, 2, 3)))


# ---- one in another


def test_remat_in_scan_in_vmap_keeps_values_state_and_masks():
    def nested(part, xs):
        def row(xs):
            return nn.scan(lambda h, x: (nn.remat(part.dense)(h + x), h), xs[0], xs)[0]

        return nn.vmap(row)(xs)

    xs = normal((2, 3, 3))
    model = runs(nested)
    out, _ = nn.stateful(model)(xs)
    assert_close(out, model(xs), rtol=1e-5)
    expected = []
    for row in xs:
        h = row[0]
        for x in row:
            h = model.part.dense(h + x)
        expected.append(h)
    assert_close(out, jnp.stack(expected), rtol=1e-4)


def test_scan_in_cond_in_scan_carries_state():
    def how(part, x):
        def inner(x):
            return nn.scan(lambda h, _: (part(h), None), x, length=2)[0]

        def outer(h, i):
            return nn.cond(i % 2 == 0, inner, lambda x: x, h), None

        return nn.scan(outer, x, jnp.arange(3))[0]

    model = runs(how)
    out, new = nn.stateful(model)(X)
    expected = X
    for _ in range(4):
        expected = weights(model.part, expected)
    assert_close(out, expected, rtol=1e-5)
    assert int(new.part.count) == 4


@pytest.mark.parametrize(
    "how",
    [
        lambda part, x: nn.scan(lambda h, _: (part(h), None), x, length=2)[0],
        lambda part, x: nn.cond(x.sum() < 9, part, lambda x: x, x),
        lambda part, x: nn.while_loop(lambda h: h.sum() > 9, part, x),
        lambda part, x: nn.grad(lambda x: part(x).sum())(x),
        lambda part, x: nn.vmap(part)(x),
        lambda part, x: nn.custom_vjp(lambda x: part(x), None, None)(x),
        lambda part, x: nn.remat(nn.jit(part))(x),
    ],
)
def test_initialising_goes_through_every_transform(how):
    model = nn.init(Runs(how, nn.Dense(3)), KEY, X)
    desired = nn.init(Runs(lambda part, x: part(x), nn.Dense(3)), KEY, X)
    assert_close(nn.to_paths(model), nn.to_paths(desired), rtol=0)


def test_no_tracer_leaks():
    model = runs(lambda part, x: nn.scan(lambda h, _: (part(h), h), x, length=2)[0])
    with jax.checking_leaks():
        shape = jax.eval_shape(lambda m: trained(m)[0], model).shape
    assert shape == (2, 3)
