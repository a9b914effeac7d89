"""act_norm: its formula, its inverse, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import DTypeError, ShapeError


def wide(x):
    return np.asarray(x, np.float64)


@pytest.mark.parametrize("axis", [-1, 0])
def test_it_is_its_formula_and_undoes_it(axis):
    x, scale, bias = normal((4, 4)), 1 + normal(4, 1) ** 2, normal(4, 2)
    full = (4, 1) if axis == 0 else (1, 4)
    y = F.act_norm(x, scale, bias, axis=axis)
    expected = (wide(x) + wide(bias).reshape(full)) * wide(scale).reshape(full)
    assert_close(y, expected)
    assert_close(F.act_norm(y, scale, bias, axis=axis, inverse=True), x, atol=1e-6)


def test_its_determinant_is_the_product_of_the_scales():
    scale, bias = normal(3, 1), normal(3, 2)
    jacobian = jax.jacobian(lambda x: F.act_norm(x, scale, bias))(normal(3))
    determinant = np.linalg.slogdet(wide(jacobian))[1]
    assert_close(determinant, np.log(np.abs(wide(scale))).sum())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match="`bias` has shape"):
        F.act_norm(normal((2, 3)), normal(3), normal(2))
    with pytest.raises(DTypeError):
        F.act_norm(jnp.ones((2, 3), jnp.int32), normal(3), normal(3))
