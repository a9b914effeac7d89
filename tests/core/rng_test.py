"""Random keys: from the stream, the path and a count, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close
from linnet import nn

KEY = jax.random.key(0)


class Draw(nn.Module):
    """Returns the bits of its key."""

    def __init__(self, stream="noise"):
        self.stream = stream

    def __call__(self, *_):
        return jax.random.bits(self.rng(self.stream), (2,))


class Tree(nn.Module):
    """Draws at every part."""

    def __init__(self, **parts):
        self.parts = parts

    def __call__(self):
        return {name: part() for name, part in self.parts.items()}


class Named(nn.Module):
    """Holds one part under a name of choice."""

    def __init__(self, name, part):
        setattr(self, name, part)
        self.name = name

    def __call__(self):
        return getattr(self, self.name)()


def draw(model, key=KEY, *args):
    return nn.stateful(model, rngs=key)(*args)[0]


def as_text(bits):
    return np.asarray(bits).tobytes()


def test_the_same_call_twice_gives_the_same():
    model = Tree(a=Draw(), b=Draw())
    assert_close(draw(model), draw(model), rtol=0, atol=0)


def test_another_key_gives_something_else():
    assert as_text(draw(Draw())) != as_text(draw(Draw(), jax.random.key(1)))


def test_every_place_and_request_has_its_own_key():
    class Twice(nn.Module):
        def __init__(self):
            self.inner, self.other = Draw(), Draw("other")

        def __call__(self):
            keys = [self.rng(), self.rng(), self.rng("noise")]
            own = [jax.random.bits(key, (2,)) for key in keys]
            return [*own, self.inner(), self.inner(), self.other()]

    bits = list(map(as_text, draw(Twice())))
    assert len(set(bits)) == len(bits) == 6


def test_a_key_depends_on_the_path_alone():
    few = draw(Tree(a=Draw(), b=Draw()))
    many = draw(Tree(c=Draw(), b=Draw(), a=Draw()))
    assert_close({k: many[k] for k in few}, few, rtol=0, atol=0)


def test_paths_cannot_collide():
    """`ab/cdef` and `abc/def` read the same without separators."""
    one = draw(Named("ab", Named("cdef", Draw())))
    two = draw(Named("abc", Named("def", Draw())))
    assert as_text(one) != as_text(two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (Named("a", Draw("bc")), Named("ab", Draw("c"))),
        (Tree(a=Draw()), Named("parts", Draw())),
        (Draw("a"), Draw("b")),
    ],
)
def test_stream_and_path_cannot_collide(one, two):
    bits = [as_text(jax.tree.leaves(draw(model))[0]) for model in (one, two)]
    assert bits[0] != bits[1]


# ---- streams


def test_one_key_serves_every_stream_each_with_its_own():
    bits = {stream: as_text(draw(Draw(stream))) for stream in ("a", "b", "default")}
    assert len(set(bits.values())) == 3


def test_a_dict_gives_each_stream_its_key():
    keys = {"a": jax.random.key(1), "b": jax.random.key(2)}
    for stream in keys:
        own = draw(Draw(stream), {stream: keys[stream]})
        assert_close(draw(Draw(stream), keys), own, rtol=0, atol=0)


def test_what_is_not_in_the_dict_comes_from_the_default():
    keys = {"default": KEY, "a": jax.random.key(1)}
    assert_close(draw(Draw("b"), keys), draw(Draw("b")), rtol=0, atol=0)
    assert as_text(draw(Draw("a"), keys)) != as_text(draw(Draw("a")))


def test_a_missing_stream_names_the_given_ones():
    with pytest.raises(nn.ScopeError, match="'a', 'b'") as caught:
        draw(Draw("c"), {"a": KEY, "b": KEY})
    assert caught.value.code == "LN-RNG-02"


def test_randomness_in_a_plain_call_is_refused():
    with pytest.raises(nn.ScopeError, match="noise") as caught:
        Draw()()
    assert caught.value.code == "LN-RNG-01"
    with pytest.raises(nn.ScopeError, match="noise"):
        nn.training(Draw())()


def test_legacy_keys_work_like_typed_ones():
    old = jax.random.PRNGKey(0)
    assert_close(draw(Draw(), old), draw(Draw()), rtol=0, atol=0)
    stack = nn.Stack(Noisy(), 2)
    x = jnp.zeros(2)
    assert_close(draw(stack, old, x), draw(stack, KEY, x), rtol=0, atol=0)


# ---- under transforms from outside


def test_jit_and_eager_agree():
    model = Tree(a=Draw(), b=Draw())
    assert_close(jax.jit(lambda key: draw(model, key))(KEY), draw(model), rtol=0)


def test_vmap_over_keys():
    keys = jax.random.split(KEY, 3)
    rows = jax.vmap(lambda key: draw(Draw(), key))(keys)
    assert_close(rows, jnp.stack([draw(Draw(), key) for key in keys]), rtol=0)


# ---- inside the lifted transforms


class Noisy(nn.Module):
    """Adds a number of its own to each entry."""

    def __call__(self, x):
        return x + jax.random.uniform(self.rng(), x.shape)


class Runs(nn.Module):
    """Applies a function to its part."""

    def __init__(self, how, part=None):
        self.part = Noisy() if part is None else part
        self.how = how

    def __call__(self, x):
        return self.how(self.part, x)


def numbers(how, x=None):
    out = draw(Runs(how), KEY, jnp.zeros(4) if x is None else x)
    return np.asarray(out)


def assert_all_differ(array):
    assert len(np.unique(np.round(array, 6))) == array.size


def test_each_step_of_a_scan_draws_anew():
    def how(part, x):
        return nn.scan(lambda c, _: (c, part(x)), x, length=3)[1]

    assert_all_differ(numbers(how))


def test_each_turn_of_a_while_loop_draws_anew():
    def how(part, x):
        def body(carry):
            i, out = carry
            return i + 1, out.at[i].set(part(x))

        out = jnp.zeros((3, 4))
        return nn.while_loop(lambda carry: carry[0] < 3, body, (0, out))[1]

    assert_all_differ(numbers(how))


def test_a_second_while_loop_and_what_follows_draw_apart():
    def how(part, x):
        def run(x):
            def body(carry):
                return carry[0] + 1, part(x)

            return nn.while_loop(lambda carry: carry[0] < 1, body, (0, x))[1]

        return jnp.stack([run(x), run(x), part(x)])

    assert_all_differ(numbers(how))


def test_a_condition_and_its_body_draw_apart():
    class Compares(nn.Module):
        """Leaves the loop at once if the condition and the body draw the same."""

        def __call__(self):
            def test(carry):
                i, drawn = carry
                key = jax.random.key_data(self.rng())
                return (i < 5) & ~jnp.array_equal(key, drawn)

            def body(carry):
                return carry[0] + 1, jax.random.key_data(self.rng())

            start = 0, jnp.zeros(2, jnp.uint32)
            return nn.while_loop(test, body, start)[0]

    assert int(draw(Compares())) == 5


@pytest.mark.parametrize("second", ["scan", "vmap", "cond"])
def test_a_second_transform_draws_anew(second):
    """Though the first saw other modules of the same call as well."""

    def once(part, x):
        if second == "scan":
            xs = jnp.stack([x, x])
            return nn.scan(lambda c, y: (c, part(y)), x, xs)[1]
        if second == "vmap":
            return nn.vmap(part)(jnp.stack([x, x]))
        return nn.cond(x.sum() < 1, part, lambda y: y, x)

    def how(part, x):
        return jnp.concatenate([jnp.ravel(once(part, x)) for _ in range(2)])

    assert_all_differ(numbers(how))


def test_stacked_and_shared_modules_keep_their_counts():
    class Both(nn.Module):
        def __init__(self):
            self.shared, self.stack = Noisy(), nn.Stack(Noisy(), 2)

        def __call__(self, x):
            outs = [self.shared(x)]
            for _ in range(2):

                def step(c, layer):
                    return c, self.shared(x) + 0 * layer(x)

                outs += [*nn.scan(step, x, self.stack.block, length=2)[1]]
            return jnp.stack(outs)

    assert_all_differ(np.asarray(draw(Both(), KEY, jnp.zeros(3))))


def test_branches_count_for_what_follows():
    """A branch that draws twice beside one that draws never."""

    def how(part, x):
        first = nn.cond(x.sum() < 1, lambda y: part(y) + 0 * part(y), lambda y: y, x)
        return jnp.stack([first, part(x), part(x)])

    assert_all_differ(numbers(how))


def test_remat_and_jit_draw_what_the_plain_call_draws():
    desired = numbers(lambda part, x: part(x))
    for transform in (nn.remat, nn.jit, nn.lift(jax.checkpoint)):
        actual = numbers(lambda part, x, transform=transform: transform(part)(x))
        assert_close(actual, desired, rtol=1e-6)


def test_vmap_splits_keys_unless_they_are_shared():
    x = jnp.zeros((3, 4))
    assert_all_differ(numbers(lambda part, x: nn.vmap(part)(x), x))
    rows = numbers(lambda part, x: nn.vmap(part, keys="shared")(x), x)
    assert_all_differ(rows[0])
    assert_close(rows, np.stack([rows[0]] * 3), rtol=0)


def test_what_is_no_way_to_map_keys_is_refused():
    with pytest.raises(nn.ConfigError) as caught:
        nn.vmap(Noisy(), keys="same")
    assert caught.value.code == "LN-VMAP-01"


def test_each_layer_and_member_draws_its_own():
    class Keep(nn.Module):
        def __init__(self):
            self.noisy = Noisy()

        def __call__(self, x):
            self.sow("noise", self.noisy(jnp.zeros_like(x)))
            return x

    x = jnp.zeros(3)
    for model in (
        nn.Stack(Keep(), 3),
        nn.Stack(Keep(), 3, unroll=True),
        nn.Ensemble(Keep(), 3),
        nn.Ensemble(nn.Stack(Keep(), 2), 2),
        nn.Stack(nn.Ensemble(Keep(), 2, in_axis=0), 2),
    ):
        inner = isinstance(model.block, nn.Ensemble)
        x = jnp.zeros((2, 3)) if inner else jnp.zeros(3)
        call = nn.capture(nn.stateful(model, rngs=KEY), "**/noise")
        (values,) = call(x)[1].values()
        assert_all_differ(np.asarray(values))


def test_a_longer_stack_draws_the_same_for_the_first_layers():
    x = jnp.zeros(3)
    outs = [
        nn.capture(nn.stateful(nn.Stack(Noisy(), n), rngs=KEY), "block")(x)[1]["block"]
        for n in (2, 4)
    ]
    assert_close(outs[1][:2], outs[0], rtol=0)


def test_a_transform_of_jax_itself_is_refused():
    def how(part, x):
        return jax.vmap(part)(x)

    with pytest.raises(nn.ScopeError) as caught:
        numbers(how, jnp.zeros((3, 4)))
    assert caught.value.code == "LN-SCOPE-01"
