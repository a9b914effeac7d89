"""The layers against PyTorch: weights copied, values and gradients compared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

KEY = jax.random.key(0)
SPREAD = nn.initializers.normal(1.0)


def made(layer, x):
    return nn.init(layer, KEY, x)


def tensor(x):
    return torch.tensor(np.asarray(x), requires_grad=True)


def first(x):
    """Channels from last to first, as PyTorch wants them."""
    return jnp.moveaxis(x, -1, 1)


def copy(parameter, value):
    parameter.data = torch.tensor(np.asarray(value))


def transposed(kernel):
    """[*window, in, out] as [out, in, *window]."""
    return jnp.moveaxis(kernel, (-1, -2), (0, 1))


def assert_same(ours, theirs, model, x, pairs, to_torch=lambda x: x, scale=1.0):
    """Values, and gradients with respect to the input and to parameters.

    `pairs` hold a parameter's name, its tensor in PyTorch, and how the gradient of
    ours is laid out there.
    """
    weight = normal(ours(model, x).shape, 1)
    their_x = tensor(to_torch(x))
    their_y = theirs(their_x)
    (their_y * torch.tensor(np.asarray(to_torch(weight)))).sum().backward()
    grads, grad_x = jax.grad(lambda m, x: (ours(m, x) * weight).sum(), (0, 1))(model, x)
    assert_close(to_torch(ours(model, x)), their_y.detach().numpy(), atol=1e-5 * scale)
    assert_close(to_torch(grad_x), their_x.grad.numpy(), atol=1e-5 * scale)
    for name, parameter, layout in pairs:
        found = layout(getattr(grads, name))
        expected = parameter.grad.numpy()
        assert_close(found, expected, atol=1e-5 * max(scale, np.abs(expected).max()))


def plain(model, x):
    return model(x)


def trained(model, x):
    return nn.training(model)(x)[0]


def same(x):
    return x


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 3), (0, 3)])
def test_dense(shape):
    x = normal(shape)
    model = made(nn.Dense(4, bias_init=SPREAD), x)
    theirs = torch.nn.Linear(3, 4)
    copy(theirs.weight, model.kernel.T)
    copy(theirs.bias, model.bias)
    pairs = [("kernel", theirs.weight, jnp.transpose), ("bias", theirs.bias, same)]
    assert_same(plain, theirs, model, x, pairs)


CONVOLUTIONS = [
    ((2, 9, 4), (3,), {}, {}),
    ((2, 9, 4), (3,), {"strides": 2, "padding": 1}, {"stride": 2, "padding": 1}),
    ((2, 9, 4), (4,), {"kernel_dilation": 2}, {"dilation": 2}),
    ((2, 8, 7, 4), (3, 2), {"strides": (2, 1)}, {"stride": (2, 1)}),
    ((2, 8, 7, 4), (3, 3), {"feature_group_count": 2}, {"groups": 2}),
    ((2, 8, 7, 4), (3, 3), {"feature_group_count": 4}, {"groups": 4}),
    ((2, 8, 7, 4), (3, 4), {"padding": "SAME"}, {"padding": "same"}),
    (
        (2, 8, 7, 4),
        (3, 3),
        {"padding": "CIRCULAR"},
        {"padding": "same", "padding_mode": "circular"},
    ),
    (
        (2, 8, 7, 4),
        (3, 3),
        {"padding": "REFLECT"},
        {"padding": "same", "padding_mode": "reflect"},
    ),
    ((2, 5, 6, 5, 4), (2, 3, 2), {"padding": [0, 1, 1]}, {"padding": (0, 1, 1)}),
]


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # it pads in a copy
@pytest.mark.parametrize(("shape", "window", "ours", "theirs"), CONVOLUTIONS, ids=str)
def test_conv(shape, window, ours, theirs):
    x = normal(shape)
    options = {"padding": "VALID"} | ours
    model = made(nn.Conv(8, window, bias_init=SPREAD, **options), x)
    kind = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)[len(window) - 1]
    layer = kind(4, 8, window, **theirs)
    copy(layer.weight, transposed(model.kernel))
    copy(layer.bias, model.bias)
    pairs = [("kernel", layer.weight, transposed), ("bias", layer.bias, same)]
    assert_same(plain, layer, model, x, pairs, to_torch=first)


@pytest.mark.parametrize("shape", [(6, 3), (6, 5, 3), (4, 5, 4, 3)])
def test_batch_norm(shape):
    x = 2 + 3 * normal(shape)
    model = made(nn.BatchNorm(momentum=0.9, scale_init=SPREAD, bias_init=SPREAD), x)
    kind = torch.nn.BatchNorm2d if len(shape) == 4 else torch.nn.BatchNorm1d
    layer = kind(3, momentum=0.1, eps=1e-5)
    copy(layer.weight, model.scale)
    copy(layer.bias, model.bias)
    pairs = [("scale", layer.weight, same), ("bias", layer.bias, same)]
    assert_same(trained, layer, model, x, pairs, to_torch=first)

    _, after = nn.training(model)(x)
    count = x.size // 3
    biased = (layer.running_var.numpy() - 0.9) * (count - 1) / count + 0.9
    assert_close(after.mean, layer.running_mean.numpy())
    assert_close(after.var, biased)

    layer.eval()
    copy(layer.running_var, after.var)
    layer.zero_grad()
    assert_same(plain, layer, after, x, pairs, to_torch=first)


@pytest.mark.parametrize(("shape", "axis"), [((4, 6), -1), ((2, 3, 5), (1, 2))])
def test_layer_norm(shape, axis):
    x = 2 + normal(shape)
    norm = nn.LayerNorm(axis=axis, epsilon=1e-5, scale_init=SPREAD, bias_init=SPREAD)
    model = made(norm, x)
    layer = torch.nn.LayerNorm(model.scale.shape)
    copy(layer.weight, model.scale)
    copy(layer.bias, model.bias)
    pairs = [("scale", layer.weight, same), ("bias", layer.bias, same)]
    assert_same(plain, layer, model, x, pairs)


def test_embed():
    ids = np.array([[1, 4, 1], [0, 2, 3]])
    model = made(nn.Embed(5, 3), jnp.asarray(ids))
    layer = torch.nn.Embedding(5, 3)
    copy(layer.weight, model.embedding)
    weight = normal((2, 3, 3))
    y = layer(torch.tensor(ids))
    (y * torch.tensor(np.asarray(weight))).sum().backward()
    grads = jax.grad(lambda m: (m(jnp.asarray(ids)) * weight).sum())(model)
    assert_close(model(jnp.asarray(ids)), y.detach().numpy())
    assert_close(grads.embedding, layer.weight.grad.numpy())


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(("window", "strides"), [((3, 2), None), ((3, 3), (2, 1))])
def test_pools(window, strides, padding):
    x = normal((2, 9, 8, 3))
    functional = torch.nn.functional
    options = {"stride": strides, "padding": padding}
    cases = [
        (nn.max_pool, functional.max_pool2d, {}),
        (nn.avg_pool, functional.avg_pool2d, {"count_include_pad": True}),
        (nn.avg_pool, functional.avg_pool2d, {"count_include_pad": False}),
    ]
    for ours, theirs, extra in cases:

        def pool(_, x, ours=ours, extra=extra):
            return ours(x, window, strides, padding=padding, **extra)

        def their_pool(x, theirs=theirs, extra=extra):
            return theirs(x, window, **options, **extra)

        assert_same(pool, their_pool, {}, x, [], to_torch=first)


def test_dropout_scales_as_theirs_does():
    x = normal((100,)) + 10
    layer = torch.nn.Dropout(0.25)
    theirs = layer(torch.tensor(np.asarray(x))).numpy()
    ours = np.asarray(nn.training(nn.Dropout(0.25), KEY)(x)[0])
    kept = (ours != 0) & (theirs != 0)
    assert kept.sum() > 20
    assert_close(ours[kept], theirs[kept])
