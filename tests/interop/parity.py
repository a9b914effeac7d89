"""Agreement with other libraries: one way to compare, which keeps what it measured.

`make accuracy` turns what a run of `tests/interop` measured into `docs/accuracy.md`.
Files that compare with PyTorch import it by `pytest.importorskip`; those that compare
with Flax, where PyTorch has no such layer, run everywhere.
"""

import jax
import jax.numpy as jnp
import numpy as np

from helpers import normal
from linnet import nn

KEY = jax.random.key(0)
SPREAD = nn.initializers.normal(1.0)

# (layer, oracle) to kind ("values", "gradients") to the largest relative error.
ERRORS: dict[tuple[str, str], dict[str, float]] = {}


def assert_agrees(layer, oracle, kind, ours, theirs, rtol=1e-5):
    """Each pair of arrays differs by at most `rtol` of the largest desired entry.

    The error is kept for the table in the docs, under the name of the layer and of
    what it is compared with (`torch.nn.Linear`, `flax.linen.Einsum`).
    """
    assert kind in ("values", "gradients")
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    assert len(ours) == len(theirs)
    kinds = ERRORS.setdefault((layer, oracle), {})
    for mine, desired in zip(ours, theirs, strict=True):
        error = relative_error(mine, desired)
        kinds[kind] = max(kinds.get(kind, 0.0), error)
        assert error <= rtol, f"{layer} and {oracle}, {kind}: {error:.3g} > {rtol}"


def relative_error(actual, desired):
    """Largest difference over the largest desired entry; zero where both are empty."""
    wide = np.complex128 if np.iscomplexobj(desired) else np.float64
    a, d = np.asarray(actual).astype(wide), np.asarray(desired).astype(wide)
    assert a.shape == d.shape, f"shape {a.shape}, desired {d.shape}"
    assert np.isfinite(d).all()
    largest = np.abs(d).max(initial=0.0)
    return float(np.abs(a - d).max(initial=0.0) / (largest or 1.0))


def made(layer, *sample):
    return nn.init(layer, KEY, *sample)


def same(x):
    return x


def first(x):
    """Channels from last to first, as PyTorch wants them."""
    return jnp.moveaxis(x, -1, 1)


def transposed(kernel):
    """[*window, in, out] as [out, in, *window]."""
    return jnp.moveaxis(kernel, (-1, -2), (0, 1))


def tensor(x, requires_grad=True):
    """A PyTorch tensor of the same numbers."""
    import torch

    return torch.tensor(np.asarray(x), requires_grad=requires_grad)


def copy(parameter, value):
    """Overwrites a PyTorch parameter."""
    parameter.data = tensor(value, requires_grad=False)


def assert_same(names, ours, theirs, model, x, pairs, to_torch=same):
    """Values, and gradients with respect to the input and to parameters.

    `names` are those of our layer and of PyTorch's. `ours` takes the model and `x`.
    `pairs` hold a parameter's path in our model, its tensor in PyTorch, and how the
    gradient of ours is laid out there.
    """
    weight = normal(ours(model, x).shape, 1)
    their_x = tensor(to_torch(x))
    their_y = theirs(their_x)
    (their_y * tensor(to_torch(weight), False)).sum().backward()
    grads, grad_x = jax.grad(lambda m, x: (ours(m, x) * weight).sum(), (0, 1))(model, x)
    grads = nn.to_paths(grads) if pairs else {}
    assert_agrees(*names, "values", to_torch(ours(model, x)), their_y.detach().numpy())
    assert_agrees(*names, "gradients", to_torch(grad_x), their_x.grad.numpy())
    for path, parameter, layout in pairs:
        found = layout(grads[path])
        assert_agrees(*names, "gradients", found, parameter.grad.numpy())


def plain(model, x):
    """A prediction."""
    return model(x)


def trained(model, x):
    """What the layer gives in training."""
    return nn.training(model)(x)[0]


def page():
    """The page `docs/accuracy.md`, from what this run measured."""
    rows = [
        f"| `{layer}` | `{oracle}` | {_cell(kinds, 'values')} "
        f"| {_cell(kinds, 'gradients')} |"
        for (layer, oracle), kinds in sorted(ERRORS.items())
    ]
    return HEAD + "\n".join(rows) + "\n"


def _cell(kinds, kind):
    return f"{kinds[kind]:.1e}" if kind in kinds else ""


HEAD = """# Accuracy

Each layer with weights copied to the same layer of another library, in float32 on a
CPU. The error is the largest difference divided by the largest desired entry, over all
cases of the tests; gradients are those of the input and of every parameter. `make
accuracy` runs the comparison and writes this page.

| layer | compared with | values | gradients |
| --- | --- | ---: | ---: |
"""
