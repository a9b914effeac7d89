"""Perceptrons of several layers, plain and gated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linnet._errors import ConfigError
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import Module
from linnet.core._check import check_rate, check_size
from linnet.functional.initializers import lecun_normal, zeros
from linnet.nn._dropout import Dropout
from linnet.nn._linear import Dense
from linnet.nn._projection import projection

Activation = Callable[[Any], Any]

KERNEL_INIT = lecun_normal()


class MLP(Module):
    r"""Dense layers with an activation between each two.

    A hidden layer is $h = \phi(x W + b)$, or if gated $h = \phi(x V + c) \odot
    (x W + b)$; the last layer is $y = h W' + b'$. With one hidden size it is the
    feed-forward layer of a transformer.

    Args:
        hidden: Size F of the hidden layer, or one for each of several, first to last.
        out_features: Size O of the last axis of the result. `None` takes that of `x`.
        in_features: Size I of the last axis of `x`. `None` infers it at `nn.init`.
        activation: $\phi$, a function or a module; one for all hidden layers.
        gated: Whether each hidden layer has a gate: with `jax.nn.silu` SwiGLU, with
            `jax.nn.gelu` GeGLU, with `jax.nn.relu` ReGLU. A gated layer of size
            2F / 3 has as many weights as a plain one of size F.
        dropout_rate: Probability of dropping an entry of a hidden layer, in training.
        use_bias: Whether there are biases.
        dtype: Of the computation and the result. `None` takes the one to which `x`
            and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the products, as in `jax.lax.dot_general`.
        kernel_init: Initialiser of the kernels.
        bias_init: Initialiser of the biases.

    Parameters:
        hidden: A `Dense` of kernel W for each hidden size, `hidden[0]` and so on. Of
            one hidden size the inner axis is named "mlp", here and below.
        gate: A `Dense` of kernel V for each hidden size, if gated.
        out: The last `Dense`.

    Shapes:
        x: `[..., I]`  ->  `[..., O]`

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: `x` holds integers or booleans.
        ScopeError: In training, `dropout_rate` is not 0 and no key was given.
        ShapeError: The last axis of `x` is not I.

    Example:
        >>> x = jnp.ones((8, 3))
        >>> classifier = nn.MLP([64, 32], out_features=10)
        >>> nn.init(classifier, jax.random.key(0), x)(x).shape
        (8, 10)
        >>> swiglu = nn.MLP(8, activation=jax.nn.silu, gated=True, use_bias=False)
        >>> swiglu = nn.init(swiglu, jax.random.key(0), x)
        >>> swiglu.gate[0].kernel.shape, swiglu.out.kernel.shape
        ((3, 8), (8, 3))

    Differs from: PyTorch, whose GELU is exact; `jax.nn.gelu` approximates it by the
    hyperbolic tangent, as GPT-2 does. Flax Linen: it has none.
    Source: Vaswani et al., "Attention Is All You Need", 2017, eq. 2,
    arXiv:1706.03762. Gates: Shazeer, "GLU Variants Improve Transformer", 2020, eq. 6,
    arXiv:2002.05202.
    """

    def __init__(
        self,
        hidden: int | Sequence[int],
        *,
        out_features: int | None = None,
        in_features: int | None = None,
        activation: Activation = jax.nn.gelu,
        gated: bool = False,
        dropout_rate: float = 0.0,
        use_bias: bool = True,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = KERNEL_INIT,
        bias_init: Initializer = zeros,
    ) -> None:
        sizes = tuple(hidden) if isinstance(hidden, list | tuple) else (hidden,)
        sizes = tuple(check_size(self, "hidden", size) for size in sizes)
        size_in = check_size(self, "in_features", in_features, allow_none=True)
        self.out_features: int | None = check_size(
            self, "out_features", out_features, allow_none=True
        )
        options: dict[str, Any] = {
            "use_bias": use_bias,
            "dtype": dtype,
            "param_dtype": param_dtype,
            "precision": precision,
            "kernel_init": kernel_init,
            "bias_init": bias_init,
        }

        first, second = ("in", "out"), ("in", "out")
        if len(sizes) == 1:  # divided by outputs, then by inputs
            first, second = ("in", "mlp"), ("mlp", "out")

        def layers() -> tuple[Dense, ...]:
            before = (size_in, *sizes[:-1])
            pairs = zip(before, sizes, strict=False)
            return tuple(
                projection(n, first, in_features=i, **options) for i, n in pairs
            )

        self.hidden = layers()
        self.gate = layers() if gated else None
        last = sizes[-1] if sizes else size_in
        self.out = projection(
            self.out_features,
            second,
            in_features=last,
            **options,
        )
        self.activation = check_activation(self, activation)
        self.dropout = Dropout(check_rate(self, "dropout_rate", dropout_rate))

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layers in order.

        Args:
            x: `[..., I]`, floating or complex.
        """
        self.check_input(x, min_ndim=1, dtype="inexact")
        h: Any = x
        for i, layer in enumerate(self.hidden):
            if self.gate is None:
                h = self.activation(layer(h))  # [..., F]
            else:
                h = self.activation(self.gate[i](h)) * layer(h)  # [..., F]
            h = self.dropout(h)
        is_told = self.out_features is None and isinstance(self.out, Dense)
        if self.initializing and is_told:
            self.out.expect(kernel=(h.shape[-1], x.shape[-1]), bias=x.shape[-1:])
        return self.out(h)


def check_activation(module: Module, activation: Any) -> Activation:
    """The activation, if it can be called.

    Args:
        module: Under construction: whose option this is.
        activation: That was given.

    Raises:
        ConfigError: It cannot be called.
    """
    if callable(activation):
        return activation
    name = activation if hasattr(jax.nn, str(activation)) else "gelu"
    raise ConfigError(
        f"`activation` is {activation!r}, but it must be a function or a module.",
        code="LN-VALUE-04",
        at=type(module).__name__,
        fixes=[(f"`{name}` is meant", f"activation = jax.nn.{name}")],
    )
