"""An invertible affine map of each feature that starts from data."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._typing import Array, ArrayLike, DType
from linnet.core import Module, from_data, param
from linnet.core._check import check_positive, check_size
from linnet.functional._dtype import widened
from linnet.nn._affine import AXES, result_dtype, sizes_along
from linnet.nn._axes import check_axis
from linnet.nn._place import placed


class ActNorm(Module):
    r"""Shifts and scales each feature; at first to mean zero and variance one.

    $y = (x + \mathrm{bias}) \cdot \mathrm{scale}$. `nn.init` takes the first values
    from the sample: $\mathrm{bias} = -\mu$ and $\mathrm{scale} = 1 / \sqrt{\sigma^2 +
    \epsilon}$. From then on both are parameters like others, in training and
    prediction alike.

    Args:
        features: Size D of the feature axis. `None` infers it at `nn.init`.
        axis: Where the features are. The other axes are batch.
        epsilon: Added to the variance at first (unit: that of `x` squared). Must be
            positive.
        dtype: Of the result; `None` takes that of `x`. The computation is in
            float32 or wider.
        param_dtype: Of the parameters.

    Parameters:
        scale: `[D]`, starts from the sample. Logical axes `("features",)`.
        bias: `[D]`, starts from the sample. Logical axes `("features",)`.

    Shapes:
        x: `[..., D]`  ->  `[..., D]`, same dtype as `x` unless `dtype` is given.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: `x` holds integers, booleans or complex numbers.
        InitError: `nn.init` was given a sample of shapes only.
        ShapeError: The feature axis of `x` is not D, or the mask does not fit.

    Example:
        >>> x = jnp.array([[1.0], [3.0]])
        >>> norm = nn.init(nn.ActNorm(), jax.random.key(0), x)
        >>> norm(x).round(3)
        Array([[-1.],
               [ 1.]], dtype=float32)
        >>> norm.inverse(jnp.zeros((1, 1)))
        Array([[2.]], dtype=float32)

    Differs from: PyTorch and Flax Linen have none.
    Source: Kingma and Dhariwal, "Glow", 2018, section 3.1 and table 1,
    arXiv:1807.03039.
    """

    def __init__(
        self,
        features: int | None = None,
        *,
        axis: int = -1,
        epsilon: float = 1e-6,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
    ) -> None:
        shape = (check_size(self, "features", features, allow_none=True),)
        check_axis(self, axis)
        self.axis = axis
        self.epsilon = check_positive(self, "epsilon", epsilon)
        self.dtype = result_dtype(self, dtype)
        self.scale = param(from_data, shape, param_dtype, axes=AXES)
        self.bias = param(from_data, shape, param_dtype, axes=AXES)

    def __call__(self, x: ArrayLike, mask: ArrayLike | None = None) -> Array:
        """Applies the layer.

        Args:
            x: `[..., D]`, floating.
            mask: Booleans with as many axes as `x`, each of its size or 1. `False`
                does not count in the first values; later it has no effect.
        """
        self.check_input(x, dtype="floating")
        with placed(self):
            if self.initializing:
                mean, var = F.batch_statistics(x, axis=self.axis, mask=mask)
                self.scale = lax.rsqrt(var + self.epsilon)
                self.bias = -mean
            return self._mapped(x, inverse=False)

    def inverse(self, y: ArrayLike) -> Array:
        """What `x` was.

        Args:
            y: `[..., D]`, what the layer returned.
        """
        self.check_input(y, "y", dtype="floating")
        with placed(self):
            return self._mapped(y, inverse=True)

    def forward_and_log_det(self, x: ArrayLike) -> tuple[Array, Array]:
        """What the layer returns, and how it changes volumes.

        Args:
            x: `[..., D]`, floating.

        Returns:
            `y`, and for each position `[...]` the logarithm of the absolute
            determinant in float32 or wider; those of several positions add up.
        """
        return self(x), self._log_det(x)

    def inverse_and_log_det(self, y: ArrayLike) -> tuple[Array, Array]:
        """As `forward_and_log_det`, for the inverse.

        Args:
            y: `[..., D]`, what the layer returned.
        """
        return self.inverse(y), -self._log_det(y)

    def _mapped(self, x: ArrayLike, *, inverse: bool) -> Array:
        shape = sizes_along(x, self.axis)
        self.expect(scale=shape, bias=shape)
        return F.act_norm(
            x,
            self.scale,
            self.bias,
            axis=self.axis,
            inverse=inverse,
            dtype=self.dtype,
        )

    def _log_det(self, x: ArrayLike) -> Array:
        positions = list(x.shape)
        del positions[self.axis]
        scale = self.scale.astype(widened(self.scale.dtype))
        total = jnp.log(jnp.abs(scale)).sum()
        return jnp.broadcast_to(total, tuple(positions))
