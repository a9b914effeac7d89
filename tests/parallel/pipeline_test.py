"""A pipeline is the stack that it divides."""

import jax
import jax.numpy as jnp
import pytest

from helpers import assert_close, normal
from linnet import nn, parallel

X = normal((8, 3, 6))


def made(depth, **options):
    block = nn.TransformerBlock(nn.Attention(2, causal=True), nn.MLP(8))
    return nn.init(nn.Stack(block, depth, **options), jax.random.key(0), X)


@pytest.mark.parametrize(
    ("sizes", "microbatches", "repeats", "remat"),
    [
        ({"stage": 4}, 4, 1, False),
        ({"data": 2, "stage": 2}, 8, 1, True),
        ({"data": 2, "stage": 2}, 1, 1, False),
        ({"stage": 2, "data": 2}, 2, 2, False),
        ({"stage": 4}, 8, 2, False),
    ],
)
def test_outputs_and_gradients_are_those_of_the_stack(
    sizes, microbatches, repeats, remat
):
    stack = made(8, remat=remat)
    mesh = parallel.make_mesh(**sizes)
    weight = normal(X.shape, 1)

    def whole(stack, x):
        return (stack(x) * weight).sum()

    def piped(stack, x):
        y = parallel.pipeline(
            stack, x, mesh=mesh, microbatches=microbatches, repeats=repeats
        )
        return (y * weight).sum()

    found = jax.jit(jax.value_and_grad(piped, (0, 1)))(stack, X)
    expected = jax.jit(jax.value_and_grad(whole, (0, 1)))(stack, X)
    assert_close(found[0], expected[0], rtol=1e-5)
    # Gradients are of the order of one: what sums in another order change.
    assert_close(nn.to_paths(found[1][0]), nn.to_paths(expected[1][0]), atol=4e-5)
    assert_close(found[1][1], expected[1][1], atol=4e-5)


def test_under_data_parallelism_the_batch_stays_divided():
    mesh = parallel.make_mesh(data=2, stage=2)
    with parallel.use(mesh, parallel.data_parallel()):
        stack = made(2)
        x = jax.device_put(X, parallel.shardings(X, axes=("batch",)))
        y = jax.jit(lambda s, x: parallel.pipeline(s, x, microbatches=2))(stack, x)
    assert_close(y, made(2)(X), atol=1e-5)


def test_what_does_not_divide_is_refused():
    mesh, stack = parallel.make_mesh(stage=4), made(4)
    call = parallel.pipeline
    with pytest.raises(nn.ConfigError, match="LN-PIPE-01"):
        call(stack, X, axis="pipe", microbatches=2, mesh=mesh)
    with pytest.raises(nn.ConfigError, match="LN-PIPE-02"):
        call(nn.Sequential([]), X, microbatches=2, mesh=mesh)
    for options in ({"microbatches": 3}, {"microbatches": 4, "repeats": 2}):
        with pytest.raises(nn.ConfigError, match="LN-PIPE-03"):
            call(stack, X, mesh=mesh, **options)


class Counts(nn.Module):
    def __init__(self):
        self.drop = nn.Dropout(0.5)

    def __call__(self, x):
        return self.drop(x)


def test_a_pipeline_inside_of_a_training_call_is_refused():
    class Model(nn.Module):
        def __init__(self):
            self.stack = nn.Stack(Counts(), 4)

        def __call__(self, x):
            mesh = parallel.make_mesh(stage=4)
            return parallel.pipeline(self.stack, x, microbatches=2, mesh=mesh)

    model = Model()
    assert_close(model(X), X)
    with pytest.raises(nn.ScopeError):
        nn.training(model, jax.random.key(0))(jnp.ones((4, 2)))
