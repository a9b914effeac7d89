"""DenseGeneral, Einsum, Bilinear and masks: starts, axes, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import nn
from linnet._errors import ConfigError, DTypeError, ShapeError

KEY = jax.random.key(0)


def made(layer, *sample):
    return nn.init(layer, KEY, *sample)


def axes_of(model):
    """The logical axes that the printed description does not show."""
    return {name: model._spec.static[name] for name in ()} or {
        path[0].name: declared.axes for path, declared in model._spec.leaves.items()
    }


@pytest.mark.parametrize(
    ("layer", "sample", "fan_in"),
    [
        (nn.DenseGeneral((8, 64)), (1, 50), 50),
        (nn.DenseGeneral(64, axis=(-2, -1)), (1, 10, 50), 500),
        (nn.DenseGeneral(64, axis=-1, batch_axis=-2), (1, 10, 50), 50),
        (nn.Einsum("bi,oi->bo", (512, None)), (1, 50), 50),
        (nn.Einsum("big,gio->bgo", (None, None, 64)), (1, 50, 10), 50),
        (nn.Einsum("bi,i->bi", (None,)), (1, 2000), 1),
    ],
    ids=str,
)
def test_the_start_keeps_the_size_of_signals(layer, sample, fan_in):
    kernel = made(layer, jnp.ones(sample)).kernel
    assert abs(float(kernel.std()) * fan_in**0.5 - 1) < 0.06


def test_bilinear_keeps_the_size_of_signals():
    kernel = made(nn.Bilinear(64), jnp.ones(8), jnp.ones(16)).kernel
    assert abs(float(kernel.std()) * 128**0.5 - 1) < 0.06


def test_initialisers_see_the_kernel_as_a_matrix():
    init = nn.initializers.orthogonal()
    model = made(nn.DenseGeneral((2, 3), kernel_init=init), jnp.ones(6))
    matrix = model.kernel.reshape(6, 6)
    assert_close(matrix @ matrix.T, np.eye(6), atol=1e-5)
    own = nn.DenseGeneral(3, batch_axis=0, kernel_init=init, use_bias=False)
    kernels = made(own, jnp.ones((2, 3))).kernel
    assert not np.allclose(kernels[0], kernels[1])
    assert_close(kernels @ kernels.mT, np.broadcast_to(np.eye(3), (2, 3, 3)), atol=1e-5)


def test_axes_have_names():
    x = jnp.ones((2, 3, 4))
    general = nn.DenseGeneral((5, 6), axis=(-2, -1), batch_axis=0)
    named = nn.DenseGeneral((5, 6), kernel_axes=("in", "heads", "head_dim"))
    einsum = nn.Einsum("bij,jihk->bkh", (None, None, 2, 3))
    assert axes_of(made(general, x)) == {
        "kernel": (None, "in", None, "out", None),
        "bias": (None, "out", None),
    }
    assert axes_of(made(named, x)) == {
        "kernel": ("in", "heads", "head_dim"),
        "bias": ("heads", "head_dim"),
    }
    assert axes_of(made(einsum, x)) == {
        "kernel": ("in", None, "out", None),
        "bias": (None, "out"),
    }


def test_autoregressive_masks_hide_later_inputs():
    mask = np.tri(4, dtype=bool).T  # output j sees inputs 0..j
    model = made(nn.Dense(4, mask=mask), jnp.ones(4))
    jacobian = jax.jacobian(model)(normal(4))
    assert_close(np.triu(jacobian, 1), np.zeros((4, 4)))
    assert np.all(np.diag(jacobian) != 0)


def test_masks_are_constants_that_training_leaves_alone():
    x, mask = normal((5, 3)), np.array([[True], [False], [True]])
    model = made(nn.Dense(2, mask=mask), x)
    grads = nn.grad(lambda m: (m(x) ** 2).sum())(model)
    assert_close(grads.kernel[1], np.zeros(2))
    assert list(nn.select(model, nn.Constant)) == ["mask"]
    assert nn.params(model).mask is None
    assert nn.describe(model) == nn.Dense(2, mask=mask)


def test_masked_layers_are_stacked():
    x = normal((5, 4))
    stack = made(nn.Stack(nn.Dense(4, mask=np.tri(4, dtype=bool)), 3), x)
    y = x
    for i in range(3):
        y = stack[i](y)
    assert_close(stack(x), y)


@pytest.mark.parametrize(
    ("mask", "error", "text"),
    [
        (np.ones((3, 1)), DTypeError, "must hold booleans"),
        (np.ones(3, bool), ShapeError, "does not fit a kernel"),
        (np.ones((3, 5), bool), ShapeError, "does not fit a kernel"),
    ],
)
def test_masks_that_do_not_fit_are_refused_at_construction(mask, error, text):
    with pytest.raises(error, match=rf"\(Dense\): `mask` .*{text}"):
        nn.Dense(4, mask=mask)


def test_masks_of_another_input_width_are_refused_with_the_path():
    model = nn.Sequential([nn.Dense(4, mask=np.ones((3, 1), bool))])
    with pytest.raises(ShapeError, match=r"layers\[0\] \(Dense\): `mask` of shape"):
        made(model, jnp.ones(5))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: nn.DenseGeneral(0), "`features` is 0"),
        (lambda: nn.DenseGeneral(2, axis=(1, 1)), "`axis` is"),
        (lambda: nn.DenseGeneral(2, axis=1.0), "`axis` is"),
        (lambda: nn.DenseGeneral(2, batch_axis="0"), "`batch_axis` is"),
        (lambda: nn.DenseGeneral(2, in_features=(1, 2)), "`in_features` has 2"),
        (lambda: nn.DenseGeneral(2, kernel_axes=("in",)), "`kernel_axes` is"),
        (lambda: nn.Einsum("ab,bc->ad", (None, 2)), "`equation` is"),
        (lambda: nn.Einsum("ab,bc->ac", (None, None)), "letter 'c'.*size None"),
        (lambda: nn.Einsum("ab,bc->ac", (None, -1)), "letter 'c'.*size -1"),
        (lambda: nn.Einsum("ab,bc->ac", (3,)), "`shape` is"),
        (lambda: nn.Einsum("ab,bc->ac", (3, 2), kernel_axes="io"), "`kernel_axes`"),
        (lambda: nn.Bilinear(0), "`features` is 0"),
        (lambda: nn.Bilinear(2, in_features=(3,)), "`in_features` has 1"),
    ],
)
def test_options_without_a_meaning_are_refused_at_construction(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


def test_inputs_that_do_not_fit_are_refused_with_the_path():
    x = normal((2, 3))
    einsum = made(nn.Sequential([nn.Einsum("ab,bc->ac", (None, 2))]), x)
    with pytest.raises(ShapeError, match=r"layers\[0\] \(Einsum\): `x` has 3 axes"):
        einsum(x[None])
    with pytest.raises(ShapeError, match=r"\(Einsum\): `kernel` is float32\[3, 2\]"):
        einsum(x[:, :2])
    bilinear = made(nn.Bilinear(2), x, x)
    with pytest.raises(ShapeError, match=r"\(Bilinear\): `y` has 1 axes"):
        bilinear(x, x[0])
    with pytest.raises(ShapeError, match=r"\(Bilinear\): `x` of shape"):
        bilinear(x, x[:1])
    general = made(nn.DenseGeneral(2, axis=(-2, -1)), x)
    with pytest.raises(ShapeError, match=r"\(DenseGeneral\): `axis=\(-2, -1\)`"):
        general(x[0])
