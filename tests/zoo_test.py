"""Every layer does what every layer must do, and each check is seen to fail."""

import inspect
import threading

import jax
import jax.numpy as jnp
import pytest

import zoo
from linnet import nn
from linnet.core._table import slots
from linnet.testing import check_layer, log_compiles
from linnet.testing._layer import Case, compiles_once

X = zoo.sample(8, 3)


def marked(case):
    """The case, and whether it takes long: variants of the large layers do."""
    large = ("Attention,", "MoE,", "TransformerBlock,")
    marks = [pytest.mark.slow] * case.name.startswith(large)
    return pytest.param(case, id=case.name, marks=marks)


@pytest.mark.parametrize("case", [marked(case) for case in zoo.ZOO])
def test_layer(case):
    check_layer(case.make(), case.sample, **case.options)


def test_every_layer_is_in_the_zoo():
    classes = {type(case.make()) for case in zoo.ZOO}
    layers = {
        value
        for value in vars(nn).values()
        if inspect.isclass(value)
        and issubclass(value, nn.Module)
        and value is not nn.Module
        and any("__call__" in vars(cls) for cls in value.__mro__[:-1])  # no cache
    }
    assert layers == classes


def test_parameter_trees_are_those_of_the_golden_file():
    accept = "if this is meant, run `python tests/zoo` and commit the difference"
    assert zoo.golden_text() == zoo.GOLDEN.read_text("utf-8"), accept


# ---- what tracing shows, of Linnet's own layers


@pytest.mark.parametrize("case", zoo.ZOO, ids=lambda case: case.name)
def test_parameters_name_their_axes(case):
    assert_names_its_axes(case.make(), *case.args)


@pytest.mark.parametrize("case", zoo.ZOO, ids=lambda case: case.name)
def test_a_layer_trains_recomputed_and_in_a_stack(case):
    layer, args = case.make(), case.args
    assert_trains(Recomputed(layer), *args)
    assert_trains(nn.Stack(Alike(layer), 2, remat=True), *args)


class Recomputed(nn.Module):
    """Recomputes its layer in the backward pass."""

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, *args):
        return nn.remat(self.layer)(*args)


class Alike(nn.Module):
    """Returns what looks like its first argument, whatever its layer returns."""

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, x, *args):
        total = total_of(self.layer(x, *args))
        return jax.tree.map(lambda leaf: leaf + total.astype(leaf.dtype), x)


def total_of(tree):
    return sum(jnp.abs(leaf).sum(dtype=jnp.float32) for leaf in jax.tree.leaves(tree))


def assert_names_its_axes(layer, *args):
    _, _, entries = slots(nn.abstract(layer, *args))
    for entry in entries:
        axes = entry.declared.axes
        if issubclass(entry.role, nn.Param):
            assert axes is not None, f"`{entry.text}` has no axes"
            assert len(axes) < 2 or any(axes), f"`{entry.text}` names none of its axes"


def assert_trains(layer, *args):
    """A training call has gradients of parameters, or of the input if it has none."""

    def loss(model, args, key):
        out, model = nn.training(model, key)(*args)
        return total_of(out), model

    model = nn.abstract(layer, *args)
    wanted = nn.params(model)
    gradient = nn.grad(loss, has_aux=True)
    if not jax.tree.leaves(wanted):
        wanted, gradient = args, jax.grad(loss, 1, has_aux=True)
    grads, after = jax.eval_shape(gradient, model, args, jax.random.key(0))
    assert looks_like(grads, wanted), "the gradients have other shapes"
    assert looks_like(after, model), "training returns another model"


def looks_like(a, b):
    """Whether two trees hold arrays of the same shapes and dtypes."""
    one, two = jax.tree.leaves(a), jax.tree.leaves(b)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.shape == y.shape and x.dtype == y.dtype for x, y in zip(one, two, strict=True)
    )


# ---- each check is seen to fail


class Scale(nn.Module):
    """A layer of one's own, as it should be.

    Parameters:
        scale: `[D]`, starts at one.

    Shapes:
        x: `[..., D]`  ->  `[..., D]`
    """

    def __init__(self, init=nn.initializers.ones):
        self.scale = nn.param(init, (None,))

    def __call__(self, x):
        self.check_input(x, min_ndim=1, dtype="floating")
        self.expect(scale=(x.shape[-1],))
        return x * self.scale.reshape((1,) * (x.ndim - 1) + self.scale.shape)


def scale_of(x, scale):
    return x * jnp.broadcast_to(scale, x.shape)


def test_a_users_own_layer_passes():
    check_layer(Scale(), X)


class WrongShape(Scale):
    """Promises another shape.

    Shapes:
        x: `[B, D]`  ->  `[B, D, D]`
    """


class Undocumented(Scale):
    """Does not name its parameter.

    Parameters:
        factor: `[D]`, starts at one.
    """

    factor = 1.0


class WrongParameter(Scale):
    """Promises two axes.

    Parameters:
        scale: `[D, D]`, starts at one.
    """


class KnowsTracing(Scale):
    """Does something else under `jax.jit`."""

    def __call__(self, x):
        return super().__call__(x) + isinstance(x, jax.core.Tracer)


class MixesRows(Scale):
    """Looks at other examples."""

    def __call__(self, x):
        y = super().__call__(x)
        return y + jnp.broadcast_to(y.mean(0), y.shape) if y.ndim > 1 else y


class Unsteady(Scale):
    """Does something else at each call."""

    calls = 0

    def __call__(self, x):
        if not isinstance(x, jax.core.Tracer):
            Unsteady.calls += 1
        return super().__call__(x) + Unsteady.calls


class Noisy(Scale):
    """Draws in training."""

    def __call__(self, x):
        y = super().__call__(x)
        return y + jax.random.normal(self.rng(), x.shape) if self.training else y


class Constantly(Scale):
    """Asks for a key and does not use it."""

    def __call__(self, x):
        if self.training:
            self.rng()
        return super().__call__(x)


class Counts(Scale):
    """Writes state in training."""

    def __init__(self):
        super().__init__()
        self.count = nn.state(0)

    def __call__(self, x):
        if self.training:
            self.count = self.count + 1
        return super().__call__(x)


class Stops(Scale):
    """Has no gradient."""

    def __call__(self, x):
        return jax.lax.stop_gradient(super().__call__(x))


class Infinite(Scale):
    """Has a gradient that is not finite."""

    def __call__(self, x):
        y = super().__call__(x)
        return y + 0 * jnp.sqrt(jnp.abs(y - y))


class Remembers(Scale):
    """Its initial values depend on how often it was initialised before."""

    times = 0

    def __init__(self):
        super().__init__(nn.from_data)

    def __call__(self, x):
        if self.initializing and x.ndim:
            Remembers.times += 1
            self.scale = jnp.full(x.shape[-1:], 1.0 + Remembers.times)
        return super().__call__(x)


class Overflows(Scale):
    """Is wrong in low precision."""

    def __call__(self, x):
        y = super().__call__(x)
        return y if y.dtype == jnp.float32 else y + 1


class Leaks(Scale):
    """Keeps what it saw."""

    seen: list = []  # noqa: RUF012 (that is the point)

    def __call__(self, x):
        y = super().__call__(x)
        Leaks.seen.append(y)
        return y


class Unpicklable(Scale):
    """Cannot be pickled."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Silent(Scale):
    """Prints nothing."""

    def __repr__(self):
        return ""


class Accepts(Scale):
    """Takes whatever comes."""

    def __call__(self, x):
        self.expect(scale=(3,))
        scale = self.scale[:1] if x.ndim == 0 or x.shape[-1] != 3 else self.scale
        return scale_of(x, scale[0] if x.ndim == 0 else scale)


class Anonymous(Scale):
    """Raises an error without a path."""

    def __call__(self, x):
        if x.ndim == 0 or x.shape[-1] != 3 or x.dtype == jnp.int32:
            raise nn.ShapeError("wrong", code="LN-NONE-00")
        return super().__call__(x)


BROKEN = [
    (WrongShape, "shapes that its docstring promises", "`out` has shape (8, 3)", {}),
    (Undocumented, "shapes that its docstring promises", "`scale` is not doc", {}),
    (WrongParameter, "shapes that its docstring promises", "`scale` has shape", {}),
    (KnowsTracing, "the same under `jax.jit`", "largest error 1", {}),
    (MixesRows, "the same for one example at a time", "largest error", {}),
    (Unsteady, "predicts without changing", "two calls differ", {}),
    (Noisy, "needs a key in training only if", "it asks for a key", {}),
    (Scale, "needs a key in training only if", "it asks for none", {"random": True}),
    (Constantly, "needs a key", "two keys give one result", {"random": True}),
    (Counts, "differs in its state only", "state is written", {}),
    (Scale, "differs in its state only", "state is not written", {"state": True}),
    (Stops, "finite gradients", "`scale` is zero", {}),
    (Infinite, "finite gradients", "`scale` is not finite", {}),
    (Remembers, "depend on its path alone", "other modules change the values", {}),
    (Overflows, "low precision", "in bfloat16: largest error", {}),
    (Leaks, "leaks no tracer", "Leaked", {}),
    (Unpicklable, "is pickled", "cannot pickle", {}),
    (Silent, "is printed", "its repr is ''", {}),
    (Accepts, "refuses wrong inputs", "a wrong rank is accepted", {}),
    (Anonymous, "refuses wrong inputs", "does not name the path: wrong", {}),
]


@pytest.mark.parametrize(("layer", "sentence", "detail", "options"), BROKEN)
def test_a_broken_layer_is_seen(layer, sentence, detail, options):
    with pytest.raises(AssertionError) as caught:
        check_layer(layer(), X, **options)
    text = str(caught.value)
    assert sentence in text.splitlines()[0]
    assert detail in text


class Unnamed(nn.Module):
    """Names no axis of its parameter."""

    def __init__(self):
        self.kernel = nn.param(nn.initializers.zeros, (3, 4), axes=(None, None))

    def __call__(self, x):
        return x @ self.kernel


@pytest.mark.parametrize(
    ("layer", "detail"), [(Scale, "`scale` has no"), (Unnamed, "`kernel` names none")]
)
def test_axes_without_names_are_seen(layer, detail):
    with pytest.raises(AssertionError, match=detail):
        assert_names_its_axes(layer(), X)


class Hides(Recomputed):
    """Recomputes a layer without Linnet's knowledge."""

    def __call__(self, *args):
        return jax.checkpoint(self.layer)(*args)


def test_a_layer_that_cannot_be_recomputed_is_seen():
    assert_trains(Recomputed(nn.BatchNorm()), X)
    with pytest.raises(nn.ScopeError):
        assert_trains(Hides(nn.BatchNorm()), X)


@pytest.mark.parametrize(
    ("name", "value", "sentence", "detail"),
    [
        ("nn.abstract", lambda *_: nn.Dense(1), "`nn.abstract`", "nn.abstract gives"),
        ("nn.describe", lambda _: nn.Dense(1), "compared and", "nn.describe gives"),
        ("_spread", lambda x, *_: x + 1, "sharded", "largest error"),
    ],
)
def test_a_broken_library_is_seen(monkeypatch, name, value, sentence, detail):
    monkeypatch.setattr(f"linnet.testing._layer.{name}", value)
    with pytest.raises(AssertionError) as caught:
        check_layer(Scale(), X)
    assert sentence in str(caught.value).splitlines()[0]
    assert detail in str(caught.value)


def test_a_second_trace_is_seen():
    case = Case(Scale(), (X,), False, False, True, True, (), (), 1e-5)
    compiles_once(case)
    case.predict.call(case.model, X[:2])
    with pytest.raises(AssertionError, match="predicting was traced 2 times"):
        compiles_once(case)


def test_compilations_are_counted_by_name():
    def tripled(x):
        return 3 * x

    f = jax.jit(tripled)
    with log_compiles() as names:
        f(jnp.ones(7))
        f(jnp.ones(7))
        f(jnp.ones(9))
    assert names.count("tripled") == 2
