"""The first line of an error says where in the model it happened, however deep."""

import jax
import jax.numpy as jnp
import pytest

from linnet import nn

X = jnp.ones((2, 4))


class Faulty(nn.Module):
    """Does what is forbidden, in the way that it is told."""

    fault: str = "none"

    def setup(self):
        self.scale = nn.param(nn.initializers.ones, (4,))
        self.count = nn.state(0.0)

    def __call__(self, x):
        self.expect(scale=(x.shape[-1],))
        match () if self.initializing else self.fault:
            case "width":
                self.expect(scale=(x.shape[-1] + 1,))
            case "rank":
                self.check_input(x, ndim=7)
            case "dtype":
                self.check_input(x, dtype="integer")
            case "random":
                self.rng("noise")
            case "write":
                self.scale = x
            case "undeclared":
                self.last = x
            case "kind":
                self.count = x
            case "transform":
                jax.checkpoint(lambda x: x + self.rng("noise"))(x)
            case "name":
                self.expect(scales=(4,))
        return x * self.scale[None]


class Block(nn.Module):
    def __init__(self, fault):
        self.mlp = {"hidden": Faulty(fault)}

    def __call__(self, x):
        return self.mlp["hidden"](x)


class Listed(nn.Module):
    def __init__(self, fault):
        self.blocks = [Block("none"), Block("none"), Block("none"), Block(fault)]

    @staticmethod
    def everywhere(model, x):
        return [block(x) for block in model.encoder.blocks]

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class Stacked(nn.Module):
    everywhere = None

    def __init__(self, fault):
        self.blocks = nn.Stack(Block(fault), 3)

    def __call__(self, x):
        return self.blocks(x)


class Rematerialised(Listed):
    def __call__(self, x):
        for block in self.blocks:
            x = nn.remat(block)(x)
        return x


class Helped(Listed):
    """Calls its blocks from a function and from a method of another name."""

    def __call__(self, x):
        return self.through(x)

    def through(self, x):
        def last(x):
            return self.blocks[3](x)

        return last(x)


class Model(nn.Module):
    def __init__(self, make, fault):
        self.encoder = make(fault)

    def __call__(self, x):
        return self.encoder(x)


LISTED = "encoder.blocks[3].mlp['hidden'] (Faulty): "
PLACES = {
    Listed: LISTED,
    Rematerialised: LISTED,
    Helped: LISTED,
    Stacked: "encoder.blocks.block.mlp['hidden'] (Faulty): ",
}
CODES = {
    "width": "LN-SHAPE-01",
    "rank": "LN-SHAPE-02",
    "dtype": "LN-DTYPE-01",
    "random": "LN-RNG-01",
    "write": "LN-STATE-03",
    "undeclared": "LN-STATE-02",
    "kind": "LN-STATE-01",
    "name": "LN-STATIC-04",
}
WHEN_TRAINING = CODES | {"random": "LN-RNG-02", "kind": "LN-STATE-04"}


def plain(model):
    return model(X)


def training(model):
    return nn.training(model)(X)


def with_key(model):
    return nn.training(model, {"dropout": jax.random.key(0)})(X)


def method(model):
    return nn.stateful(model.__call__)(X)


def captured(model):
    return nn.capture(nn.training(model), "**")(X)


CALLS = {
    plain: CODES,
    training: WHEN_TRAINING,
    with_key: WHEN_TRAINING,
    method: WHEN_TRAINING,
    captured: WHEN_TRAINING,
}


MORE = {
    plain: [jax.jit(plain), jax.grad(lambda model: plain(model).sum())],
    training: [jax.jit(training), nn.grad(lambda model: training(model)[0].sum())],
}


def first_line(call, *args):
    with pytest.raises(nn.LinnetError) as caught:
        call(*args)
    return str(caught.value).splitlines()[0]


def initialised(make, fault):
    return nn.init(Model(make, fault), jax.random.key(0), X, method=make.everywhere)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("make", PLACES)
def test_the_path_is_right(make, call):
    for fault, code in CALLS[call].items():
        model = initialised(make, fault)
        for run in (call, *MORE.get(call, ())):
            line = first_line(run, model)
            assert line.startswith(PLACES[make]), (fault, line)
            assert line.endswith(f"[{code}]"), (fault, line)


@pytest.mark.parametrize("make", PLACES)
def test_the_path_is_right_inside_a_plain_transform(make):
    model = initialised(make, "transform")
    run = nn.training(model, jax.random.key(0))
    assert first_line(run, X).startswith(f"{PLACES[make]}randomness")


@pytest.mark.parametrize("make", PLACES)
def test_the_path_is_right_before_init(make):
    line = first_line(plain, Model(make, "none"))
    path = PLACES[make].replace("[3]", "[0]")
    if make is Helped:
        path = LISTED
    assert line.startswith(path)
    assert line.endswith("[LN-INIT-01]")


@pytest.mark.parametrize("make", PLACES)
def test_the_path_is_right_while_initialising(make):
    narrow = X[:, :3]
    place = PLACES[make] if make in (Stacked, Helped) else LISTED.replace("[3]", "[0]")
    for line in (
        first_line(nn.init, Model(make, "none"), jax.random.key(0), narrow),
        first_line(nn.abstract, Model(make, "none"), narrow),
    ):
        assert line.startswith(place)
        assert line.endswith("[LN-SHAPE-03]")


def test_one_module_called_twice_has_one_path():
    class Twice(nn.Module):
        def __init__(self):
            self.inner = Faulty("width")

        def __call__(self, x):
            return self.inner(x) if self.initializing else self.inner(self.inner(x))

    model = nn.init(nn.Sequential([Twice()]), jax.random.key(0), X)
    assert first_line(model, X).startswith("layers[0].inner (Faulty): ")


def test_a_model_made_inside_a_call_starts_at_its_own_root():
    class Outer(nn.Module):
        def __call__(self, x):
            return nn.Dense(3)(x)

    assert first_line(Outer(), X).startswith("(Dense): `kernel` has no value yet")


def test_a_part_called_from_outside_is_a_root():
    model = initialised(Listed, "width")
    line = first_line(model.encoder.blocks[3], X)
    assert line.startswith("mlp['hidden'] (Faulty): ")
    line = first_line(model.encoder.blocks[3].mlp["hidden"], X)
    assert line.startswith("(Faulty): ")


def test_a_part_of_an_argument_has_its_path_there():
    def evaluate(model):
        return model.encoder.blocks[3](X)

    model = initialised(Listed, "width")
    assert first_line(evaluate, model).startswith(LISTED)


@pytest.mark.parametrize("make", [Listed, Rematerialised, Helped])
def test_one_of_many_equal_blocks_is_told_from_the_others(make):
    model = initialised(make, "none")
    wide = nn.describe(model.encoder.blocks[3])
    wide = nn.select(wide, "**/scale").map(lambda _: jnp.ones(5))
    blocks = (*model.encoder.blocks[:3], wide)
    model = model.replace(encoder=model.encoder.replace(blocks=blocks))
    for run in (plain, jax.jit(plain), training):
        line = first_line(run, model)
        assert line.startswith(f"{LISTED}`scale` is float32[5], but this input needs")
