"""Batch normalisation."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from linnet import functional as F
from linnet._errors import ConfigError
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import BatchStat, Module, state
from linnet.core._check import check_positive, check_size
from linnet.functional._batch_norm import batch_norm_and_statistics
from linnet.functional._moments import AxisName
from linnet.functional.initializers import ones, zeros
from linnet.nn._affine import AXES, result_dtype, sizes_along, vector, vectors
from linnet.nn._axes import check_axis
from linnet.nn._place import placed


class BatchNorm(Module):
    r"""Normalises each feature by its mean and variance over the batch.

    $y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \mathrm{scale} +
    \mathrm{bias}$

    In training the statistics are those of the batch, and the running ones move
    towards them: $\mathrm{mean} \leftarrow m\,\mathrm{mean} + (1 - m)\,\mu$, and so
    for the variance. Otherwise the running ones are used, and do not change.

    Args:
        features: Size D of the feature axis. `None` infers it at `nn.init`.
        axis: Where the features are. The other axes are batch.
        momentum: The share m of the running statistics that stays, `0 <= m < 1`.
        epsilon: Added to the variance (unit: that of `x` squared). Must be positive.
        use_scale: Whether there is a scale.
        use_bias: Whether there is a bias.
        axis_name: Mapped axis, or axes, over which the batch is spread in training
            (of `jax.vmap`, `jax.shard_map` or `jax.pmap`). Not needed under
            `jax.jit` with sharded arrays, where a batch is whole.
        dtype: Of the result; `None` takes that of `x`. The computation is in
            float32 or wider.
        param_dtype: Of `scale` and `bias`.
        scale_init: Initialiser of `scale`.
        bias_init: Initialiser of `bias`.

    Parameters:
        scale: `[D]`, starts at one. Logical axes `("features",)`.
        bias: `[D]`, starts at zero. Logical axes `("features",)`.
        mean: `[D]`, float32, starts at zero. Role `nn.BatchStat`.
        var: `[D]`, float32, starts at one. Role `nn.BatchStat`.

    Shapes:
        x: `[..., D]`  ->  `[..., D]`, same dtype as `x` unless `dtype` is given.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: `x` holds integers, booleans or complex numbers.
        ShapeError: The feature axis of `x` is not D, or the mask does not fit.

    Example:
        >>> x = jnp.array([[1.0], [3.0]])
        >>> norm = nn.init(nn.BatchNorm(momentum=0.5), jax.random.key(0), x)
        >>> y, norm = nn.training(norm)(x)
        >>> y.round(3)
        Array([[-1.],
               [ 1.]], dtype=float32)
        >>> norm.mean, norm.var
        (Array([1.], dtype=float32), Array([1.], dtype=float32))

    Differs from: PyTorch, whose running variance is unbiased, N / (N - 1) times as
    large, and whose `momentum` of 0.1 is 0.9 here. Flax Linen: the same, but it
    gives float32 for bfloat16 input.
    Source: Ioffe and Szegedy, "Batch Normalization", 2015, algorithms 1 and 2,
    arXiv:1502.03167.
    """

    def __init__(
        self,
        features: int | None = None,
        *,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        use_scale: bool = True,
        use_bias: bool = True,
        axis_name: AxisName | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        scale_init: Initializer = ones,
        bias_init: Initializer = zeros,
    ) -> None:
        shape = (check_size(self, "features", features, allow_none=True),)
        check_axis(self, axis)
        _check_momentum(momentum)
        self.axis = axis
        self.momentum = momentum
        self.epsilon = check_positive(self, "epsilon", epsilon)
        self.use_scale = use_scale
        self.use_bias = use_bias
        self.axis_name = axis_name
        self.dtype = result_dtype(self, dtype)
        self.scale = vector(use_scale, scale_init, shape, param_dtype)
        self.bias = vector(use_bias, bias_init, shape, param_dtype)
        self.mean = state(zeros, shape, jnp.float32, role=BatchStat, axes=AXES)
        self.var = state(ones, shape, jnp.float32, role=BatchStat, axes=AXES)

    def __call__(self, x: ArrayLike, mask: ArrayLike | None = None) -> Array:
        """Applies the layer.

        Args:
            x: `[..., D]`, floating.
            mask: Booleans with as many axes as `x`, each of its size or 1. `False`
                does not count in the statistics of training. Where nothing counts,
                the running ones stand in.
        """
        self.check_input(x, dtype="floating")
        with placed(self):
            shape = sizes_along(x, self.axis)
            self.expect(mean=shape, var=shape, **vectors(self, shape))
            options: dict[str, Any] = {
                "axis": self.axis,
                "epsilon": self.epsilon,
                "dtype": self.dtype,
            }
            scale, bias = self.scale, self.bias
            if not self.training:
                return F.batch_norm(x, self.mean, self.var, scale, bias, **options)
            y, mean, var = batch_norm_and_statistics(
                x,
                scale,
                bias,
                mask=mask,
                axis_name=self.axis_name,
                default=(self.mean, self.var),
                **options,
            )
            self.mean = F.moving_average(self.mean, mean, self.momentum)
            self.var = F.moving_average(self.var, var, self.momentum)
            return y


def _check_momentum(momentum: float) -> None:
    if not 0 <= momentum < 1:
        raise ConfigError(
            f"`momentum` is {momentum!r}, but it must be in [0, 1).",
            code="LN-VALUE-02",
            at="BatchNorm",
            why="It is the share of the running statistics that stays.",
            fixes=[("they should move slowly", "momentum = 0.99")],
        )
