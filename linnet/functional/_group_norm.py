"""Normalisation over groups of features and positions, as arrays.

W spatial axes  D features  G groups  S features in a group  ... batch

Statistics are taken in float32 or wider.
"""

from __future__ import annotations

from linnet._errors import ConfigError, ShapeError, describe
from linnet._typing import Array, ArrayLike, DType
from linnet.functional._compile import compiled
from linnet.functional._dtype import inexact, widened
from linnet.functional._moments import (
    admitted_by,
    affine,
    check_vectors,
    moments,
    normalised,
)


def group_norm(
    x: ArrayLike,
    num_groups: int,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    spatial_ndim: int | None = None,
    mask: ArrayLike | None = None,
    epsilon: float = 1e-6,
    dtype: DType | None = None,
) -> Array:
    r"""Normalises groups of features of each example, over all its positions.

    $y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \mathrm{scale} +
    \mathrm{bias}$, with $\mu$ and $\sigma^2$ taken over the spatial axes and the
    D / G features of a group, which lie side by side.

    Args:
        x: `[..., *W, D]`, floating or complex.
        num_groups: Number G of groups, a divisor of D.
        scale: `[D]`, or `None` for ones.
        bias: `[D]`, or `None` for zeros.
        spatial_ndim: Number of spatial axes; those before them are batch. `None`
            takes all but the first axis, which then is the batch, and the last.
        mask: Booleans with as many axes as `x`, each of its size or 1; `False` does
            not count in the statistics. Where nothing counts the result is `bias`.
        epsilon: Added to the variance (unit: that of `x` squared).
        dtype: Of the result; `None` takes that of `x`. The computation is in
            float32 or wider.

    Returns:
        `[..., *W, D]`.

    Raises:
        ConfigError: `num_groups` does not divide D.
        DTypeError: `x` holds integers or booleans, or `mask` anything but booleans.
        ShapeError: `x` has too few axes, or `scale`, `bias` or `mask` does not fit.

    Example:
        >>> from linnet import functional as F
        >>> F.group_norm(jnp.array([[1.0, 3.0, 10.0, 30.0]]), 2, epsilon=0.0)
        Array([[-1.,  1., -1.,  1.]], dtype=float32)

    Source: Wu and He, "Group Normalization", 2018, eq. 1 and 7, arXiv:1803.08494.
    """
    x = inexact(x, "x")
    spatial = _spatial_ndim(x, spatial_ndim)
    size = x.shape[-1]
    if num_groups < 1 or size % num_groups:
        raise _indivisible(x, num_groups)
    check_vectors(x, (x.ndim - 1,), scale=scale, bias=bias)
    dtype = x.dtype if dtype is None else dtype
    admitted = admitted_by(mask, x)
    return _group_norm(x, scale, bias, admitted, num_groups, spatial, epsilon, dtype)


def instance_norm(
    x: ArrayLike,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    spatial_ndim: int | None = None,
    mask: ArrayLike | None = None,
    epsilon: float = 1e-6,
    dtype: DType | None = None,
) -> Array:
    r"""Normalises each feature of each example, over all its positions.

    It is `group_norm` with one feature in each group.

    Args:
        x: `[..., *W, D]`, floating or complex.
        scale: `[D]`, or `None` for ones.
        bias: `[D]`, or `None` for zeros.
        spatial_ndim: Number of spatial axes; those before them are batch. `None`
            takes all but the first axis, which then is the batch, and the last.
        mask: Booleans with as many axes as `x`, each of its size or 1; `False` does
            not count in the statistics. Where nothing counts the result is `bias`.
        epsilon: Added to the variance (unit: that of `x` squared).
        dtype: Of the result; `None` takes that of `x`. The computation is in
            float32 or wider.

    Returns:
        `[..., *W, D]`.

    Raises:
        DTypeError: `x` holds integers or booleans, or `mask` anything but booleans.
        ShapeError: `x` has no spatial axis, or `scale`, `bias` or `mask` does not fit.

    Example:
        >>> from linnet import functional as F
        >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
        >>> F.instance_norm(x, spatial_ndim=1, epsilon=0.0)
        Array([[-1., -1.],
               [ 1.,  1.]], dtype=float32)

    Source: Ulyanov, Vedaldi and Lempitsky, "Instance Normalization", 2016, eq. 4,
    arXiv:1607.08022.
    """
    x = inexact(x, "x")
    if _spatial_ndim(x, spatial_ndim) == 0:
        raise ShapeError(
            f"`x` is {describe(x)}, and none of its axes is spatial.",
            code="LN-SHAPE-02",
            why="Each feature would be normalised by itself alone, to zero.",
            fixes=[("there is one example without a batch axis", "x = x[None]")]
            if x.ndim == 2 and spatial_ndim is None
            else [("the axis before the features is spatial", "spatial_ndim = 1")],
        )
    return group_norm(
        x,
        max(x.shape[-1], 1),
        scale,
        bias,
        spatial_ndim=spatial_ndim,
        mask=mask,
        epsilon=epsilon,
        dtype=dtype,
    )


@compiled(4, 5, 7)
def _group_norm(
    x: Array,
    scale: Array | None,
    bias: Array | None,
    admitted: Array | None,
    num_groups: int,
    spatial: int,
    epsilon: float,
    dtype: DType,
) -> Array:
    shape = (*x.shape[:-1], num_groups, x.shape[-1] // num_groups)
    groups = x.reshape(shape).astype(widened(x.dtype))  # [..., *W, G, S]
    if admitted is not None:
        admitted = admitted.reshape(shape)
    last = x.ndim
    axes = (*range(last - 1 - spatial, last - 1), last)
    y = normalised(moments(groups, axes, admitted), axes, epsilon).reshape(x.shape)
    return affine(y, scale, bias, (x.ndim - 1,)).astype(dtype)


def _spatial_ndim(x: Array, given: int | None) -> int:
    """How many axes are spatial, where `None` means all but the first and last."""
    needed = 1 if given is None else given + 1
    if x.ndim < needed:
        missing = ", ".join(["None"] * (needed - x.ndim))
        raise ShapeError(
            f"`x` has {x.ndim} axes, but must have at least {needed}.",
            code="LN-SHAPE-02",
            facts={"x": describe(x)},
            why="The last axis holds the features, those before it are spatial.",
            fixes=[("leading axes are missing", f"x = x[{missing}]")],
        )
    return max(x.ndim - 2, 0) if given is None else given


def _indivisible(x: Array, num_groups: int) -> ConfigError:
    size = x.shape[-1]
    best = next(n for n in range(max(min(num_groups, size), 1), 0, -1) if size % n == 0)
    return ConfigError(
        f"`num_groups` is {num_groups}, which does not divide {size} features.",
        code="LN-VALUE-06",
        facts={"x": describe(x)},
        why="All groups have the same number of features.",
        fixes=[("a number near it will do", f"num_groups = {best}")],
    )
