"""Recurrent cells: one step each. `nn.RNN` runs them over time."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._typing import Array, DType, Initializer
from linnet.functional._recurrent import Activation
from linnet.functional.initializers import zeros
from linnet.nn._cell import KERNEL_INIT, RECURRENT_INIT, Cell, shifted
from linnet.nn._kernel import bias_param
from linnet.nn._place import placed


class LSTMCell(Cell):
    r"""A long short-term memory: a memory that gates fill, empty and show.

    $c' = f \odot c + i \odot g$ and $h' = o \odot \tanh c'$, with the gates
    $(i, f, g, o) = x \cdot \mathrm{kernel} + h \cdot \mathrm{recurrent\_kernel} +
    \mathrm{bias}$, of which $g$ passes through a hyperbolic tangent and the others
    through a sigmoid.

    `cell(carry, x)` gives the next carry and the output. The memory is kept in
    float32 or wider.

    Args:
        features: Size H of the memory and of the output.
        in_features: Size I of the last axis of `x`. `None` infers it at `nn.init`.
        use_bias: Whether there is a bias.
        forget_bias: Added to the first bias of the forget gate, so that the cell
            starts by remembering.
        gate_fn: In place of the sigmoid.
        activation_fn: In place of the hyperbolic tangent.
        dtype: Of the computation and the result. `None` takes the one to which `x`
            and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the products, as in `jax.lax.dot_general`.
        kernel_init: Initialiser of each gate's part of `kernel`.
        recurrent_kernel_init: Likewise, of `recurrent_kernel`.
        bias_init: Initialiser of `bias`, before `forget_bias` is added.

    Parameters:
        kernel: `[I, 4H]`, in the order i, f, g, o. Logical axes `("in", "out")`.
        recurrent_kernel: `[H, 4H]`, in this order. Logical axes `("in", "out")`.
        bias: `[4H]`, in this order. Logical axes `("out",)`.

    Shapes:
        carry: `(c, h)`, each `[..., H]`; zeros are `cell.initial_carry(x)`.
        x: `[..., I]`, with the output `[..., H]`.

    Raises:
        ConfigError: A size is no positive integer.
        DTypeError: `x` holds no floating numbers.
        ShapeError: The last axis of `x` is not I, or the carry does not fit.

    Example:
        >>> x = jnp.ones((8, 3))
        >>> carry = nn.LSTMCell(4).initial_carry(x)
        >>> cell = nn.init(nn.LSTMCell(4), jax.random.key(0), carry, x)
        >>> carry, y = cell(carry, x)
        >>> y.shape
        (8, 4)

    Differs from: PyTorch, whose carry is `(h, c)`, which has two biases and no
    `forget_bias`, and starts uniform in $\pm 1 / \sqrt H$. Flax Linen, which has a
    kernel per gate and no `forget_bias`.
    Source: Hochreiter and Schmidhuber, "Long short-term memory", 1997; Gers et al.,
    "Learning to forget", 2000; for the forget bias, Jozefowicz et al., "An empirical
    exploration of recurrent network architectures", 2015, section 2.2.
    """

    _gates = 4
    _carries = 2

    def __init__(
        self,
        features: int,
        *,
        in_features: int | None = None,
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
        )

    def step(self, carry: Any, projected: Array) -> tuple[Any, Array]:
        """The rest of a call: `cell(carry, x)` is `step(carry, project(x))`.

        Args:
            carry: `(c, h)`, each `[..., H]`.
            projected: `[..., 4H]`.
        """
        with placed(self):
            return F.lstm_step(
                carry,
                projected,
                self.recurrent_kernel,
                gate_fn=self.gate_fn,
                activation_fn=self.activation_fn,
                precision=self.precision,
            )


class GRUCell(Cell):
    r"""A gated recurrent unit: its output is its memory, renewed by a gate.

    $h' = (1 - z) \odot n + z \odot h$, with the gates $(r, z, n) = x \cdot
    \mathrm{kernel} + \mathrm{bias}$, to which $h \cdot \mathrm{recurrent\_kernel}$
    is added: to $r$ and $z$, which pass through a sigmoid; and to $n$ with
    `recurrent_bias` and multiplied by $r$, before a hyperbolic tangent.

    `cell(carry, x)` gives the next carry and the output. The carry is kept in
    float32 or wider.

    Args:
        features: Size H of the output.
        in_features: Size I of the last axis of `x`. `None` infers it at `nn.init`.
        use_bias: Whether there are biases.
        gate_fn: In place of the sigmoid.
        activation_fn: In place of the hyperbolic tangent.
        dtype: Of the computation and the result. `None` takes the one to which `x`
            and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the products, as in `jax.lax.dot_general`.
        kernel_init: Initialiser of each gate's part of `kernel`.
        recurrent_kernel_init: Likewise, of `recurrent_kernel`.
        bias_init: Initialiser of the biases.

    Parameters:
        kernel: `[I, 3H]`, in the order r, z, n. Logical axes `("in", "out")`.
        recurrent_kernel: `[H, 3H]`, in this order. Logical axes `("in", "out")`.
        bias: `[3H]`, in this order, starts at zero. Logical axes `("out",)`.
        recurrent_bias: `[H]`, of n, starts at zero. Logical axes `("out",)`.

    Shapes:
        carry: `[..., H]`; zeros are `cell.initial_carry(x)`.
        x: `[..., I]`, with the output `[..., H]`.

    Raises:
        ConfigError: A size is no positive integer.
        DTypeError: `x` holds no floating numbers.
        ShapeError: The last axis of `x` is not I, or the carry does not fit.

    Example:
        >>> x = jnp.ones((8, 3))
        >>> carry = nn.GRUCell(4).initial_carry(x)
        >>> cell = nn.init(nn.GRUCell(4), jax.random.key(0), carry, x)
        >>> carry, y = cell(carry, x)
        >>> y.shape
        (8, 4)

    Differs from: PyTorch, which has a second bias of r and z as well (their sum is
    the one here), and starts uniform in $\pm 1 / \sqrt H$. Flax Linen, which has a
    kernel per gate.
    Source: Cho et al., "Learning phrase representations using RNN
    encoder-decoder", 2014, eq. 5 to 8, arXiv:1406.1078, with the reset gate after
    the product.
    """

    _gates = 3
    _carries = 1

    def __init__(
        self,
        features: int,
        *,
        in_features: int | None = None,
        use_bias: bool = True,
        gate_fn: Activation = jax.nn.sigmoid,
        activation_fn: Activation = jnp.tanh,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = KERNEL_INIT,
        recurrent_kernel_init: Initializer = RECURRENT_INIT,
        bias_init: Initializer = zeros,
    ) -> None:
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
            bias_init=bias_init,
        )
        self.recurrent_bias = bias_param(use_bias, bias_init, (features,), param_dtype)

    def step(self, carry: Any, projected: Array) -> tuple[Any, Array]:
        """The rest of a call: `cell(carry, x)` is `step(carry, project(x))`.

        Args:
            carry: `[..., H]`.
            projected: `[..., 3H]`.
        """
        with placed(self):
            return F.gru_step(
                carry,
                projected,
                self.recurrent_kernel,
                self.recurrent_bias,
                gate_fn=self.gate_fn,
                activation_fn=self.activation_fn,
                precision=self.precision,
            )


class MGUCell(Cell):
    r"""A minimal gated unit: one gate both forgets and resets.

    $h' = (1 - f) \odot n + f \odot h$, with $(f, n) = x \cdot \mathrm{kernel} +
    \mathrm{bias}$, to which $h \cdot \mathrm{recurrent\_kernel}$ is added: to $f$,
    which passes through a sigmoid; and to $n$ with `recurrent_bias` and multiplied by
    $f$, before a hyperbolic tangent.

    `cell(carry, x)` gives the next carry and the output. The carry is kept in
    float32 or wider.

    Args:
        features: Size H of the output.
        in_features: Size I of the last axis of `x`. `None` infers it at `nn.init`.
        use_bias: Whether there are biases.
        forget_bias: Added to the first bias of the gate, so that the cell starts by
            remembering.
        reset_gate: Whether the gate also multiplies what the candidate n sees of h.
        gate_fn: In place of the sigmoid.
        activation_fn: In place of the hyperbolic tangent.
        dtype: Of the computation and the result. `None` takes the one to which `x`
            and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the products, as in `jax.lax.dot_general`.
        kernel_init: Initialiser of each gate's part of `kernel`.
        recurrent_kernel_init: Likewise, of `recurrent_kernel`.
        bias_init: Initialiser of the biases, before `forget_bias` is added.

    Parameters:
        kernel: `[I, 2H]`, in the order f, n. Logical axes `("in", "out")`.
        recurrent_kernel: `[H, 2H]`, in this order. Logical axes `("in", "out")`.
        bias: `[2H]`, in this order. Logical axes `("out",)`.
        recurrent_bias: `[H]`, of n, starts at zero; none without a reset gate.
            Logical axes `("out",)`.

    Shapes:
        carry: `[..., H]`; zeros are `cell.initial_carry(x)`.
        x: `[..., I]`, with the output `[..., H]`.

    Raises:
        ConfigError: A size is no positive integer.
        DTypeError: `x` holds no floating numbers.
        ShapeError: The last axis of `x` is not I, or the carry does not fit.

    Example:
        >>> x = jnp.ones((8, 3))
        >>> carry = nn.MGUCell(4).initial_carry(x)
        >>> cell = nn.init(nn.MGUCell(4), jax.random.key(0), carry, x)
        >>> carry, y = cell(carry, x)
        >>> y.shape
        (8, 4)

    Differs from: Flax Linen, which has a kernel per gate, and the same start.
    PyTorch has none.
    Source: Zhou et al., "Minimal gated unit for recurrent neural networks", 2016,
    section 3.2, arXiv:1603.09420.
    """

    _gates = 2
    _carries = 1

    def __init__(
        self,
        features: int,
        *,
        in_features: int | None = None,
        use_bias: bool = True,
        forget_bias: float = 1.0,
        reset_gate: bool = True,
        gate_fn: Activation = jax.nn.sigmoid,
        activation_fn: Activation = jnp.tanh,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = KERNEL_INIT,
        recurrent_kernel_init: Initializer = RECURRENT_INIT,
        bias_init: Initializer = zeros,
    ) -> None:
        self.reset_gate = reset_gate
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
            bias_init=shifted(bias_init, 2, 0, forget_bias),
        )
        self.recurrent_bias = bias_param(
            use_bias and reset_gate, bias_init, (features,), param_dtype
        )

    def step(self, carry: Any, projected: Array) -> tuple[Any, Array]:
        """The rest of a call: `cell(carry, x)` is `step(carry, project(x))`.

        Args:
            carry: `[..., H]`.
            projected: `[..., 2H]`.
        """
        with placed(self):
            return F.mgu_step(
                carry,
                projected,
                self.recurrent_kernel,
                self.recurrent_bias,
                reset_gate=self.reset_gate,
                gate_fn=self.gate_fn,
                activation_fn=self.activation_fn,
                precision=self.precision,
            )


class SimpleCell(Cell):
    r"""The cell of an Elman network: a dense layer of the input and of its own output.

    $h' = \tanh(x \cdot \mathrm{kernel} + h \cdot \mathrm{recurrent\_kernel} +
    \mathrm{bias})$

    `cell(carry, x)` gives the next carry and the output.

    Args:
        features: Size H of the output.
        in_features: Size I of the last axis of `x`. `None` infers it at `nn.init`.
        use_bias: Whether there is a bias.
        activation_fn: In place of the hyperbolic tangent.
        dtype: Of the computation and the result. `None` takes the one to which `x`
            and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the products, as in `jax.lax.dot_general`.
        kernel_init: Initialiser of `kernel`.
        recurrent_kernel_init: Initialiser of `recurrent_kernel`.
        bias_init: Initialiser of `bias`.

    Parameters:
        kernel: `[I, H]`. Logical axes `("in", "out")`.
        recurrent_kernel: `[H, H]`. Logical axes `("in", "out")`.
        bias: `[H]`, starts at zero. Logical axes `("out",)`.

    Shapes:
        carry: `[..., H]`; zeros are `cell.initial_carry(x)`.
        x: `[..., I]`, with the output `[..., H]`.

    Raises:
        ConfigError: A size is no positive integer.
        DTypeError: `x` holds no floating numbers.
        ShapeError: The last axis of `x` is not I, or the carry does not fit.

    Example:
        >>> x = jnp.ones((8, 3))
        >>> carry = nn.SimpleCell(4).initial_carry(x)
        >>> cell = nn.init(nn.SimpleCell(4), jax.random.key(0), carry, x)
        >>> carry, y = cell(carry, x)
        >>> y.shape
        (8, 4)

    Differs from: PyTorch, which has two biases and starts uniform in
    $\pm 1 / \sqrt H$. Flax Linen: the same, with the layers `i` and `h`.
    Source: Elman, "Finding structure in time", 1990.
    """

    _gates = 1
    _carries = 1

    def __init__(
        self,
        features: int,
        *,
        in_features: int | None = None,
        use_bias: bool = True,
        activation_fn: Activation = jnp.tanh,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = KERNEL_INIT,
        recurrent_kernel_init: Initializer = RECURRENT_INIT,
        bias_init: Initializer = zeros,
    ) -> None:
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
            bias_init=bias_init,
        )

    def step(self, carry: Any, projected: Array) -> tuple[Any, Array]:
        """The rest of a call: `cell(carry, x)` is `step(carry, project(x))`.

        Args:
            carry: `[..., H]`.
            projected: `[..., H]`.
        """
        with placed(self):
            return F.simple_step(
                carry,
                projected,
                self.recurrent_kernel,
                activation_fn=self.activation_fn,
                precision=self.precision,
            )
