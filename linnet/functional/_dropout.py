"""Dropout, as arrays."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from linnet._errors import ConfigError
from linnet._typing import Array, ArrayLike
from linnet.functional._compile import compiled
from linnet.functional._dtype import inexact, widened
from linnet.functional._shape import axes_of


def dropout(
    x: ArrayLike,
    key: Array | None,
    rate: float,
    *,
    broadcast_axes: int | tuple[int, ...] = (),
) -> Array:
    r"""Sets each entry to zero with probability `rate`, and scales up the others.

    $y_i = m_i x_i / (1 - \mathrm{rate})$ with $m_i \sim
    \mathrm{Bernoulli}(1 - \mathrm{rate})$, so the mean of $y$ is $x$. The division
    is made in float32 or wider, lest a rounded factor shift that mean.

    Args:
        x: Any shape, floating or complex.
        key: A random key. Not used, and may be `None`, if `rate` is 0.
        rate: Probability of dropping, `0 <= rate < 1`.
        broadcast_axes: Axes along which entries are dropped together.

    Returns:
        An array like `x`.

    Raises:
        ConfigError: `rate` is outside `[0, 1)`.
        DTypeError: `x` holds integers or booleans.
        ShapeError: `broadcast_axes` are not axes of `x`.

    Example:
        >>> from linnet import functional as F
        >>> F.dropout(jnp.ones(6), jax.random.key(0), 0.5)
        Array([0., 0., 2., 2., 0., 2.], dtype=float32)

    Source: Srivastava et al., "Dropout", JMLR 15, 2014, sections 4 and 10.
    """
    x = inexact(x, "x")
    if not 0.0 <= rate < 1.0:
        raise ConfigError(
            f"`rate` is {rate}, but a probability of dropping is in [0, 1).",
            code="LN-VALUE-02",
            fixes=[
                ("nothing should be dropped", "rate = 0.0"),
                ("everything should be dropped", "y = jnp.zeros_like(x)"),
            ],
        )
    if rate == 0.0:
        return x
    shared = axes_of(x.ndim, broadcast_axes)
    shape = [1 if axis in shared else size for axis, size in enumerate(x.shape)]
    keep = 1.0 - rate
    if key is None:
        raise ConfigError(
            f"`key` is None, but a `rate` of {rate} draws random numbers.",
            code="LN-VALUE-06",
            fixes=[
                (
                    "every call may drop the same entries",
                    "key = jax.random.key(0)",
                )
            ],
        )
    return _dropout(x, key, keep, tuple(shape))


def drop_path(
    x: ArrayLike,
    key: Array | None,
    rate: float,
    *,
    batch_axes: int | tuple[int, ...] = 0,
) -> Array:
    r"""Sets whole examples to zero with probability `rate`, and scales up the others.

    It is `dropout` with everything dropped together but along `batch_axes`. On the
    branch of a residual block, $x + \mathrm{drop\_path}(f(x))$, it leaves the block
    out.

    Args:
        x: Any shape, floating or complex.
        key: A random key. Not used, and may be `None`, if `rate` is 0.
        rate: Probability of dropping, `0 <= rate < 1`.
        batch_axes: Axes along which examples are dropped independently. With none,
            `()`, all of `x` is one example.

    Returns:
        An array like `x`.

    Raises:
        ConfigError: `rate` is outside `[0, 1)`.
        DTypeError: `x` holds integers or booleans.
        ShapeError: `batch_axes` are not axes of `x`.

    Example:
        >>> from linnet import functional as F
        >>> F.drop_path(jnp.ones((4, 2)), jax.random.key(0), 0.5)
        Array([[0., 0.],
               [0., 0.],
               [2., 2.],
               [2., 2.]], dtype=float32)

    Source: Huang et al., "Deep Networks with Stochastic Depth", 2016, section 3,
    arXiv:1603.09382.
    """
    x = inexact(x, "x")
    batch = axes_of(x.ndim, batch_axes)
    together = tuple(axis for axis in range(x.ndim) if axis not in batch)
    return dropout(x, key, rate, broadcast_axes=together)


@compiled(3)
def _dropout(x: Array, key: Array, keep: float, shape: tuple[int, ...]) -> Array:
    kept = jax.random.bernoulli(key, keep, shape)
    scaled = (x.astype(widened(x.dtype)) / keep).astype(x.dtype)
    return jnp.where(kept, scaled, jnp.zeros_like(x))
