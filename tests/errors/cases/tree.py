"""Errors of paths, patterns and trees."""

from errors.case import before, case, instead, swap

MODEL = """
model = nn.init(nn.Sequential([nn.Dense(3), nn.Dense(2)]), key, x)
"""

CASES = [
    case(
        "LN-PATH-01",
        "select",
        MODEL
        + """
pattern = "layers/0/kernl"
old = model
model = nn.select(model, pattern).map(jnp.zeros_like)
""",
        swap(
            'pattern = "layers/0/kernl"',
            check="assert (model[0].kernel == 0).all() and model[1] == old[1]",
        ),
        swap(
            'pattern = "layers/0/kernl"',
            check="assert (model[1].kernel == 0).all() and model[0] == old[0]",
        ),
        start="the pattern 'layers/0/kernl' matches nothing.",
    ),
    case(
        "LN-PATH-01",
        "capture",
        MODEL
        + """
pattern = "layer/1"
out, values = nn.capture(model, pattern)(x)
""",
        swap('pattern = "layer/1"', check="assert (values['layers/1'] == out).all()"),
        swap('pattern = "layer/1"', check="assert values['layers/0'].shape == (4, 3)"),
        start="the pattern 'layer/1' matches nothing.",
    ),
    case(
        "LN-PATH-01",
        "nothing there",
        """
        class Identity(nn.Module):
            def __call__(self, x):
                return x
        model = Identity()
        pattern = "hidden"
        out, values = nn.capture(model, pattern)(x)
        """,
        swap('pattern = "hidden"', check="assert (values[''] == out).all()"),
        start="the pattern 'hidden' matches nothing.",
    ),
    case(
        "LN-PATH-01",
        "module type",
        MODEL
        + """
pattern = nn.Conv
model = nn.select(model, pattern).map_modules(nn.describe)
""",
        swap("pattern = nn.Conv", check="assert model[0] == nn.Dense(3)"),
        swap("pattern = nn.Conv", check="assert model[1] == nn.Dense(2)"),
        start="the pattern 'Conv' matches nothing.",
    ),
    case(
        "LN-PATH-01",
        "tolerance",
        MODEL
        + """
pattern = "layer/1"
mapping = {p: v for p, v in nn.to_paths(model).items() if "bias" not in p}
new = nn.from_paths(model, mapping, missing=("**/bias", pattern))
""",
        swap('pattern = "layer/1"', check="assert new == model"),
        swap('pattern = "layer/1"', check="assert new == model"),
        start="the pattern 'layer/1' matches nothing.",
    ),
    case(
        "LN-PATH-02",
        "slash",
        """
        key = "a/kernel"
        class Model(nn.Module):
            def __init__(self, key):
                layers = {key: nn.param(jnp.ones(2)), "a": nn.Dense(2)}
                self.layers = layers
        model = nn.init(Model(key), jax.random.key(0), x, method=lambda m, x: (
            m.layers["a"](x), m.layers))
        flat = nn.to_paths(model)
        """,
        before("class Model(nn.Module):", "assert 'layers/a_kernel' in flat"),
        start="two arrays have the path 'layers/a/kernel'.",
    ),
    case(
        "LN-PATHS-01",
        "several",
        MODEL
        + """
mapping = nn.to_paths(model)
mapping["head/kernel"] = mapping.pop("layers/1/kernel")
mapping["layers/0/bias"] = jnp.ones(9)
model = nn.from_paths(model, mapping)
""",
        instead("assert model[0].bias.shape == (3,)"),
        start="Sequential: the mapping does not fit the model: missing, unexpected, "
        "shape.",
    ),
    case(
        "LN-PATHS-01",
        "dtype",
        MODEL
        + """
mapping = jax.tree.map(lambda a: a.astype(jnp.bfloat16), nn.to_paths(model))
model = nn.from_paths(model, mapping)
""",
        instead("assert model[0].bias.dtype == 'float32'"),
        start="Sequential: the mapping does not fit the model: dtype.",
    ),
    case(
        "LN-PATHS-01",
        "tied",
        """
        layers = [nn.Dense(7), nn.Dense(7)]
        ties = {"layers/1/kernel": "layers/0/kernel"}
        model = nn.init(nn.tie(nn.Sequential(layers), ties), key, x)
        mapping = nn.to_paths(model)
        mapping["layers/1/kernel"] = jnp.ones((7, 7))
        model = nn.from_paths(model, mapping)
        """,
        instead("assert len(nn.to_paths(model)) == 3"),
        start="Sequential: the mapping does not fit the model: tied.",
    ),
    case(
        "LN-TIE-01",
        "chain",
        """
        model = nn.Sequential([nn.Dense(7), nn.Dense(7), nn.Dense(7)])
        ties = {
            "layers/2/kernel": "layers/1/kernel", "layers/1/kernel": "layers/0/kernel"}
        model = nn.tie(model, ties)
        """,
        before(
            "model = nn.tie(model, ties)",
            "model = nn.init(model, key, x)\n"
            "assert (model[2].kernel == model[0].kernel).all()",
        ),
        start="Sequential: the source 'layers/1/kernel' is tied itself.",
    ),
    case(
        "LN-TIE-01",
        "circle",
        """
        model = nn.Sequential([nn.Dense(7), nn.Dense(7)])
        ties = {
            "layers/0/bias": "layers/1/bias", "layers/1/bias": "layers/0/bias"}
        model = nn.tie(model, ties)
        """,
        before(
            "model = nn.tie(model, ties)",
            "model = nn.init(model, key, x)\nassert len(nn.to_paths(model)) == 3",
        ),
        start="Sequential: the source 'layers/1/bias' is tied itself.",
    ),
    case(
        "LN-TREE-01",
        "merge",
        """
        model = nn.init(nn.LayerNorm(), key, x)
        other = nn.init(nn.LayerNorm(epsilon=0.1), key, x)
        parameters, rest = nn.params(other), nn.partition(model, nn.Param)[1]
        model = nn.merge(rest, parameters)
        """,
        instead("assert model.scale.shape == (7,)"),
        instead("assert (model.scale == other.scale).all() and model.epsilon != 0.1"),
        start="LayerNorm: the trees belong to different models: they differ at "
        "`epsilon`.",
    ),
    case(
        "LN-TREE-01",
        "updates",
        """
        model = nn.init(nn.Sequential([nn.Dense(3)]), key, x)
        other = nn.init(nn.Sequential([nn.Dense(3, use_bias=False)]), key, x)
        loss_fn = lambda model: model(x).sum()
        tx, old = optax.sgd(1.0), model
        updates = nn.grad(loss_fn)(other)
        model = nn.apply_updates(model, updates)
        """,
        before(
            "model = nn.apply_updates(model, updates)",
            "assert (model[0].bias == old[0].bias - 4).all()",
        ),
        start="Sequential: the trees belong to different models: they differ at "
        "`layers[0]`.",
    ),
    case(
        "LN-TREE-02",
        "twice",
        """
        model = nn.init(nn.Dense(3), key, x)
        old = model
        model = nn.merge(nn.params(model), model)
        """,
        instead("assert model == old"),
        start="2 of the trees hold an array at `kernel`.",
    ),
    case(
        "LN-TREE-03",
        "width",
        """
        model = nn.init(nn.Sequential([nn.Dense(3)]), key, x)
        other = nn.init(nn.Sequential([nn.Dense(3)]), key, x[:, :5])
        loss_fn = lambda model: model(x).sum()
        tx = optax.sgd(1.0)
        updates = nn.params(other)
        model = nn.apply_updates(model, updates)
        """,
        before(
            "model = nn.apply_updates(model, updates)",
            "assert model[0].kernel.shape == (7, 3)",
        ),
        start="layers[0].kernel: the update is float32[5, 3], its array float32[7, 3].",
    ),
    case(
        "LN-TREE-04",
        "set",
        MODEL
        + """
where = "layers/0/kernel"
model = nn.select(model, where).set(jnp.ones(3))
""",
        instead("assert (model[0].kernel == 0).all()"),
        start="layers/0/kernel: float32[3] cannot take the place of float32[7, 3].",
    ),
    case(
        "LN-WHERE-01",
        "arrays",
        MODEL
        + """
where = 0
found = list(nn.select(model, where))
""",
        swap("where = 0", check="assert len(found) == 4"),
        swap("where = 0", check="assert len(found) == 2"),
        swap("where = 0", check="assert len(found) == 4"),
        start="0 is no role, pattern, type of module or predicate.",
    ),
    case(
        "LN-WHERE-01",
        "values",
        MODEL
        + """
where = 0
out, values = nn.capture(model, where)(x)
""",
        swap(
            "where = 0", check="assert sorted(values) == ['', 'layers/0', 'layers/1']"
        ),
        swap("where = 0", check="assert sorted(values) == ['layers/0', 'layers/1']"),
        start="0 is no pattern, type of module or predicate.",
    ),
    case(
        "LN-WHERE-02",
        "role",
        MODEL
        + """
f = jnp.zeros_like
model = nn.select(model, nn.Param).map_modules(f)
""",
        swap(
            "model = nn.select(model, nn.Param).map_modules(f)",
            check="assert (model[0].kernel == 0).all()",
        ),
        start="Param is a role, which arrays have, not modules.",
    ),
]
