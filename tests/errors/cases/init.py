"""Errors of making a model's arrays, and of using a model that has none."""

from errors.case import before, case, instead, swap

TRAINS = "assert out.shape == (4, 7)"

CASES = [
    case(
        "LN-INIT-01",
        "call",
        """
        model = nn.Dense(3)
        out = model(x)
        """,
        before("out = model(x)", "assert out.shape == (4, 3)"),
        start="(Dense): `kernel`",
    ),
    case(
        "LN-INIT-01",
        "jit",
        """
        model = nn.Sequential([nn.Dense(3), nn.Dense(2)])
        out = jax.jit(lambda model, x: model(x))(model, x)
        """,
        before(
            "out = jax.jit(lambda model, x: model(x))(model, x)",
            "assert out.shape == (4, 2)",
        ),
        start="layers[0] (Dense): `kernel`",
    ),
    case(
        "LN-INIT-01",
        "training",
        """
        model = nn.Sequential([nn.Dropout(0.5), nn.BatchNorm()])
        out, model = nn.training(model, key)(x)
        """,
        before("out, model = nn.training(model, key)(x)", TRAINS),
        start="layers[1] (BatchNorm): ",
    ),
    case(
        "LN-INIT-01",
        "read",
        """
        model = nn.Dense(3)
        shape = model.kernel.shape
        """,
        before("shape = model.kernel.shape", "assert shape == (7, 3)"),
        before("shape = model.kernel.shape", "assert shape == (7, 3)"),
        start="(Dense): `kernel`",
    ),
    case(
        "LN-INIT-01",
        "parameters",
        """
        model = nn.Sequential([nn.Dense(3)])
        opt_state = optax.adam(0.1).init(nn.params(model))
        """,
        before(
            "opt_state = optax.adam(0.1).init(nn.params(model))",
            "assert opt_state[0].mu[0].kernel.shape == (7, 3)",
        ),
        start="Sequential: `layers[0].kernel`",
    ),
    case(
        "LN-INIT-02",
        "module",
        """
        class TwoHeads(nn.Module):
            def __init__(self):
                self.body = nn.Dense(7)
                self.head = nn.Dense(3)
            def __call__(self, x):
                return self.body(x)
        model = TwoHeads()
        model = nn.init(model, key, x)
        """,
        instead("assert model.head(x).shape == (4, 3)"),
        instead("assert model.head(x).shape == model(x)[:, :3].shape"),
        before(
            "model = nn.init(model, key, x)",
            "assert model.head is None and model(x).shape == (4, 7)",
        ),
        start="TwoHeads: the sample never reached 2",
    ),
    case(
        "LN-INIT-02",
        "some of a list",
        """
        class Heads(nn.Module):
            def __init__(self):
                self.heads = [nn.Dense(3), nn.Dense(4), nn.Dense(5)]
            def __call__(self, x):
                return self.heads[1](x)
        model = Heads()
        model = nn.init(model, key, x)
        """,
        instead("assert [h(x).shape[1] for h in model.heads] == [3, 4, 5]"),
        instead("assert [h(x).shape[1] for h in model.heads] == [3, 4, 5]"),
        before("model = nn.init(model, key, x)", "assert model(x).shape == (4, 4)"),
        start="Heads: the sample never reached 4 of the parameters: heads[0].kernel",
    ),
    case(
        "LN-INIT-02",
        "parameter",
        """
        class Scaled(nn.Module):
            def __init__(self):
                self.scale = nn.param(nn.initializers.ones, (7,))
            def __call__(self, x):
                return x
            def other_method(self, x):
                return x * self.scale[None]
        model = Scaled()
        model = nn.init(model, key, x)
        """,
        instead("assert model.other_method(x).shape == (4, 7)"),
        swap(
            "self.scale = nn.param(nn.initializers.ones, (7,))",
            check="assert model(x) is x and nn.to_paths(model) == {}",
        ),
        start="Scaled: the sample never reached 1 of the parameters: scale.",
    ),
    case(
        "LN-INIT-03",
        "seed",
        """
        key = 42
        model = nn.init(nn.Dense(3), key, x)
        """,
        swap("key = 42", check="assert model(x).shape == (4, 3)"),
        start="`key` is 42, not one JAX key.",
    ),
    case(
        "LN-INIT-03",
        "many keys",
        """
        key = jax.random.split(key, 3)
        model = nn.init(nn.Dense(3), key, x)
        """,
        before(
            "model = nn.init(nn.Dense(3), key, x)", "assert model.bias.shape == (3,)"
        ),
        swap("key = jax.random.split(key, 3)", check="assert model.bias.shape == (3,)"),
        start="`key` is key<fry>[3], not one JAX key.",
    ),
    case(
        "LN-INIT-04",
        "again",
        """
        model = nn.init(nn.Dense(3), key, x)
        key = jax.random.key(1)
        old = model
        model = nn.init(model, key, x)
        """,
        instead("assert (model.kernel != old.kernel).all()"),
        instead("assert out.shape == (4, 3)"),
        start="Dense: every array of the model",
    ),
    case(
        "LN-INIT-05",
        "read first",
        """
        class Scale(nn.Module):
            def __init__(self, features):
                self.kernel = nn.param(nn.initializers.ones, (None, 4))
            def __call__(self, x):
                x = x + 1
                return x @ self.kernel
        model = nn.Sequential([Scale(7)])
        model = nn.init(model, key, x)
        """,
        before("return x @ self.kernel", "assert model(x).shape == (4, 4)"),
        swap(
            "self.kernel = nn.param(nn.initializers.ones, (None, 4))",
            check="assert model(x).shape == (4, 4)",
        ),
        start="layers[0] (Scale): `kernel` was read",
    ),
    case(
        "LN-INIT-06",
        "unassigned",
        """
        class Norm(nn.Module):
            def __init__(self):
                self.scale = nn.param(nn.from_data, (7,))
            def __call__(self, x):
                return x * self.scale[None]
        x = jax.random.normal(key, (4, 7))
        model = nn.init(Norm(), key, x)
        """,
        before(
            "return x * self.scale[None]", "assert jnp.allclose(model(x).std(0), 1.0)"
        ),
        start="(Norm): `scale` starts from data",
    ),
    case(
        "LN-INIT-07",
        "shapes only",
        """
        class Norm(nn.Module):
            def __init__(self):
                self.scale = nn.param(nn.from_data, (7,))
            def __call__(self, x):
                if self.initializing:
                    self.scale = 1 / x.max(0)
                return x * self.scale[None]
        model = Norm()
        sample = jax.ShapeDtypeStruct((4, 7), jnp.float32)
        model = nn.init(model, key, sample)
        """,
        instead("assert jnp.allclose(model(x), 1.0)"),
        instead("assert model.scale == jax.ShapeDtypeStruct((7,), jnp.float32)"),
        start="Norm: an array starts from data",
    ),
    case(
        "LN-INIT-08",
        "assigned",
        """
        class Norm(nn.Module):
            def __init__(self):
                self.scale = nn.param(nn.initializers.ones, (7,))
            def __call__(self, x):
                if self.initializing:
                    self.scale = 1 / x.max(0)
                return x * self.scale[None]
        model = nn.init(Norm(), key, x)
        """,
        swap(
            "self.scale = nn.param(nn.initializers.ones, (7,))",
            check="assert jnp.allclose(model(x), 1.0)",
        ),
        swap(
            "self.scale = nn.param(nn.initializers.ones, (7,))",
            check="assert (model.scale == 0).all()",
        ),
        start="(Norm): `scale` was assigned while initialising",
    ),
    case(
        "LN-INIT-09",
        "scan",
        """
        class Norm(nn.Module):
            def __init__(self):
                self.scale = nn.param(nn.from_data, (7,))
            def __call__(self, x):
                if self.initializing:
                    self.scale = 1 / x.max(0)
                return x * self.scale[None]
        class Model(nn.Module):
            def __init__(self):
                self.block = Norm()
            def __call__(self, x):
                y = jax.checkpoint(lambda x: self.block(x))(x)
                return y
        model = nn.init(Model(), key, x)
        """,
        swap(
            "y = jax.checkpoint(lambda x: self.block(x))(x)",
            check="assert jnp.allclose(model(x), 1.0)",
        ),
        start="block (Norm): `scale` cannot start from data",
    ),
    case(
        "LN-INIT-10",
        "shape",
        """
        def initializer(key, shape, dtype):
            return jnp.zeros(())
        class Shift(nn.Module):
            def __init__(self, init):
                self.shift = nn.param(init, (7,))
            def __call__(self, x):
                return x + self.shift[None]
        model = nn.init(Shift(initializer), key, x)
        """,
        before(
            "model = nn.init(Shift(initializer), key, x)",
            "assert len(set(model.shift.tolist())) == 7",
        ),
        start="the initialiser initializer returned float32[]",
    ),
    case(
        "LN-SHARE-01",
        "module",
        """
        class Model(nn.Module):
            def __init__(self):
                self.a = nn.Dense(7)
                self.b = self.a
            def __call__(self, x):
                h = self.a(x)
                y = self.b(x)
                return h + y
        model = Model()
        model = nn.init(model, key, x)
        """,
        swap(
            "self.b = self.a",
            check="assert (model.a.kernel != model.b.kernel).any()",
        ),
        swap(
            "y = self.b(x)",
            changes={"self.b = self.a": ""},
            check="assert list(nn.to_paths(model)) == ['a/kernel', 'a/bias']",
        ),
        before(
            "model = nn.init(model, key, x)",
            "assert list(nn.to_paths(model)) == ['a/kernel', 'a/bias']\n"
            "assert (model.a.kernel == model.b.kernel).all()",
        ),
        start="b: the same Dense is at `a` and at `b`.",
    ),
    case(
        "LN-SHARE-01",
        "nested",
        """
        class Tower(nn.Module):
            def __init__(self, norm):
                self.norm = norm
            def __call__(self, x):
                return self.norm(x)
        norm = nn.BatchNorm()
        model = nn.Sequential([Tower(norm), Tower(norm)])
        model = nn.init(model, key, x)
        """,
        before(
            "model = nn.init(model, key, x)",
            "assert len(nn.to_paths(model)) == 8",
        ),
        before(
            "model = nn.init(model, key, x)",
            "assert len(nn.to_paths(model)) == 4",
        ),
        start="layers[1].norm: the same BatchNorm is at `layers[0].norm`",
    ),
    case(
        "LN-SHARE-01",
        "array",
        """
        w = jnp.ones((7, 7))
        class Model(nn.Module):
            def __init__(self):
                self.u = nn.param(w)
                self.v = nn.param(w)
            def __call__(self, x):
                array = self.v
                return x @ self.u @ array
        model = Model()
        model = nn.init(model, key, x)
        """,
        swap("self.v = nn.param(w)", check="assert model.u is not model.v"),
        swap(
            "array = self.v",
            changes={"self.v = nn.param(w)": ""},
            check="assert list(nn.to_paths(model)) == ['u']",
        ),
        before(
            "model = nn.init(model, key, x)", "assert list(nn.to_paths(model)) == ['u']"
        ),
        start="v: the same float32[7, 7] is at `u` and at `v`.",
    ),
    case(
        "LN-INIT-11",
        "stack",
        """
        from linnet.compat.flax import linen

        class Block(linen.Module):
            @linen.compact
            def __call__(self, x, _=None):
                return linen.Dense(7)(x), None
        block, depth = linen.Dense(7), 2
        model = nn.Stack(nn.from_linen(block), depth)
        model = nn.init(model, key, x)
        """,
        swap(
            "model = nn.Stack(nn.from_linen(block), depth)",
            check="assert model(x).shape == x.shape",
        ),
        swap(
            "model = nn.Stack(nn.from_linen(block), depth)",
            check="assert model(x)[0].shape == x.shape",
        ),
        start="block (FromLinen): the arrays of a Linen module",
    ),
    case(
        "LN-LINEN-01",
        "linen",
        """
        from linnet import interop
        from linnet.compat.flax import linen

        layer = interop.to_linen(linen.Dense(8))
        variables = layer.init(key, x)
        """,
        swap(
            "layer = interop.to_linen(linen.Dense(8))",
            check="assert variables['params']['kernel'].shape == (7, 8)",
        ),
        start="Dense is no module of Linnet.",
    ),
]
