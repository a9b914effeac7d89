"""`nn.jit`: how often a method is traced, and that calls of one program agree."""

import jax
import jax.numpy as jnp
import numpy as np

from oracle import OURS, assert_same

KEY = jax.random.key(0)
RNGS = {"params": KEY, "dropout": jax.random.key(1)}
X = jnp.ones((2, 3))


def counting(nn):
    """A jitted module, and the list to which each trace adds."""
    traces = []

    class Layer(nn.Module):
        features: int = 3
        given: object = None

        @nn.jit
        @nn.compact
        def __call__(self, x):
            traces.append(self.features)
            x = nn.Dropout(0.5, deterministic=False)(nn.Dense(self.features)(x))
            self.sow("intermediates", "h", x)
            return x

    return Layer, traces


def test_calls_of_modules_alike_are_traced_once():
    def program(library):
        Layer, traces = counting(library.linen)
        variables = Layer().init(RNGS, X)
        counts = [len(traces)]
        for layer, x, options in (
            (Layer(), X, {}),
            (Layer(), 2 * X, {}),
            (Layer(name="other"), X, {}),
            (Layer(given={"a": [1, 2]}), X, {}),
            (Layer(given={"a": [1, 2]}), X, {}),
            (Layer(given=np.ones(3)), X, {}),
            (Layer(given=np.ones(3)), X, {}),
            (Layer(), X, {"mutable": ["intermediates"]}),
            (Layer(), X[:1], {}),
        ):
            layer.apply(variables, x, rngs={"dropout": KEY}, **options)
            counts.append(len(traces))
        return counts

    assert_same(program)


def test_a_shared_program_draws_other_keys_and_goes_on_counting():
    def program(library):
        nn = library.linen
        Layer, _ = counting(nn)

        class Net(nn.Module):
            @nn.compact
            def __call__(self, x):
                drawn = [Layer(3)(x), Layer(3)(x)]
                return drawn, jax.random.key_data(self.make_rng("dropout"))

        variables = Net().init(RNGS, X)
        outs = [
            Net().apply(variables, X, rngs={"dropout": jax.random.key(i % 2)})
            for i in range(3)
        ]
        return outs

    assert_same(program)


def test_gradients_and_other_shapes_of_a_shared_program():
    def program(library):
        Layer, _ = counting(library.linen)
        variables = Layer().init(RNGS, X)

        def loss(variables, x):
            return Layer().apply(variables, x, rngs={"dropout": KEY}).sum()

        return [jax.grad(loss)(variables, x) for x in (X, X, X[:1])]

    assert_same(program)


def test_a_function_of_a_scope_is_traced_once():
    traces = []
    core = OURS.core

    def layer(scope, x):
        traces.append(x.shape)
        return scope.param("w", jax.nn.initializers.ones, (1, 3)) * x

    jitted = core.lift.jit(layer)
    _, variables = core.init(jitted)(KEY, X)
    for _ in range(2):
        np.testing.assert_array_equal(core.apply(jitted)(variables, X), X)
    assert len(traces) == 2, "one for init, and one for both calls"


def test_tables_and_interceptors_see_every_call():
    nn = OURS.linen
    Layer, _ = counting(nn)
    seen = []

    def note(next_fun, args, kwargs, context):
        seen.append(context.method_name)
        return next_fun(*args, **kwargs)

    variables = Layer().init(RNGS, X)
    for _ in range(2):
        Layer().apply(variables, X, rngs={"dropout": KEY})
        with nn.intercept_methods(note):
            Layer().apply(variables, X, rngs={"dropout": KEY})
    assert len(seen) % 2 == 0
    assert len(seen) > 2
    table = Layer().tabulate(RNGS, X)
    assert table.count("Dense") == Layer().tabulate(RNGS, X).count("Dense") > 0
