"""Errors of a module's attributes: changing them, naming them, comparing them."""

from errors.case import before, case, instead, swap

CASES = [
    case(
        "LN-FROZEN-01",
        "array",
        """
        value = jnp.zeros(3)
        model = nn.init(nn.Dense(3), key, x)
        old = model
        model.bias = value
        """,
        instead("assert (model.bias == 0).all()"),
        instead("assert (model.bias == 0.5 * old.bias).all()"),
        start="(Dense): `bias` cannot be assigned: a model is immutable.",
    ),
    case(
        "LN-FROZEN-01",
        "in a function",
        """
        def reset(model):
            value = jnp.zeros(3)
            model.bias = value
            return model
        model = nn.init(nn.Dense(3), key, x)
        old = model
        model = reset(model)
        """,
        swap("model.bias = value", check="assert (model.bias == 0).all()"),
        swap("model.bias = value", check="assert (model.bias == 0.5 * old.bias).all()"),
        start="(Dense): `bias` cannot be assigned: a model is immutable.",
    ),
    case(
        "LN-FROZEN-01",
        "configuration",
        """
        value = 0.2
        model = nn.Dropout(0.1)
        model.rate = value
        """,
        instead("assert model.rate == 0.2"),
        start="(Dropout): `rate` cannot be assigned",
    ),
    case(
        "LN-FROZEN-01",
        "new name",
        """
        class Model(nn.Module):
            def __init__(self, value):
                self.layer = nn.Dense(3)
                self.scale = 1.0
        value = 2.0
        model = Model(value)
        model.gain = value
        """,
        swap(
            "self.scale = 1.0",
            check="assert model.gain == 2.0",
            changes={"model.gain = value": ""},
        ),
        start="(Model): `gain` cannot be assigned",
    ),
    case(
        "LN-FROZEN-01",
        "deletion",
        """
        model = nn.init(nn.Dense(3), key, x)
        del model.bias
        """,
        instead("assert model.bias is None and model(x).shape == (4, 3)"),
        start="(Dense): `bias` cannot be deleted",
    ),
    case(
        "LN-FROZEN-02",
        "dict",
        """
        class Model(nn.Module):
            def __init__(self):
                self.heads = {"old": nn.Dense(3)}
        model = Model()
        heads = model.heads
        heads["new"] = nn.Dense(2)
        """,
        instead("assert sorted(model.heads) == ['new', 'old']"),
        before('heads["new"] = nn.Dense(2)', "assert sorted(heads) == ['new', 'old']"),
        start="a dict inside a model cannot be changed in place.",
    ),
    case(
        "LN-STATIC-01",
        "set",
        """
        class Model(nn.Module):
            def __init__(self, names):
                self.names = names
        model = Model({"a", "b"})
        """,
        swap("self.names = names", check="assert model.names == {'a', 'b'}"),
        start="Model: `names` is a set, which cannot be hashed.",
    ),
    case(
        "LN-STATIC-01",
        "dataclass",
        """
        @dataclasses.dataclass
        class Config:
            width: int
        class Model(nn.Module):
            def __init__(self, config):
                self.options = {"config": config}
        model = Model(Config(3))
        """,
        swap(
            "@dataclasses.dataclass",
            check="assert model.options['config'] == Config(3)",
        ),
        start="Model: `options['config']` is a Config, which cannot be hashed.",
    ),
    case(
        "LN-STATIC-01",
        "class",
        """
        class Config:
            def __init__(self, width):
                self.width = width
            def __eq__(self, other):
                return self.width == other.width
        class Model(nn.Module):
            def __init__(self, config):
                self.config = config
        model = Model(Config(3))
        """,
        before(
            "def __init__(self, width):",
            "assert model == Model(Config(3)) != Model(Config(4))",
        ),
        start="Model: `config` is a Config, which cannot be hashed.",
    ),
    case(
        "LN-STATIC-01",
        "bytes",
        """
        class Model(nn.Module):
            def __init__(self, codes):
                self.codes = codes
        model = Model(bytearray(b"ab"))
        """,
        swap("self.codes = codes", check="assert model.codes == (97, 98)"),
        start="Model: `codes` is a bytearray, which cannot be hashed.",
    ),
    case(
        "LN-STATIC-02",
        "set",
        """
        class Model(nn.Module):
            def __init__(self, heads):
                self.heads = heads
        model = Model({nn.Dense(2), nn.Dense(3)})
        """,
        swap("self.heads = heads", check="assert len(model.heads) == 2"),
        start="Model: `heads` holds modules in a set.",
    ),
    case(
        "LN-STATIC-02",
        "generator",
        """
        class Model(nn.Module):
            def __init__(self, layers):
                self.layers = layers
        model = Model(nn.Dense(n) for n in (2, 3))
        """,
        swap("self.layers = layers", check="assert len(model.layers) == 2"),
        start="Model: `layers` is a generator.",
    ),
    case(
        "LN-STATIC-02",
        "bound method",
        """
        class Model(nn.Module):
            def __init__(self, f):
                self.f = f
        model = Model(nn.Embed(5, 3).attend)
        """,
        swap("self.f = f", check="assert isinstance(model.f, nn.Embed)"),
        start="Model: `f` is a bound method of a module.",
    ),
    case(
        "LN-STATIC-02",
        "dataclass",
        """
        @dataclasses.dataclass
        class Pair:
            first: nn.Module
        class Model(nn.Module):
            def __init__(self, pair):
                self.pair = pair
        model = Model(Pair(nn.Dense(3)))
        """,
        before("class Model(nn.Module):", "assert 'Dense' in repr(model.pair)"),
        start="Model: `pair` is a Pair with modules",
    ),
    case(
        "LN-STATIC-03",
        "taken",
        """
        class Model(nn.Module):
            def __init__(self, value):
                self.path = value
        model = Model("weights.npz")
        """,
        swap("self.path = value", check="assert model.path_ == 'weights.npz'"),
        start="Model: `path` is a name of nn.Module itself.",
    ),
    case(
        "LN-STATIC-04",
        "replace",
        """
        value = 0.2
        model = nn.Dropout(0.1)
        model = model.replace(rat=value)
        """,
        instead("assert model.rate == 0.2"),
        start="(Dropout): Dropout has no attribute `rat`.",
    ),
    case(
        "LN-STATIC-04",
        "expect",
        """
        class Scale(nn.Module):
            def __init__(self):
                self.scale = nn.param(nn.initializers.ones, (None,))
            def __call__(self, x):
                shape = x.shape[-1:]
                self.expect(scales=shape)
                return x * self.scale[None]
        model = nn.init(nn.Sequential([Scale()]), key, x)
        """,
        swap("self.expect(scales=shape)", check="assert model(x).shape == (4, 7)"),
        start="layers[0] (Scale): Scale has no attribute `scales`.",
    ),
]
