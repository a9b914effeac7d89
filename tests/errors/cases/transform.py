"""Errors of JAX transforms inside a model, of scans, maps and stacks."""

from errors.case import before, case, instead, swap


def model_with(line):
    """A program whose model has this line in its call, and is trained."""
    return f"""
class Model(nn.Module):
    def __init__(self):
        self.encoder = nn.Sequential([nn.Dense(7), nn.Dropout(0.5)])
    def __call__(self, x):
        y = carry = grads = parameters = None
        {line}
        return [v for v in (y, carry, grads, parameters) if v is not None][0]
model = nn.init(Model(), key, x, method=lambda m, x: m.encoder(x))
out, model = nn.training(model, key)(x)
"""


DROPS = "assert (out == 0).any() and (out != 0).any()"
CLOSED_OVER = {
    "checkpoint": ("y = jax.checkpoint(lambda x: self.encoder(x))(x)", DROPS),
    "lax.scan": (
        "y = jax.lax.scan(lambda c, _: (self.encoder(c), None), x, None, 2)[0]",
        DROPS,
    ),
    "lax.fori_loop": (
        "y = jax.lax.fori_loop(0, 2, lambda i, x: self.encoder(x), x)",
        DROPS,
    ),
    "vmap": ("y = jax.vmap(lambda x: self.encoder(x))(x)", DROPS),
    "jit": ("y = jax.jit(lambda x: self.encoder(x))(x)", DROPS),
    "lax.cond": (
        "y = jax.lax.cond(x.sum() > 0, lambda x: self.encoder(x), lambda x: x, x)",
        DROPS,
    ),
    "lax.while_loop": (
        "y = jax.lax.while_loop(lambda y: y.sum() < 0, lambda y: self.encoder(y), x)",
        "assert (out == x).all()",
    ),
    "grad": (
        "grads = jax.grad(lambda x: self.encoder(x).sum())(x)",
        "assert out.shape == (4, 7)",
    ),
}
PASSED = {
    "checkpoint": ("y = jax.checkpoint(lambda m, x: m(x))(self.encoder, x)", DROPS),
    "jit": ("y = jax.jit(lambda m, x: m(x))(self.encoder, x)", DROPS),
    "vmap": ("y = jax.vmap(lambda m, x: m(x), (None, 0))(self.encoder, x)", DROPS),
}
PARAMETERS = "assert jax.tree.leaves(out)[0].shape == (7, 7)"

LOOP = """
class Cell(nn.Module):
    def __init__(self):
        self.cell = nn.Dense(7)
    def __call__(self, xs):
        h = y = xs[0]
        {loop}
        return h, y
model = nn.init(Cell(), key, x, method=lambda m, x: m.cell(x))
(out, _), model = nn.training(model)(x)
"""
SCAN = "h, y = nn.scan(lambda c, x: ((c[0], c[0](x)), x), (self.cell, h), xs)"
WHILE = (
    "y = nn.while_loop(lambda c: True, lambda c: (c[0], c[0](c[1])), (self.cell, y))"
)

CASES = [
    *(
        case(
            "LN-SCOPE-01",
            name,
            model_with(line),
            swap(line, check=check),
            swap(line, check=DROPS),
            start="encoder.layers[1] (Dropout): randomness (stream 'dropout') inside a "
            f"plain `jax.{name}`",
        )
        for name, (line, check) in CLOSED_OVER.items()
    ),
    case(
        "LN-SCOPE-01",
        "state",
        """
        class Model(nn.Module):
            def __init__(self):
                self.norms = [nn.BatchNorm(7)]
            def __call__(self, x):
                y = jax.checkpoint(lambda x: self.norms[0](x))(x)
                return y
        model = nn.init(Model(), key, x)
        out, model = jax.jit(lambda model: nn.training(model)(x))(model)
        """,
        swap(
            "y = jax.checkpoint(lambda x: self.norms[0](x))(x)",
            check="assert (model.norms[0].mean != 0).all()",
        ),
        swap(
            "y = jax.checkpoint(lambda x: self.norms[0](x))(x)",
            check="assert (model.norms[0].mean != 0).all()",
        ),
        start="norms[0] (BatchNorm): a write of the state `mean` inside a plain "
        "`jax.checkpoint`",
    ),
    case(
        "LN-SCOPE-01",
        "own function",
        """
        class Noise(nn.Module):
            def __call__(self, x):
                f = lambda x: x + jax.random.normal(self.rng("noise"), x.shape)
                y = jax.checkpoint(f)(x)
                return y
        out, model = nn.training(Noise(), key)(x)
        """,
        swap("y = jax.checkpoint(f)(x)", check="assert (out != x).all()"),
        swap("y = jax.checkpoint(f)(x)", check="assert (out != x).all()"),
        start="(Noise): randomness (stream 'noise') inside a plain `jax.checkpoint`",
    ),
    *(
        case(
            "LN-SCOPE-02",
            name,
            model_with(line),
            swap(line, check=check),
            swap(line, check=DROPS),
            swap(line, check=PARAMETERS),
            start="encoder (Sequential): an open module was passed to a plain "
            f"`jax.{name}`.",
        )
        for name, (line, check) in PASSED.items()
    ),
    case(
        "LN-SCOPE-02",
        "block",
        """
        class Model(nn.Module):
            def __init__(self):
                self.block = nn.Sequential([nn.Dense(7), nn.Dropout(0.5)])
            def __call__(self, x):
                y = jax.jit(lambda block, x: block(x))(self.block, x)
                return y
        model = nn.init(Model(), key, x, method=lambda m, x: m.block(x))
        out, model = nn.training(model, key)(x)
        """,
        swap(
            "y = jax.jit(lambda block, x: block(x))(self.block, x)",
            check=DROPS,
        ),
        swap(
            "y = jax.jit(lambda block, x: block(x))(self.block, x)",
            check=DROPS,
        ),
        swap(
            "y = jax.jit(lambda block, x: block(x))(self.block, x)",
            check="assert out.layers[0].kernel.shape == (7, 7)",
            changes={"return y": "return parameters"},
        ),
        start="block (Sequential): an open module was passed to a plain `jax.jit`.",
    ),
    case(
        "LN-SCOPE-02",
        "tree",
        model_with("parameters = jax.tree.map(jnp.sum, self.encoder)"),
        swap("parameters = jax.tree.map(jnp.sum, self.encoder)", check=PARAMETERS),
        start="encoder (Sequential): an open module was passed to a plain `jax.tree` "
        "function.",
    ),
    case(
        "LN-SCOPE-07",
        "part",
        """
        class Model(nn.Module):
            def __init__(self):
                self.body = nn.Dense(7)
            def __call__(self, x):
                part = self.body
                model = nn.Sequential([part, jnp.tanh])
                return model
        model = nn.init(Model(), key, x, method=lambda m, x: m.body(x))
        out, model = nn.training(model)(x)
        """,
        swap(
            "model = nn.Sequential([part, jnp.tanh])",
            check="assert (out == model.body(x)).all()",
            changes={"return model": "return y"},
        ),
        before(
            "model = nn.Sequential([part, jnp.tanh])",
            "assert out == nn.Sequential([nn.Dense(7), jnp.tanh])",
        ),
        start="Sequential: `layers[0]` is a module that is open in a running call.",
    ),
    case(
        "LN-SCAN-01",
        "sizes differ",
        """
        step = lambda h, x: (jnp.tanh(h + x), h)
        xs, length = x, 3
        h, ys = nn.scan(step, x[0], xs, length)
        """,
        before("h, ys = nn.scan(step, x[0], xs, length)", "assert ys.shape == (3, 7)"),
        start="the length of the scan is not clear: [3, 4].",
    ),
    case(
        "LN-SCAN-01",
        "nothing given",
        """
        f = lambda h, _: (jnp.tanh(h), h)
        carry = x[0]
        carry, ys = nn.scan(f, carry)
        """,
        instead("assert ys.shape == (2, 7)"),
        start="the length of the scan is not clear: nothing given.",
    ),
    case(
        "LN-SCAN-02",
        "scan",
        LOOP.format(loop=SCAN),
        swap(
            SCAN,
            check="assert out.shape == (4, 7)",
            changes={"return h, y": "return ys, y"},
        ),
        start="a module is in the carry of `nn.scan`.",
    ),
    case(
        "LN-SCAN-02",
        "while loop",
        LOOP.format(loop=WHILE),
        swap(
            WHILE,
            check="assert out.shape == (7,)",
            changes={"h = y = xs[0]": "h = y = 9 + xs[0]"},
        ),
        start="a module is in the carry of `nn.while_loop`.",
    ),
    case(
        "LN-STACK-01",
        "width",
        """
        make_layer = lambda i: nn.Dense(5 + i)
        model = nn.Stack(nn.Dense(3), 2)
        model = nn.init(nn.Sequential([model]), key, x)
        """,
        before(
            "model = nn.init(nn.Sequential([model]), key, x)",
            "assert model(x).shape == (4, 7)",
        ),
        before(
            "model = nn.init(nn.Sequential([model]), key, x)",
            "assert model(x).shape == (4, 6)",
        ),
        start="layers[0].block (Dense): a stacked layer takes float32[4, 7], but "
        "returns float32[4, 3].",
    ),
    case(
        "LN-STACK-01",
        "dtype",
        """
        class Block(nn.Module):
            def __call__(self, x):
                y = x.astype(jnp.bfloat16)
                return y
        make_layer = lambda i: Block()
        model = nn.Stack(Block(), 2)
        model = nn.init(model, key, x)
        """,
        swap("return y", check="assert model(x).dtype == 'float32'"),
        before("model = nn.init(model, key, x)", "assert model(x).dtype == 'bfloat16'"),
        start="block (Block): a stacked layer takes float32[4, 7], but returns "
        "bfloat16[4, 7].",
    ),
    case(
        "LN-STACK-02",
        "class",
        """
        features = 7
        stack = nn.Stack(nn.Dense, 3)
        """,
        instead("assert nn.init(stack, key, x)(x).shape == (4, 7)"),
        start="Stack: `Stack` repeats a module, not the class Dense.",
    ),
    case(
        "LN-STACK-02",
        "list",
        """
        block = [nn.init(nn.Dense(7), jax.random.key(i), x) for i in range(3)]
        stack = nn.Stack(block, 3)
        """,
        instead("assert (stack[2].kernel == block[2].kernel).all()"),
        instead("assert model(x).shape == (4, 7)"),
        start="Stack: `Stack` repeats a module, not a list.",
    ),
    case(
        "LN-STACK-02",
        "function",
        """
        ensemble = nn.Ensemble(jnp.tanh, 3)
        """,
        instead("assert nn.init(ensemble, key, x)(x).shape == (3, 4, 4)"),
        start="Ensemble: `Ensemble` repeats a module, not a ",
    ),
    case(
        "LN-STACK-03",
        "initialised",
        """
        block = nn.init(nn.Dense(7), key, x)
        stack = nn.Stack(block, 3)
        """,
        instead("assert nn.init(stack, key, x)(x).shape == (4, 7)"),
        instead("assert (stack[2].kernel == block.kernel).all()"),
        start="Stack: the module given to `Stack` has arrays already.",
    ),
    case(
        "LN-STACK-04",
        "stack",
        """
        modules = [nn.init(nn.Dense(7, use_bias=b), key, x) for b in (True, False)]
        model = nn.Stack.of(modules)
        """,
        instead("assert model(x).shape == (4, 7)"),
        start="Stack: the modules differ in more than their arrays.",
    ),
    case(
        "LN-STACK-04",
        "ensemble",
        """
        modules = [nn.init(nn.Dense(n), key, x) for n in (2, 3)]
        model = nn.Ensemble.of(modules)
        """,
        instead("assert [out.shape[1] for out in outs] == [2, 3]"),
        start="Ensemble: the modules differ in more than their arrays.",
    ),
    case(
        "LN-VMAP-01",
        "keys",
        """
        keys = "same"
        model = nn.Dropout(0.5)
        run = nn.vmap(model, keys=keys)
        """,
        swap('keys = "same"', check="assert run(x).shape == (4, 7)"),
        swap('keys = "same"', check="assert run(x).shape == (4, 7)"),
        start="`keys` is 'same', but it must be 'split' or 'shared'.",
    ),
    case(
        "LN-VMAP-02",
        "axis",
        """
        class Model(nn.Module):
            def __init__(self):
                self.part = nn.Ensemble(nn.Dense(2), 4)
            def __call__(self, x):
                part = self.part.block
                in_axes = (1, 0)
                return nn.vmap(lambda m, x: m(x), in_axes)(part, x)
        model = nn.init(Model(), key, x, method=lambda m, x: m.part(x))
        out, model = nn.training(model)(x)
        """,
        swap(
            "in_axes = (1, 0)",
            check="assert out.shape == (4, 4, 2)",
            changes={"part = self.part.block": "part = self.part"},
        ),
        swap("in_axes = (1, 0)", check="assert out.shape == (4, 2)"),
        start="a module is mapped along axis 1.",
    ),
    case(
        "LN-VMAP-03",
        "batch norm",
        """
        class Model(nn.Module):
            def __init__(self):
                self.norm = nn.BatchNorm()
            def __call__(self, x):
                y = nn.vmap(self.norm)(x)
                return y
        size = 2
        x = jax.random.normal(key, (size, 4, 7))
        model = nn.init(Model(), key, x)
        out, model = nn.training(model)(x)
        """,
        swap(
            "self.norm = nn.BatchNorm()",
            "y = nn.vmap(self.norm)(x)",
            check="assert model.norm.mean.shape == (7,)",
        ),
        swap(
            "self.norm = nn.BatchNorm()",
            "y = nn.vmap(self.norm)(x)",
            check="assert model.norm.block.mean.shape == (2, 7)",
        ),
        start="norm (BatchNorm): a module writes another state for each index",
    ),
]
