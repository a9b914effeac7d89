"""A recurrent cell whose products are convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core._check import check_option
from linnet.functional._recurrent import Activation
from linnet.functional._window import canonical_window
from linnet.functional.initializers import lecun_normal, zeros
from linnet.nn._cell import KERNEL_INIT, Cell, shifted
from linnet.nn._place import placed

RECURRENT_INIT = lecun_normal()


class ConvLSTMCell(Cell):
    r"""A long short-term memory of images: each of its products is a convolution.

    That of `nn.LSTMCell`, with $(i, f, g, o) = x * \mathrm{kernel} + h *
    \mathrm{recurrent\_kernel} + \mathrm{bias}$. Channels are last.

    Args:
        features: Size H of the last axis of the memory and of the output.
        kernel_size: The window K, one number per spatial axis.
        in_features: Size I of the last axis of `x`. `None` infers it at `nn.init`.
        padding: "SAME" continues with zeros, "CIRCULAR" and "REFLECT" with the image.
        use_bias: Whether there is a bias.
        forget_bias: Added to the first bias of the forget gate, so that the cell
            starts by remembering.
        gate_fn: In place of the sigmoid.
        activation_fn: In place of the hyperbolic tangent.
        dtype: Of the computation and the result. `None` takes the one to which `x`
            and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the products, as in `jax.lax.conv_general_dilated`.
        kernel_init: Initialiser of each gate's part of `kernel`.
        recurrent_kernel_init: Likewise, of `recurrent_kernel`.
        bias_init: Initialiser of `bias`, before `forget_bias` is added.

    Parameters:
        kernel: `[*K, I, 4H]`, in the order i, f, g, o. Logical axes
            `(None, ..., "in", "out")`.
        recurrent_kernel: `[*K, H, 4H]`, in this order. Logical axes likewise.
        bias: `[4H]`, in this order. Logical axes `("out",)`.

    Shapes:
        carry: `(c, h)`, each `[..., *W, H]`; zeros are `cell.initial_carry(x)`.
        x: `[..., *W, I]`, with the output `[..., *W, H]`.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: `x` holds no floating numbers.
        ShapeError: The last axis of `x` is not I, or the carry does not fit.

    Example:
        >>> x = jnp.ones((2, 5, 16, 16, 3))  # 5 images
        >>> rnn = nn.RNN(nn.ConvLSTMCell(4, (3, 3)))
        >>> nn.init(rnn, jax.random.key(0), x)(x).shape
        (2, 5, 16, 16, 4)

    Differs from: Flax Linen, whose order is i, g, f, o, and whose forget bias is
    no part of `bias`. PyTorch has none.
    Source: Shi et al., "Convolutional LSTM network", 2015, eq. 3, without the
    peepholes, arXiv:1506.04214.
    """

    _gates = 4
    _carries = 2

    def __init__(
        self,
        features: int,
        kernel_size: Sequence[int],
        *,
        in_features: int | None = None,
        padding: str = "SAME",
        use_bias: bool = True,
        forget_bias: float = 1.0,
        gate_fn: Activation = jax.nn.sigmoid,
        activation_fn: Activation = jnp.tanh,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = KERNEL_INIT,
        recurrent_kernel_init: Initializer = RECURRENT_INIT,
        bias_init: Initializer = zeros,
    ) -> None:
        with placed(self):
            self.kernel_size = canonical_window(kernel_size, "kernel_size")
        choices = ("SAME", "CIRCULAR", "REFLECT")
        self.padding = check_option(self, "padding", padding, choices)
        self.gate_fn = gate_fn
        self.activation_fn = activation_fn
        self._declare(
            features,
            in_features,
            use_bias=use_bias,
            dtype=dtype,
            param_dtype=param_dtype,
            precision=precision,
            kernel_init=kernel_init,
            recurrent_kernel_init=recurrent_kernel_init,
            bias_init=shifted(bias_init, 4, 1, forget_bias),
            window=self.kernel_size,
        )

    @property
    def num_feature_axes(self) -> int:  # type: ignore[override]
        """The spatial axes and the last one."""
        return len(self.kernel_size) + 1

    def check(self, x: ArrayLike) -> None:
        """Refuses an input of another kind or width, at one time or at many.

        Args:
            x: `[..., *W, I]`, floating.
        """
        self.check_input(x, min_ndim=self.num_feature_axes, dtype="floating")
        size_out = 4 * self.features
        self.expect(kernel=(*self.kernel_size, x.shape[-1], size_out), bias=(size_out,))

    def project(self, x: ArrayLike) -> Array:
        """What the input contributes to the gates, at one time or at many.

        Args:
            x: `[..., *W, I]`, floating.
        """
        self.check(x)
        with placed(self):
            return F.conv(
                x,
                self.kernel,
                self.bias,
                padding=self.padding,
                dtype=self.dtype,
                precision=self.precision,
            )

    def step(self, carry: Any, projected: Array) -> tuple[Any, Array]:
        """The rest of a call: `cell(carry, x)` is `step(carry, project(x))`.

        Args:
            carry: `(c, h)`, each `[..., *W, H]`.
            projected: `[..., *W, 4H]`.
        """
        with placed(self):
            return F.conv_lstm_step(
                carry,
                projected,
                self.recurrent_kernel,
                padding=self.padding,
                gate_fn=self.gate_fn,
                activation_fn=self.activation_fn,
                precision=self.precision,
            )
