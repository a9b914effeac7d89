"""Recurrent layers that keep their carries between calls."""

import jax
import jax.numpy as jnp
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, ScopeError, ShapeError

KEY = jax.random.key(0)
X = normal((2, 7, 4))
MODELS = {
    "LSTM": lambda: nn.RNN(nn.LSTMCell(3)),
    "layers": lambda: nn.Sequential([nn.RNN(nn.GRUCell(4)), nn.RNN(nn.LSTMCell(4))]),
    "Stack": lambda: nn.Stack(nn.RNN(nn.SimpleCell(4)), 2),
    "RGLRU": lambda: nn.RGLRU(num_blocks=2),
    "S5": lambda: nn.S5(3),
}


def made(name):
    return nn.init(MODELS[name](), KEY, X)


def pieces(model, x, sizes):
    """What a cached model gives for one piece after another."""
    out, start = [], 0
    for size in sizes:
        y, model = nn.stateful(model)(x[:, start : start + size])
        out.append(y)
        start += size
    return jnp.concatenate(out, 1), model


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_one_piece_after_another_is_the_whole(name):
    model = made(name)
    cached = nn.with_cache(model, 2, 7)
    assert_close(pieces(cached, X, [3, 1, 1, 2])[0], model(X), atol=1e-5)
    assert nn.without_cache(cached) == model


@pytest.mark.parametrize("name", MODELS)
def test_prompts_of_different_lengths_go_on_where_they_are(name):
    model = made(name)
    lengths = jnp.array([2, 4])
    cached = nn.limit_cache(nn.with_cache(model, 2, 7), lengths)
    _, cached = nn.stateful(cached)(X[:, :4])
    cached = nn.limit_cache(cached, None)
    rest = jnp.stack([X[0, 2:5], X[1, 4:7]])
    y, _ = nn.stateful(cached)(rest)
    assert_close(y, jnp.stack([model(X)[0, 2:5], model(X)[1, 4:7]]), atol=1e-5)


def test_rows_may_change_places():
    model = made("LSTM")
    _, cached = pieces(nn.with_cache(model, 2, 7), X, [4])
    swapped = nn.reorder_cache(cached, jnp.array([1, 0]))
    y, _ = nn.stateful(swapped)(X[::-1, 4:])
    assert_close(y[::-1], model(X)[:, 4:], atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.RNN(nn.GRUCell(3), reverse=True),
        lambda: nn.Bidirectional(nn.GRUCell(3)),
        lambda: nn.RGLRU(reverse=True),
    ],
)
def test_a_layer_that_goes_backwards_cannot_go_on(layer):
    cached = nn.with_cache(nn.init(layer(), KEY, X), 2, 7)
    with pytest.raises(ConfigError, match=r"goes backwards.*LN-CACHE-01"):
        nn.stateful(cached)(X)


@pytest.mark.parametrize("name", ["LSTM", "S5"])
def test_other_calls_of_a_cached_model_are_refused(name):
    cached = nn.with_cache(made(name), 2, 7)
    with pytest.raises(ScopeError, match="LN-CACHE-01"):
        cached(X)
    with pytest.raises(ShapeError, match="the cache has 2 rows"):
        nn.stateful(cached)(X[:1])


def test_what_has_no_cache_is_refused_and_the_fix_works():
    x = normal((2, 3, 5, 1))
    model = nn.init(nn.RNN(nn.ConvLSTMCell(2, (3,))), KEY, x)
    with pytest.raises(ConfigError, match=r"a cell of images.*LN-CACHE-02") as caught:
        nn.with_cache(model, 2, 7)
    scope = {"model": model, "x": x}
    exec(caught.value.fixes[0][1], scope)
    assert scope["out"].shape == (2, 3, 5, 2)
