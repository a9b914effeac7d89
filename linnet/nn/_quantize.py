"""Layers whose weights have eight bits."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from linnet import functional as F
from linnet._errors import ConfigError
from linnet._typing import Array, ArrayLike, DType, PyTree
from linnet.core import Constant, Module, select
from linnet.core._convert import converted, declaration, stored
from linnet.core._role import Declared
from linnet.core._table import modules
from linnet.core._tree import refuse_described
from linnet.core._where import Where
from linnet.functional._quantize import eight_bits
from linnet.nn._conv import Conv
from linnet.nn._embed import Embed
from linnet.nn._linear import Dense, DenseGeneral
from linnet.nn._place import placed
from linnet.nn._role import LoRAParam, frozen_but_adapters
from linnet.nn._swap import swapped


def quantize(
    model: PyTree,
    where: Where,
    dtype: DType = "int8",
    *,
    block_size: int | None = None,
) -> PyTree:
    """The model with the weights of selected layers rounded to eight bits.

    Each output feature (each row of a table) has one scale, so that its largest weight
    is the largest number of `dtype`. Activations stay floating: a layer computes in the
    dtype in which it did, and its weights take a quarter of the memory of float32. They
    are constants, neither trained nor seen by an optimiser; `nn.lora` adapts such
    layers (QLoRA). Biases stay as they are.

    Args:
        model: An initialised module, or a pytree of them. Layers may be inside
            `nn.Stack` and `nn.Ensemble`.
        where: Selects `nn.Dense`, `nn.DenseGeneral`, `nn.Conv` or `nn.Embed` layers, as
            for `nn.select` with modules, or modules around them: all in these are
            quantised.
        dtype: int8, float8_e4m3fn or float8_e5m2.
        block_size: So many inputs of a `nn.Dense`, or features of a row of an
            `nn.Embed`, share a scale, instead of all. The error is smaller, the memory
            larger by `4 / block_size` bytes for each weight.

    Returns:
        The model with quantised layers.

    Raises:
        ConfigError: `where` selects what cannot be quantised or has been, or an option
            has a value that cannot be used.
        InitError: The model is not initialised.
        PathError: `where` selects nothing.

    Example:
        >>> x = jnp.ones((1, 256))
        >>> model = nn.init(nn.Dense(512), jax.random.key(0), x)
        >>> small = nn.quantize(model, nn.Dense)
        >>> small.kernel.dtype, small.scale.shape
        (dtype('int8'), (1, 512))
        >>> nn.quantization_error(model, small, x)[""].weight < 0.004
        True

    Differs from: bitsandbytes, which rounds activations to int8 as well.
    Source: Dettmers et al., "LLM.int8(): 8-bit Matrix Multiplication for Transformers
    at Scale", 2022, arXiv:2208.07339, section 2. Dettmers et al., "QLoRA: Efficient
    Finetuning of Quantized LLMs", 2023, arXiv:2305.14314, for adapters on top.
    """
    __tracebackhide__ = True
    refuse_described(model)
    name = eight_bits(dtype)

    def make(path: str, layer: Any) -> Module:
        __tracebackhide__ = True
        kind = QUANTIZED[type(layer)]
        try:
            return kind.of(layer, name, block_size)
        except ConfigError as error:
            error.at = path or type(layer).__name__
            raise

    makers = dict.fromkeys(QUANTIZED, make)
    kinds = tuple(QUANTIZED.values())
    undo = "model = nn.dequantize(model)"
    return swapped(model, where, makers, "quantised", wrappers=kinds, undo=undo)


def dequantize(model: PyTree) -> PyTree:
    """The model with floating weights in the place of all that are quantised.

    The structure is the one before `nn.quantize`; what was rounded off stays lost.
    Where there are adapters, the weights are frozen as `nn.lora` leaves them.

    Args:
        model: A module, or a pytree of them, with quantised layers.

    Raises:
        ConfigError: No layer is quantised.

    Example:
        >>> model = nn.init(nn.Dense(4), jax.random.key(0), jnp.ones((1, 3)))
        >>> again = nn.dequantize(nn.quantize(model, nn.Dense))
        >>> jax.tree.structure(again) == jax.tree.structure(model)
        True
        >>> bool(jnp.abs(again.kernel - model.kernel).max() < 0.01)
        True
    """
    __tracebackhide__ = True
    kinds = tuple(QUANTIZED.values())
    if not any(isinstance(module, kinds) for _, module in modules(model)):
        raise nothing_quantized(model)
    floating = select(model, kinds).map_modules(lambda layer: layer.dequantized())
    return frozen_but_adapters(floating) if select(floating, LoRAParam) else floating


class _Quantized:
    """What quantised layers have in common: an eight-bit weight and its `scale`.

    Each is of the class that it was made from, so that `nn.select` finds it by that.
    The declaration of the floating weight is kept as a tag of the other, to be put back
    as it was; `float_dtype` is its dtype.
    """

    weight = "kernel"
    blocks = False
    scale: Array
    float_dtype: DType

    @staticmethod
    def shared(layer: Any) -> tuple[int, ...]:
        """The axes of the weight, from the end, along which entries share a scale."""
        raise NotImplementedError

    @classmethod
    def of(cls, layer: Any, dtype: str, block_size: int | None) -> Any:
        """The quantised form of a layer."""
        if block_size is not None and not cls.blocks:
            raise _no_blocks(layer, block_size)
        declared = declaration(layer, cls.weight)
        weight = F.masked(stored(layer, cls.weight), getattr(layer, "mask", None))
        axes = cls.shared(layer)
        q, scale = F.quantize(weight, dtype, axis=axes, block_size=block_size)
        stacks = weight.ndim - declared.ndim
        rest = {"role": Constant, "init": None, "tags": (declared,), "thawed": None}
        small = declared.replace(shape=q.shape[stacks:], dtype=q.dtype, **rest)
        names = tuple(
            None if axis - declared.ndim in axes else name
            for axis, name in enumerate(declared.axes or (None,) * declared.ndim)
        )
        own = scale.shape[stacks:]
        scales = Declared(Constant, None, own, scale.dtype, names)
        arrays = {cls.weight: (small, q), "scale": (scales, scale)}
        return converted(layer, cls, arrays, float_dtype=weight.dtype)

    def dequantized(self) -> Any:
        """The floating form of this layer."""
        module: Any = self
        (declared,) = declaration(module, self.weight).tags
        q, scale = stored(module, self.weight), stored(module, "scale")
        weight = F.dequantize(q, scale, self.float_dtype)
        arrays = {self.weight: (declared, weight), "scale": None}
        kind = FLOATING[type(self)]
        return converted(module, kind, arrays, float_dtype=None)

    def dtype_for(self, *others: Any) -> DType:
        """The dtype of the computation, as if the weight were floating."""
        asked: DType = self.dtype  # type: ignore[attr-defined]
        present = [x for x in others if x is not None]
        return asked or jnp.result_type(self.float_dtype, *present)


class QuantizedDense(_Quantized, Dense):
    """A dense layer whose kernel has eight bits; `nn.quantize` makes it.

    Parameters:
        kernel: `[I, O]`. Logical axes `("in", "out")`.
        scale: `[G, O]`, where G is one or the number of blocks.
        bias: `[O]`. Logical axes `("out",)`.

    Shapes:
        x: `[..., I]`  ->  `[..., O]`
    """

    _made_from = Dense

    blocks = True

    @staticmethod
    def shared(layer: Any) -> tuple[int, ...]:
        """The axis of the features in."""
        return (-2,)

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[..., I]`, floating.
        """
        self.check_input(x, min_ndim=1, dtype="floating")
        self.expect(kernel=(x.shape[-1], self.features))
        bias = self.bias
        return F.quantized_dense(
            x,
            self.kernel,
            self.scale,
            bias,
            dtype=self.dtype_for(x, bias),
            precision=self.precision,
        )


class QuantizedDenseGeneral(_Quantized, DenseGeneral):
    """A dense layer of several axes whose kernel has eight bits.

    Parameters:
        kernel: `[*B, *I, *O]`.
        scale: `[*B, *1, *O]`.
        bias: `[*B, *O]`.

    Shapes:
        x: `[...]`  ->  `[..., *O]`
    """

    _made_from = DenseGeneral

    @staticmethod
    def shared(layer: Any) -> tuple[int, ...]:
        """The axes that are contracted."""
        last = -len(layer.features)
        return tuple(range(last - len(layer.axis), last))

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[...]`, floating.
        """
        self.check_input(x, dtype="floating")
        bias = self.bias
        dtype = self.dtype_for(x, bias)
        with placed(self):
            return F.dense_general(
                x,
                F.dequantize(self.kernel, self.scale, dtype),
                bias,
                axis=self.axis,
                batch_axis=self.batch_axis,
                dtype=dtype,
                precision=self.precision,
            )


class QuantizedConv(_Quantized, Conv):
    """A convolution whose kernel has eight bits; `nn.quantize` makes it.

    Parameters:
        kernel: `[*K, I / G, O]`. Logical axes `(None, ..., "in", "out")`.
        scale: `[*1, 1, O]`.
        bias: `[O]`. Logical axes `("out",)`.

    Shapes:
        x: `[..., *W, I]`  ->  `[..., *W', O]`
    """

    _made_from = Conv

    @staticmethod
    def shared(layer: Any) -> tuple[int, ...]:
        """The axes of the window, and that of the features in."""
        return tuple(range(-len(layer.kernel_size) - 2, -1))

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[..., *W, I]`, floating.
        """
        self.check_input(x, min_ndim=len(self.kernel_size) + 1, dtype="floating")
        size_in = x.shape[-1] // self.feature_group_count
        self.expect(kernel=(*self.kernel_size, size_in, self.features))
        bias = self.bias
        dtype = self.dtype_for(x, bias)
        with placed(self):
            return F.conv(
                x,
                F.dequantize(self.kernel, self.scale, dtype),
                bias,
                strides=self.strides,
                padding=self.padding,
                kernel_dilation=self.kernel_dilation,
                input_dilation=self.input_dilation,
                feature_group_count=self.feature_group_count,
                dtype=dtype,
                precision=self.precision,
            )


class QuantizedEmbed(_Quantized, Embed):
    """A table of vectors of eight bits; `nn.quantize` makes it.

    Parameters:
        embedding: `[V, D]`. Logical axes `("vocab", "features")`.
        scale: `[V, G]`, where G is one or the number of blocks.

    Shapes:
        ids: `[...]`  ->  `[..., D]`
    """

    _made_from = Embed

    weight = "embedding"
    blocks = True

    @staticmethod
    def shared(layer: Any) -> tuple[int, ...]:
        """The axis of the features of a row."""
        return (-1,)

    def __call__(self, ids: ArrayLike) -> Array:
        """Looks up rows.

        Args:
            ids: `[...]`, integers.
        """
        self.check_input(ids, "ids", dtype="integer")
        dtype = self.dtype_for()
        return F.quantized_embed(ids, self.embedding, self.scale, dtype=dtype)

    def attend(self, x: ArrayLike) -> Array:
        """Scores `x` against every row: logits over the vocabulary.

        Args:
            x: `[..., D]`, floating.
        """
        self.check_input(x, min_ndim=1, dtype="floating")
        self.expect(embedding=(self.num_embeddings, x.shape[-1]))
        dtype = self.dtype_for(x)
        return F.quantized_attend(x, self.embedding, self.scale, dtype=dtype)


QUANTIZED: dict[type, Any] = {
    Dense: QuantizedDense,
    DenseGeneral: QuantizedDenseGeneral,
    Conv: QuantizedConv,
    Embed: QuantizedEmbed,
}
FLOATING: dict[type, type] = {small: kind for kind, small in QUANTIZED.items()}


def _no_blocks(layer: Any, size: int) -> ConfigError:
    return ConfigError(
        f"`block_size` is {size}, but a {type(layer).__name__} has one scale for each "
        "output feature.",
        code="LN-VALUE-06",
        fixes=[
            ("one scale for each is enough", "block_size = None"),
            ("the others are meant", "where = (nn.Dense, nn.Embed)"),
        ],
    )


def nothing_quantized(model: Any) -> ConfigError:
    """The error for a model in which no layer is quantised."""
    return ConfigError(
        "no layer of the model is quantised.",
        code="LN-WHERE-04",
        at=type(model).__name__,
        why="Doing nothing would hide that it is the wrong model, or was done before.",
        fixes=[("the model is floating already, and ready as it is", "pass")],
    )
