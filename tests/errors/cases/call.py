"""Errors of what is called, differentiated and tapped."""

from errors.case import case, instead, swap

CASES = [
    case(
        "LN-CALL-01",
        "function",
        """
        model = nn.Dropout(0.5)
        f = lambda x: model(x)
        out, model = nn.training(f, key)(x)
        """,
        swap("f = lambda x: model(x)", check="assert (out == 0).any()"),
        swap("f = lambda x: model(x)", check="assert (out == 0).any()"),
        start="a function was given instead of a module or a bound method.",
    ),
    case(
        "LN-CALL-01",
        "class",
        """
        features = 3
        model = nn.Dense
        model = nn.init(model, key, x)
        """,
        swap("model = nn.Dense", check="assert model(x).shape == (4, 3)"),
        start="the class Dense was given instead of a module or a bound method.",
    ),
    case(
        "LN-GRAD-01",
        "no aux",
        """
        model = nn.init(nn.BatchNorm(), key, x)
        loss_fn = lambda model: model(x).sum()
        (loss, model), grads = nn.value_and_grad(loss_fn, has_aux=True)(model)
        """,
        instead("assert (model.mean != 0).all() and grads.mean is None"),
        instead("assert loss.shape == () and grads.bias.shape == (7,)"),
        start="the function returned float32[] with `has_aux=True`.",
    ),
    case(
        "LN-GRAD-01",
        "aux not said",
        """
        model = nn.init(nn.BatchNorm(), key, x)
        loss_fn = lambda model: (model(x).sum(), model)
        loss, grads = nn.value_and_grad(loss_fn)(model)
        """,
        instead("assert (model.mean != 0).all() and grads.mean is None"),
        instead("assert loss.shape == () and grads.bias.shape == (7,)"),
        start="the function returned (float32[], BatchNorm) with `has_aux=False`.",
    ),
    case(
        "LN-GRAD-02",
        "role",
        """
        wrt = nn.Cache
        model = nn.init(nn.Dense(3), key, x)
        grads = nn.grad(lambda model: model(x).sum(), wrt=wrt)(model)
        """,
        swap("wrt = nn.Cache", check="assert grads.kernel.shape == (7, 3)"),
        start="Dense: `wrt=Cache` selects no array of the model.",
    ),
    case(
        "LN-GRAD-02",
        "no parameters",
        """
        model = nn.Dropout(0.5)
        value, grads = nn.value_and_grad(lambda model: model(x).sum())(model)
        """,
        instead("assert (grads == 1).all()"),
        start="Dropout: `wrt=Param` selects no array of the model.",
    ),
    case(
        "LN-TAP-01",
        "intervene",
        """
        model = nn.init(nn.Sequential([nn.Dense(3)]), key, x)
        value = jnp.zeros((4, 5))
        out = nn.intervene(model, {"layers/0": value})(x)
        """,
        swap("value = jnp.zeros((4, 5))", check="assert (out == 0).all()"),
        start="layers/0: the given value is float32[4, 5], but the model's is "
        "float32[4, 3].",
    ),
    case(
        "LN-TAP-02",
        "branch",
        """
        class Gated(nn.Module):
            def __init__(self):
                self.layer = nn.Dense(7)
                self.out = nn.Dense(2)
            def __call__(self, x):
                h = nn.cond(x.sum() > 0, lambda x: self.layer(x), lambda x: x, x)
                return self.out(h)
        where = nn.Dense
        model = nn.init(Gated(), key, x)
        out, values = nn.capture(model, where)(x)
        """,
        swap("where = nn.Dense", check="assert list(values) == ['out', '']"),
        start="'layer' inside a branch cannot be captured.",
    ),
    case(
        "LN-TAP-02",
        "while loop",
        """
        class Settling(nn.Module):
            def __init__(self):
                self.layer = nn.Dense(7)
            def __call__(self, x):
                x = self.layer(x)
                shrink = lambda x: 0.1 * self.layer(x)
                return nn.while_loop(lambda x: x.sum() > 9, shrink, x)
        where = "**"
        model = nn.init(Settling(), key, x)
        out, values = nn.capture(model, where)(x)
        """,
        swap('where = "**"', check="assert list(values) == ['']"),
        start="'layer' inside a while loop cannot be captured.",
    ),
]
