"""Making arrays: keys, shapes, transforms, compilations, data, parts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from helpers import assert_close, normal
from linnet import nn
from linnet.testing import log_compiles

KEY = jax.random.key(0)


class Net(nn.Module):
    """Parts named at will, called one after another."""

    def __init__(self, **parts):
        self.parts = parts

    def __call__(self, x):
        for part in self.parts.values():
            x = part(x)
        return x


class Affine(nn.Module):
    """An initialiser of one's own, on a shape that the sample completes."""

    def __init__(self, features, init=nn.initializers.ones):
        self.features = features
        self.kernel = nn.param(init, (None, features), axes=("in", "out"))

    def __call__(self, x):
        self.expect(kernel=(x.shape[-1], self.features))
        return x @ self.kernel


def values(model):
    return {path: np.asarray(x) for path, x in nn.to_paths(model).items()}


def assert_identical(actual, desired):
    assert_close(actual, desired, rtol=0, atol=0)


# ---- the call


def test_shapes_come_from_the_sample():
    model = nn.init(Net(a=nn.Dense(3), b=nn.Dense(2)), KEY, jnp.ones((5, 4)))
    shapes = {path: x.shape for path, x in values(model).items()}
    assert shapes == {
        "parts/a/bias": (3,),
        "parts/a/kernel": (4, 3),
        "parts/b/bias": (2,),
        "parts/b/kernel": (3, 2),
    }


class Coder(nn.Module):
    def __init__(self):
        self.encoder, self.decoder = nn.Dense(2), nn.Dense(4)

    def encode(self, x):
        return self.encoder(x)

    def __call__(self, x):
        return self.decoder(self.encode(x))


@pytest.mark.parametrize(
    "method",
    [
        None,
        "__call__",
        Coder.__call__,
        Coder().__call__,
        lambda model, x: model.decoder(model.encode(x)),
    ],
)
def test_method_says_what_is_called(method):
    x = jnp.ones((1, 4))
    model = nn.init(Coder(), KEY, x, method=method)
    assert_identical(model, nn.init(Coder(), KEY, x))


def test_a_method_that_reaches_only_a_part_is_refused_and_its_fix_works():
    x = jnp.ones((1, 4))
    with pytest.raises(nn.InitError, match=r"decoder\.") as caught:
        nn.init(Coder(), KEY, x, method="encode")
    assert caught.value.code == "LN-INIT-02"


class Options(nn.Module):
    """Takes what is no array, and keyword arguments."""

    def __init__(self):
        self.dense = nn.Dense(3)

    def __call__(self, tree, mode, *, scale=None, flags=()):
        assert mode == "sum"
        assert flags == ("a",)
        assert isinstance(scale, float)
        return self.dense(tree["x"] + tree["y"]) * scale


def test_a_sample_may_hold_anything():
    tree = {"x": jnp.ones((2, 4)), "y": np.ones((2, 4), np.float32)}
    run = dict(scale=2.0, flags=("a",))
    model = nn.init(Options(), KEY, tree, "sum", **run)
    assert model(tree, "sum", **run).shape == (2, 3)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)
    assert_identical(nn.init(Options(), KEY, shapes, "sum", **run), model)


@pytest.mark.parametrize(
    "sample",
    [
        jax.ShapeDtypeStruct((7, 4), jnp.float32),
        jnp.ones((0, 4)),
        jnp.ones((7, 4), jnp.bfloat16),
        np.ones(4, np.float16),
    ],
    ids=["shape only", "empty batch", "bfloat16", "no batch"],
)
def test_only_the_width_of_the_sample_matters(sample):
    desired = nn.init(nn.Dense(3), KEY, jnp.ones((2, 4)))
    assert_identical(nn.init(nn.Dense(3), KEY, sample), desired)


def test_a_model_without_arrays_needs_no_sample_values():
    model = nn.init(nn.Dropout(0.5), KEY, jnp.ones(3))
    assert model == nn.Dropout(0.5)


def test_the_key_may_be_a_legacy_one():
    key = jax.random.PRNGKey(0)
    one, two = (nn.init(nn.Dense(3), key, jnp.ones((1, 4))) for _ in range(2))
    assert_identical(one, two)
    assert np.ptp(one.kernel) > 0


@pytest.mark.parametrize("key", [0, None, jnp.ones(2), np.uint32(3)])
def test_what_is_no_key_is_refused(key):
    with pytest.raises(nn.InitError) as caught:
        nn.init(nn.Dense(3), key, jnp.ones((1, 4)))
    assert caught.value.code == "LN-INIT-03"


# ---- keys from paths


def test_other_parts_do_not_matter():
    """Adding, removing and reordering leaves the others as they were, bit for bit."""
    x = jnp.ones((1, 4))
    desired = values(nn.init(Net(a=nn.Dense(4), b=nn.Dense(4)), KEY, x))
    for parts in (
        dict(a=nn.Dense(4), b=nn.Dense(4), c=nn.Dense(4)),
        dict(c=nn.LayerNorm(), b=nn.Dense(4), a=nn.Dense(4)),
        dict(b=nn.Dense(4)),
        dict(a=nn.Dense(4)),
    ):
        actual = values(nn.init(Net(**parts), KEY, x))
        common = actual.keys() & desired.keys()
        assert common
        assert_identical(
            {path: actual[path] for path in common},
            {path: desired[path] for path in common},
        )


def test_every_array_has_its_own_values():
    x = jnp.ones((1, 4))
    parts = {name: nn.Dense(4) for name in ("a", "b", "aa")}
    kernels = [
        v for p, v in values(nn.init(Net(**parts), KEY, x)).items() if v.ndim > 1
    ]
    assert len(kernels) == 3
    assert len({kernel.tobytes() for kernel in kernels}) == 3


class Pair(nn.Module):
    def __init__(self, outer, inner):
        setattr(self, outer, Leaf(inner))
        self.outer = outer

    def __call__(self):
        return getattr(self, self.outer)()


class Leaf(nn.Module):
    def __init__(self, name):
        setattr(self, name, nn.param(nn.initializers.normal(1.0), (4,)))
        self.leaf_name = name

    def __call__(self):
        return getattr(self, self.leaf_name)


def test_paths_cannot_collide():
    """`ab/cdef` and `abc/def` read the same without separators."""
    assert np.any(
        nn.init(Pair("ab", "cdef"), KEY)() != nn.init(Pair("abc", "def"), KEY)()
    )


def test_another_key_gives_other_values():
    one, two = (
        nn.init(
            Affine(3, nn.initializers.normal(1.0)), jax.random.key(i), jnp.ones((1, 4))
        )
        for i in (0, 1)
    )
    assert np.all(one.kernel != two.kernel)


# ---- inside transforms


def test_inside_jit_it_gives_the_same():
    x = jnp.ones((1, 4))
    model = Net(a=nn.Dense(3), b=nn.BatchNorm())
    inside = jax.jit(lambda key: nn.init(model, key, x))(KEY)
    assert_close(inside, nn.init(model, KEY, x), rtol=1e-6)
    assert type(inside) is Net


def test_one_vmap_over_keys_is_an_ensemble():
    x = jnp.ones((1, 4))
    keys = jax.random.split(KEY, 3)
    many = jax.vmap(lambda key: nn.init(nn.Dense(2), key, x))(keys)
    assert many.kernel.shape == (3, 4, 2)
    for i, key in enumerate(keys):
        one = jax.tree.map(lambda array, i=i: array[i], many)
        assert_close(one, nn.init(nn.Dense(2), key, x), rtol=1e-6)
    outs = jax.vmap(lambda m: m(x))(many)
    assert outs.shape == (3, 1, 2)


def shape_of(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


@pytest.mark.parametrize(
    "model",
    [
        Net(a=nn.Dense(3), b=nn.BatchNorm(), c=nn.Dense(2, param_dtype=jnp.bfloat16)),
        nn.Stack(nn.Ensemble(nn.Dense(4), 1, in_axis=0), 3),
    ],
    ids=["net", "stack"],
)
def test_abstract_init_and_eval_shape_agree(model):
    x = jnp.ones((1, 4))
    abstract = nn.abstract(model, jax.ShapeDtypeStruct(x.shape, x.dtype))
    made = jax.tree.map(shape_of, nn.init(model, KEY, x))
    traced = jax.eval_shape(lambda key: nn.init(model, key, x), KEY)
    assert jax.tree.leaves(abstract) == jax.tree.leaves(made)
    assert jax.tree.structure(abstract) == jax.tree.structure(made)
    assert jax.tree.leaves(jax.tree.map(shape_of, traced)) == jax.tree.leaves(made)


def test_abstract_makes_no_array():
    before = len(jax.live_arrays())
    shapes = nn.abstract(nn.Dense(4000), jax.ShapeDtypeStruct((1, 3000), jnp.float32))
    assert shapes.kernel.shape == (3000, 4000)
    assert len(jax.live_arrays()) == before


def test_abstract_takes_methods_and_loaded_parts():
    x = jnp.ones((1, 4))
    part = nn.abstract(Coder().replace(decoder=None), x, method="encode")
    assert part.encoder.kernel.shape == (4, 2)
    loaded = nn.abstract(nn.init(Coder(), KEY, x))
    assert loaded.decoder.kernel == jax.ShapeDtypeStruct((2, 4), jnp.float32)


# ---- compilations


def initial_compiles(model, *sample):
    with log_compiles() as names:
        nn.init(model, KEY, *sample)
    return names.count("make")


def test_one_compilation_for_each_kind_of_array():
    """Kinds are (initialiser, shape, dtype); how many there are of one is free."""
    x = jnp.ones((1, 11))
    two = nn.Sequential([nn.Dense(11), nn.Dense(11)])
    many = nn.Sequential([nn.Dense(11) for _ in range(9)])
    others = nn.Sequential([nn.Dense(11, use_bias=False), nn.Dense(12)])
    assert initial_compiles(two, x) == 2
    assert initial_compiles(many, x) == 0
    assert initial_compiles(others, x) == 2


def test_a_stack_of_any_depth_compiles_as_often():
    x = jnp.ones((1, 13))
    assert initial_compiles(nn.Stack(nn.Dense(13), 2), x) == 2
    assert initial_compiles(nn.Stack(nn.Dense(13), 5), x) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: jax.nn.initializers.normal(0.02),
        lambda: nn.initializers.normal(0.02),
        lambda: jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
        lambda: functools.partial(jax.random.uniform, minval=-1.0),
        lambda: lambda key, shape, dtype: jnp.full(shape, 2, dtype),
    ],
    ids=["jax normal", "normal", "variance scaling", "partial", "lambda"],
)
def test_an_initialiser_made_anew_for_each_layer_is_one_kind(make):
    layers = [Affine(17, make()) for _ in range(6)]
    assert initial_compiles(nn.Sequential(layers), jnp.ones((1, 17))) == 1


def test_initialisers_that_differ_are_two_kinds():
    layers = [Affine(3, nn.initializers.normal(scale)) for scale in (1e-3, 1e3)]
    model = nn.init(nn.Sequential(layers), KEY, jnp.ones((1, 3)))
    assert np.abs(model[0].kernel).max() < 0.1
    assert np.abs(model[1].kernel).max() > 10


def test_an_initialiser_may_hold_an_array():
    kernel = normal((4, 3))
    model = nn.init(Affine(3, lambda *_: kernel), KEY, jnp.ones((1, 4)))
    assert_identical(model.kernel, kernel)


def test_an_initialiser_of_another_shape_is_refused():
    for wrong in (
        lambda key, shape, dtype: jnp.zeros((1,), dtype),
        lambda key, shape, dtype: jnp.zeros(shape, jnp.float16),
    ):
        with pytest.raises(nn.InitError) as caught:
            nn.init(Affine(3, wrong), KEY, jnp.ones((1, 4)))
        assert caught.value.code == "LN-INIT-10"


# ---- sharding


def test_arrays_are_made_in_their_sharding():
    mesh = jax.make_mesh((2, 2), ("data", "model"))
    asked = {}

    def sharding(path, declared):
        asked[path] = declared.axes
        names = {"out": "model"}
        return NamedSharding(mesh, P(*map(names.get, declared.axes)))

    x = jnp.ones((1, 4))
    model = nn.init(nn.Dense(6), KEY, x, sharding=sharding)
    assert asked == {"kernel": ("in", "out"), "bias": ("out",)}
    assert model.kernel.sharding == NamedSharding(mesh, P(None, "model"))
    assert {shard.data.shape for shard in model.kernel.addressable_shards} == {(4, 3)}
    assert_close(model, nn.init(nn.Dense(6), KEY, x), rtol=1e-6)


def test_sharding_may_be_left_to_jax():
    x = jnp.ones((1, 4))
    model = nn.init(nn.Dense(6), KEY, x, sharding=lambda path, declared: None)
    assert_identical(model, nn.init(nn.Dense(6), KEY, x))


# ---- values that come from data


class ActNorm(nn.Module):
    """Sends the sample to mean 0 and deviation 1."""

    def __init__(self):
        self.shift = nn.param(nn.from_data, (None,))
        self.scale = nn.param(nn.from_data, (None,))

    def __call__(self, x):
        if self.initializing:
            self.shift = -x.mean(0)
            self.scale = 1 / x.std(0)
        return (x + self.shift[None]) * self.scale[None]


class WeightNorm(nn.Module):
    """y = g v x / |v|, with g so that the first outputs have unit variance."""

    def __init__(self, features):
        self.features = features
        self.v = nn.param(nn.initializers.normal(1.0), (None, features))
        self.g = nn.param(nn.from_data, (features,))

    def __call__(self, x):
        self.expect(v=(x.shape[-1], self.features))
        y = x @ (self.v / jnp.linalg.norm(self.v, axis=0, keepdims=True))
        if self.initializing:
            self.g = 1 / y.std(0)
        return y * self.g[None]


def assert_normalised(y, atol=1e-5):
    assert_close(y.std(-2), np.ones_like(y.std(-2)), atol=atol)


def test_actnorm_normalises_its_first_batch():
    x = 3 * normal((16, 4)) + 5
    model = nn.init(ActNorm(), KEY, x)
    assert_close(model.shift, -np.mean(x, 0), rtol=1e-5)
    assert_close(model.scale, 1 / np.std(x, 0), rtol=1e-5)
    assert_normalised(model(x))


def test_the_gain_of_weight_normalisation_comes_from_the_sample():
    x = 7 * normal((16, 4))
    model = nn.init(WeightNorm(3), KEY, x)
    assert_normalised(model(x))
    assert_close(nn.init(WeightNorm(3), KEY, x / 7).g, 7 * model.g, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"remat": True}, {"unroll": True}])
def test_each_layer_of_a_stack_starts_from_its_own_input(options):
    x = 4 * normal((16, 3))
    stack = nn.init(nn.Stack(WeightNorm(3), 3, **options), KEY, x)
    assert stack.block.g.shape == (3, 3)
    for layer in stack:
        x = layer(x)
        assert_normalised(x)


def test_each_member_of_an_ensemble_starts_from_its_own_input():
    x = normal((2, 16, 3)) * jnp.array([1.0, 9.0])[:, None, None]
    many = nn.init(nn.Ensemble(WeightNorm(3), 2, in_axis=0), KEY, x)
    assert_normalised(many(x))
    nested = nn.init(nn.Ensemble(nn.Stack(WeightNorm(3), 2), 2, in_axis=0), KEY, x)
    assert nested.block.block.g.shape == (2, 2, 3)
    assert_normalised(nested(x))
    other = nn.init(nn.Stack(nn.Ensemble(WeightNorm(3), 2, in_axis=0), 2), KEY, x)
    assert_normalised(other(x))


def test_data_may_be_traced():
    x = 3 * normal((16, 4))
    desired = nn.init(Net(a=nn.Dense(4), b=ActNorm()), KEY, x)
    model = jax.jit(lambda x: nn.init(Net(a=nn.Dense(4), b=ActNorm()), KEY, x))(x)
    assert_close(model, desired, rtol=1e-4)
    shapes = nn.abstract(Net(a=nn.Dense(4), b=ActNorm()), shape_of(x))
    assert shapes.parts["b"].scale.shape == (4,)


def test_data_is_carried_out_of_remat():
    class Remat(nn.Module):
        def __init__(self):
            self.norm = ActNorm()

        def __call__(self, x):
            return nn.remat(self.norm)(x)

    x = 3 * normal((16, 4))
    assert_close(nn.init(Remat(), KEY, x).norm, nn.init(ActNorm(), KEY, x), rtol=1e-5)


def test_data_inside_a_transform_is_refused():
    class Scanned(nn.Module):
        def __init__(self):
            self.norm = ActNorm()

        def __call__(self, x):
            return nn.scan(lambda h, _: (self.norm(h), None), x, length=2)[0]

    with pytest.raises(nn.InitError) as caught:
        nn.init(Scanned(), KEY, normal((16, 4)))
    assert caught.value.code == "LN-INIT-09"


@pytest.mark.parametrize("as_keyword", [False, True])
def test_data_needs_values(as_keyword):
    x = shape_of(normal((16, 4)))
    with pytest.raises(nn.InitError) as caught:
        nn.init(ActNorm(), KEY, x=x) if as_keyword else nn.init(ActNorm(), KEY, x)
    assert caught.value.code == "LN-INIT-07"


def test_what_was_loaded_is_not_overwritten_by_data():
    x = normal((16, 4))
    loaded = nn.init(ActNorm(), KEY, x)
    model = nn.init(Net(a=loaded, b=nn.Dense(2)), KEY, 100 * x)
    assert_identical(model.parts["a"], loaded)


def test_data_is_read_only_after_it_was_assigned():
    class Early(nn.Module):
        def __init__(self):
            self.g = nn.param(nn.from_data, (3,))

        def __call__(self, x):
            return x * self.g

    with pytest.raises(nn.InitError) as caught:
        nn.init(Early(), KEY, jnp.ones(3))
    assert caught.value.code == "LN-INIT-06"


def test_only_declared_data_is_assigned_while_initialising():
    class Assigns(Affine):
        def __call__(self, x):
            if self.initializing:
                self.kernel = jnp.ones((4, 3))
            return super().__call__(x)

    with pytest.raises(nn.RoleError) as caught:
        nn.init(Assigns(3), KEY, jnp.ones((1, 4)))
    assert caught.value.code == "LN-INIT-08"


# ---- parts


def test_a_fresh_head_on_a_loaded_backbone():
    x = normal((2, 4))
    backbone = nn.init(nn.Dense(5), jax.random.key(7), x)
    model = nn.init(Net(backbone=backbone, head=nn.Dense(2)), KEY, x)
    assert_identical(model.parts["backbone"], backbone)
    scratch = nn.init(Net(backbone=nn.Dense(5), head=nn.Dense(2)), KEY, x)
    assert_identical(model.parts["head"], scratch.parts["head"])


def test_a_loaded_stack_takes_a_fresh_head():
    x = normal((2, 4))
    stack = nn.init(nn.Stack(nn.Dense(4), 3), jax.random.key(7), x)
    model = nn.init(Net(stack=stack, head=nn.Dense(2)), KEY, x)
    assert_identical(model.parts["stack"], stack)
    assert model(x).shape == (2, 2)


def test_a_loaded_part_must_fit_the_sample():
    backbone = nn.init(nn.Dense(5), KEY, normal((2, 4)))
    model = Net(backbone=backbone, head=nn.Dense(2))
    with pytest.raises(nn.ShapeError, match=r"parts\['backbone'\]"):
        nn.init(model, KEY, normal((2, 3)))


def test_nothing_to_make_is_refused_and_the_fix_works():
    model = nn.init(nn.Dense(3), KEY, jnp.ones((1, 4)))
    with pytest.raises(nn.InitError) as caught:
        nn.init(model, KEY, jnp.ones((1, 4)))
    assert caught.value.code == "LN-INIT-04"
    assert_identical(nn.init(nn.describe(model), KEY, jnp.ones((1, 4))), model)


def test_init_does_not_run_the_state_forward():
    """The first value of a state is its declared one; initialising is a dry run."""
    x = 5 + normal((8, 3))
    norm = nn.init(nn.BatchNorm(), KEY, x)
    assert_identical(norm.mean, jnp.zeros(3))
    assert_identical(norm.var, jnp.ones(3))


# ---- expect


def test_expect_completes_checks_and_contradicts():
    with pytest.raises(nn.ShapeError) as caught:
        nn.init(nn.Dense(3, in_features=5), KEY, jnp.ones((1, 4)))
    assert caught.value.code == "LN-SHAPE-03"
    model = nn.init(nn.Dense(3, in_features=4), KEY, jnp.ones((1, 4)))
    with pytest.raises(nn.ShapeError) as caught:
        model(jnp.ones((1, 5)))
    assert caught.value.code == "LN-SHAPE-01"


def test_one_module_called_with_two_widths_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            self.dense = nn.Dense(3)

        def __call__(self, x):
            return self.dense(self.dense(x))

    with pytest.raises(nn.ShapeError, match="dense") as caught:
        nn.init(Twice(), KEY, jnp.ones((1, 4)))
    assert caught.value.code == "LN-SHAPE-03"
    assert nn.init(Twice(), KEY, jnp.ones((1, 3)))(jnp.ones((1, 3))).shape == (1, 3)


def test_a_shape_that_nothing_infers_is_refused():
    class Unknown(nn.Module):
        def __init__(self):
            self.scale = nn.param(nn.initializers.ones, (None,))

        def __call__(self, x):
            return x * self.scale

    with pytest.raises(nn.InitError) as caught:
        nn.init(Unknown(), KEY, jnp.ones(3))
    assert caught.value.code == "LN-INIT-05"


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Heads:
    small: nn.Module
    large: nn.Module


def test_arrays_in_containers_are_reached():
    class Holder(nn.Module):
        def __init__(self):
            self.heads = Heads(nn.Dense(2), nn.Dense(3))
            self.scales = [nn.param(nn.initializers.ones, (4,)) for _ in range(2)]

        def __call__(self, x):
            x = x * (self.scales[0] * self.scales[1])[None]
            return self.heads.small(x), self.heads.large(x)

    model = nn.init(Holder(), KEY, jnp.ones((1, 4)))
    assert model.heads.large.kernel.shape == (4, 3)
    assert_identical(model.scales[1], jnp.ones(4))


class Outer(nn.Module):
    """Tells a part what its own input does not say."""

    def __init__(self):
        self.part = Part()

    def __call__(self, x):
        if self.initializing:
            self.part.expect(kernel=(None, 2 * x.shape[-1]))
        return self.part(x)


class Part(nn.Module):
    def __init__(self):
        self.kernel = nn.param(nn.initializers.ones, (None, None))

    def __call__(self, x):
        self.expect(kernel=(x.shape[-1], None))
        return x @ self.kernel


def test_a_size_may_be_left_open_for_another_to_tell():
    model = nn.init(Outer(), jax.random.key(0), jnp.ones((1, 3)))
    assert model.part.kernel.shape == (3, 6)
    assert model(jnp.ones((2, 3))).shape == (2, 6)
    with pytest.raises(nn.ShapeError, match=r"3, 6\], but this input needs \[4, 6\]"):
        model(jnp.ones((2, 4)))
    with pytest.raises(nn.InitError, match="LN-INIT-05"):
        nn.init(Part(), jax.random.key(0), jnp.ones((1, 3)))
