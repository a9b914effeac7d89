"""Errors of generating, and of choosing the next token."""

from errors.case import before, case, swap

MODEL = """
        prompt = jnp.array([[1, 2], [3, 0]])
        model = nn.init(nn.Embed(7, 7), key, prompt)
"""
RUN = "nn.generate(model, prompt, max_new_tokens=2, use_cache=False, {})"


def generating(line, options):
    """A program that generates with an option of its own."""
    return f"{MODEL}        {line}\n        out = {RUN.format(options)}\n"


def added(code, options):
    """The program with the fix before its last line."""
    return before(f"out = {RUN.format(options)}", code)


CASES = [
    case(
        "LN-VALUE-06",
        "drawing without a key",
        generating("key, temperature = None, 0.7", "key=key, temperature=temperature"),
        added("assert out.tokens.shape == (2, 2)", "key=key, temperature=temperature"),
        added("assert out.tokens.shape == (2, 2)", "key=key, temperature=temperature"),
        start="generate: `temperature` was given without a `key`.",
    ),
    case(
        "LN-VALUE-06",
        "beams with a key",
        generating("num_beams = 4", "key=key, num_beams=num_beams"),
        swap("num_beams = 4", check="assert out.tokens.shape == (2, 2)"),
        added("assert out.tokens.shape == (2, 2)", "key=key, num_beams=num_beams"),
        start="generate: `num_beams=4` was given with a `key`.",
    ),
    case(
        "LN-RNG-03",
        "a seed to generate with",
        generating("key = 3", "key=key"),
        swap("key = 3", check="assert out.tokens.shape == (2, 2)"),
        start="generate: `key` is 3, not one JAX key.",
    ),
    case(
        "LN-VALUE-03",
        "temperature",
        generating("temperature = -1.0", "key=key, temperature=temperature"),
        swap("temperature = -1.0", check="assert out.tokens.shape == (2, 2)"),
        start="generate: `temperature` is -1.0, but it must be finite and at least",
    ),
    case(
        "LN-VALUE-03",
        "repetition penalty",
        generating("repetition_penalty = 0", "repetition_penalty=repetition_penalty"),
        swap("repetition_penalty = 0", check="assert out.tokens.shape == (2, 2)"),
        start="generate: `repetition_penalty` is 0, but it must be above zero.",
    ),
    case(
        "LN-VALUE-03",
        "penalty",
        """
        penalty = -1.0
        y = F.repetition_penalty(x, x > 0, penalty)
        """,
        swap("penalty = -1.0", check="assert (y == x).all()"),
        start="`penalty` is -1.0, but it must be above zero.",
    ),
    case(
        "LN-VALUE-02",
        "percent of a nucleus",
        generating("top_p = 90", "key=key, top_p=top_p"),
        swap("top_p = 90", check="assert out.tokens.shape == (2, 2)"),
        start="generate: `top_p` is 90, but it must be in (0, 1].",
    ),
    case(
        "LN-VALUE-02",
        "no nucleus",
        """
        p = 0.0
        y = F.keep_top_p(x, p)
        """,
        swap("p = 0.0", check="assert y.shape == x.shape"),
        start="`p` is 0.0, but it must be in (0, 1].",
    ),
    case(
        "LN-VALUE-01",
        "top none",
        """
        k = 0
        y = F.keep_top_k(x, k)
        """,
        swap("k = 0", check="assert (y == x).all()"),
        start="`k` is 0, but at least one logit has to be kept.",
    ),
    case(
        "LN-VALUE-04",
        "a stop token of another vocabulary",
        generating("stop_tokens = 7", "stop_tokens=stop_tokens"),
        swap("stop_tokens = 7", check="assert out.tokens.shape == (2, 2)"),
        swap("stop_tokens = 7", check="assert out.lengths.tolist() == [2, 2]"),
        start="generate: `stop_tokens` has 7, but the model knows 7 tokens.",
    ),
    case(
        "LN-VALUE-04",
        "an empty prompt among others",
        generating("lengths = jnp.array([2, 0])", "lengths=lengths"),
        added("assert out.lengths.tolist() == [2, 2]", "lengths=lengths"),
        swap(
            "lengths = jnp.array([2, 0])",
            check="assert out.lengths.tolist() == [2, 2]",
        ),
        start="generate: `lengths` holds 0, but a prompt has 1 to 2 tokens.",
    ),
    case(
        "LN-SHAPE-01",
        "one length for all prompts",
        generating("lengths = jnp.array(2)", "lengths=lengths"),
        added("assert out.lengths.tolist() == [2, 2]", "lengths=lengths"),
        start="generate: `lengths` has shape [], but [2] is needed.",
    ),
    case(
        "LN-SHAPE-01",
        "an argument for all prompts",
        """
        class Shifted(nn.Module):
            def __call__(self, tokens, shift):
                return jax.nn.one_hot(tokens, 7) + shift[:, None]
        prompt, args = jnp.array([[1, 2], [3, 0]]), (jnp.ones(7),)
        out = nn.generate(
            Shifted(), prompt, args=args, max_new_tokens=2, use_cache=False
        )
        """,
        before("out = nn.generate(", "assert out.tokens.shape == (2, 2)"),
        start="generate: `args` holds float32[7], but the first axes must be [2].",
    ),
    case(
        "LN-SHAPE-01",
        "no logits",
        """
        class Classifier(nn.Module):
            def __init__(self):
                self.embed = nn.Embed(7, 4)
                self.head = nn.Dense(7)
            def __call__(self, tokens):
                x = self.embed(tokens)
                return self.head(x.mean(1))
        prompt = jnp.array([[1, 2], [3, 0]])
        model = nn.init(Classifier(), key, prompt)
        out = nn.generate(model, prompt, max_new_tokens=2, use_cache=False)
        """,
        swap("return self.head(x.mean(1))", check="assert out.tokens.shape == (2, 2)"),
        start="generate: the model returns float32[2, 7], but logits [2, 3, V] are",
    ),
    case(
        "LN-SHAPE-01",
        "logits and more",
        """
        class Model(nn.Module):
            def __init__(self):
                self.embed = nn.Embed(7, 7)
            def __call__(self, tokens):
                return self.embed(tokens), tokens.shape[1]
        prompt = jnp.array([[1, 2], [3, 0]])
        model = nn.init(Model(), key, prompt)
        out = nn.generate(model, prompt, max_new_tokens=2, use_cache=False)
        """,
        before(
            "out = nn.generate(model, prompt, max_new_tokens=2, use_cache=False)",
            "assert out.tokens.shape == (2, 2)",
        ),
        start="generate: the model returns a tuple, but logits [2, 3, V] are needed.",
    ),
    case(
        "LN-SHAPE-01",
        "lists of different lengths",
        """
        prompt, lengths = [[1, 2], [3]], None
        model = nn.init(nn.Embed(7, 7), key, jnp.array([[1, 2]]))
        out = nn.generate(model, prompt, lengths=lengths, max_new_tokens=2, **PLAIN)
        """.replace("**PLAIN", "use_cache=False"),
        before(
            "out = nn.generate(model, prompt, lengths=lengths, max_new_tokens=2, "
            "use_cache=False)",
            "assert out.tokens.shape == (2, 2)",
        ),
        start="generate: `prompt` holds lists of 1 to 2 tokens, but an array is",
    ),
    case(
        "LN-VALUE-04",
        "a stop token as text",
        generating('stop_tokens = "."', "stop_tokens=stop_tokens"),
        swap('stop_tokens = "."', check="assert out.lengths.tolist() == [2, 2]"),
        start="generate: `stop_tokens` holds '.', but a token is an integer of at",
    ),
    case(
        "LN-VALUE-04",
        "no number",
        generating('temperature = "hot"', "key=key, temperature=temperature"),
        swap('temperature = "hot"', check="assert out.lengths.tolist() == [2, 2]"),
        start="generate: `temperature` is 'hot', but it must be one number.",
    ),
    case(
        "LN-SHAPE-02",
        "an empty prompt",
        """
        model = nn.init(nn.Embed(7, 7), key, jnp.zeros((2, 1), jnp.int32))
        prompt = jnp.zeros((2, 0), jnp.int32)
        out = nn.generate(model, prompt, max_new_tokens=2, use_cache=False)
        """,
        before(
            "out = nn.generate(model, prompt, max_new_tokens=2, use_cache=False)",
            "assert out.tokens.shape == (2, 2)",
        ),
        start="generate: `prompt` is int32[2, 0], but it must hold at least one token.",
    ),
    case(
        "LN-SHAPE-02",
        "no vocabulary",
        """
        logits = jnp.array(1.0)
        y = F.keep_top_k(logits, 1)
        """,
        before("y = F.keep_top_k(logits, 1)", "assert y.shape == (1,)"),
        start="`logits` has no axes, but the last axis must hold the vocabulary.",
    ),
    case(
        "LN-DTYPE-01",
        "counts of tokens",
        """
        seen = jnp.zeros((4, 7), jnp.int32)
        y = F.repetition_penalty(x, seen, 1.2)
        """,
        before("y = F.repetition_penalty(x, seen, 1.2)", "assert (y == x).all()"),
        start="`seen` has dtype int32, but it must hold booleans.",
    ),
    case(
        "LN-SHAPE-01",
        "tokens seen in every row",
        """
        seen = jnp.zeros(7, bool)
        y = F.repetition_penalty(x, seen, 1.2)
        """,
        before("y = F.repetition_penalty(x, seen, 1.2)", "assert (y == x).all()"),
        start="`seen` is bool[7], but `logits` are float32[4, 7].",
    ),
    case(
        "LN-CACHE-02",
        "generating without a cache",
        """
        prompt = jnp.array([[1, 2], [3, 0]])
        model = nn.init(nn.Embed(7, 7), key, prompt)
        out = nn.generate(model, prompt, max_new_tokens=4)
        """,
        swap(
            "out = nn.generate(model, prompt, max_new_tokens=4)",
            check="assert out.tokens.shape == (2, 4)",
        ),
        start="Embed: no module of the model has use for a cache.",
    ),
]
