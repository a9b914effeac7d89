"""Plain calls, `nn.stateful` and `nn.training`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn

KEY = jax.random.key(0)


class Counter(nn.Module):
    """Counts its calls, and keeps the last input in a cache."""

    def __init__(self, size=2):
        self.count = nn.state(0)
        self.last = nn.state(nn.initializers.zeros, (size,), role=nn.Cache)
        self.scale = nn.param(nn.initializers.ones, (size,))

    def __call__(self, x):
        self.count = self.count + 1
        self.last = x
        return x * self.scale

    def look(self, x):
        return x + self.last

    def is_training(self):
        return self.training


class Parent(nn.Module):
    def __init__(self):
        self.counters = [Counter(), Counter()]
        self.other = Counter()

    def __call__(self, x):
        return self.other(self.counters[1](self.counters[0](x)))


def made(model, *sample):
    return nn.init(model, KEY, *sample)


@pytest.fixture(scope="module")
def counter():
    return made(Counter(), jnp.ones(2))


# ---- what comes back


def test_state_comes_back_with_the_model(counter):
    x = jnp.array([3.0, 4.0])
    out, new = nn.stateful(counter)(x)
    assert_close(out, x)
    assert int(new.count) == 1
    assert_close(new.last, x)
    assert int(counter.count) == 0
    assert new.scale is counter.scale
    assert type(new) is Counter


def test_state_of_every_part_comes_back():
    parent = made(Parent(), jnp.ones(2))
    _, new = nn.stateful(parent)(jnp.ones(2))
    _, new = nn.stateful(new)(jnp.ones(2))
    assert [int(c.count) for c in (*new.counters, new.other)] == [2, 2, 2]
    assert jax.tree.structure(new) == jax.tree.structure(parent)


def test_the_very_same_model_comes_back_where_nothing_was_written(counter):
    out, same = nn.stateful(counter.look)(jnp.ones(2))
    assert same is counter
    assert_close(out, jnp.ones(2))
    parent = made(Parent(), jnp.ones(2))
    _, new = nn.stateful(parent)(jnp.ones(2))
    assert nn.stateful(nothing.__get__(new))()[1] is new


def nothing(self):
    return None


def test_methods_are_called(counter):
    x = jnp.ones(2)
    _, counter = nn.stateful(counter.__call__)(x)
    out, _ = nn.stateful(counter.look)(x)
    assert_close(out, 2 * x)


def test_a_write_is_seen_within_the_call():
    class Twice(nn.Module):
        def __init__(self):
            self.counter = Counter()

        def __call__(self, x):
            self.counter(x)
            self.counter(x)
            return self.counter.count

    out, model = nn.stateful(made(Twice(), jnp.ones(2)))(jnp.ones(2))
    assert int(out) == int(model.counter.count) == 2


def test_training_is_visible_inside_only(counter):
    assert counter.training is False
    assert counter.is_training() is False
    assert nn.stateful(counter.is_training)()[0] is False
    assert nn.stateful(counter.is_training, train=True)()[0] is True
    assert nn.training(counter.is_training)()[0] is True


def test_update_false_drops_the_update(counter):
    out = nn.stateful(counter, update=False)(jnp.ones(2))
    assert_close(out, jnp.ones(2))
    assert_close(nn.training(counter, update=False)(jnp.ones(2)), jnp.ones(2))
    assert int(counter.count) == 0


def test_keyword_arguments_arrive():
    class Scaled(nn.Module):
        def __call__(self, x, *, by):
            return x * by

    assert nn.stateful(Scaled())(2.0, by=3.0)[0] == 6.0


# ---- roles of state


class EveryRole(nn.Module):
    def __init__(self):
        self.plain = nn.state(0.0)
        self.batch = nn.state(0.0, role=nn.BatchStat)
        self.cache = nn.state(0.0, role=nn.Cache)
        self.own = nn.state(0.0, role=Own)
        self.pair = {"a": nn.state(0.0), "b": nn.state(0.0)}

    def __call__(self):
        for name in ("plain", "batch", "cache", "own"):
            setattr(self, name, getattr(self, name) + 1.0)
        self.pair = {"a": self.pair["a"] + 1.0, "b": self.pair["b"] + 2.0}


class Own(nn.State):
    """A user's own kind of state."""


def test_every_kind_of_state_is_written():
    _, model = nn.stateful(EveryRole())()
    assert [float(x) for x in nn.select(model, nn.State).values()] == [1, 1, 1, 1, 1, 2]
    assert float(model.pair["b"]) == 2
    assert list(nn.select(model, Own)) == ["own"]


@pytest.mark.parametrize(
    "value", [jnp.zeros(3), jnp.zeros(2, jnp.bfloat16), 0.0, None, [1.0, 2.0]]
)
def test_a_state_keeps_its_shape_and_dtype(value):
    class Writes(Counter):
        def __call__(self, x):
            if not self.initializing:
                self.last = value
            return x * self.scale

    with pytest.raises(nn.ShapeError, match="last") as caught:
        nn.stateful(made(Writes(), jnp.ones(2)))(jnp.ones(2))
    assert caught.value.code == "LN-STATE-04"


def test_a_weakly_typed_write_does_not_compile_again():
    class Decay(nn.Module):
        def __init__(self):
            self.rate = nn.state(jnp.float32(1.0))

        def __call__(self):
            self.rate = jnp.where(self.rate > 0, 0.5, 0.25)

    traces = []

    @jax.jit
    def step(model):
        traces.append(model)
        return nn.stateful(model)()[1]

    model = step(step(Decay()))
    assert float(model.rate) == 0.25 + 0.25
    assert len(traces) == 1


# ---- purity


def test_a_plain_call_is_pure_and_refuses_effects(counter):
    with pytest.raises(nn.ScopeError) as caught:
        counter(jnp.ones(2))
    assert caught.value.code == "LN-STATE-01"
    norm = made(nn.BatchNorm(), jnp.ones((2, 3)))
    before = jax.tree.leaves(norm)
    norm(jnp.ones((2, 3)))
    assert all(a is b for a, b in zip(before, jax.tree.leaves(norm), strict=True))


@pytest.mark.parametrize("value", ["parameter", "constant", "new"])
def test_only_state_is_written(value):
    class Writes(nn.Module):
        def __init__(self):
            self.parameter = nn.param(jnp.ones(2))
            self.constant = nn.constant(jnp.ones(2))

        def __call__(self):
            setattr(self, value, jnp.zeros(2))

    with pytest.raises(nn.RoleError, match=value) as caught:
        nn.stateful(Writes())()
    assert caught.value.code == ("LN-STATE-02" if value == "new" else "LN-STATE-03")


def test_a_call_that_fails_leaves_the_model_as_it_was(counter):
    class Fails(Counter):
        def __call__(self, x):
            super().__call__(x)
            raise KeyError("half way")

    model = made(Counter(), jnp.ones(2))
    failing = nn.from_paths(Fails(), nn.to_paths(model))
    with pytest.raises(KeyError, match="half way"):
        nn.stateful(failing)(jnp.ones(2))
    assert int(failing.count) == 0


def test_jit_gives_the_same(counter):
    x = jnp.array([1.0, 2.0])
    out, new = jax.jit(lambda m, x: nn.training(m)(x))(counter, x)
    desired = nn.training(counter)(x)
    assert_close((out, new), desired)


def test_vmap_over_models_and_over_inputs(counter):
    xs = normal((3, 2))
    many = jax.tree.map(lambda a: jnp.stack([a] * 3), counter)
    outs, new = jax.vmap(lambda m, x: nn.stateful(m)(x))(many, xs)
    assert_close(outs, xs)
    assert_close(new.last, xs)
    assert new.count.tolist() == [1, 1, 1]
    outs, new = jax.vmap(lambda x: nn.stateful(counter)(x))(xs)
    assert_close(new.last, xs)


def test_grad_through_a_call():
    x = jnp.array([3.0, 5.0])
    counter = made(Counter(), x)

    def loss(model):
        out, model = nn.stateful(model)(x)
        return out.sum(), model

    (value, new), grads = nn.value_and_grad(loss, has_aux=True)(counter)
    assert float(value) == 8.0
    assert_close(grads.scale, x)
    assert grads.count is None
    assert int(new.count) == 1


def test_scan_over_time_carries_the_model(counter):
    def step(model, x):
        out, model = nn.stateful(model)(x)
        return model, out

    xs = normal((4, 2))
    model, outs = jax.lax.scan(step, counter, xs)
    assert int(model.count) == 4
    assert_close(model.last, xs[-1])
    assert_close(outs, xs)


def test_batch_statistics_move_in_training_only():
    x = 4 + normal((64, 2))
    norm = made(nn.BatchNorm(momentum=0.0), x)
    _, new = nn.training(norm)(x)
    assert_close(new.mean, np.mean(x, 0), rtol=1e-5)
    _, same = nn.stateful(norm)(x)
    assert same is norm


# ---- a second model inside


class WithTeacher(nn.Module):
    """Runs its own copy of a model in a call of its own."""

    def __init__(self):
        self.student, self.teacher = Counter(), Counter()

    def __call__(self, x):
        _, teacher = nn.stateful(self.teacher)(x)
        _, teacher = nn.stateful(teacher)(x)
        self.student(x)
        return teacher.count, self.teacher.count


def test_a_call_inside_a_call_returns_its_own_update():
    model = made(WithTeacher(), jnp.ones(2))
    (inner, outer), new = nn.stateful(model)(jnp.ones(2))
    assert (int(inner), int(outer)) == (2, 0)
    assert (int(new.teacher.count), int(new.student.count)) == (0, 1)


def test_a_model_made_outside_is_called_inside():
    teacher = made(Counter(), jnp.ones(2))

    class Distilled(nn.Module):
        def __init__(self):
            self.student = Counter()

        def __call__(self, x):
            out, new = nn.training(teacher, self.rng())(x)
            return self.student(x) + out, new.count

    (out, count), _ = nn.training(made(Distilled(), jnp.ones(2)), KEY)(jnp.ones(2))
    assert_close(out, 2 * jnp.ones(2))
    assert int(count) == 1
    assert int(teacher.count) == 0


def test_a_module_given_as_an_argument_stays_itself():
    class Applies(nn.Module):
        def __call__(self, other, x):
            return other.look(x)

    counter = made(Counter(), jnp.ones(2))
    assert_close(nn.stateful(Applies())(counter, jnp.ones(2))[0], jnp.ones(2))


# ---- wrong uses


@pytest.mark.parametrize("call", [nn.stateful, nn.training])
@pytest.mark.parametrize("f", [lambda x: x, jnp.sum, None, "model"])
def test_what_is_no_model_is_refused(call, f):
    with pytest.raises(nn.ConfigError) as caught:
        call(f)
    assert caught.value.code == "LN-CALL-01"


@pytest.mark.parametrize("key", [0, jnp.ones(2), jax.random.split(KEY, 2), {"a": 1}])
def test_what_is_no_key_is_refused(counter, key):
    with pytest.raises(nn.ConfigError) as caught:
        nn.training(counter, key)
    assert caught.value.code == "LN-RNG-03"


def test_a_described_model_is_refused():
    with pytest.raises(nn.InitError) as caught:
        nn.training(Counter())(jnp.ones(2))
    assert caught.value.code == "LN-INIT-01"


class Inner(nn.Module):
    def __init__(self, how):
        self.counter, self.how = Counter(), how

    def __call__(self, x):
        if self.how == "closed over":
            return jax.checkpoint(lambda x: self.counter(x))(x)
        if self.how == "in a scan":
            return jax.lax.scan(lambda c, _: (self.counter(c), None), x, length=2)[0]
        if self.how == "under vmap":
            return jax.vmap(self.counter)(jnp.stack([x, x]))
        return jax.checkpoint(lambda m, x: m(x))(self.counter, x)


@pytest.mark.parametrize("how", ["closed over", "in a scan", "under vmap", "passed"])
def test_effects_in_an_inner_transform_are_refused(how):
    model = Inner(how).replace(counter=made(Counter(), jnp.ones(2)))
    with pytest.raises(nn.ScopeError, match="counter") as caught:
        nn.stateful(model)(jnp.ones(2))
    assert caught.value.code == ("LN-SCOPE-02" if how == "passed" else "LN-SCOPE-01")
    assert any("nn." in code for _, code in caught.value.fixes)


def test_a_new_module_cannot_hold_an_open_one():
    class Wraps(nn.Module):
        def __init__(self):
            self.counter = Counter()

        def __call__(self, x):
            return nn.Sequential([self.counter])(x)

    with pytest.raises(nn.ScopeError) as caught:
        nn.stateful(wrapped(Wraps()))(jnp.ones(2))
    assert caught.value.code == "LN-SCOPE-07"


def wrapped(model):
    return model.replace(counter=made(Counter(), jnp.ones(2)))


def test_contexts_of_jax_are_no_transforms(counter):
    class Named(nn.Module):
        def __init__(self):
            self.counter = Counter()

        def __call__(self, x):
            with jax.named_scope("here"), jax.default_matmul_precision("float32"):
                with jax.debug_nans(False):
                    return self.counter(x)

    _, new = nn.stateful(wrapped(Named()))(jnp.ones(2))
    assert int(new.counter.count) == 1
