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
]
