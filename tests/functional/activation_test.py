"""prelu: its formula, its gradients, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import DTypeError, ShapeError


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3), (0, 3)])
@pytest.mark.parametrize("slope", [(), (3,)])
def test_prelu_is_its_formula(shape, slope):
    x, slope = normal(shape), normal(slope, 1)
    wide = np.asarray(x, np.float64)
    expected = np.maximum(wide, 0) + np.asarray(slope) * np.minimum(wide, 0)
    assert_close(F.prelu(x, slope), expected)


def test_the_gradient_of_the_slope_is_the_sum_of_what_lies_below_zero():
    x = normal((5, 3))
    grad = jax.grad(lambda s: F.prelu(x, s).sum())(jnp.ones(3))
    assert_close(grad, np.minimum(np.asarray(x), 0).sum(0))


def test_the_dtype_of_the_input_stays():
    x = normal((5, 3), dtype=jnp.bfloat16)
    assert F.prelu(x, jnp.array(0.25)).dtype == jnp.bfloat16


def test_what_does_not_fit_is_refused_and_the_fix_works():
    with pytest.raises(ShapeError, match="LN-SHAPE-01"):
        F.prelu(normal((5, 3)), normal(2))
    with pytest.raises(ShapeError, match="LN-SHAPE-01"):
        F.prelu(normal(()), normal(1))
    with pytest.raises(DTypeError, match="LN-DTYPE-01"):
        F.prelu(jnp.arange(3), jnp.array(0.25))
    x = normal((3,)) + 0j
    with pytest.raises(DTypeError, match="above or below") as caught:
        F.prelu(x, jnp.array(0.25))
    exec(caught.value.fixes[0][1], scope := {"x": x})
    assert F.prelu(scope["x"], jnp.array(0.25)).shape == (3,)
