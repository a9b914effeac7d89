"""Errors of declaring arrays."""

from errors.case import before, case, instead, swap

MODEL = """
class Model(nn.Module):
    def __init__(self, w):
        self.w = w
"""

CASES = [
    case(
        "LN-ROLE-01",
        "vector",
        MODEL + "model = Model(jnp.ones(3))",
        swap("self.w = w", check="assert nn.params(model).w is model.w"),
        swap("self.w = w", check="assert list(nn.select(model, nn.State)) == ['w']"),
        swap("self.w = w", check="assert list(nn.select(model, nn.Constant)) == ['w']"),
        swap("self.w = w", check="assert model.w == (1.0, 1.0, 1.0)"),
        start="Model: the array assigned to `w` has no role.",
    ),
    case(
        "LN-ROLE-01",
        "number",
        MODEL + "model = Model(jnp.float32(2.5))",
        swap("self.w = w", check="assert nn.params(model).w is model.w"),
        swap("self.w = w", check="assert list(nn.select(model, nn.State)) == ['w']"),
        swap("self.w = w", check="assert list(nn.select(model, nn.Constant)) == ['w']"),
        swap("self.w = w", check="assert model.w == 2.5"),
        start="Model: the array assigned to `w` has no role.",
    ),
    case(
        "LN-ROLE-01",
        "key",
        MODEL
        + """
    def __call__(self, x):
        key = None
        return key
model = Model(key)
""",
        swap(
            "key = None",
            check="assert nn.stateful(model, rngs=key)(x)[0].shape == ()",
            changes={"self.w = w": "pass"},
        ),
        swap("self.w = w", check="assert model.w is key"),
        start="Model: the array assigned to `w` has no role.",
    ),
    case(
        "LN-ROLE-01",
        "in a list",
        """
        class Model(nn.Module):
            def __init__(self, w):
                self.w = w
                self.size = 1
        model = Model([jnp.ones((3, 3))])
        """,
        before("self.size = 1", "assert list(nn.select(model, nn.Param))"),
        before("self.size = 1", "assert list(nn.select(model, nn.State))"),
        before("self.size = 1", "assert list(nn.select(model, nn.Constant))"),
        start="Model: the array assigned to `w[0]` has no role.",
    ),
    case(
        "LN-ROLE-03",
        "no role",
        """
        role = "trained"
        w = nn.param(nn.initializers.zeros, (3,), role=role)
        """,
        swap('role = "trained"', check="assert w.role is nn.Param"),
        start="a role is a subclass of nn.Role, not 'trained'.",
    ),
    case(
        "LN-ROLE-04",
        "no shape",
        """
        kernel = nn.param(nn.initializers.zeros)
        """,
        instead("assert kernel.shape == (3, 4)"),
        instead("assert kernel.shape == (None, 4)"),
        start="an initialiser needs the shape of the array it makes.",
    ),
    case(
        "LN-ROLE-04",
        "another shape",
        """
        shape = (4,)
        w = nn.param(jnp.ones(3), shape)
        """,
        swap("shape = (4,)", check="assert w.shape == (3,)"),
        start="the value has shape (3,), but (4,) was declared.",
    ),
    case(
        "LN-ROLE-05",
        "axes",
        """
        axes = ("in",)
        w = nn.param(nn.initializers.zeros, (3, 4), axes=axes)
        """,
        swap('axes = ("in",)', check="assert w.axes == ('in', None)"),
        start="`axes` is ('in',), but the shape (3, 4) has 2 axes.",
    ),
]
