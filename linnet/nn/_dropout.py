"""Layers that drop something in training."""

from __future__ import annotations

from collections.abc import Sequence

from linnet import functional as F
from linnet._typing import ArrayLike
from linnet.core import Module
from linnet.core._check import check_rate
from linnet.nn._place import placed


class Dropout(Module):
    r"""In training, sets each entry to zero with some probability.

    What is kept is divided by $1 - \mathrm{rate}$, so the mean stays what it is. A
    plain call returns `x` itself.

    Args:
        rate: Probability of dropping, `0 <= rate < 1`. At 0 no key is needed.
        broadcast_axes: Axes along which entries are dropped together.
        stream: The random stream that the key is taken from.

    Shapes:
        x: any  ->  the same shape and dtype.

    Raises:
        ConfigError: `rate` is outside `[0, 1)`.
        DTypeError: `x` holds integers or booleans.
        ScopeError: In training, the stream was not given.
        ShapeError: `broadcast_axes` are not axes of `x`.

    Example:
        >>> drop = nn.Dropout(0.5)
        >>> drop(jnp.ones(4))
        Array([1., 1., 1., 1.], dtype=float32)
        >>> y, drop = nn.training(drop, jax.random.key(0))(jnp.ones(1000))
        >>> sorted(set(y.tolist()))
        [0.0, 2.0]

    Differs from: PyTorch and Flax Linen, whose default rates are 0.5 and none;
    Linen's `broadcast_dims` are these `broadcast_axes`.
    Source: Srivastava et al., "Dropout", JMLR 15, 2014, sections 4 and 10.
    """

    def __init__(
        self,
        rate: float,
        *,
        broadcast_axes: int | Sequence[int] = (),
        stream: str = "dropout",
    ) -> None:
        axes = broadcast_axes
        self.rate = check_rate(self, "rate", rate)
        self.broadcast_axes = (axes,) if isinstance(axes, int) else tuple(axes)
        self.stream = stream

    def __call__(self, x: ArrayLike) -> ArrayLike:
        """Applies the layer.

        Args:
            x: Any shape, floating or complex.
        """
        self.check_input(x, dtype="inexact")
        if not self.training or self.rate == 0:
            return x
        key = self.rng(self.stream)
        with placed(self):
            return F.dropout(x, key, self.rate, broadcast_axes=self.broadcast_axes)


class DropPath(Module):
    r"""In training, leaves out a branch of a residual block for some examples.

    In `x + self.drop_path(self.branch(x))` each example is set to zero with some
    probability, and what is kept is divided by $1 - \mathrm{rate}$, so the mean stays
    what it is. A plain call returns `x` itself. Also known as stochastic depth.

    Args:
        rate: Probability of dropping, `0 <= rate < 1`. At 0 no key is needed.
        batch_axes: Axes along which examples are dropped independently: the first.
            With none, `()`, all of `x` is one example.
        stream: The random stream that the key is taken from.

    Shapes:
        x: any  ->  the same shape and dtype.

    Raises:
        ConfigError: `rate` is outside `[0, 1)`.
        DTypeError: `x` holds integers or booleans.
        ScopeError: In training, the stream was not given.
        ShapeError: `batch_axes` are not axes of `x`.

    Example:
        >>> drop = nn.DropPath(0.5)
        >>> y, drop = nn.training(drop, jax.random.key(0))(jnp.ones((1000, 2)))
        >>> sorted(set(map(tuple, y.tolist())))
        [(0.0, 0.0), (2.0, 2.0)]

    Differs from: `StochasticDepth` of torchvision: `batch_axes=()` is its mode
    "batch".
    Source: Huang et al., "Deep Networks with Stochastic Depth", 2016, section 3,
    arXiv:1603.09382.
    """

    def __init__(
        self,
        rate: float,
        *,
        batch_axes: int | Sequence[int] = 0,
        stream: str = "dropout",
    ) -> None:
        axes = batch_axes
        self.rate = check_rate(self, "rate", rate)
        self.batch_axes = (axes,) if isinstance(axes, int) else tuple(axes)
        self.stream = stream

    def __call__(self, x: ArrayLike) -> ArrayLike:
        """Applies the layer.

        Args:
            x: Any shape, floating or complex.
        """
        self.check_input(x, min_ndim=len(self.batch_axes), dtype="inexact")
        if not self.training or self.rate == 0:
            return x
        key = self.rng(self.stream)
        with placed(self):
            return F.drop_path(x, key, self.rate, batch_axes=self.batch_axes)
