"""Initial values: callables `f(key, shape, dtype) -> array` that are plain values.

Each is a frozen dataclass, so it prints as it was written, pickles, and equals
another one made alike, which lets the arrays of many layers share one compilation.
Random values are drawn in float32 or wider and rounded once.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any, Literal

import jax.numpy as jnp
from jax.nn import initializers

from linnet._errors import ConfigError, ShapeError, describe
from linnet._typing import Array, DType, Key, Shape
from linnet.functional._dtype import inexact_dtype, widened

__all__ = [
    "constant",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "identity",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "orthogonal",
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "zeros",
]

Mode = Literal["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]
Distribution = Literal["truncated_normal", "normal", "uniform"]
Axes = int | tuple[int, ...]

_MODES = ("fan_in", "fan_out", "fan_avg", "fan_geo_avg")
_DISTRIBUTIONS = ("truncated_normal", "normal", "uniform")


class _Initializer:
    """Prints what differs from the defaults, and draws in float32 or wider."""

    def __call__(self, key: Key, shape: Shape, dtype: DType = jnp.float32) -> Array:
        dtype = inexact_dtype(dtype)
        if 0 in shape:
            return jnp.zeros(shape, dtype)
        return self._draw(key, shape, widened(dtype)).astype(dtype)

    def _draw(self, key: Key, shape: Shape, dtype: DType) -> Array:
        raise NotImplementedError

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        values = [(f.name, getattr(self, f.name), f.default) for f in fields]
        shown = [f"{name}={v!r}" for name, v, default in values if v != default]
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclasses.dataclass(frozen=True, repr=False)
class constant(_Initializer):
    """Every entry is `value`.

    Args:
        value: A number.

    Example:
        >>> from linnet.functional import initializers
        >>> initializers.constant(3)(jax.random.key(0), (2,), jnp.int32)
        Array([3, 3], dtype=int32)
    """

    value: complex

    def __post_init__(self) -> None:
        if not isinstance(self.value, numbers.Number):
            raise ConfigError(
                f"`value` is {describe(self.value)}, but it must be a number.",
                code="LN-VALUE-04",
                why="An initialiser is compared and hashed by value.",
                fixes=[
                    (
                        "the array is known",
                        "init = lambda key, shape, dtype: jnp.asarray(value, dtype)",
                    )
                ],
            )

    def __call__(self, key: Key, shape: Shape, dtype: DType = jnp.float32) -> Array:
        """The number, in the dtype asked for; integers are welcome."""
        return jnp.full(shape, self.value, dtype)

    def __repr__(self) -> str:
        return _NAMES.get(self.value, f"constant({self.value!r})")


_NAMES: dict[Any, str] = {0: "zeros", 1: "ones"}
zeros = constant(0)
ones = constant(1)


@dataclasses.dataclass(frozen=True, repr=False)
class normal(_Initializer):
    """Normal with mean zero.

    Args:
        stddev: Standard deviation, not negative.

    Example:
        >>> from linnet.functional import initializers
        >>> initializers.normal(0.02)
        normal(stddev=0.02)
    """

    stddev: float = 0.01

    def __post_init__(self) -> None:
        _check_scale("stddev", self.stddev)

    def _draw(self, key: Key, shape: Shape, dtype: DType) -> Array:
        return initializers.normal(self.stddev)(key, shape, dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class truncated_normal(_Initializer):
    """Normal with mean zero, without the tails beyond two standard deviations.

    Args:
        stddev: Standard deviation before the cut, not negative; that of the values
            is 0.88 times as large.

    Example:
        >>> from linnet.functional import initializers
        >>> initializers.truncated_normal(0.02)
        truncated_normal(stddev=0.02)
    """

    stddev: float = 0.01

    def __post_init__(self) -> None:
        _check_scale("stddev", self.stddev)

    def _draw(self, key: Key, shape: Shape, dtype: DType) -> Array:
        return initializers.truncated_normal(self.stddev)(key, shape, dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class uniform(_Initializer):
    """Uniform in `[0, scale)`.

    Args:
        scale: Upper end, not negative.

    Example:
        >>> from linnet.functional import initializers
        >>> initializers.uniform(0.1)
        uniform(scale=0.1)

    Differs from: Haiku, whose `RandomUniform` is symmetric about zero.
    """

    scale: float = 0.01

    def __post_init__(self) -> None:
        _check_scale("scale", self.scale)

    def _draw(self, key: Key, shape: Shape, dtype: DType) -> Array:
        return initializers.uniform(self.scale)(key, shape, dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class variance_scaling(_Initializer):
    r"""Zero mean, and a variance that keeps signals of one size through a layer.

    The variance is $\mathrm{scale} / n$, where n counts the inputs of an output
    ("fan_in"), the outputs of an input ("fan_out"), or is the arithmetic or
    geometric mean of both ("fan_avg", "fan_geo_avg"). Axes that are neither in, out
    nor batch are a window and count in both.

    Args:
        scale: Positive factor.
        mode: What n is.
        distribution: "normal", "uniform", or "truncated_normal" (cut at two
            standard deviations, and widened so that the variance is right).
        in_axis: Axis or axes of the inputs.
        out_axis: Axis or axes of the outputs.
        batch_axis: Axis or axes of independent kernels.

    Raises:
        ShapeError: On a call, the shape has fewer than two axes.

    Example:
        >>> from linnet.functional import initializers
        >>> initializers.variance_scaling(0.5, "fan_out", "uniform")
        variance_scaling(scale=0.5, mode='fan_out', distribution='uniform')
    """

    scale: float
    mode: Mode
    distribution: Distribution
    in_axis: Axes = -2
    out_axis: Axes = -1
    batch_axis: Axes = ()

    def __post_init__(self) -> None:
        _check_scale("scale", self.scale, least=math.ulp(0.0))
        _check_choice("mode", self.mode, _MODES)
        _check_choice("distribution", self.distribution, _DISTRIBUTIONS)

    def _draw(self, key: Key, shape: Shape, dtype: DType) -> Array:
        _check_matrix(self, shape)
        axes = {name: getattr(self, name) for name in ("in_axis", "out_axis")}
        init = initializers.variance_scaling(
            self.scale, self.mode, self.distribution, batch_axis=self.batch_axis, **axes
        )
        return init(key, shape, dtype)


def lecun_normal(
    *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()
) -> variance_scaling:
    """Variance `1 / fan_in`, truncated normal.

    Args:
        in_axis: Axis or axes of the inputs.
        out_axis: Axis or axes of the outputs.
        batch_axis: Axis or axes of independent kernels.

    Returns:
        An initialiser.

    Source: LeCun et al., "Efficient BackProp", 1998, section 4.6.
    """
    axes = (in_axis, out_axis, batch_axis)
    return variance_scaling(1.0, "fan_in", "truncated_normal", *axes)


def lecun_uniform(
    *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()
) -> variance_scaling:
    """Variance `1 / fan_in`, uniform.

    Args:
        in_axis: Axis or axes of the inputs.
        out_axis: Axis or axes of the outputs.
        batch_axis: Axis or axes of independent kernels.

    Returns:
        An initialiser.

    Source: LeCun et al., "Efficient BackProp", 1998, section 4.6.
    """
    axes = (in_axis, out_axis, batch_axis)
    return variance_scaling(1.0, "fan_in", "uniform", *axes)


def he_normal(
    *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()
) -> variance_scaling:
    """Variance `2 / fan_in`, truncated normal: for layers before a ReLU.

    Args:
        in_axis: Axis or axes of the inputs.
        out_axis: Axis or axes of the outputs.
        batch_axis: Axis or axes of independent kernels.

    Returns:
        An initialiser.

    Source: He et al., "Delving Deep into Rectifiers", 2015, eq. 10,
    arXiv:1502.01852.
    """
    axes = (in_axis, out_axis, batch_axis)
    return variance_scaling(2.0, "fan_in", "truncated_normal", *axes)


def he_uniform(
    *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()
) -> variance_scaling:
    """Variance `2 / fan_in`, uniform: for layers before a ReLU.

    Args:
        in_axis: Axis or axes of the inputs.
        out_axis: Axis or axes of the outputs.
        batch_axis: Axis or axes of independent kernels.

    Returns:
        An initialiser.

    Source: He et al., "Delving Deep into Rectifiers", 2015, eq. 10,
    arXiv:1502.01852.
    """
    axes = (in_axis, out_axis, batch_axis)
    return variance_scaling(2.0, "fan_in", "uniform", *axes)


def glorot_normal(
    *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()
) -> variance_scaling:
    """Variance `2 / (fan_in + fan_out)`, truncated normal.

    Args:
        in_axis: Axis or axes of the inputs.
        out_axis: Axis or axes of the outputs.
        batch_axis: Axis or axes of independent kernels.

    Returns:
        An initialiser.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep
    feedforward neural networks", 2010, eq. 12.
    """
    axes = (in_axis, out_axis, batch_axis)
    return variance_scaling(1.0, "fan_avg", "truncated_normal", *axes)


def glorot_uniform(
    *, in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()
) -> variance_scaling:
    """Variance `2 / (fan_in + fan_out)`, uniform.

    Args:
        in_axis: Axis or axes of the inputs.
        out_axis: Axis or axes of the outputs.
        batch_axis: Axis or axes of independent kernels.

    Returns:
        An initialiser.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep
    feedforward neural networks", 2010, eq. 16.
    """
    axes = (in_axis, out_axis, batch_axis)
    return variance_scaling(1.0, "fan_avg", "uniform", *axes)


@dataclasses.dataclass(frozen=True, repr=False)
class orthogonal(_Initializer):
    """Rows or columns, whichever are fewer, that are orthonormal times `scale`.

    Args:
        scale: Positive factor.
        column_axis: Axis of the columns; the others together are the rows.

    Raises:
        ShapeError: On a call, the shape has fewer than two axes.

    Example:
        >>> from linnet.functional import initializers
        >>> q = initializers.orthogonal()(jax.random.key(0), (4, 2))
        >>> (q.T @ q).round(3) + 0.0
        Array([[1., 0.],
               [0., 1.]], dtype=float32)

    Source: Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear
    dynamics of learning in deep linear neural networks", 2014, arXiv:1312.6120.
    """

    scale: float = 1.0
    column_axis: int = -1

    def __post_init__(self) -> None:
        _check_scale("scale", self.scale, least=math.ulp(0.0))

    def _draw(self, key: Key, shape: Shape, dtype: DType) -> Array:
        _check_matrix(self, shape)
        init = initializers.orthogonal(self.scale, self.column_axis)
        return init(key, shape, dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class identity(_Initializer):
    """The identity matrix times `scale`, cut or filled with zeros if not square.

    Args:
        scale: Factor.

    Raises:
        ShapeError: On a call, the shape has not two axes.

    Example:
        >>> from linnet.functional import initializers
        >>> initializers.identity()(jax.random.key(0), (2, 3))
        Array([[1., 0., 0.],
               [0., 1., 0.]], dtype=float32)
    """

    scale: float = 1.0

    def _draw(self, key: Key, shape: Shape, dtype: DType) -> Array:
        if len(shape) != 2:
            raise _unfit(self, shape, "exactly two axes")
        return self.scale * jnp.eye(*shape, dtype=dtype)


def _check_scale(name: str, value: float, least: float = 0.0) -> None:
    if not (math.isfinite(value) and value >= least):
        wanted = "positive" if least else "not negative"
        raise ConfigError(
            f"`{name}` is {value}, but it must be finite and {wanted}.",
            code="LN-VALUE-03",
            fixes=[("the usual spread will do", f"{name} = 1.0")],
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(
            f"`{name}` is {value!r}, but it must be one of "
            f"{', '.join(map(repr, choices))}.",
            code="LN-VALUE-04",
            fixes=[("the first is usual", f"{name} = {choices[0]!r}")],
        )


def _check_matrix(init: _Initializer, shape: Shape) -> None:
    if len(shape) < 2:
        raise _unfit(init, shape, "two or more axes")


def _unfit(init: _Initializer, shape: Shape, wanted: str) -> ShapeError:
    return ShapeError(
        f"`{init!r}` cannot make an array of shape {list(shape)}: it needs {wanted}.",
        code="LN-SHAPE-02",
        fixes=[("any spread will do", "init = nn.initializers.normal(0.02)")],
    )
