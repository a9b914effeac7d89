"""Dense layers that train with products in eight bits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._typing import Array, ArrayLike, DType, Initializer, PyTree
from linnet.core import Module, state
from linnet.core._check import check_size
from linnet.core._convert import converted, declaration
from linnet.core._init import fill
from linnet.core._node import is_declared
from linnet.core._table import slots
from linnet.core._where import Where
from linnet.functional.initializers import zeros
from linnet.nn._linear import KERNEL_INIT, Dense
from linnet.nn._swap import swapped

HISTORIES = ("x_amax_history", "kernel_amax_history")


class Fp8Dense(Dense):
    r"""A `Dense` layer whose products are in fp8, with delayed scaling.

    $y = (\hat x \cdot \hat k) s_x s_k + \mathrm{bias}$, where $\hat x$ and $\hat k$
    are $x / s_x$ and $\mathrm{kernel} / s_k$ rounded to float8_e4m3fn. Each scale maps
    the largest magnitude of the last H training calls to the largest number there is,
    so that no pass over an array is needed before it is rounded; what is larger becomes
    that number. In the first call the scales are one.

    Gradients are rounded to float8_e5m2, with the scale of the gradient at hand: state
    is written by calls, and the backward pass is none.

    The parameters are those of `Dense`, in `param_dtype`. In prediction the scales stay
    what they are. On devices without fp8 units the numbers are the same, and it is
    slower than `Dense`: rounding is work, and nothing is gained.

    Args:
        features: Size O of the last axis of the result.
        in_features: Size I of the last axis of `x`. `None` infers it at `nn.init`.
        amax_history_length: Number H of training calls.
        mask: As for `Dense`.
        use_bias: Whether there is a bias.
        dtype: Of the result. `None` takes the one to which `x` and the parameters
            promote together.
        param_dtype: Of the parameters.
        precision: Of the products, as in `jax.lax.dot_general`.
        kernel_init: Initialiser of `kernel`.
        bias_init: Initialiser of `bias`.

    Parameters:
        kernel: `[I, O]`. Logical axes `("in", "out")`.
        bias: `[O]`, starts at zero. Logical axes `("out",)`.
        mask: A constant, as given.
        x_amax_history: `[H]`, state: largest magnitudes of `x`, newest first.
        kernel_amax_history: `[H]`, state: likewise of `kernel`.

    Shapes:
        x: `[..., I]`  ->  `[..., O]`

    Raises:
        ConfigError: A size is no positive integer.
        DTypeError: `x` is not floating.
        ShapeError: The last axis of `x` is not I.

    Example:
        >>> from linnet import functional as F
        >>> x = jnp.full((2, 3), 896.0)
        >>> dense = nn.init(nn.Fp8Dense(4), jax.random.key(0), x)
        >>> y, dense = nn.training(dense)(x)
        >>> F.fp8_scale(dense.x_amax_history)
        Array(2., dtype=float32)

    Differs from: Transformer Engine and Flax Linen, which scale gradients by earlier
    ones as well.
    Source: Micikevicius et al., "FP8 Formats for Deep Learning", 2022,
    arXiv:2209.05433.
    """

    def __init__(
        self,
        features: int,
        *,
        in_features: int | None = None,
        amax_history_length: int = 1024,
        mask: ArrayLike | None = None,
        use_bias: bool = True,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = KERNEL_INIT,
        bias_init: Initializer = zeros,
    ) -> None:
        super().__init__(
            features,
            in_features=in_features,
            mask=mask,
            use_bias=use_bias,
            dtype=dtype,
            param_dtype=param_dtype,
            precision=precision,
            kernel_init=kernel_init,
            bias_init=bias_init,
        )
        length = check_size(self, "amax_history_length", amax_history_length)
        self.x_amax_history = state(zeros, (length,))
        self.kernel_amax_history = state(zeros, (length,))

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[..., I]`, floating.
        """
        self.check_input(x, min_ndim=1, dtype="floating")
        self.expect(kernel=(x.shape[-1], self.features))
        kernel = F.masked(self.kernel, self.mask)
        y = F.fp8_dense(
            x,
            kernel,
            self.bias,
            x_scale=F.fp8_scale(self.x_amax_history),
            kernel_scale=F.fp8_scale(self.kernel_amax_history),
            dtype=self.dtype,
            precision=self.precision,
        )
        if self.training:
            self.x_amax_history = F.fp8_remember(self.x_amax_history, x)
            self.kernel_amax_history = F.fp8_remember(self.kernel_amax_history, kernel)
        return y


def fp8(model: PyTree, where: Where, *, amax_history_length: int = 1024) -> PyTree:
    """The model with `nn.Fp8Dense` in the place of each selected `nn.Dense`.

    Parameters stay where they are, under the paths that they have.

    Args:
        model: A module, described or initialised, or a pytree of them. Layers may be
            inside `nn.Stack` and `nn.Ensemble`.
        where: Selects `nn.Dense` layers, as for `nn.select` with modules, or modules
            around them: all in these are replaced.
        amax_history_length: Number of training calls that decide a scale.

    Returns:
        The model with the other layers.

    Raises:
        ConfigError: `where` selects what is no `nn.Dense`.
        PathError: `where` selects nothing.

    Example:
        >>> model = nn.Sequential([nn.Dense(8), jax.nn.relu, nn.Dense(4)])
        >>> model = nn.fp8(model, "layers/0")
        >>> type(model[0]).__name__, type(model[2]).__name__
        ('Fp8Dense', 'Dense')

    Differs from: Flax Linen, where each layer is given another `dot_general`.
    Source: Micikevicius et al., "FP8 Formats for Deep Learning", 2022,
    arXiv:2209.05433.
    """
    __tracebackhide__ = True
    pattern = Fp8Dense(1, amax_history_length=amax_history_length)
    histories = {name: declaration(pattern, name) for name in HISTORIES}

    def make(path: str, layer: Any) -> Module:
        missing = {name: (declared, declared) for name, declared in histories.items()}
        changed: Module = converted(layer, Fp8Dense, missing)
        return changed

    leaves, _, _ = slots(model)
    changed = swapped(model, where, {Dense: make}, "given fp8", keeps_arrays=True)
    if any(map(is_declared, leaves)):
        return changed  # `nn.init` makes the histories with the rest
    return fill(changed, jax.random.key(0))
