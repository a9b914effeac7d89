"""Errors of positions."""

from errors.case import before, case, swap

CASES = [
    case(
        "LN-SHAPE-01",
        "features without a partner",
        """
        fraction = 1.0
        q = jnp.ones((4, 2, 7))
        rotary = nn.Rotary(fraction=fraction)
        y = rotary(q)
        """,
        swap("fraction = 1.0", check="assert y.shape == q.shape"),
        start="(Rotary): `fraction=1` of 7 features are 7,",
    ),
    case(
        "LN-SHAPE-02",
        "queries without heads",
        """
        x = jnp.ones((4, 8))
        y = F.rotary(x, jnp.arange(4))
        """,
        before("y = F.rotary(x, jnp.arange(4))", "assert y.shape == (4, 1, 8)"),
        start="`x` has 2 axes, but rotary embeddings need at least 3.",
    ),
    case(
        "LN-SHAPE-01",
        "positions of other tokens",
        """
        positions = jnp.arange(3)
        y = nn.Rotary().rotate(jnp.ones((2, 5, 4, 8)), positions)
        """,
        swap("positions = jnp.arange(3)", check="assert y.shape == (2, 5, 4, 8)"),
        start="(Rotary): `positions` of shape [3] does not fit `x` of shape",
    ),
    case(
        "LN-DTYPE-01",
        "a mask for positions",
        """
        positions = jnp.array([False, True, True])
        y = F.sinusoidal_position(positions, 4)
        """,
        before("y = F.sinusoidal_position(positions, 4)", "assert y.shape == (3, 4)"),
        start="`positions` has dtype bool, but it must hold real numbers.",
    ),
    case(
        "LN-VALUE-04",
        "no scaling",
        """
        scaling = 4.0
        rotary = nn.Rotary(scaling=scaling)
        """,
        swap("scaling = 4.0", check="assert rotary.scaling.factor == 2.0"),
        swap("scaling = 4.0", check="assert rotary.scaling is None"),
        start="Rotary: `scaling` is a float, which cannot tell the frequencies.",
    ),
    case(
        "LN-VALUE-02",
        "more than all features",
        """
        fraction = 2.0
        rotary = nn.Rotary(fraction=fraction)
        """,
        swap("fraction = 2.0", check="assert rotary.fraction == 1.0"),
        start="Rotary: `fraction` is 2.0, but it must be at most 1.",
    ),
    case(
        "LN-VALUE-04",
        "factor below one",
        """
        factor = 0.25
        scaling = nn.LinearScaling(factor)
        """,
        swap("factor = 0.25", check="assert scaling.factor == 1.0"),
        start="LinearScaling: `factor` is 0.25, but it must be at least 1.",
    ),
    case(
        "LN-VALUE-01",
        "original length",
        """
        original_length = 0
        scaling = nn.YaRNScaling(4.0, original_length=original_length)
        """,
        swap("original_length = 0", check="assert scaling.original_length == 8192"),
        start="YaRNScaling: `original_length` is 0,",
    ),
    case(
        "LN-VALUE-04",
        "ramp",
        """
        ramp = "linear"
        scaling = nn.YaRNScaling(4.0, original_length=4096, ramp=ramp)
        """,
        swap('ramp = "linear"', check="assert scaling.ramp == 'index'"),
        start="YaRNScaling: `ramp` is 'linear',",
    ),
    case(
        "LN-VALUE-06",
        "turns in the wrong order",
        """
        slow, fast = 4.0, 1.0
        scaling = nn.Llama3Scaling(8.0, slow=slow, fast=fast)
        """,
        swap("slow, fast = 4.0, 1.0", check="assert scaling.fast == 4.0"),
        start="Llama3Scaling: `slow` is 4.0 and `fast` is 1.0,",
    ),
    case(
        "LN-VALUE-06",
        "waves without a partner",
        """
        features = 5
        y = F.sinusoidal_position(jnp.arange(3), features)
        """,
        swap("features = 5", check="assert y.shape == (3, 6)"),
        start="`features` is 5, but it must be even and at least 2.",
    ),
    case(
        "LN-SHAPE-01",
        "waves of several axes",
        """
        x = jnp.ones((2, 3, 3, 6))
        y = nn.SinusoidalPosition(ndim=2)(x)
        """,
        before(
            "y = nn.SinusoidalPosition(ndim=2)(x)", "assert y.shape == (2, 3, 3, 8)"
        ),
        start="(SinusoidalPosition): `x` has 6 features, but a multiple of 4 is",
    ),
    case(
        "LN-SHAPE-01",
        "coordinates",
        """
        positions = jnp.arange(3)
        y = nn.SinusoidalPosition(ndim=2)(jnp.ones((3, 8)), positions)
        """,
        before(
            "y = nn.SinusoidalPosition(ndim=2)(jnp.ones((3, 8)), positions)",
            "assert y.shape == (3, 8)",
        ),
        start="(SinusoidalPosition): `positions` has shape [3], but the last axis",
    ),
    case(
        "LN-SHAPE-01",
        "longer than the table",
        """
        position = nn.LearnedPosition(5)
        x = jnp.ones((2, 6, 4))
        position = nn.init(position, key, x[:, :5])
        y = position(x)
        """,
        before("y = position(x)", "assert y.shape == (2, 5, 4)"),
        swap(
            "position = nn.LearnedPosition(5)",
            check="assert y.shape == (2, 6, 4)",
            changes={
                "position = nn.init(position, key, x[:, :5])": (
                    "position = nn.init(position, key, x)"
                )
            },
        ),
        start="(LearnedPosition): `x` has 6 positions, but the table holds 5.",
    ),
    case(
        "LN-VALUE-06",
        "a cache longer than the table",
        """
        position, max_length = nn.LearnedPosition(8), 9
        x = jnp.ones((2, 4, 6))
        model = nn.Sequential([position, nn.Attention(2, causal=True)])
        model = nn.init(model, key, x)
        model = nn.with_cache(model, 2, max_length)
        """,
        before(
            "model = nn.with_cache(model, 2, max_length)",
            "assert model.layers[0].cache is not None",
        ),
        before(
            "model = nn.Sequential([position, nn.Attention(2, causal=True)])",
            "assert model.layers[0].embedding.shape == (9, 6)",
        ),
        start="LearnedPosition: a cache for 9 tokens was asked for, but the table",
    ),
    case(
        "LN-VALUE-01",
        "heads of ALiBi",
        """
        num_heads = 0
        slopes = F.alibi_slopes(num_heads)
        """,
        swap("num_heads = 0", check="assert slopes.shape == (1,)"),
        start="`num_heads` is 0, but it must be at least 1.",
    ),
    case(
        "LN-VALUE-06",
        "buckets",
        """
        num_buckets = 3
        bias = nn.RelativeBias(4, num_buckets=num_buckets)
        """,
        swap("num_buckets = 3", check="assert bias.num_buckets == 32"),
        start="(RelativeBias): `num_buckets` is 3, but it must be an even number of",
    ),
    case(
        "LN-VALUE-06",
        "distances for the buckets",
        """
        max_distance = 8
        bias = nn.RelativeBias(4, max_distance=max_distance)
        """,
        swap("max_distance = 8", check="assert bias.max_distance == 128"),
        start="(RelativeBias): `max_distance` is 8, but distances up to 8 have a",
    ),
    case(
        "LN-SHAPE-02",
        "one position",
        """
        positions = jnp.array(4)
        bias = F.alibi_bias(2, positions, jnp.arange(5))
        """,
        before(
            "bias = F.alibi_bias(2, positions, jnp.arange(5))",
            "assert bias.shape == (2, 1, 5)",
        ),
        start="`positions` has no axes, but one position for each token is needed.",
    ),
    case(
        "LN-SHAPE-01",
        "batches of positions",
        """
        positions = jnp.zeros((2, 3))
        key_positions = jnp.zeros((4, 5))
        bias = F.alibi_bias(2, positions, key_positions)
        """,
        before(
            "bias = F.alibi_bias(2, positions, key_positions)",
            "assert bias.shape == (2, 2, 3, 5)",
        ),
        start="`positions` of shape [2, 3] and `key_positions` of shape [4, 5] have",
    ),
    case(
        "LN-SHAPE-02",
        "biases of one head",
        """
        embedding = jnp.ones(8)
        bias = F.relative_position_bias(embedding, jnp.arange(2), jnp.arange(2))
        """,
        before(
            "bias = F.relative_position_bias(embedding, jnp.arange(2), jnp.arange(2))",
            "assert bias.shape == (1, 2, 2)",
        ),
        start="`embedding` has 1 axes, but a table of biases has two.",
    ),
    case(
        "LN-SHAPE-01",
        "where queries stand",
        """
        logits = jnp.zeros((2, 1, 4))
        positions = None
        y = nn.ALiBi()(logits, positions, jnp.arange(4))
        """,
        swap("positions = None", check="assert y.shape == (2, 1, 4)"),
        start="(ALiBi): `positions` are needed where 1 queries meet 4 keys.",
    ),
    case(
        "LN-SHAPE-01",
        "bias of another batch",
        """
        positions = jnp.zeros((5, 4))
        y = nn.ALiBi()(jnp.zeros((2, 4, 4)), positions, jnp.arange(4))
        """,
        swap("positions = jnp.zeros((5, 4))", check="assert y.shape == (2, 4, 4)"),
        start="(ALiBi): a bias of shape [5, 2, 4, 4] does not fit `logits` of shape",
    ),
    case(
        "LN-SHAPE-01",
        "incomplete patch",
        """
        images = nn.init(nn.PatchEmbed(4, 4), key, jnp.ones((2, 8, 8, 3)))
        x = jnp.ones((2, 9, 8, 3))
        y = images(x)
        """,
        before("y = images(x)", "assert y.shape == (2, 3, 2, 4)"),
        before("y = images(x)", "assert y.shape == (2, 2, 2, 4)"),
        start="(PatchEmbed): spatial axes of [9, 8] are no multiples of the patch",
    ),
]
