"""A dense layer whose width is told by the layer around it."""

from __future__ import annotations

from typing import Any

from linnet.core import param
from linnet.nn._kernel import bias_param
from linnet.nn._linear import Dense


def projection(
    features: int | None,
    axes: tuple[str, str] = ("in", "out"),
    *,
    use_bias: bool,
    in_features: int | None = None,
    **options: Any,
) -> Dense:
    """A `Dense` whose width may follow from the input of the layer around it.

    That layer tells it while initialising: `self.out.expect(kernel=..., bias=...)`.

    Args:
        features: Size of the last axis of the result; `None` leaves it open.
        axes: Logical axes of the kernel.
        use_bias: Whether there is a bias.
        in_features: Size of the last axis of `x`, if known.
        **options: The other ones of `Dense`, all that make parameters included.
    """
    dense = Dense(features or 1, use_bias=use_bias, **options)
    kernel_init, bias_init = options["kernel_init"], options["bias_init"]
    dtype = options["param_dtype"]
    return dense.replace(
        features=features,
        kernel=param(kernel_init, (in_features, features), dtype, axes=axes),
        bias=bias_param(use_bias, bias_init, (features,), dtype, axes[1:]),
    )
