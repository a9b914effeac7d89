"""generate: greedy, drawn and by beams, with a cache and without, and its refusals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, DTypeError, InitError, ShapeError
from linnet.testing import log_compiles

KEY = jax.random.key(0)
SPREAD = nn.initializers.normal(1.0)
SIZE = 7
PROMPT = jnp.array([[1, 2, 3, 4], [6, 5, 0, 0], [3, 3, 1, 0]])
LENGTHS = jnp.array([4, 2, 3])


class Block(nn.Module):
    def __init__(self, window):
        rotary = nn.Rotary()
        self.attention = nn.Attention(2, causal=True, window=window, position=rotary)

    def __call__(self, x):
        return x + self.attention(x)


class Transformer(nn.Module):
    def __init__(self, window=None):
        self.embed = nn.Embed(SIZE, 8, embedding_init=SPREAD)
        self.blocks = nn.Stack(Block(window), 2)
        self.head = nn.Dense(SIZE, kernel_init=SPREAD)

    def __call__(self, tokens):
        return self.head(self.blocks(self.embed(tokens)))


class Total(nn.Module):
    """A cache of one's own."""

    def __init__(self, rows, features):
        self.index = nn.CacheIndex(rows)
        axes = ("batch", None)
        self.sum = nn.state(jnp.zeros((rows, features)), role=nn.Cache, axes=axes)

    def add(self, x):
        taken = self.index.takes(self.index.take(x.shape[1]))
        sums = self.sum[:, None] + (x * taken[..., None]).cumsum(1)
        self.sum = sums[:, -1]
        return sums


class Sum(nn.Module):
    """A layer of one's own that has use for a cache: the sum of all tokens so far."""

    def __init__(self, features):
        self.features = features
        self.cache = None

    def with_cache(self, batch_size, max_length, dtype=None):
        return self.replace(cache=Total(batch_size, self.features))

    def __call__(self, x):
        return jnp.tanh(x.cumsum(1) if self.cache is None else self.cache.add(x))


def summing():
    return nn.Sequential(
        [
            nn.Embed(SIZE, 8, embedding_init=SPREAD),
            nn.Stack(nn.Sequential([nn.Dense(8), Sum(8)]), 2),
            nn.Dense(SIZE, kernel_init=SPREAD),
        ]
    )


def made(model, prompt=PROMPT):
    return nn.init(model, KEY, prompt)


MODELS = {
    "attention": made(Transformer()),
    "window": made(Transformer(window=2)),
    "own": made(summing()),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


def bigram(logits):
    """A model whose next token depends on the last one only."""
    return nn.Embed(*logits.shape).replace(embedding=jnp.asarray(logits))


plain = jax.jit(lambda model, tokens: model(tokens))


def logits_after(model, tokens):
    """One full pass, of tokens padded to a length for which there is a program."""
    padded = jnp.array([tokens + [0] * (9 - len(tokens))])
    return np.asarray(plain(model, padded)[0, len(tokens) - 1], np.float64)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum())


def alone(model, prompt, count):
    """The likeliest tokens, one full pass each, in plain Python."""
    tokens, log_probs = list(prompt), []
    for _ in range(count):
        logits = logits_after(model, tokens)
        tokens.append(int(logits.argmax()))
        log_probs.append(log_softmax(logits)[tokens[-1]])
    return np.array(tokens[len(prompt) :]), np.array(log_probs)


# ---- greedy


def test_with_and_without_a_cache_it_takes_the_likeliest_tokens(model):
    rows = [alone(model, row, 5) for row in PROMPT.tolist()]
    tokens, log_probs = map(np.stack, zip(*rows, strict=True))
    for use_cache in (True, False):
        out = nn.generate(model, PROMPT, max_new_tokens=5, use_cache=use_cache)
        assert_close(out.tokens, tokens)
        assert_close(out.log_probs, log_probs, atol=1e-5)
        assert_close(out.scores, log_probs.sum(1), atol=1e-5)
        assert_close(out.lengths, np.full(3, 5))


def test_padded_prompts_go_on_as_each_alone(model):
    for use_cache in (True, False):
        out = nn.generate(
            model, PROMPT, lengths=LENGTHS, max_new_tokens=5, use_cache=use_cache
        )
        for i, length in enumerate(LENGTHS.tolist()):
            tokens, log_probs = alone(model, PROMPT[i, :length].tolist(), 5)
            assert_close(out.tokens[i], tokens)
            assert_close(out.log_probs[i], log_probs, atol=1e-5)


@pytest.mark.slow
def test_any_number_of_batch_axes(model):
    whole = nn.generate(model, PROMPT, max_new_tokens=3)
    one = nn.generate(model, PROMPT[1], max_new_tokens=3)
    assert_close(one, jax.tree.map(lambda x: x[1], whole))
    two = nn.generate(model, PROMPT[:2, None], max_new_tokens=3)
    assert_close(two, jax.tree.map(lambda x: x[:2, None], whole))
    none = nn.generate(model, PROMPT[:0], max_new_tokens=3)
    assert none.tokens.shape == (0, 3)
    assert none.scores.shape == (0,)


CYCLE = bigram(10 * np.roll(np.eye(5), 1, 1))  # 0 1 2 3 4 0 1 ...
PLAIN = {"use_cache": False}


def test_stop_tokens_end_rows_and_the_loop():
    prompt = jnp.array([[0], [2], [3]])
    out = nn.generate(
        CYCLE, prompt, max_new_tokens=4, stop_tokens=(3, 4), pad_token=9, **PLAIN
    )
    expected = [[1, 2, 3, 9], [3, 9, 9, 9], [4, 9, 9, 9]]
    assert out.tokens.tolist() == expected
    assert out.lengths.tolist() == [3, 1, 1]
    assert_close(out.log_probs[1:, 1:], np.zeros((2, 3)))
    assert nn.generate(
        CYCLE, prompt, max_new_tokens=4, stop_tokens=3, **PLAIN
    ).lengths.tolist() == [3, 1, 4]


def test_the_loop_ends_with_the_last_row():
    class Counting(nn.Module):
        def __call__(self, tokens):
            jax.debug.callback(lambda: calls.append(1))
            return jax.nn.one_hot((tokens + 1) % 5, 5)

    calls = []
    out = nn.generate(
        Counting(), jnp.array([0]), max_new_tokens=50, stop_tokens=3, **PLAIN
    )
    jax.effects_barrier()
    assert int(out.lengths) == 3
    assert len(calls) == 3


def test_repetition_is_penalised_in_prompt_and_continuation():
    table = np.tile(np.array([[3.0, 2.9, 2.8, -1.0]]), (4, 1))
    out = nn.generate(
        bigram(table), jnp.array([1, 3]), max_new_tokens=3, repetition_penalty=1.2,
        **PLAIN,
    )  # fmt: skip
    assert out.tokens.tolist() == [0, 2, 0]
    padded = nn.generate(
        bigram(table), jnp.array([3, 0]), lengths=jnp.array(1), max_new_tokens=1,
        repetition_penalty=1.2, **PLAIN,
    )  # fmt: skip
    assert padded.tokens.tolist() == [0]


# ---- drawn


def frequencies(key, **options):
    """How often each token follows token 0, of 4000 rows."""
    prompt = jnp.zeros((4000, 1), jnp.int32)
    out = nn.generate(
        bigram(TABLE), prompt, max_new_tokens=1, key=key, **PLAIN, **options
    )
    return np.bincount(out.tokens[:, 0], minlength=6) / 4000


TABLE = np.tile(np.array([[2.0, 1.0, 0.5, 0.0, -0.5, -1.0]]), (6, 1))


def kept(keep, temperature=1.0):
    p = np.exp(TABLE[0] / temperature) * keep
    return p / p.sum()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, kept(np.ones(6))),
        ({"temperature": 0.5}, kept(np.ones(6), 0.5)),
        ({"top_k": 2}, kept([1, 1, 0, 0, 0, 0])),
        ({"top_p": 0.8}, kept([1, 1, 1, 0, 0, 0])),
        ({"min_p": 0.2}, kept([1, 1, 1, 0, 0, 0])),
        ({"temperature": 0.5, "top_k": 3, "min_p": 0.1}, kept([1, 1, 0, 0, 0, 0], 0.5)),
    ],
)
def test_tokens_are_drawn_with_their_probabilities(options, expected):
    found = frequencies(KEY, **options)
    assert_close(found, expected, rtol=0, atol=0.03)
    assert (found[expected == 0] == 0).all()


def test_what_a_row_draws_depends_on_the_key_alone():
    def drawn(prompt, key, **options):
        return nn.generate(
            MODELS["attention"], prompt, max_new_tokens=6, key=key, **options
        ).tokens

    whole = drawn(PROMPT, KEY)
    assert_close(drawn(PROMPT, KEY), whole)
    assert_close(drawn(PROMPT[:1], KEY), whole[:1])
    assert_close(drawn(PROMPT, KEY, **PLAIN), whole)
    assert (drawn(PROMPT, jax.random.key(1)) != whole).any()
    greedy = nn.generate(MODELS["attention"], PROMPT, max_new_tokens=6).tokens
    assert_close(drawn(PROMPT, KEY, temperature=0.0), greedy)
    assert_close(drawn(PROMPT, KEY, top_k=1), greedy)


# ---- beams


def continuations(table, first, count, stops):
    """Every continuation of a bigram model with its log-probability."""
    log_probs = np.log(np.exp(table) / np.exp(table).sum(1, keepdims=True))
    for length in range(1, count + 1):
        for tokens in itertools.product(range(len(table)), repeat=length):
            is_ended = tokens[-1] in stops
            if not any(t in stops for t in tokens[:-1]) and (
                is_ended or length == count
            ):
                pairs = itertools.pairwise((first, *tokens))
                yield tokens, sum(log_probs[a, b] for a, b in pairs)


@pytest.mark.parametrize("stops", [(), (2,), (0, 3)])
@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.5, -0.5])
def test_enough_beams_find_the_best_of_all_continuations(stops, penalty):
    table = np.asarray(normal((4, 4)), np.float64) * 2
    found = nn.generate(
        bigram(table), jnp.array([[1], [2]]), max_new_tokens=3, num_beams=64,
        length_penalty=penalty, stop_tokens=stops, all_beams=True, **PLAIN,
    )  # fmt: skip
    for row, first in enumerate([1, 2]):
        every = {
            tokens: log_prob / len(tokens) ** penalty
            for tokens, log_prob in continuations(table, first, 3, stops)
        }
        lengths = found.lengths[row].tolist()
        rows = zip(np.asarray(found.tokens[row]), lengths, strict=True)
        beams = [tuple(tokens[:length].tolist()) for tokens, length in rows if length]
        assert len(set(beams)) == len(beams) == min(len(every), 64)
        scores = found.scores[row, : len(beams)]
        best = np.sort([*every.values()])[::-1][: len(beams)]
        assert_close(scores, best, atol=1e-5)
        assert_close(scores, np.array([every[tokens] for tokens in beams]), atol=1e-5)


def beams_in_python(model, prompt, count, width, stops, penalty):
    """Beam search as a textbook has it, with full passes and lists."""
    live, ended = [(0.0, [])], []
    for _ in range(count):
        candidates = []
        for score, tokens in live:
            own = log_softmax(logits_after(model, [*prompt, *tokens]))
            candidates += [(score + p, [*tokens, t]) for t, p in enumerate(own)]
        candidates.sort(key=lambda c: -c[0])
        for score, tokens in candidates[:width]:
            if tokens[-1] in stops:
                ended.append((score / len(tokens) ** penalty, tokens))
        live = [c for c in candidates if c[1][-1] not in stops][:width]
    ended += [(score / count**penalty, tokens) for score, tokens in live]
    return sorted(ended, key=lambda c: -c[0])[:width]


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_few_beams_follow_the_textbook(model, use_cache):
    options = {"num_beams": 3, "stop_tokens": (1, 4), "use_cache": use_cache}
    out = nn.generate(
        model, PROMPT, lengths=LENGTHS, max_new_tokens=4, all_beams=True, **options
    )
    best = nn.generate(model, PROMPT, lengths=LENGTHS, max_new_tokens=4, **options)
    assert_close(best, jax.tree.map(lambda x: x[:, 0], out))
    for row, length in enumerate(LENGTHS.tolist()):
        prompt = PROMPT[row, :length].tolist()
        expected = beams_in_python(model, prompt, 4, 3, (1, 4), 1.0)
        for beam, (score, tokens) in enumerate(expected):
            assert out.tokens[row, beam, : len(tokens)].tolist() == tokens
            assert_close(out.scores[row, beam], score, atol=1e-5)
            total = out.log_probs[row, beam].sum() / len(tokens)
            assert_close(total, score, atol=1e-5)


def test_one_beam_is_greedy():
    model = MODELS["own"]
    greedy = nn.generate(model, PROMPT, max_new_tokens=4)
    out = nn.generate(model, PROMPT, max_new_tokens=4, all_beams=True, num_beams=1)
    assert_close(out.tokens[:, 0], greedy.tokens)


def test_beams_know_which_tokens_each_has():
    table = np.tile(np.array([[3.0, 2.9, 2.8, -1.0]]), (4, 1))
    out = nn.generate(
        bigram(table), jnp.array([3]), max_new_tokens=3, num_beams=4,
        repetition_penalty=9.0, **PLAIN,
    )  # fmt: skip
    assert sorted(out.tokens.tolist()) == [0, 1, 2]


# ---- models with more arguments, methods, compilation


class Translator(nn.Module):
    def __init__(self):
        self.embed = nn.Embed(SIZE, 8, embedding_init=SPREAD)
        self.attention = nn.Attention(2, causal=True)
        self.cross = nn.Attention(2)
        self.head = nn.Dense(SIZE, kernel_init=SPREAD)

    def __call__(self, tokens, source):
        return self.decode(tokens, source)

    def decode(self, tokens, source):
        x = self.attention(self.embed(tokens))
        return self.head(x + self.cross(x, source))


def test_a_method_with_more_arguments_generates_too():
    source = normal((3, 2, 8))
    model = nn.init(Translator(), KEY, PROMPT, source)
    for options in ({}, {"num_beams": 2}):
        out = nn.generate(
            model.decode, PROMPT, args=(source,), max_new_tokens=3, **options
        )
        for i in range(3):
            one = nn.generate(
                model, PROMPT[i], args=(source[i],), max_new_tokens=3, **options
            )
            assert_close(one, jax.tree.map(lambda x, i=i: x[i], out), atol=1e-5)


def test_it_compiles_once_for_all_weights_keys_and_numbers():
    model = MODELS["attention"]

    def run(model, key, temperature, top_p):
        return nn.generate(
            model, PROMPT, lengths=LENGTHS, max_new_tokens=3, key=key,
            temperature=temperature, top_p=top_p,
        )  # fmt: skip

    run(model, KEY, 0.9, 0.8)
    other = jax.tree.map(lambda x: x + 0.01, model)
    key = jax.random.key(5)
    with log_compiles() as compiled:
        run(other, key, 0.5, 0.9)
    assert not compiled


def test_it_works_inside_of_jit():
    model = MODELS["attention"]

    @jax.jit
    def run(model, prompt, lengths, key):
        return nn.generate(
            model, prompt, lengths=lengths, max_new_tokens=3, key=key, top_k=3
        )

    options = {"lengths": LENGTHS, "max_new_tokens": 3, "key": KEY, "top_k": 3}
    assert_close(
        run(model, PROMPT, LENGTHS, KEY), nn.generate(model, PROMPT, **options)
    )
    out = run(model, PROMPT, jnp.array([4, 0, 9]), KEY)
    assert np.isnan(np.asarray(out.scores)).tolist() == [False, True, True]
    assert out.lengths.tolist() == [3, 0, 0]
    assert out.tokens[1:].tolist() == [[0] * 3] * 2


def test_the_model_stays_as_it_was():
    model = made(Transformer())
    cached = nn.with_cache(model, 3, 4)
    assert_close(
        nn.generate(cached, PROMPT, max_new_tokens=2),
        nn.generate(model, PROMPT, max_new_tokens=2),
    )
    assert model == made(Transformer())
    _, caches = nn.partition(cached, nn.Param)
    assert all((x == 0).all() or x.dtype == jnp.int32 for x in jax.tree.leaves(caches))


def test_lists_and_arrays_of_numbers_are_taken():
    model = MODELS["own"]
    out = nn.generate(model, [[1, 2], [3, 0]], lengths=[2, 1], max_new_tokens=2)
    again = nn.generate(
        model, np.array([[1, 2], [3, 0]]), lengths=np.array([2, 1]), max_new_tokens=2,
        stop_tokens=jnp.array([], int), repetition_penalty=jnp.array(1.0),
    )  # fmt: skip
    assert_close(out, again)


def test_samples_side_by_side_by_vmap():
    model, keys = MODELS["own"], jax.random.split(KEY, 3)

    def run(key):
        return nn.generate(model, PROMPT, max_new_tokens=2, key=key)

    out = jax.vmap(run)(keys)
    assert_close(jax.tree.map(lambda x: x[2], out), run(keys[2]), atol=1e-5)


def test_low_precision_generates():
    model = nn.cast(MODELS["attention"], jnp.bfloat16)
    out = nn.generate(model, PROMPT, max_new_tokens=3, cache_dtype=jnp.bfloat16)
    assert out.log_probs.dtype == jnp.float32
    assert np.isfinite(np.asarray(out.log_probs)).all()


# ---- refusals


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"max_new_tokens": 0}, ConfigError, "`max_new_tokens` is 0"),
        ({"temperature": 0.7}, ConfigError, "`temperature` was given without a"),
        ({"top_k": 5}, ConfigError, "`top_k` was given without a `key`"),
        ({"key": KEY, "temperature": -1.0}, ConfigError, "`temperature` is -1.0"),
        ({"key": KEY, "top_k": 0}, ConfigError, "`top_k` is 0"),
        ({"key": KEY, "top_p": 90}, ConfigError, "`top_p` is 90"),
        ({"key": KEY, "min_p": 0.0}, ConfigError, "`min_p` is 0.0"),
        ({"key": KEY, "num_beams": 2}, ConfigError, "`num_beams=2` was given"),
        ({"key": 3}, ConfigError, "`key` is 3, not one JAX key"),
        ({"num_beams": 0}, ConfigError, "`num_beams` is 0"),
        ({"repetition_penalty": 0.0}, ConfigError, "`repetition_penalty` is 0.0"),
        ({"stop_tokens": "."}, ConfigError, "`stop_tokens` holds '.'"),
        ({"stop_tokens": [1, -1]}, ConfigError, "`stop_tokens` holds -1"),
        ({"key": KEY, "temperature": "hot"}, ConfigError, "`temperature` is 'hot'"),
        ({"length_penalty": jnp.ones(2)}, ConfigError, "`length_penalty` is float32"),
        ({"stop_tokens": SIZE}, ConfigError, "`stop_tokens` has 7, but the model"),
        ({"lengths": jnp.array([4, 5, 1])}, ConfigError, "`lengths` holds 5"),
        ({"lengths": jnp.array([4, 0, 1])}, ConfigError, "`lengths` holds 0"),
        ({"lengths": jnp.array(4)}, ShapeError, "`lengths` has shape"),
        ({"lengths": jnp.ones(3)}, DTypeError, "`lengths` has dtype float32"),
        ({"args": (jnp.ones(2),)}, ShapeError, "`args` holds float32"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, error, text):
    options = {"max_new_tokens": 2} | options
    with pytest.raises(error) as caught:
        nn.generate(MODELS["attention"], PROMPT, **options)
    assert str(caught.value).startswith(f"generate: {text}")


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        (jnp.ones((2, 3)), DTypeError),
        (jnp.array(3), ShapeError),
        (jnp.zeros((2, 0), int), ShapeError),
        ([[1, 2], [3]], ShapeError),
    ],
)
def test_prompts_that_are_none_are_refused(prompt, error):
    with pytest.raises(error, match="generate: `prompt`"):
        nn.generate(MODELS["attention"], prompt, max_new_tokens=2)


def test_models_that_cannot_generate_are_refused():
    with pytest.raises(InitError):
        nn.generate(Transformer(), PROMPT, max_new_tokens=2)
    with pytest.raises(ConfigError, match="LN-CALL-01"):
        nn.generate(lambda tokens: tokens, PROMPT, max_new_tokens=2)
    with pytest.raises(ConfigError, match="no module of the model has use"):
        nn.generate(CYCLE, PROMPT, max_new_tokens=2)
    with pytest.raises(ShapeError, match="generate: the model returns int32"):
        nn.generate(nn.Sequential([]), PROMPT, max_new_tokens=2, **PLAIN)
