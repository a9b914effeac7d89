"""Linear maps: dense layers, convolutions, embeddings."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from linnet.compat.flax.core._initial import Flat
from linnet.compat.flax.core._traced import traced_once
from linnet.compat.flax.linen import initializers
from linnet.compat.flax.linen.dtypes import promote_dtype
from linnet.compat.flax.linen.initializers import Initializer
from linnet.compat.flax.linen.module import Module, compact
from linnet.compat.flax.typing import (
    Array,
    ConvGeneralDilatedT,
    DotGeneralT,
    Dtype,
    LaxPadding,
    PaddingLike,
    PrecisionLike,
    PRNGKey,
    Shape,
)

__all__ = [
    "Array",
    "Conv",
    "ConvGeneralDilatedT",
    "ConvLocal",
    "ConvTranspose",
    "Dense",
    "DenseGeneral",
    "DotGeneralT",
    "Dtype",
    "Einsum",
    "Embed",
    "Initializer",
    "LaxPadding",
    "Module",
    "PRNGKey",
    "PaddingLike",
    "PrecisionLike",
    "PromoteDtypeFn",
    "Shape",
    "canonicalize_padding",
    "compact",
    "default_kernel_init",
    "initializers",
    "promote_dtype",
]


class PromoteDtypeFn(Protocol):
    """A function that brings arrays to one type."""

    def __call__(
        self, *args: Array | None, dtype: Any = None, inexact: bool = True
    ) -> list[Any]: ...


default_kernel_init = initializers.lecun_normal()
default_embed_init = initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)


def _canonicalize_tuple(x: Any) -> tuple[int, ...]:
    return tuple(x) if isinstance(x, Iterable) else (x,)


def _normalize_axes(axes: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    return tuple(sorted(axis if axis >= 0 else ndim + axis for axis in axes))


class DenseGeneral(Module):
    """A linear map over several axes at once.

    Args:
        features: The sizes of the new axes.
        axis: The axes that are mapped.
        batch_dims: Leading axes, for each entry of which there is a kernel of its own.
        use_bias: Whether to add a bias.
        dtype: The type of the computation; by default that of inputs and parameters.
        param_dtype: The type of the parameters.
        kernel_init: Makes the kernel.
        bias_init: Makes the bias.
        precision: Of the product.
        promote_dtype: Brings arrays to one type.
        dot_general: Computes the product.
        dot_general_cls: Makes what computes the product.
    """

    features: int | Shape
    axis: int | Shape = -1
    batch_dims: Shape = ()
    use_bias: bool = True
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = initializers.zeros_init()
    precision: PrecisionLike = None
    promote_dtype: PromoteDtypeFn = promote_dtype
    dot_general: DotGeneralT | None = None
    dot_general_cls: Any = None

    @compact
    def __call__(self, inputs: Array) -> Array:
        """Maps the axes.

        Args:
            inputs: `[*batch_dims, ..., *axis]`.

        Returns:
            `[*batch_dims, ..., *features]`.
        """
        features, batch_dims = (
            _canonicalize_tuple(self.features),
            _canonicalize_tuple(self.batch_dims),
        )
        ndim = inputs.ndim
        if batch_dims:
            top = max(batch_dims)
            if set(batch_dims) != set(range(top + 1)):
                raise ValueError(
                    f"batch_dims {batch_dims} must be consecutive leading dimensions "
                    f"starting from 0."
                )
        axis = _normalize_axes(_canonicalize_tuple(self.axis), ndim)
        batch_dims = _normalize_axes(batch_dims, ndim)
        n_axis = len(axis)
        batch_shape = tuple(inputs.shape[i] for i in batch_dims)
        kernel_shape = tuple(inputs.shape[i] for i in axis) + features
        # Initialisers see one matrix, of which the batch axes are rows.
        expanded = [
            inputs.shape[i] if i in batch_dims else 1
            for i in range(ndim)
            if i not in axis
        ]
        rows = math.prod(batch_shape) * math.prod(kernel_shape[:n_axis])
        kernel_init = Flat(self.kernel_init, (rows, math.prod(features)))
        bias_init = Flat(self.bias_init, (math.prod(batch_shape + features),))
        kernel = self.param(
            "kernel", kernel_init, batch_shape + kernel_shape, self.param_dtype
        )
        bias = None
        if self.use_bias:
            bias = self.param(
                "bias", bias_init, batch_shape + features, self.param_dtype
            )
        inputs, kernel, bias = self.promote_dtype(
            inputs, kernel, bias, dtype=self.dtype
        )
        n_batch = len(batch_dims)
        contract = tuple(range(n_batch, n_batch + n_axis))
        batch = tuple(range(n_batch))
        dimensions = (axis, contract), (batch_dims, batch)
        bias_shape = (*expanded, *features)
        return _mapped(self, inputs, kernel, bias, dimensions, bias_shape)


def _mapped(
    module: Any,
    inputs: Array,
    kernel: Array,
    bias: Array | None,
    dimensions: Any,
    bias_shape: Shape,
) -> Array:
    """The product by the `dot_general` of the module, and the bias in a shape."""
    if module.dot_general_cls is None and module.dot_general is None:
        return _affine(inputs, kernel, bias, dimensions, bias_shape, module.precision)
    dot = module.dot_general
    if module.dot_general_cls is not None:
        dot = module.dot_general_cls()
    y = dot(inputs, kernel, dimensions, precision=module.precision)
    return y if bias is None else y + jnp.reshape(bias, bias_shape)


@traced_once(arrays=3)
def _affine(
    inputs: Array,
    kernel: Array,
    bias: Array | None,
    dimensions: Any,
    bias_shape: Shape,
    precision: PrecisionLike,
) -> Array:
    y = lax.dot_general(inputs, kernel, dimensions, precision=precision)
    return y if bias is None else y + jnp.reshape(bias, bias_shape)


class Dense(Module):
    """A linear map of the last axis.

    Args:
        features: The size of the new axis.
        use_bias: Whether to add a bias.
        dtype: The type of the computation; by default that of inputs and parameters.
        param_dtype: The type of the parameters.
        precision: Of the product.
        kernel_init: Makes the kernel.
        bias_init: Makes the bias.
        promote_dtype: Brings arrays to one type.
        dot_general: Computes the product.
        dot_general_cls: Makes what computes the product.
    """

    features: int
    use_bias: bool = True
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = initializers.zeros_init()
    promote_dtype: PromoteDtypeFn = promote_dtype
    dot_general: DotGeneralT | None = None
    dot_general_cls: Any = None

    @compact
    def __call__(self, inputs: Array) -> Array:
        """Maps `[..., in]` to `[..., features]`."""
        kernel = self.param(
            "kernel",
            self.kernel_init,
            (jnp.shape(inputs)[-1], self.features),
            self.param_dtype,
        )
        bias = None
        if self.use_bias:
            bias = self.param(
                "bias", self.bias_init, (self.features,), self.param_dtype
            )
        inputs, kernel, bias = self.promote_dtype(
            inputs, kernel, bias, dtype=self.dtype
        )
        dimensions = ((inputs.ndim - 1,), (0,)), ((), ())
        bias_shape = (1,) * (inputs.ndim - 1) + (self.features,)
        return _mapped(self, inputs, kernel, bias, dimensions, bias_shape)


class Einsum(Module):
    """A linear map by an equation, whose second operand is the kernel.

    Args:
        shape: The shape of the kernel.
        einsum_str: The equation, if it is not given when called.
        use_bias: Whether to add a bias.
        dtype: The type of the computation; by default that of inputs and parameters.
        param_dtype: The type of the parameters.
        precision: Of the product.
        kernel_init: Makes the kernel.
        bias_init: Makes the bias.
        promote_dtype: Brings arrays to one type.
        preferred_element_type: In which the product accumulates.
    """

    shape: Shape
    einsum_str: str | None = None
    use_bias: bool = True
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = initializers.zeros_init()
    promote_dtype: PromoteDtypeFn = promote_dtype
    preferred_element_type: Dtype | None = None

    @compact
    def __call__(self, inputs: Array, einsum_str: str | None = None) -> Array:
        """Applies the equation to the inputs and the kernel."""
        from linnet.compat.flax.linen.module import merge_param

        equation = merge_param("einsum_str", self.einsum_str, einsum_str)
        equation = equation.replace(" ", "")
        if "->" not in equation:
            raise ValueError('`einsum_str` equation must be explicit and include "->".')
        if equation.count(",") != 1:
            raise ValueError(
                "`einsum_str` equation must have exactly two operands and therefore, "
                "exactly one comma character, instead of "
                f"{equation.count(',')}"
            )
        kernel = self.param("kernel", self.kernel_init, self.shape, self.param_dtype)
        bias = None
        broadcast_shape: list[int] = []
        if self.use_bias:
            bias_shape, broadcast_shape = self._get_bias_shape(
                equation, inputs.ndim, kernel.shape
            )
            bias = self.param("bias", self.bias_init, bias_shape, self.param_dtype)
        inputs, kernel, bias = self.promote_dtype(
            inputs, kernel, bias, dtype=self.dtype
        )
        y = jnp.einsum(
            equation,
            inputs,
            kernel,
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
        )
        if bias is not None:
            y += jnp.reshape(bias, broadcast_shape)
        return y

    def _get_bias_shape(
        self, equation: str, ndim: int, kernel_shape: tuple[int, ...]
    ) -> tuple[list[int], list[int]]:
        """The shape of the bias, and the one in which it is added."""
        operands, result = equation.split("->")
        of_inputs, of_kernel = operands.split(",")
        inputs, kernel = _labels(of_inputs, ndim), _labels(of_kernel, len(kernel_shape))
        n_free = -min([0, *(x for x in (*inputs, *kernel) if isinstance(x, int))])
        n_explicit = len(result.replace("...", ""))
        size = dict(zip(kernel, kernel_shape, strict=True))
        found = [
            size.get(label)
            for label in _labels(result, n_explicit + n_free * ("..." in result))
        ]
        bias = [n for n in found if n is not None]
        return bias, [1 if n is None else n for n in found]


def _labels(term: str, ndim: int) -> list[str | int]:
    """The label of each axis in a term of an equation; those of `...` are numbers."""
    before, dots, after = term.partition("...")
    n_free = ndim - len(before) - len(after) if dots else 0
    return [*before, *range(-n_free, 0), *after]


def canonicalize_padding(padding: PaddingLike, rank: int) -> LaxPadding:
    """The padding as JAX takes it: a name, or a pair for each axis.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(padding, str):
        return padding
    if isinstance(padding, int):
        return [(padding, padding)] * rank
    if isinstance(padding, Sequence) and len(padding) == rank:
        pairs: list[tuple[int, int]] = []
        for entry in padding:
            if isinstance(entry, int):
                pairs.append((entry, entry))
            elif isinstance(entry, tuple | list) and len(entry) == 2:
                pairs.append((entry[0], entry[1]))
            else:
                break
        if len(pairs) == rank:
            return pairs
    raise ValueError(
        f"Invalid padding format: {padding}, should be str, int, or a sequence of "
        f"length {rank} where each element is an int or a pair of ints."
    )


def _conv_dimension_numbers(input_shape: Sequence[int]) -> lax.ConvDimensionNumbers:
    """Those of `[batch, ..., channels]`. Other libraries use it, under this name."""
    ndim = len(input_shape)
    spatial = tuple(range(1, ndim - 1))
    outer = (0, ndim - 1, *spatial)
    return lax.ConvDimensionNumbers(
        outer, (ndim - 1, ndim - 2, *range(ndim - 2)), outer
    )


def _as_sizes(x: Any, rank: int) -> tuple[int, ...]:
    if x is None:
        return (1,) * rank
    return (x,) * rank if isinstance(x, int) else tuple(x)


class _Conv(Module):
    features: int
    kernel_size: int | Shape
    strides: int | Shape | None = 1
    padding: PaddingLike = "SAME"
    input_dilation: int | Shape | None = 1
    kernel_dilation: int | Shape | None = 1
    feature_group_count: int = 1
    use_bias: bool = True
    mask: Array | None = None
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = initializers.zeros_init()
    promote_dtype: PromoteDtypeFn = promote_dtype
    conv_general_dilated: Callable[..., Array] | None = None
    conv_general_dilated_cls: Any = None

    @property
    def shared_weights(self) -> bool:
        """Whether all positions have the same kernel."""
        raise NotImplementedError

    @compact
    def __call__(self, inputs: Array) -> Array:
        """Convolves `[*batch, *spatial, in]` to `[*batch, *spatial, features]`."""
        kernel_size = _canonicalize_tuple(self.kernel_size)
        rank = len(kernel_size)
        batch = inputs.shape[: inputs.ndim - rank - 1]
        if len(batch) != 1:
            flat = (int(np.prod(batch)), *inputs.shape[len(batch) :])
            inputs = jnp.reshape(inputs, flat)
        strides = _as_sizes(self.strides, rank)
        input_dilation = _as_sizes(self.input_dilation, rank)
        kernel_dilation = _as_sizes(self.kernel_dilation, rank)
        padding = canonicalize_padding(self.padding, rank)
        if padding in ("CIRCULAR", "REFLECT"):
            reach = [
                (size - 1) * dilation + 1
                for size, dilation in zip(kernel_size, kernel_dilation, strict=True)
            ]
            pads = [(0, 0), *[((k - 1) // 2, k // 2) for k in reach], (0, 0)]
            mode = {"CIRCULAR": "wrap", "REFLECT": "reflect"}[padding]
            inputs = jnp.pad(inputs, pads, mode=mode)
            padding = "VALID"
        elif padding == "CAUSAL":
            if rank != 1:
                raise ValueError(
                    "Causal padding is only implemented for 1D convolutions."
                )
            left = kernel_dilation[0] * (kernel_size[0] - 1)
            inputs = jnp.pad(inputs, [(0, 0), (left, 0), (0, 0)])
            padding = "VALID"
        dimension_numbers = _conv_dimension_numbers(inputs.shape)
        in_features = jnp.shape(inputs)[-1]
        if self.shared_weights:
            assert in_features % self.feature_group_count == 0, (
                f"feature_group_count={self.feature_group_count} does not divide the "
                f"{in_features} channels of the input."
            )
            kernel_shape = (
                *kernel_size,
                in_features // self.feature_group_count,
                self.features,
            )
        else:
            if self.feature_group_count != 1:
                raise NotImplementedError(
                    f"`lax.conv_general_dilated_local` does not support "
                    f"`feature_group_count != 1`, got `{self.feature_group_count}`."
                )
            out_shape = jax.eval_shape(
                lambda lhs, rhs: lax.conv_general_dilated(
                    lhs,
                    rhs,
                    strides,
                    padding,
                    dimension_numbers=dimension_numbers,
                    lhs_dilation=input_dilation,
                    rhs_dilation=kernel_dilation,
                ),
                inputs,
                jax.ShapeDtypeStruct(
                    (*kernel_size, in_features, self.features), inputs.dtype
                ),
            ).shape
            kernel_shape = (
                *out_shape[1:-1],
                math.prod(kernel_size) * in_features,
                self.features,
            )
        if self.mask is not None and self.mask.shape != kernel_shape:
            raise ValueError(
                f"Mask needs to have the same shape as weights. Shapes are: "
                f"{self.mask.shape}, {kernel_shape}"
            )
        kernel = self.param("kernel", self.kernel_init, kernel_shape, self.param_dtype)
        if self.mask is not None:
            kernel *= self.mask
        bias = None
        if self.use_bias:
            bias_shape: tuple[int, ...] = (self.features,)
            if not self.shared_weights:
                bias_shape = (*kernel_shape[:-2], self.features)
            bias = self.param("bias", self.bias_init, bias_shape, self.param_dtype)
        inputs, kernel, bias = self.promote_dtype(
            inputs, kernel, bias, dtype=self.dtype
        )
        if self.shared_weights:
            convolve: Any = lax.conv_general_dilated
            if self.conv_general_dilated_cls is not None:
                convolve = self.conv_general_dilated_cls()
            elif self.conv_general_dilated is not None:
                convolve = self.conv_general_dilated
            y = convolve(
                inputs,
                kernel,
                strides,
                padding,
                lhs_dilation=input_dilation,
                rhs_dilation=kernel_dilation,
                dimension_numbers=dimension_numbers,
                feature_group_count=self.feature_group_count,
                precision=self.precision,
            )
        else:
            y = lax.conv_general_dilated_local(
                lhs=inputs,
                rhs=kernel,
                window_strides=strides,
                padding=padding,
                filter_shape=kernel_size,
                lhs_dilation=input_dilation,
                rhs_dilation=kernel_dilation,
                dimension_numbers=dimension_numbers,
                precision=self.precision,
            )
        if bias is not None:
            y += bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)
        if len(batch) != 1:
            y = jnp.reshape(y, (*batch, *y.shape[1:]))
        return y


class Conv(_Conv):
    """A convolution with channels last.

    Args:
        features: The number of channels that come out.
        kernel_size: The size of the window along each spatial axis.
        strides: The steps of the window.
        padding: `SAME`, `VALID`, `CIRCULAR`, `REFLECT`, `CAUSAL`, a number, or a pair
            for each axis.
        input_dilation: The steps between entries of the input.
        kernel_dilation: The steps between entries of the window.
        feature_group_count: The number of groups of channels.
        use_bias: Whether to add a bias.
        mask: Multiplies the kernel.
        dtype: The type of the computation; by default that of inputs and parameters.
        param_dtype: The type of the parameters.
        precision: Of the products.
        kernel_init: Makes the kernel.
        bias_init: Makes the bias.
        promote_dtype: Brings arrays to one type.
        conv_general_dilated: Computes the convolution.
        conv_general_dilated_cls: Makes what computes the convolution.
    """

    @property
    def shared_weights(self) -> bool:
        """True."""
        return True


class ConvLocal(_Conv):
    """A convolution with a kernel of its own for each position; options as `Conv`."""

    @property
    def shared_weights(self) -> bool:
        """False."""
        return False


class ConvTranspose(Module):
    """A transposed convolution with channels last.

    Args:
        features: The number of channels that come out.
        kernel_size: The size of the window along each spatial axis.
        strides: By how much each axis grows.
        padding: `SAME`, `VALID`, `CIRCULAR`, a number, or a pair for each axis.
        kernel_dilation: The steps between entries of the window.
        use_bias: Whether to add a bias.
        mask: Multiplies the kernel.
        dtype: The type of the computation; by default that of inputs and parameters.
        param_dtype: The type of the parameters.
        precision: Of the products.
        kernel_init: Makes the kernel.
        bias_init: Makes the bias.
        transpose_kernel: Whether the kernel is that of the convolution whose gradient
            this is: flipped, with its channels swapped.
        promote_dtype: Brings arrays to one type.
        preferred_element_type: In which the products accumulate.
    """

    features: int
    kernel_size: int | Shape
    strides: Shape | None = None
    padding: PaddingLike = "SAME"
    kernel_dilation: Shape | None = None
    use_bias: bool = True
    mask: Array | None = None
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = default_kernel_init
    bias_init: Initializer = initializers.zeros_init()
    transpose_kernel: bool = False
    promote_dtype: PromoteDtypeFn = promote_dtype
    preferred_element_type: Dtype | None = None

    @compact
    def __call__(self, inputs: Array) -> Array:
        """Convolves `[*batch, *spatial, in]` to `[*batch, *spatial, features]`."""
        kernel_size = _canonicalize_tuple(self.kernel_size)
        rank = len(kernel_size)
        batch = inputs.shape[: inputs.ndim - rank - 1]
        if len(batch) != 1:
            flat = (int(np.prod(batch)), *inputs.shape[len(batch) :])
            inputs = jnp.reshape(inputs, flat)
        strides = _as_sizes(self.strides, rank)
        kernel_dilation = _as_sizes(self.kernel_dilation, rank)
        in_features = jnp.shape(inputs)[-1]
        channels = (self.features, in_features)
        kernel_shape = (
            *kernel_size,
            *(channels if self.transpose_kernel else channels[::-1]),
        )
        if self.mask is not None and self.mask.shape != kernel_shape:
            raise ValueError(
                f"Mask needs to have the same shape as weights. Shapes are: "
                f"{self.mask.shape}, {kernel_shape}"
            )
        kernel = self.param("kernel", self.kernel_init, kernel_shape, self.param_dtype)
        if self.mask is not None:
            kernel *= self.mask
        bias = None
        if self.use_bias:
            bias = self.param(
                "bias", self.bias_init, (self.features,), self.param_dtype
            )
        inputs, kernel, bias = self.promote_dtype(
            inputs, kernel, bias, dtype=self.dtype
        )
        padding = canonicalize_padding(self.padding, rank)
        y = lax.conv_transpose(
            inputs,
            kernel,
            strides,
            "VALID" if padding == "CIRCULAR" else padding,
            rhs_dilation=kernel_dilation,
            transpose_kernel=self.transpose_kernel,
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
        )
        if padding == "CIRCULAR":
            y = _wrapped(y, inputs.shape[1:-1], strides, self.transpose_kernel)
        if bias is not None:
            y += lax.expand_dims(bias, range(y.ndim - 1))
        if len(batch) != 1:
            y = jnp.reshape(y, (*batch, *y.shape[1:]))
        return y


def _wrapped(
    y: Array, spatial: tuple[int, ...], strides: tuple[int, ...], transposed: bool
) -> Array:
    """The result folded around: each position is the sum of those a period apart."""
    for i, (size, stride) in enumerate(zip(spatial, strides, strict=True)):
        axis, period = i + 1, size * stride
        excess = y.shape[axis] - period
        # Where an even kernel is centred: a transposed one mirrors the other.
        left = (excess + 1) // 2 if transposed else excess // 2
        before = -left % period
        widths = [(0, 0)] * y.ndim
        widths[axis] = (before, -(y.shape[axis] + before) % period)
        y = jnp.pad(y, widths)
        folded = (*y.shape[:axis], -1, period, *y.shape[axis + 1 :])
        y = jnp.reshape(y, folded).sum(axis=axis)
    return y


class Embed(Module):
    """A table of vectors, looked up by whole numbers.

    Args:
        num_embeddings: The number of vectors.
        features: The size of each.
        dtype: The type of the result.
        param_dtype: The type of the table.
        embedding_init: Makes the table.
        promote_dtype: Brings arrays to one type.
    """

    num_embeddings: int
    features: int
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    embedding_init: Initializer = default_embed_init
    promote_dtype: PromoteDtypeFn = promote_dtype

    def setup(self) -> None:
        """Makes the table."""
        self.embedding = self.param(
            "embedding",
            self.embedding_init,
            (self.num_embeddings, self.features),
            self.param_dtype,
        )

    def __call__(self, inputs: Array) -> Array:
        """The vectors of whole numbers: `[...]` to `[..., features]`.

        Raises:
            ValueError: The inputs are no whole numbers.
        """
        if not jnp.issubdtype(inputs.dtype, jnp.integer):
            raise ValueError("Input type must be an integer or unsigned integer.")
        (embedding,) = self.promote_dtype(
            self.embedding, dtype=self.dtype, inexact=False
        )
        if self.num_embeddings == 1:
            return jnp.broadcast_to(embedding, (*inputs.shape, self.features))
        return jnp.take(embedding, inputs, axis=0)

    def attend(self, query: Array) -> Array:
        """Products with all vectors: `[..., features]` to `[..., num_embeddings]`."""
        query, embedding = self.promote_dtype(query, self.embedding, dtype=self.dtype)
        return jnp.dot(query, embedding.T)
