"""Errors of layers that are put in the place of others."""

from errors.case import before, case, instead, swap

MODEL = """
model = nn.init(nn.Sequential([nn.Dense(3), nn.LayerNorm()]), key, x)
"""
ADAPTED = "assert list(nn.select(model, nn.LoRAParam))[0] == 'layers/0/lora_a'"

CASES = [
    case(
        "LN-WHERE-03",
        "no layer that can be adapted",
        MODEL
        + """
where = nn.LayerNorm
model = nn.lora(model, where, 2, 4.0, key)
""",
        swap("where = nn.LayerNorm", check=ADAPTED),
        start="layers/1: `where` selects a LayerNorm, which is no layer that",
    ),
    case(
        "LN-WHERE-03",
        "nothing that can be adapted",
        """
        model = nn.init(nn.Sequential([nn.LayerNorm()]), key, x)
        model = nn.lora(model, "**", 2, 4.0, key)
        """,
        instead("assert model(x).shape == (4, 7)"),
        start="Sequential: `where` selects a Sequential, which holds no layer that",
    ),
    case(
        "LN-WHERE-03",
        "adapted before",
        MODEL
        + """
model = nn.lora(model, nn.Dense, 2, 4.0, key)
model = nn.lora(model, nn.Dense, 1, 4.0, key)
""",
        before("model = nn.lora(model, nn.Dense, 1, 4.0, key)", check=ADAPTED),
        start="layers/0/base: this Dense has been adapted before.",
    ),
    case(
        "LN-WHERE-03",
        "tied",
        """
        class LM(nn.Module):
            def __init__(self):
                self.embed = nn.Embed(5, 3)
                self.hidden = nn.Dense(3)
                self.head = nn.Dense(5, use_bias=False)
            def __call__(self, ids):
                return self.head(self.hidden(self.embed(ids)))
        model = nn.tie(LM(), {"head/kernel": ("embed/embedding", jnp.transpose)})
        model = nn.init(model, key, jnp.array([0]))
        where = nn.Dense
        model = nn.lora(model, where, 2, 4.0, key)
        """,
        swap(
            "where = nn.Dense",
            check="assert list(nn.params(model).hidden.lora_a.shape) == [3, 2]",
        ),
        start="head: this Dense shares an array by `nn.tie`",
    ),
    case(
        "LN-WHERE-03",
        "a kernel that is computed",
        """
        model = nn.Sequential([nn.Dense(3), nn.WeightNorm(nn.Dense(3))])
        model = nn.init(model, key, x)
        where = nn.Dense
        model = nn.lora(model, where, 2, 4.0, key)
        """,
        swap("where = nn.Dense", check=ADAPTED),
        start="layers/1/layer: this Dense is inside a WeightNorm",
    ),
    case(
        "LN-WHERE-03",
        "groups",
        """
        layers = [nn.Conv(4, (3,)), nn.Conv(4, (3,), feature_group_count=2)]
        model = nn.init(nn.Sequential(layers), key, x)
        where = nn.Conv
        model = nn.lora(model, where, 2, 4.0, key)
        """,
        swap("where = nn.Conv", check=ADAPTED),
        start="layers/1: a Conv with a `feature_group_count` cannot be adapted.",
    ),
    case(
        "LN-WHERE-03",
        "mask",
        """
        mask = jnp.tri(3, dtype=bool)
        model = nn.Sequential([nn.Dense(3), nn.Dense(3, mask=mask)])
        model = nn.init(model, key, x)
        where = nn.Dense
        model = nn.lora(model, where, 2, 4.0, key)
        """,
        swap("where = nn.Dense", check=ADAPTED),
        start="layers/1: a Dense with a `mask` cannot be adapted.",
    ),
    case(
        "LN-VALUE-06",
        "rank",
        MODEL
        + """
rank = 8
model = nn.lora(model, nn.Dense, rank, 4.0, key)
""",
        swap("rank = 8", check=ADAPTED),
        start="layers/0: `rank` is 8, but the Dense here maps 7 features to 3.",
    ),
    case(
        "LN-WHERE-04",
        "no adapters",
        MODEL
        + """
model = nn.merge_lora(model)
""",
        instead("assert model(x).shape == (4, 3)"),
        start="Sequential: the model has no adapters that could be merged.",
    ),
    case(
        "LN-WHERE-03",
        "no layer that can be quantised",
        MODEL
        + """
where = nn.LayerNorm
small = nn.quantize(model, where)
""",
        swap("where = nn.LayerNorm", check="assert small[0].kernel.dtype == 'int8'"),
        start="layers/1: `where` selects a LayerNorm, which is no layer that can be q",
    ),
    case(
        "LN-WHERE-03",
        "quantised before",
        MODEL
        + """
model = nn.quantize(model, nn.Dense)
model = nn.quantize(model, nn.Dense, "float8_e4m3fn")
""",
        before(
            'model = nn.quantize(model, nn.Dense, "float8_e4m3fn")',
            check="assert model[0].kernel.dtype == 'float8_e4m3fn'",
        ),
        start="layers/0: this QuantizedDense has been quantised before.",
    ),
    case(
        "LN-WHERE-03",
        "merged into eight bits",
        MODEL
        + """
old = model
model = nn.lora(nn.quantize(model, nn.Dense), nn.Dense, 2, 4.0, key)
model = nn.merge_lora(model)
""",
        instead("assert jax.tree.structure(model) == jax.tree.structure(old)"),
        start="layers/0: the adapter cannot be folded into a QuantizedDense.",
    ),
    case(
        "LN-WHERE-04",
        "nothing quantised",
        MODEL
        + """
model = nn.dequantize(model)
""",
        instead("assert model(x).shape == (4, 3)"),
        start="Sequential: no layer of the model is quantised.",
    ),
    case(
        "LN-TREE-01",
        "quantisation error",
        MODEL
        + """
quantized = nn.quantize(model, nn.Dense)
model = nn.Sequential([nn.LayerNorm(), nn.LayerNorm()])
model = nn.init(model, key, x)
report = nn.quantization_error(model, quantized)
""",
        before(
            "report = nn.quantization_error(model, quantized)",
            check="assert report['layers/0'].weight == 0",
        ),
        start="layers/0: the other model has no Dense here.",
    ),
    case(
        "LN-VALUE-04",
        "dtype of eight bits",
        MODEL
        + """
dtype = "int7"
small = nn.quantize(model, nn.Dense, dtype)
""",
        swap('dtype = "int7"', check="assert small[0].kernel.dtype == 'int8'"),
        swap('dtype = "int7"', check="assert small[0].kernel.dtype == 'float8_e4m3fn'"),
        start="`dtype` is 'int7', but it must be one of",
    ),
    case(
        "LN-VALUE-06",
        "block size",
        """
        model = nn.init(nn.Sequential([nn.Dense(3)]), key, jnp.ones((4, 6)))
        block_size = 4
        small = nn.quantize(model, nn.Dense, block_size=block_size)
        """,
        swap("block_size = 4", check="assert small[0].scale.shape == (3, 3)"),
        swap("block_size = 4", check="assert small[0].scale.shape == (1, 3)"),
        start="layers/0: `block_size` is 4, which does not divide the size 6",
    ),
    case(
        "LN-VALUE-06",
        "blocks of several axes",
        """
        model = nn.Sequential([nn.Conv(3, (2,)), nn.Dense(4)])
        model = nn.init(model, key, x)
        where = "**"
        block_size = 1
        small = nn.quantize(model, where, block_size=block_size)
        """,
        swap("block_size = 1", check="assert small[0].kernel.dtype == 'int8'"),
        swap('where = "**"', check="assert small[1].scale.shape == (3, 4)"),
        start="layers/0: `block_size` is 1, but a Conv has one scale for each",
    ),
    case(
        "LN-SHAPE-01",
        "scale of a quantised array",
        """
        q = jnp.ones((4, 6), jnp.int8)
        scale = jnp.ones((3, 1))
        y = F.dequantize(q, scale)
        """,
        swap("scale = jnp.ones((3, 1))", check="assert y.shape == (4, 6)"),
        start="`scale` of shape [3, 1] does not fit",
    ),
    case(
        "LN-SHAPE-01",
        "one scale of a quantised array",
        """
        q = jnp.ones((4, 6), jnp.int8)
        scale = jnp.ones(())
        y = F.dequantize(q, scale)
        """,
        before("y = F.dequantize(q, scale)", check="assert y.shape == (4, 6)"),
        start="`scale` of shape [] does not fit",
    ),
    case(
        "LN-SHAPE-01",
        "quantised kernel",
        """
        q, scale = F.quantize(jnp.ones((4, 3)))
        y = F.quantized_dense(x, q, scale)
        """,
        before("y = F.quantized_dense(x, q, scale)", check="assert y.shape == (7, 3)"),
        start="`x` of shape [4, 7] cannot be multiplied by the quantised `kernel`",
    ),
    case(
        "LN-DTYPE-01",
        "quantise",
        """
        x = jnp.ones((4, 3), jnp.complex64)
        q, scale = F.quantize(x)
        """,
        before("q, scale = F.quantize(x)", check="assert q.dtype == jnp.int8"),
        start="`x` has dtype complex64, but it must be floating.",
    ),
    case(
        "LN-WHERE-03",
        "no layer for fp8",
        MODEL
        + """
where = nn.LayerNorm
model = nn.fp8(model, where)
""",
        swap("where = nn.LayerNorm", check="assert type(model[0]) is nn.Fp8Dense"),
        start="layers/1: `where` selects a LayerNorm, which is no layer that",
    ),
    case(
        "LN-SHAPE-01",
        "kernel in fp8",
        """
        kernel = jnp.ones((4, 3))
        y = F.fp8_dense(x, kernel, x_scale=1.0, kernel_scale=1.0)
        """,
        before(
            "y = F.fp8_dense(x, kernel, x_scale=1.0, kernel_scale=1.0)",
            check="assert y.shape == (7, 3)",
        ),
        start="`x` of shape [4, 7] cannot be multiplied in fp8",
    ),
]
