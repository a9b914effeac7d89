"""Weights in eight bits, as arrays.

I features in  O features out  G groups of inputs, each with a scale of its own
V rows of a table  D features
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from linnet._errors import ConfigError, DTypeError, ShapeError, describe
from linnet._typing import Array, ArrayLike, DType
from linnet.functional._dtype import as_array, inexact, inexact_dtype, widened
from linnet.functional._embed import embed
from linnet.functional._linear import dense
from linnet.functional._shape import axes_of, features_elsewhere, require_shape

# The largest number of each dtype that a scale maps to.
LARGEST = {"int8": 127.0, "float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}


def quantize(
    x: ArrayLike,
    dtype: DType = "int8",
    *,
    axis: int | Sequence[int] = 0,
    block_size: int | None = None,
) -> tuple[Array, Array]:
    r"""Rounds to eight bits, with one scale for all entries along some axes.

    $q = \mathrm{round}(x / s)$ with $s = \max|x| / m$, where m is the largest number
    of `dtype` (127 for int8, 448 for float8_e4m3fn). So $|x - q s| \le s / 2$ for
    int8. Where all entries are zero the scale is one.

    Args:
        x: Floating.
        dtype: int8, float8_e4m3fn or float8_e5m2.
        axis: Axis or axes along which entries share a scale; for weights those that
            a product contracts.
        block_size: So many neighbours along the one `axis` share a scale, instead of
            all.

    Returns:
        `q`, an array of `dtype` like `x`, and `s`, a float32 array with as many axes,
        of size 1 (or the number of blocks) along `axis`.

    Raises:
        ConfigError: `dtype` is none of these, or `block_size` does not fit.
        DTypeError: `x` is not floating.
        ShapeError: `axis` does not name axes of `x`.

    Example:
        >>> from linnet import functional as F
        >>> q, scale = F.quantize(jnp.array([[1.0, -0.5], [0.25, 4.0]]), axis=1)
        >>> q
        Array([[127, -64],
               [  8, 127]], dtype=int8)
        >>> F.dequantize(q, scale).round(2)
        Array([[ 1.  , -0.5 ],
               [ 0.25,  4.  ]], dtype=float32)

    Source: Dettmers et al., "LLM.int8(): 8-bit Matrix Multiplication for Transformers
    at Scale", 2022, arXiv:2208.07339, section 2 (absmax quantisation).
    """
    x, name = floating(x), eight_bits(dtype)
    axes = axes_of(x.ndim, axis if isinstance(axis, int) else tuple(axis))
    wide = x.astype(widened(x.dtype))
    blocks = _in_blocks(wide, axes, block_size)
    if block_size is not None:
        axes = (axes[0] + 1,)
    scale = scale_for(jnp.abs(blocks), name, axes)
    q = rounded(blocks / scale, name).reshape(x.shape)
    if block_size is not None:
        scale = jnp.squeeze(scale, axes[0])
    return q, scale


def dequantize(q: ArrayLike, scale: ArrayLike, dtype: DType = jnp.float32) -> Array:
    """What `quantize` has rounded, as floating numbers.

    Args:
        q: Of any dtype.
        scale: As many axes, whose sizes divide those of `q`.
        dtype: Of the result; the product is taken in that of `scale`.

    Returns:
        An array like `q`.

    Raises:
        DTypeError: `dtype` is not floating.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> F.dequantize(jnp.array([2, 4], jnp.int8), jnp.array([0.5]))
        Array([1., 2.], dtype=float32)
    """
    q, scale = as_array(q), inexact(scale, "scale")
    _check_scale(q, scale)
    sizes: list[int] = []
    for size, count in zip(q.shape, scale.shape, strict=True):
        sizes += [count, size // count if count else 1]
    blocks = q.astype(scale.dtype).reshape(sizes)
    scales = lax.expand_dims(scale, range(1, 2 * scale.ndim, 2))
    return (blocks * scales).reshape(q.shape).astype(inexact_dtype(dtype))


def quantized_dense(
    x: ArrayLike,
    kernel: ArrayLike,
    scale: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    dtype: DType | None = None,
    precision: lax.PrecisionLike = None,
) -> Array:
    r"""Multiplies the last axis of `x` by a quantised kernel and adds `bias`.

    $y = (x q) s + b$: with one scale for each feature out it is applied to the
    product, which is summed in float32. Where there are more, the kernel is made
    floating first.

    Args:
        x: `[..., I]`, floating.
        kernel: `[I, O]`, of eight bits.
        scale: `[G, O]`, where G divides I.
        bias: `[O]`, or `None` for none.
        dtype: Of the factors and the result. `None` takes that of `x`.
        precision: Of the product, as in `jax.lax.dot_general`.

    Returns:
        `[..., O]`.

    Raises:
        DTypeError: `x`, `scale` or `bias` is not floating.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> q, scale = F.quantize(jnp.array([[1.0, 2.0], [0.5, 4.0]]))
        >>> F.quantized_dense(jnp.array([1.0, 1.0]), q, scale).round(1)
        Array([1.5, 6. ], dtype=float32)

    Source: Dettmers et al., "LLM.int8(): 8-bit Matrix Multiplication for Transformers
    at Scale", 2022, arXiv:2208.07339, eq. 2, with activations that are not rounded.
    """
    x, kernel, scale = floating(x), as_array(kernel), inexact(scale, "scale")
    _check_scale(kernel, scale)
    dtype = inexact_dtype(dtype or x.dtype)
    if kernel.ndim != 2 or x.ndim < 1 or x.shape[-1] != kernel.shape[0]:
        raise _unfit(x, kernel)
    if scale.shape[0] != 1:
        whole = dequantize(kernel, scale, dtype)
        return dense(x, whole, bias, dtype=dtype, precision=precision)
    bias = None if bias is None else inexact(bias, "bias")
    require_shape(bias, kernel.shape[1:], "bias", "Each output feature has one bias.")
    wide = widened(dtype)
    y = lax.dot_general(
        x.astype(dtype),
        kernel.astype(dtype),
        (((x.ndim - 1,), (0,)), ((), ())),
        precision=precision,
        preferred_element_type=wide,
    )  # [..., O]
    y = y * _per_feature(scale, y)
    if bias is not None:
        y = y + _per_feature(bias, y)
    return y.astype(dtype)


def quantized_embed(
    ids: ArrayLike,
    embedding: ArrayLike,
    scale: ArrayLike,
    *,
    dtype: DType = jnp.float32,
) -> Array:
    """Looks up rows of a quantised table.

    An id outside `0 <= id < V` gives a row of NaN, as in `embed`.

    Args:
        ids: `[...]`, integers.
        embedding: `[V, D]`, of eight bits.
        scale: `[V, G]`, where G divides D.
        dtype: Of the result.

    Returns:
        `[..., D]`.

    Raises:
        DTypeError: `ids` are not integers.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> q, scale = F.quantize(jnp.array([[1.0, 2.0], [0.5, 4.0]]), axis=1)
        >>> F.quantized_embed(jnp.array([1, 1, 2]), q, scale).round(1)
        Array([[0.5, 4. ],
               [0.5, 4. ],
               [nan, nan]], dtype=float32)
    """
    embedding = as_array(embedding)
    _check_scale(embedding, as_array(scale))
    scales = embed(ids, scale)  # [..., G]
    rows = embedding.at[ids].get(mode="clip")  # [..., D]
    return dequantize(rows, scales, dtype)


def quantized_attend(
    x: ArrayLike,
    embedding: ArrayLike,
    scale: ArrayLike,
    *,
    dtype: DType | None = None,
    precision: lax.PrecisionLike = None,
) -> Array:
    """Scores `x` against every row of a quantised table: logits over the vocabulary.

    Args:
        x: `[..., D]`, floating.
        embedding: `[V, D]`, of eight bits.
        scale: `[V, G]`, where G divides D.
        dtype: Of the factors and the result. `None` takes that of `x`.
        precision: Of the product, as in `jax.lax.dot_general`.

    Returns:
        `[..., V]`.

    Raises:
        DTypeError: `x` or `scale` is not floating.
        ShapeError: The shapes do not fit together.

    Example:
        >>> from linnet import functional as F
        >>> q, scale = F.quantize(jnp.array([[1.0, 2.0], [0.5, 4.0]]), axis=1)
        >>> F.quantized_attend(jnp.array([1.0, 1.0]), q, scale).round(1)
        Array([3. , 4.5], dtype=float32)
    """
    q, s = as_array(embedding).T, as_array(scale).T
    return quantized_dense(x, q, s, dtype=dtype, precision=precision)


def eight_bits(dtype: DType) -> str:
    """The name of one of the dtypes to which one may quantise."""
    try:
        name = jnp.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    if name not in LARGEST:
        raise ConfigError(
            f"`dtype` is {name!r}, but it must be one of "
            f"{', '.join(map(repr, LARGEST))}.",
            code="LN-VALUE-04",
            fixes=[
                ("whole numbers will do", 'dtype = "int8"'),
                ("small weights matter more", 'dtype = "float8_e4m3fn"'),
            ],
        )
    return name


def scale_for(magnitude: Array, name: str, axes: tuple[int, ...] | None) -> Array:
    """The scale that maps the largest magnitude to the largest number of a dtype."""
    largest = jnp.max(magnitude, axes, keepdims=axes is not None, initial=0.0)
    scale = largest / LARGEST[name]
    return jnp.where(scale == 0, 1.0, scale)


def rounded(x: Array, name: str) -> Array:
    """`x` in a dtype of eight bits, where what is larger becomes the largest."""
    limit = LARGEST[name]
    x = jnp.clip(x, -limit, limit)
    return (jnp.round(x) if name == "int8" else x).astype(name)


def floating(x: ArrayLike, name: str = "x") -> Array:
    """`x` as an array of real floating numbers, or a `DTypeError`."""
    x = as_array(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise DTypeError(
            f"`{name}` has dtype {x.dtype}, but it must be floating.",
            code="LN-DTYPE-01",
            facts={name: describe(x)},
            fixes=[
                (
                    "the numbers are quantities",
                    f"{name} = {name}.real.astype(jnp.float32)",
                )
            ],
        )
    return x


def _in_blocks(x: Array, axes: tuple[int, ...], size: int | None) -> Array:
    """`x` with its one axis split into blocks of a size."""
    if size is None:
        return x
    if len(axes) != 1 or size < 1 or x.shape[axes[0]] % size:
        raise _no_blocks([x.shape[axis] for axis in axes], size)
    shape = x.shape
    a = axes[0]
    return x.reshape(*shape[:a], shape[a] // size, size, *shape[a + 1 :])


def _no_blocks(sizes: list[int], size: int) -> ConfigError:
    fixes = [("all entries may share a scale", "block_size = None")]
    if len(sizes) == 1 and sizes[0]:
        smaller = math.gcd(sizes[0], abs(size))
        fixes.insert(0, ("a block may be smaller", f"block_size = {smaller}"))
        what = f"does not divide the size {sizes[0]} of the axis"
    else:
        what = f"is for one axis that has entries, not for sizes {sizes}"
    return ConfigError(
        f"`block_size` is {size}, which {what}.", code="LN-VALUE-06", fixes=fixes
    )


def _check_scale(q: Array, scale: Array) -> None:
    fits = q.ndim == scale.ndim and all(
        n % max(count, 1) == 0 and (count or not n)
        for n, count in zip(q.shape, scale.shape, strict=True)
    )
    if not fits:
        shape = (1,) * q.ndim
        raise ShapeError(
            f"`scale` of shape {list(scale.shape)} does not fit the quantised array "
            f"of shape {list(q.shape)}.",
            code="LN-SHAPE-01",
            facts={"scale": describe(scale), "quantised": describe(q)},
            why="Each size of `scale` divides that of the array.",
            fixes=[("there is one scale", f"scale = scale.reshape({shape})")]
            if scale.size == 1
            else [("one scale is for all", f"scale = jnp.ones({shape})")],
        )


def _unfit(x: Array, kernel: Array) -> ShapeError:
    return ShapeError(
        f"`x` of shape {list(x.shape)} cannot be multiplied by the quantised `kernel` "
        f"of shape {list(kernel.shape)}.",
        code="LN-SHAPE-01",
        facts={"x": describe(x), "kernel": describe(kernel)},
        why="The last axis of `x` is contracted with the first of a two-axis `kernel`.",
        fixes=[] if kernel.ndim < 1 else features_elsewhere("x", x, kernel.shape[0]),
    )


def _per_feature(array: Array, like: Array) -> Array:
    """One number for each feature, ready to meet `like`."""
    numbers = array.reshape(-1).astype(like.dtype)
    return lax.broadcast_in_dim(numbers, like.shape, (like.ndim - 1,))
