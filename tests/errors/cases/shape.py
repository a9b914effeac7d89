"""Errors of shapes and dtypes: of inputs, of parameters, of the mathematics."""

from errors.case import before, case, instead, swap

CASES = [
    case(
        "LN-SHAPE-01",
        "features elsewhere",
        """
        class Block(nn.Module):
            def __init__(self):
                self.hidden = nn.Dense(7)
            def __call__(self, x):
                return self.hidden(x)
        model = nn.init(nn.Sequential([Block()]), key, x)
        x = x.T
        out = model(x)
        """,
        before("out = model(x)", "assert out.shape == (4, 7)"),
        before("out = model(x)", "assert out.shape == (7, 7)"),
        start="layers[0].hidden (Dense): `kernel` is float32[7, 7], but this input "
        "needs [4, 7].",
    ),
    case(
        "LN-SHAPE-01",
        "another width",
        """
        class Block(nn.Module):
            def __init__(self):
                self.hidden = nn.Dense(3, in_features=7)
            def __call__(self, x):
                return self.hidden(x)
        model = nn.init(Block(), key, x)
        x = jnp.ones((2, 5))
        out = model(x)
        """,
        swap(
            "self.hidden = nn.Dense(3, in_features=7)",
            check="assert out.shape == (7, 3)",
            changes={
                "model = nn.init(Block(), key, x)": "",
                "x = jnp.ones((2, 5))": "x = x.T; model = nn.init(Block(), key, x)",
            },
        ),
        start="hidden (Dense): `kernel` is float32[7, 3], but this input needs [5, 3].",
    ),
    case(
        "LN-SHAPE-01",
        "own module",
        """
        class Scale(nn.Module):
            def __init__(self):
                self.scale = nn.param(nn.initializers.ones, (None,))
            def __call__(self, x):
                self.expect(scale=(x.shape[-1],))
                return x * self.scale[None]
        model = nn.init(Scale(), key, x)
        out, model = nn.training(model)(x[:, :5])
        """,
        before(
            "out, model = nn.training(model)(x[:, :5])",
            "assert out.shape == (4, 5)",
            changes={
                "model = nn.init(Scale(), key, x)": "model = Scale(); x = x[:, :5]"
            },
        ),
        start="(Scale): `scale` is float32[7], but this input needs [5].",
    ),
    case(
        "LN-SHAPE-01",
        "product of arrays",
        """
        kernel = jnp.ones((4, 3))
        y = F.dense(x, kernel)
        """,
        before("y = F.dense(x, kernel)", "assert y.shape == (7, 3)"),
        start="`x` of shape [4, 7] cannot be multiplied by `kernel`",
    ),
    case(
        "LN-SHAPE-01",
        "bias",
        """
        bias = jnp.ones((1, 3))
        y = F.dense(x, jnp.ones((7, 3)), bias)
        """,
        before("y = F.dense(x, jnp.ones((7, 3)), bias)", "assert y.shape == (4, 3)"),
        start="`bias` has shape [1, 3], but [3] is needed.",
    ),
    case(
        "LN-SHAPE-01",
        "vector of a norm",
        """
        scale = jnp.ones(4)
        y = F.layer_norm(x, scale)
        """,
        before("y = F.layer_norm(x, scale)", "assert y.shape == (4, 7)"),
        start="`scale` has shape [4], but [7] is needed.",
    ),
    case(
        "LN-SHAPE-01",
        "attend",
        """
        embedding = jnp.ones((5, 4))
        y = F.attend(x, embedding)
        """,
        before("y = F.attend(x, embedding)", "assert y.shape == (7, 5)"),
        start="`x` of shape [4, 7] cannot be scored",
    ),
    case(
        "LN-SHAPE-01",
        "convolution",
        """
        kernel = jnp.ones((1, 4, 3))
        y = F.conv(x, kernel)
        """,
        before("y = F.conv(x, kernel)", "assert y.shape == (7, 3)"),
        start="`x` has 7 features, but `kernel` takes 4.",
    ),
    case(
        "LN-SHAPE-01",
        "mask",
        """
        mask = jnp.array([True, True, False, True])
        model = nn.init(nn.BatchNorm(), key, x)
        out = nn.training(model)(x, mask=mask)
        """,
        before(
            "out = nn.training(model)(x, mask=mask)", "assert out[0].shape == (4, 7)"
        ),
        start="(BatchNorm): `mask` of shape [4] does not fit `x` of shape [4, 7].",
    ),
    case(
        "LN-SHAPE-02",
        "scalar",
        """
        model = nn.init(nn.Sequential([nn.Dense(3)]), key, x[:, :1])
        x = jnp.array(1.0)
        out = model(x)
        """,
        before("out = model(x)", "assert out.shape == (3,)"),
        start="layers[0] (Dense): `x` has 0 axes, but must have at least 1.",
    ),
    case(
        "LN-SHAPE-02",
        "own module",
        """
        class Rows(nn.Module):
            def __call__(self, x):
                self.check_input(x, ndim=2)
                return x.sum(0)
        model = Rows()
        x = jnp.ones((2, 3, 4))
        out = model(x)
        """,
        before("out = model(x)", "assert out.shape == (4,)"),
        start="(Rows): `x` has 3 axes, but must have 2.",
    ),
    case(
        "LN-SHAPE-02",
        "axis",
        """
        axis = (0, 5)
        y = F.layer_norm(x, axis=axis)
        """,
        before("y = F.layer_norm(x, axis=axis)", "assert y.shape == (4, 7)"),
        start="`axis=(0, 5)` does not name distinct axes of an array that has 2.",
    ),
    case(
        "LN-SHAPE-02",
        "window",
        """
        y = F.max_pool(x, (2, 2))
        """,
        before("y = F.max_pool(x, (2, 2))", "assert y.shape == (2, 3, 1)"),
        start="`x` has 2 axes, but a window of 2 needs at least 3.",
    ),
    case(
        "LN-SHAPE-02",
        "kernel",
        """
        kernel = jnp.ones((7, 3))
        y = F.conv(x, kernel)
        """,
        before("y = F.conv(x, kernel)", "assert y.shape == (4, 3)"),
        start="`kernel` has 2 axes, but a convolution needs at least 3.",
    ),
    case(
        "LN-SHAPE-02",
        "table",
        """
        embedding = jnp.ones((2, 3, 4))
        y = F.embed(jnp.array([5]), embedding)
        """,
        before("y = F.embed(jnp.array([5]), embedding)", "assert y.shape == (1, 4)"),
        start="`embedding` has 3 axes, but a table has two.",
    ),
    case(
        "LN-SHAPE-02",
        "initialiser",
        """
        init = nn.initializers.orthogonal()
        w = init(key, (3,), jnp.float32)
        """,
        before("w = init(key, (3,), jnp.float32)", "assert w.shape == (3,)"),
        start="`orthogonal(",
    ),
    case(
        "LN-SHAPE-03",
        "sample",
        """
        class Block(nn.Module):
            def __init__(self):
                self.hidden = nn.Dense(3, in_features=5)
            def __call__(self, x):
                return self.hidden(x)
        model = Block()
        model = nn.init(model, key, x)
        """,
        before("model = nn.init(model, key, x)", "assert model(x).shape == (4, 3)"),
        swap(
            "self.hidden = nn.Dense(3, in_features=5)",
            check="assert model(x).shape == (4, 3)",
        ),
        start="hidden (Dense): `kernel` is declared as float32[5, 3], but the sample "
        "needs [7, 3].",
    ),
    case(
        "LN-SHAPE-03",
        "root",
        """
        model = nn.Dense(3, in_features=5)
        model = nn.init(model, key, x)
        """,
        before("model = nn.init(model, key, x)", "assert model(x).shape == (4, 3)"),
        instead("assert model(x).shape == (4, 3)"),
        start="(Dense): `kernel` is declared as float32[5, 3]",
    ),
    case(
        "LN-SHAPE-04",
        "window",
        """
        padding = "VALID"
        model = nn.Sequential([nn.Conv(3, (5,), padding=padding)])
        model = nn.init(model, key, x)
        """,
        swap('padding = "VALID"', check="assert model(x).shape == (4, 3)"),
        start="layers[0] (Conv): a window of [5] finds no room in spatial axes of [4].",
    ),
    case(
        "LN-DTYPE-01",
        "integers",
        """
        model = nn.init(nn.Sequential([nn.Dense(3)]), key, x)
        x = jnp.arange(7)
        out = jax.jit(lambda model, x: model(x))(model, x)
        """,
        before(
            "out = jax.jit(lambda model, x: model(x))(model, x)",
            "assert out.shape == (3,)",
        ),
        start="layers[0] (Dense): `x` is int32[7], but floating or complex values are "
        "needed.",
    ),
    case(
        "LN-DTYPE-01",
        "floats",
        """
        model = nn.init(nn.Embed(5, 3), key, jnp.array([0]))
        ids = jnp.array([1.0, 2.0])
        out = model(ids)
        """,
        before("out = model(ids)", "assert out.shape == (2, 3)"),
        start="(Embed): `ids` is float32[2], but integer values are needed.",
    ),
    case(
        "LN-DTYPE-01",
        "list",
        """
        model = nn.init(nn.Dense(3), key, x)
        x = [0.0] * 7
        out = model(x)
        """,
        before("out = model(x)", "assert out.shape == (3,)"),
        start="(Dense): `x` is a list, but an array is needed.",
    ),
    case(
        "LN-DTYPE-01",
        "function of integers",
        """
        x = jnp.arange(7)
        y = F.layer_norm(x)
        """,
        before("y = F.layer_norm(x)", "assert y.shape == (7,)"),
        start="`x` has dtype int32, but it must be floating or complex.",
    ),
    case(
        "LN-DTYPE-01",
        "function of floats",
        """
        ids = jnp.ones(2)
        y = F.embed(ids, jnp.ones((3, 4)))
        """,
        before("y = F.embed(ids, jnp.ones((3, 4)))", "assert y.shape == (2, 4)"),
        start="`ids` has dtype float32, but it must be an integer dtype.",
    ),
    case(
        "LN-DTYPE-01",
        "option",
        """
        dtype = jnp.int32
        y = F.dense(x, jnp.ones((7, 3)), dtype=dtype)
        """,
        before(
            "y = F.dense(x, jnp.ones((7, 3)), dtype=dtype)", "assert y.shape == (4, 3)"
        ),
        start="`dtype` is int32, but it must be floating or complex.",
    ),
    case(
        "LN-DTYPE-01",
        "mask",
        """
        mask = jnp.ones((4, 1))
        model = nn.init(nn.BatchNorm(), key, x)
        out = nn.training(model)(x, mask=mask)
        """,
        before(
            "out = nn.training(model)(x, mask=mask)", "assert out[0].shape == (4, 7)"
        ),
        start="(BatchNorm): `mask` has dtype float32, but it must hold booleans.",
    ),
]
