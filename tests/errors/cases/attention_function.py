"""Errors of attention as a function of arrays."""

from errors.case import before, case

GIVEN = """
queries, keys = jnp.ones((2, {length}, 4, 3)), jnp.ones((2, 7, 2, 3))
values = jnp.ones((2, 7, 2, 6))
"""
SAME = "assert y.shape == (2, {length}, 4, 6)"


def options(code, name, text, start, *, fixes=1, length=5):
    """Options that are refused, and what holds with each fix: the result is as usual.

    `text` assigns to the names of options, of which some are the mistake.
    """
    names = text.split(" = ")[0].split(", ")
    given = ", ".join(f"{option}={option}" for option in names)
    call = f"y = F.attention(queries, keys, values, {given})"
    program = f"{GIVEN.format(length=length)}{text}\n{call}"
    remedies = [before(call, SAME.format(length=length))] * fixes
    return case(code, name, program, *remedies, start=start)


def arrays(code, name, shapes, start, *results):
    """Arrays that are refused, and the shape of the result with each fix."""
    made = ", ".join(f"jnp.ones({shape})" for shape in shapes)
    call = "y = F.attention(queries, keys, values)"
    program = f"queries, keys, values = {made}\n{call}"
    remedies = [before(call, f"assert y.shape == {shape}") for shape in results]
    return case(code, name, program, *remedies, start=start)


CASES = [
    arrays(
        "LN-SHAPE-02",
        "attention without heads",
        [(5, 3), (7, 1, 3), (7, 1, 3)],
        "`queries` has 2 axes, but at least 3 are needed:",
        (5, 1, 3),
    ),
    arrays(
        "LN-SHAPE-01",
        "heads without axis",
        [(2, 5, 3), (2, 7, 3), (2, 7, 3)],
        "the 5 heads of `queries` cannot share the 7 of `keys` evenly.",
        (2, 5, 1, 3),
        (5, 2, 3),
    ),
    arrays(
        "LN-SHAPE-01",
        "heads before positions",
        [(2, 4, 5, 3), (2, 2, 7, 3), (2, 2, 7, 3)],
        "the 5 heads of `queries` cannot share the 7 of `keys` evenly.",
        (2, 5, 4, 3),
    ),
    arrays(
        "LN-SHAPE-01",
        "values of other keys",
        [(5, 4, 3), (7, 4, 3), (6, 4, 3)],
        "`values` of shape [6, 4, 3] does not go with `keys` of shape [7, 4, 3].",
        (5, 4, 3),
        (5, 4, 3),
    ),
    arrays(
        "LN-SHAPE-01",
        "queries for all examples",
        [(5, 4, 3), (2, 7, 4, 3), (2, 7, 4, 3)],
        "`keys` has leading axes [2], but `queries` has [].",
        (2, 5, 4, 3),
    ),
    arrays(
        "LN-SHAPE-01",
        "keys for all examples",
        [(2, 5, 4, 3), (7, 4, 3), (7, 4, 3)],
        "`keys` has leading axes [], but `queries` has [2].",
        (2, 5, 4, 3),
    ),
    arrays(
        "LN-SHAPE-01",
        "keys of other examples",
        [(2, 5, 4, 3), (3, 7, 4, 3), (3, 7, 4, 3)],
        "`keys` has leading axes [3], but `queries` has [2].",
        (2, 5, 4, 3),
    ),
    arrays(
        "LN-SHAPE-01",
        "heads that do not share evenly",
        [(5, 4, 3), (7, 3, 3), (7, 3, 3)],
        "the 4 heads of `queries` cannot share the 3 of `keys` evenly.",
        (5, 4, 3),
    ),
    arrays(
        "LN-SHAPE-01",
        "keys of other features",
        [(5, 4, 3), (7, 4, 6), (7, 4, 6)],
        "each head of `keys` has 6 features, but those of `queries` have 3.",
        (5, 4, 6),
    ),
    options(
        "LN-SHAPE-01",
        "mask by key",
        "mask = jnp.ones((2, 7), bool)",
        "`mask` of shape [2, 7] does not fit the logits, which are [2, 4, 5, 7].",
    ),
    options(
        "LN-SHAPE-01",
        "mask of keys and queries",
        "mask = jnp.ones((7, 5), bool)",
        "`mask` of shape [7, 5] does not fit the logits, which are [2, 4, 5, 7].",
    ),
    options(
        "LN-SHAPE-02",
        "mask by example",
        "mask = jnp.ones((2, 5, 7), bool)",
        "`mask` of shape [2, 5, 7] does not fit the logits, which are [2, 4, 5, 7].",
    ),
    options(
        "LN-SHAPE-02",
        "bias by head",
        "bias = jnp.ones((4, 5, 7))",
        "`bias` of shape [4, 5, 7] does not fit the logits, which are [2, 4, 5, 7].",
    ),
    options(
        "LN-SHAPE-02",
        "mask of one row",
        "mask = jnp.ones(7, bool)",
        "`mask` of shape [7] does not fit the logits, which are [2, 4, 5, 7].",
    ),
    options(
        "LN-DTYPE-01",
        "additive mask",
        "bias, mask = None, jnp.ones((5, 7))",
        "`mask` has dtype float32, but it must hold booleans.",
        fixes=2,
    ),
    options(
        "LN-DTYPE-01",
        "integer bias",
        "bias = jnp.ones((5, 7), int)",
        "`bias` has dtype int32, but it must be floating.",
    ),
    options(
        "LN-DTYPE-01",
        "floating segments",
        "segments, key_segments = jnp.ones(5), jnp.ones(7, int)",
        "`segments` has dtype float32, but it must hold integers.",
    ),
    options(
        "LN-SHAPE-01",
        "positions of other keys",
        "key_positions = jnp.arange(5)",
        "`key_positions` has shape [5], but [2, 7] or [7] is needed.",
    ),
    options(
        "LN-SHAPE-01",
        "segments of queries alone",
        "segments, key_segments = jnp.zeros(5, int), None",
        "`segments` are those of 5 queries, but there are 7 keys.",
    ),
    options(
        "LN-VALUE-06",
        "segments of keys alone",
        "segments, key_segments = None, jnp.zeros(7, int)",
        "`key_segments` is given, but `segments` is not.",
    ),
    options(
        "LN-VALUE-06",
        "positions of queries alone",
        "causal, positions, key_positions = True, jnp.arange(7), None",
        "`positions` is given, but `key_positions` is not.",
        fixes=2,
        length=7,
    ),
    options(
        "LN-VALUE-06",
        "window to both sides",
        "causal, window = False, 4",
        "`window=4` counts the last positions, but `causal` is False.",
        fixes=2,
    ),
    options(
        "LN-VALUE-04",
        "window of three",
        "window = (4, 4, 4)",
        "`window` is (4, 4, 4), but it must be ",
        fixes=2,
    ),
    options(
        "LN-VALUE-04",
        "learned scale",
        "scale = jnp.float32(0.3)",
        "`scale` is float32[], but it must be a number.",
    ),
    options(
        "LN-VALUE-04",
        "scale by head",
        "scale = jnp.ones(4)",
        "`scale` is float32[4], but it must be a number.",
    ),
    options(
        "LN-VALUE-03",
        "cap of zero",
        "softcap = 0.0",
        "`softcap` is 0.0, but it must be positive and finite.",
        fixes=2,
    ),
    options(
        "LN-VALUE-02",
        "percent of weights",
        "dropout_rate, key = 10, jax.random.key(0)",
        "`dropout_rate` is 10, but a probability of dropping is in [0, 1).",
    ),
    options(
        "LN-VALUE-06",
        "dropped weights without key",
        "dropout_rate, key = 0.1, None",
        "`key` is None, but a `dropout_rate` of 0.1 draws random numbers.",
        fixes=2,
    ),
    options(
        "LN-VALUE-04",
        "unknown kernel of attention",
        "kernel = 'flash'",
        "`kernel` is 'flash', but it must be one of 'auto', 'xla', 'blockwise', ",
    ),
    options(
        "LN-VALUE-06",
        "cuDNN on a CPU",
        "kernel = 'cudnn'",
        "`kernel='cudnn'` cannot be used: JAX runs on no GPU of NVIDIA here.",
    ),
    options(
        "LN-VALUE-01",
        "blocks of nothing",
        "block_size = 0",
        "`block_size` is 0, but it must be a positive integer or a pair of them.",
    ),
    case(
        "LN-VALUE-01",
        "mask of negative length",
        """
        length = -1
        mask = F.attention_mask(length)
        """,
        before("mask = F.attention_mask(length)", "assert mask is None"),
        start="`length` is -1, but it must be an integer, 0 or more.",
    ),
]
