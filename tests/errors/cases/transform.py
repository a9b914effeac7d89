"""Errors of JAX transforms inside a model, of scans, maps and stacks."""

from errors.case import before, case, instead, swap


def inside(line):
    """A program whose model has this line in its call, and is trained."""
    return f"""
class Model(nn.Module):
    def __init__(self):
        self.encoder = nn.Sequential([nn.Dense(7), nn.Dropout(0.5)])
    def __call__(self, x):
        {line}
        return x if "y" not in locals() else y
model = nn.init(Model(), key, x, method=lambda m, x: m.encoder(x))
out, model = jax.jit(lambda m: nn.training(m, key)(x))(model)
"""


def lifted(line, *others):
    return [swap(line, check="assert out.shape is not None") for _ in (line, *others)]


CASES = []
