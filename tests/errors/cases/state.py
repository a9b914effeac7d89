"""Errors of state and randomness."""

from errors.case import before, case, instead, swap

COUNTER = """
class Counter(nn.Module):
    def __init__(self):
        self.count = nn.state(0)
    def __call__(self, x):
        self.count = self.count + 1
        return x
"""

CASES = [
    case(
        "LN-STATE-01",
        "plain call",
        f"""{COUNTER}
model = nn.Sequential([Counter()])
out = model(x)
""",
        instead("assert model[0].count == 1"),
        instead("assert model[0].count == 1"),
        start="layers[0] (Counter): the state `count` was written in a plain call.",
    ),
    case(
        "LN-STATE-01",
        "captured call",
        f"""{COUNTER}
model = nn.Sequential([Counter()])
out, values = nn.capture(model, "**")(x)
""",
        instead("assert model[0].count == 1"),
        instead("assert model[0].count == 1"),
        start="layers[0] (Counter): the state `count` was written in a plain call.",
    ),
    case(
        "LN-STATE-02",
        "training",
        """
        class Last(nn.Module):
            def __init__(self):
                self.scale = 2.0
            def __call__(self, x):
                value = x * self.scale
                self.last = value
                return value
        model = nn.Sequential([Last()])
        call = nn.capture(nn.training(model), "**")
        (out, model), values = call(x)
        """,
        swap("self.last = value", check="assert out.shape == (4, 7)"),
        before("self.scale = 2.0", "assert (model[0].last == out).all()"),
        swap(
            "self.last = value", check="assert (values['layers/0/last'] == out).all()"
        ),
        start="layers[0] (Last): `last` was assigned in a call",
    ),
    case(
        "LN-STATE-02",
        "plain call",
        """
        class Last(nn.Module):
            def __init__(self):
                self.scale = 2
            def __call__(self, x):
                value = x.shape[0] * self.scale
                self.last = value
                return x * self.scale
        model = Last()
        out = model(x)
        """,
        swap("self.last = value", check="assert out.shape == (4, 7)"),
        before(
            "self.scale = 2",
            "assert model.last == 8",
            changes={"out = model(x)": "out, model = nn.stateful(model)(x)"},
        ),
        swap("self.last = value", check="assert out.shape == (4, 7)"),
        start="(Last): `last` was assigned in a call",
    ),
    case(
        "LN-STATE-03",
        "parameter",
        """
        class Shrinking(nn.Module):
            def __init__(self):
                self.scale = nn.param(nn.initializers.ones, (7,))
            def __call__(self, x):
                value = 0.5 * self.scale
                if self.training:
                    self.scale = value
                return x * self.scale[None]
        value = jnp.zeros(7)
        model = nn.init(nn.Sequential([Shrinking()]), key, x)
        out, model = nn.training(model)(x)
        """,
        swap(
            "self.scale = nn.param(nn.initializers.ones, (7,))",
            check="assert (model[0].scale == 0.0).all()",
        ),
        instead("assert (model[0].scale == 0.0).all()"),
        start="layers[0] (Shrinking): `scale` was assigned in a call, but its role is "
        "Param.",
    ),
    case(
        "LN-STATE-03",
        "constant",
        """
        class Fixed(nn.Module):
            def __init__(self):
                self.shift = nn.constant(jnp.ones(7))
            def __call__(self, x):
                value = 0 * self.shift
                self.shift = value
                return x + self.shift[None]
        value = jnp.zeros(7)
        model = Fixed()
        out = model(x)
        """,
        swap(
            "self.shift = nn.constant(jnp.ones(7))",
            check="assert (model.shift == 0).all()",
            changes={"out = model(x)": "out, model = nn.stateful(model)(x)"},
        ),
        instead("assert (model.shift == 0.0).all()"),
        start="(Fixed): `shift` was assigned in a call, but its role is Constant.",
    ),
    case(
        "LN-STATE-04",
        "shape",
        """
        class Mean(nn.Module):
            def __init__(self):
                self.mean = nn.state(nn.initializers.zeros, (4,))
            def __call__(self, x):
                value = x.mean(0)
                self.mean = value
                return x
        model = nn.init(Mean(), key, x)
        out, model = nn.training(model)(x)
        """,
        swap(
            "self.mean = nn.state(nn.initializers.zeros, (4,))",
            check="assert (model.mean == x.mean(0)).all()",
        ),
        start="(Mean): the state `mean` is float32[4], but float32[7] was written.",
    ),
    case(
        "LN-STATE-04",
        "dtype",
        """
        class Mean(nn.Module):
            def __init__(self):
                self.mean = nn.state(nn.initializers.zeros, (7,))
            def __call__(self, x):
                value = x.mean(0).astype(jnp.bfloat16)
                self.mean = value
                return x
        model = nn.init(Mean(), key, x)
        out, model = nn.training(model)(x)
        """,
        swap(
            "self.mean = value",
            check="assert model.mean.dtype == 'float32' and (model.mean > 1).all()",
        ),
        swap(
            "self.mean = nn.state(nn.initializers.zeros, (7,))",
            check="assert model.mean.dtype == 'bfloat16' and (model.mean > 1).all()",
        ),
        start="(Mean): the state `mean` is float32[7], but bfloat16[7] was written.",
    ),
    case(
        "LN-STATE-04",
        "number",
        """
        class Mean(nn.Module):
            def __init__(self):
                self.mean = nn.state(nn.initializers.zeros, (7,))
            def __call__(self, x):
                value = 0.5
                self.mean = value
                return x
        model = nn.init(Mean(), key, x)
        out, model = nn.training(model)(x)
        """,
        swap("self.mean = value", check="assert (model.mean == 0.5).all()"),
        start="(Mean): the state `mean` is float32[7], but float was written.",
    ),
    case(
        "LN-STATE-05",
        "dropped",
        """
        def loss_fn(model):
            out, _ = nn.training(model, key)(x)
            return out.sum()
        model = nn.init(nn.BatchNorm(), key, x)
        old = model
        loss, grads = nn.value_and_grad(loss_fn)(model)
        """,
        instead("assert (model.mean != old.mean).all() and grads.scale.shape == (7,)"),
        instead("assert (model.mean == old.mean).all() and grads.scale.shape == (7,)"),
        start="BatchNorm: the updated model was dropped in the loss function",
    ),
    case(
        "LN-STATE-05",
        "another aux",
        """
        def loss_fn(model):
            out, model = nn.training(model, key)(x)
            return out.sum(), out
        model = nn.init(nn.BatchNorm(), key, x)
        old = model
        (loss, out), grads = jax.jit(nn.value_and_grad(loss_fn, has_aux=True))(model)
        """,
        instead("assert (model.mean != old.mean).all() and grads.scale.shape == (7,)"),
        instead("assert (model.mean == old.mean).all() and grads.scale.shape == (7,)"),
        start="BatchNorm: the updated model was dropped in the loss function",
    ),
    case(
        "LN-RNG-01",
        "plain call",
        """
        class Noise(nn.Module):
            def __call__(self, x):
                return x + jax.random.normal(self.rng("noise"), x.shape)
        model = nn.Sequential([Noise()])
        out = model(x)
        """,
        instead("assert (out != x).any()"),
        instead("assert (out != x).any()"),
        start="layers[0] (Noise): randomness (stream 'noise') was asked for",
    ),
    case(
        "LN-RNG-02",
        "no key",
        """
        model = nn.Sequential([nn.Dropout(0.5)])
        out, model = nn.training(model)(x)
        """,
        instead("assert (out == 0).any()"),
        start="layers[0] (Dropout): the random stream 'dropout' was asked for without",
    ),
    case(
        "LN-RNG-02",
        "other stream",
        """
        class Noise(nn.Module):
            def __call__(self, x):
                return x + jax.random.normal(self.rng("noise"), x.shape)
        model = nn.Sequential([nn.Dropout(0.5), Noise()])
        out, model = nn.training(model, {"dropout": key})(x)
        """,
        instead("assert (out != x).all()"),
        instead("assert (out != x).all()"),
        start="layers[1] (Noise): the random stream 'noise' was not given a key, only "
        "'dropout'.",
    ),
    case(
        "LN-RNG-02",
        "sampling",
        """
        class Noise(nn.Module):
            def __call__(self, x):
                return x + jax.random.normal(self.rng(), x.shape)
        model = Noise()
        out, model = nn.stateful(model)(x)
        """,
        instead("assert (out != x).all()"),
        start="(Noise): the random stream 'default' was asked for without any key.",
    ),
    case(
        "LN-RNG-03",
        "seed",
        """
        model = nn.Dropout(0.5)
        key = 7
        out, model = nn.training(model, key)(x)
        """,
        swap("key = 7", check="assert (out == 0).any()"),
        start="the key is 7, not one JAX key.",
    ),
    case(
        "LN-RNG-03",
        "many keys",
        """
        model = nn.Dropout(0.5)
        key = jax.random.split(key, 2)
        out, model = nn.stateful(model, train=True, rngs={"dropout": key})(x)
        """,
        before(
            'out, model = nn.stateful(model, train=True, rngs={"dropout": key})(x)',
            "assert (out == 0).any()",
        ),
        swap("key = jax.random.split(key, 2)", check="assert (out == 0).any()"),
        start="the key of stream 'dropout' is key<fry>[2], not one JAX key.",
    ),
]
