"""rotary: its definition, its scalings by their published formulas, refusals."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import assert_close, normal
from linnet import functional as F
from linnet._errors import ConfigError, DTypeError, ShapeError


def turned(x, positions, theta, interleaved=False):
    """Each pair as a complex number times a rotation, in float64."""
    x = np.asarray(x, np.float64)
    half = len(theta)
    if interleaved:
        pairs = x[..., 0 : 2 * half : 2] + 1j * x[..., 1 : 2 * half : 2]
    else:
        pairs = x[..., :half] + 1j * x[..., half : 2 * half]
    angles = np.asarray(positions, np.float64)[..., None, None] * theta
    pairs = pairs * np.exp(1j * angles)
    out = x.copy()
    if interleaved:
        out[..., 0 : 2 * half : 2], out[..., 1 : 2 * half : 2] = pairs.real, pairs.imag
    else:
        out[..., :half], out[..., half : 2 * half] = pairs.real, pairs.imag
    return out


def plain(size, base=10_000.0):
    return np.array([base ** (-2 * i / size) for i in range(size // 2)])


@pytest.mark.slow
@settings(max_examples=15)
@given(
    st.lists(st.integers(0, 2), max_size=2),
    st.integers(1, 4),
    st.sampled_from([0.25, 0.5, 1.0]),
    st.booleans(),
)
def test_rotary_turns_pairs_in_the_complex_plane(batch, length, fraction, interleaved):
    x, positions = normal((*batch, length, 2, 8)), np.arange(length) * 3
    y = F.rotary(x, positions, fraction=fraction, interleaved=interleaved)
    theta = plain(int(8 * fraction))
    expected = turned(x, positions, theta, interleaved)
    assert_close(y, expected, atol=1e-5)


@pytest.mark.parametrize("interleaved", [True, False])
def test_products_depend_on_the_difference_of_positions_alone(interleaved):
    q, k = normal((1, 1, 8)), normal((1, 1, 8), 1)

    def product(t, s):
        options = {"interleaved": interleaved}
        rotated = [F.rotary(q, jnp.array([t]), **options)]
        rotated.append(F.rotary(k, jnp.array([s]), **options))
        return (rotated[0] * rotated[1]).sum()

    assert_close(product(7, 3), product(104, 100), rtol=1e-4)
    assert_close(product(5, 5), (q * k).sum(), rtol=1e-4)


def test_rotating_keeps_lengths_and_is_undone_by_the_opposite_position():
    x, positions = normal((3, 2, 6)), jnp.array([5, 0, 900])
    y = F.rotary(x, positions)
    assert_close(jnp.linalg.norm(y, axis=-1), jnp.linalg.norm(x, axis=-1))
    assert_close(F.rotary(y, -positions), x, atol=1e-5)


def test_the_two_layouts_are_one_up_to_the_order_of_features():
    x, positions = normal((4, 2, 6)), jnp.arange(4)
    order = np.array([0, 2, 4, 1, 3, 5])
    neighbours = F.rotary(x, positions, interleaved=True)
    assert_close(neighbours[..., order], F.rotary(x[..., order], positions))


def test_each_row_may_stand_at_positions_of_its_own():
    x = normal((2, 3, 1, 4))
    positions = jnp.array([[0, 1, 2], [7, 8, 9]])
    rows = [F.rotary(x[i], positions[i]) for i in range(2)]
    assert_close(F.rotary(x, positions), jnp.stack(rows))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_rounds_the_result_only(dtype):
    x, positions = normal((3, 1, 8), dtype=dtype), jnp.array([0, 1000, 4001])
    y = F.rotary(x, positions)
    assert y.dtype == dtype
    exact = F.rotary(x.astype(jnp.float32), positions)
    assert_close(y, exact.astype(dtype), rtol=0, atol=0)


# ---- scalings, each against its published formula


def test_frequencies_are_a_geometric_series():
    assert_close(F.rotary_frequencies(64), plain(64), rtol=1e-6)
    assert_close(F.rotary_frequencies(6, base=500.0), plain(6, 500.0), rtol=1e-6)


def test_linear_scaling_divides_the_positions():
    x, positions = normal((4, 1, 8)), jnp.arange(4) * 8
    y = F.rotary(x, positions, scaling=F.LinearScaling(8.0))
    assert_close(y, F.rotary(x, positions / 8))


def test_ntk_scaling_keeps_the_fastest_and_interpolates_the_slowest():
    theta = F.rotary_frequencies(128, scaling=F.NTKScaling(4.0))
    changed = 10_000.0 * 4.0 ** (128 / 126)
    assert_close(theta, plain(128, changed), rtol=1e-6)
    assert_close(theta[0], 1.0)
    assert_close(theta[-1], plain(128)[-1] / 4, rtol=1e-6)


def yarn_of_the_paper(size, factor, length, alpha=1.0, beta=32.0, base=10_000.0):
    """Eq. 17 to 20: r is the original length over the wavelength."""
    out = []
    for theta in plain(size, base):
        r = length / (2 * math.pi / theta)
        gamma = 0.0 if r < alpha else 1.0 if r > beta else (r - alpha) / (beta - alpha)
        out.append((1 - gamma) * theta / factor + gamma * theta)
    return np.array(out)


def yarn_of_the_program(size, factor, length, alpha=1.0, beta=32.0, base=10_000.0):
    """The same with a ramp over whole indices, as models were released with."""

    def index(turns):
        return size * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(math.floor(index(beta)), 0), min(math.ceil(index(alpha)), size - 1)
    out = []
    for i, theta in enumerate(plain(size, base)):
        ramp = min(max((i - low) / (high - low), 0.0), 1.0)
        out.append(theta / factor * ramp + theta * (1 - ramp))
    return np.array(out)


@pytest.mark.parametrize(("size", "length"), [(128, 4096), (64, 2048), (32, 32768)])
@pytest.mark.parametrize(
    ("ramp", "formula"), [("turns", yarn_of_the_paper), ("index", yarn_of_the_program)]
)
def test_yarn_is_its_formula(size, length, ramp, formula):
    scaling = F.YaRNScaling(16.0, original_length=length, ramp=ramp)
    theta = F.rotary_frequencies(size, scaling=scaling)
    assert_close(theta, formula(size, 16.0, length), rtol=1e-6, atol=1e-12)


def test_yarn_sharpens_the_logits_by_its_temperature():
    scaling = F.YaRNScaling(16.0, original_length=64)
    root = 0.1 * math.log(16.0) + 1  # of 1 / t, eq. 22
    x = normal((1, 1, 8))
    y = F.rotary(x, jnp.array([0]), scaling=scaling)
    assert_close(y, root * x)
    fixed = dataclasses.replace(scaling, attention_factor=1.0)
    assert_close(F.rotary(x, jnp.array([0]), scaling=fixed), x)


def llama3(size, base, factor=8.0, low=1.0, high=4.0, length=8192):
    """The released program: by wavelength."""
    out = []
    for theta in plain(size, base):
        wavelength = 2 * math.pi / theta
        if wavelength < length / high:
            out.append(theta)
        elif wavelength > length / low:
            out.append(theta / factor)
        else:
            smooth = (length / wavelength - low) / (high - low)
            out.append((1 - smooth) * theta / factor + smooth * theta)
    return np.array(out)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_is_its_formula(factor):
    scaling = F.Llama3Scaling(factor)
    theta = F.rotary_frequencies(128, base=500_000.0, scaling=scaling)
    expected = llama3(128, 500_000.0, factor)
    assert_close(theta, expected, rtol=1e-6, atol=1e-12)
    ratio = plain(128, 500_000.0) / np.asarray(theta, np.float64)
    assert_close(ratio[0], 1.0)
    assert_close(ratio[-1], factor)


@pytest.mark.parametrize(
    "scaling",
    [
        F.LinearScaling(1.0),
        F.NTKScaling(1.0),
        F.YaRNScaling(1.0, original_length=128),
        F.Llama3Scaling(1.0),
    ],
)
def test_a_factor_of_one_changes_nothing(scaling):
    x, positions = normal((4, 1, 8)), jnp.arange(4)
    assert_close(F.rotary(x, positions, scaling=scaling), F.rotary(x, positions))


def test_a_scaling_of_ones_own_is_taken():
    @dataclasses.dataclass(frozen=True)
    class Halved:
        def frequencies(self, size, base):
            return plain(size, base) / 2

        def magnitude(self):
            return 3.0

    x = normal((2, 1, 4))
    y = F.rotary(x, jnp.array([0, 4]), scaling=Halved())
    assert_close(y, 3 * F.rotary(x, jnp.array([0, 2])), atol=1e-5)


def test_gradient_is_the_opposite_rotation():
    x, weight, positions = normal((3, 1, 4)), normal((3, 1, 4), 1), jnp.arange(3)
    grad = jax.grad(lambda x: (F.rotary(x, positions) * weight).sum())(x)
    assert_close(grad, F.rotary(weight, -positions), atol=1e-5)


# ---- refusals


@pytest.mark.parametrize(
    ("x", "positions", "fraction"),
    [
        ((3, 4), (3,), 1.0),
        ((3, 1, 5), (3,), 1.0),
        ((3, 1, 4), (3,), 0.2),
        ((3, 1, 4), (4,), 1.0),
        ((3, 1, 4), (2, 3), 1.0),
        ((2, 3, 1, 4), (3, 3), 1.0),
    ],
)
def test_shapes_that_do_not_fit_are_refused(x, positions, fraction):
    with pytest.raises(ShapeError):
        F.rotary(normal(x), jnp.zeros(positions), fraction=fraction)


def test_dtypes_that_cannot_be_meant_are_refused():
    with pytest.raises(DTypeError, match="`x` has dtype int32"):
        F.rotary(jnp.ones((3, 1, 4), jnp.int32), jnp.arange(3))
    with pytest.raises(DTypeError, match="`positions` has dtype bool"):
        F.rotary(normal((3, 1, 4)), jnp.ones(3, bool))


@pytest.mark.parametrize(
    "make",
    [
        lambda: F.LinearScaling(0.5),
        lambda: F.NTKScaling(float("nan")),
        lambda: F.YaRNScaling(4.0, original_length=0),
        lambda: F.YaRNScaling(4.0, original_length=64, slow=32.0, fast=1.0),
        lambda: F.YaRNScaling(4.0, original_length=64, ramp="linear"),
        lambda: F.Llama3Scaling(8.0, fast=0.5),
    ],
)
def test_options_out_of_their_range_are_refused(make):
    with pytest.raises(ConfigError):
        make()
