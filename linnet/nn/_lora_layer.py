"""Layers with a low-rank adapter beside them."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._errors import ConfigError
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import Module, param
from linnet.core._convert import converted, declaration, own_shape, stored
from linnet.functional._dtype import widened
from linnet.functional._shape import axes_of
from linnet.functional.initializers import lecun_normal, zeros
from linnet.nn._conv import Conv
from linnet.nn._dropout import Dropout
from linnet.nn._embed import EMBEDDING_INIT, Embed
from linnet.nn._fp8 import Fp8Dense
from linnet.nn._linear import Dense, DenseGeneral
from linnet.nn._quantize import QUANTIZED
from linnet.nn._role import LoRAParam


class LoRA(Module):
    """A layer and the adapter beside it: what all kinds have in common.

    The adapter's own matrices are those of the layer's weight, `[*I, O]`, with a size
    r in between: `lora_a` is `[*I, r]`, `lora_b` is `[r, O]`.

    Args:
        base: The layer, which stays as it is.
        rank: Size r.
        scale: Factor of the adapter's output.
        dropout: Rate of dropping the adapter's inputs.
        param_dtype: Of the adapter.
        lora_a_init: Initialiser of `lora_a`.
        lora_b_init: Initialiser of `lora_b`.
    """

    weight = "kernel"
    a_init: Initializer = staticmethod(lecun_normal())
    dropped_together: tuple[int, ...] = ()

    def __init__(
        self,
        base: Any,
        rank: int,
        *,
        scale: float,
        dropout: float = 0.0,
        param_dtype: DType | None = None,
        lora_a_init: Initializer | None = None,
        lora_b_init: Initializer = zeros,
    ) -> None:
        self.base = base
        self.rank = rank
        self.scale = scale
        self.dropout = Dropout(dropout, broadcast_axes=self.dropped_together)
        declared = declaration(base, self.weight)
        shape, split = own_shape(base, self.weight), self.inputs(base)
        names = declared.axes or (None,) * declared.ndim
        dtype = param_dtype or getattr(base, "float_dtype", declared.dtype)
        self.lora_a = param(
            lora_a_init or self.a_init,
            (*shape[:split], rank),
            dtype,
            axes=(*names[:split], None),
            role=LoRAParam,
        )
        self.lora_b = param(
            lora_b_init,
            (rank, *shape[split:]),
            dtype,
            axes=(None, *names[split:]),
            role=LoRAParam,
        )

    @staticmethod
    def inputs(layer: Any) -> int:
        """How many axes of the layer's weight are those of the inputs.

        Args:
            layer: The layer.
        """
        *inputs, _ = own_shape(layer, "kernel")
        return len(inputs)

    @classmethod
    def check(cls, path: str, layer: Any, rank: int) -> None:
        """Refuses a layer whose weight is no full matrix, or too small for the rank.

        Args:
            path: Of the layer.
            layer: The layer.
            rank: Of the adapter.

        Raises:
            ConfigError: It does not fit.
        """
        for name, whole in WHOLE.items():
            given = getattr(layer, name, None)
            if given is not None and given is not whole:
                raise _is_partial(path, layer, name)
        shape, split = own_shape(layer, cls.weight), cls.inputs(layer)
        size_in, size_out = math.prod(shape[:split]), math.prod(shape[split:])
        largest = min(size_in, size_out)
        if rank > largest:
            raise ConfigError(
                f"`rank` is {rank}, but the {type(layer).__name__} here maps "
                f"{size_in} features to {size_out}.",
                code="LN-VALUE-06",
                at=path or type(layer).__name__,
                why="A product of larger rank could be no other matrix, for more "
                "parameters.",
                fixes=[("as much freedom as possible is meant", f"rank = {largest}")],
            )

    def merged(self, path: str) -> Any:
        """The layer with the adapter in its weight.

        Args:
            path: Of this module, for messages.

        Raises:
            ConfigError: The layer is quantised.
        """
        if hasattr(self.base, "float_dtype"):
            raise _is_quantized(path, self.base)
        weight = stored(self.base, self.weight)
        delta = self._delta()
        total = weight.astype(delta.dtype) + self.scale * delta
        declared = declaration(self.base, self.weight)
        arrays = {self.weight: (declared, total.astype(weight.dtype))}
        return converted(self.base, type(self.base), arrays)

    def _delta(self) -> Array:
        """The product of the two matrices, of each copy in a stack."""

        def product(a: Array, b: Array) -> Array:
            return jnp.tensordot(a, b, 1, precision=lax.Precision.HIGHEST)

        a, b = stored(self, "lora_a"), stored(self, "lora_b")
        wide = widened(jnp.result_type(a, b))
        for _ in range(b.ndim - declaration(self, "lora_b").ndim):
            product = jax.vmap(product)
        return product(a.astype(wide), b.astype(wide))

    def _add(self, y: Array, inside: ArrayLike) -> Array:
        """The layer's output and, in its dtype, what the adapter makes of `inside`."""
        b, precision = self.lora_b, getattr(self.base, "precision", None)
        delta = F.dense_general(inside, b, dtype=y.dtype, precision=precision)
        return y + self.scale * delta


class LoRADense(LoRA):
    """A dense layer and its adapter.

    Parameters:
        base: Those of the layer, as they were.
        lora_a: `[I, r]`. Logical axes `("in", None)`.
        lora_b: `[r, O]`, starts at zero. Logical axes `(None, "out")`.

    Shapes:
        x: `[..., I]`  ->  `[..., O]`
    """

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[..., I]`, floating or complex.
        """
        y = self.base(x)
        self.expect(lora_a=(x.shape[-1], self.rank))
        x, precision = self.dropout(x), self.base.precision
        inside = F.dense(x, self.lora_a, dtype=y.dtype, precision=precision)
        return self._add(y, inside)


class LoRADenseGeneral(LoRA):
    """A dense layer of several axes and its adapter.

    Parameters:
        base: Those of the layer, as they were.
        lora_a: `[*I, r]`. Logical axes as in the kernel, and `None`.
        lora_b: `[r, *O]`, starts at zero. Logical axes likewise.

    Shapes:
        x: `[...]`  ->  `[..., *O]`
    """

    @staticmethod
    def inputs(layer: Any) -> int:
        """How many axes are contracted.

        Args:
            layer: The layer.
        """
        return len(layer.axis)

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[...]`, floating or complex.
        """
        base = self.base
        y = base(x)
        axes = axes_of(x.ndim, base.axis)
        self.expect(lora_a=(*(x.shape[axis] for axis in axes), self.rank))
        inside = F.dense_general(
            self.dropout(x),
            self.lora_a,
            axis=base.axis,
            dtype=y.dtype,
            precision=base.precision,
        )
        return self._add(y, inside)


class LoRAConv(LoRA):
    """A convolution and its adapter: one of r features, then a dense layer.

    Parameters:
        base: Those of the layer, as they were.
        lora_a: `[*K, I, r]`. Logical axes `(None, ..., "in", None)`.
        lora_b: `[r, O]`, starts at zero. Logical axes `(None, "out")`.

    Shapes:
        x: `[..., *W, I]`  ->  `[..., *W', O]`
    """

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: `[..., *W, I]`, floating or complex.
        """
        base = self.base
        y = base(x)
        self.expect(lora_a=(*base.kernel_size, x.shape[-1], self.rank))
        inside = F.conv(
            self.dropout(x),
            self.lora_a,
            strides=base.strides,
            padding=base.padding,
            kernel_dilation=base.kernel_dilation,
            input_dilation=base.input_dilation,
            dtype=y.dtype,
            precision=base.precision,
        )
        return self._add(y, inside)


class LoRAEmbed(LoRA):
    """A table of vectors and its adapter.

    Parameters:
        base: Those of the layer, as they were.
        lora_a: `[V, r]`. Logical axes `("vocab", None)`.
        lora_b: `[r, D]`, starts at zero. Logical axes `(None, "features")`.

    Shapes:
        ids: `[...]`  ->  `[..., D]`
    """

    weight = "embedding"
    a_init = staticmethod(EMBEDDING_INIT)
    dropped_together = (-1,)  # the input is one-hot: dropping it drops the whole row

    @staticmethod
    def inputs(layer: Any) -> int:
        """One axis is that of the ids.

        Args:
            layer: The layer.
        """
        return 1

    def __call__(self, ids: ArrayLike) -> Array:
        """Looks up rows.

        Args:
            ids: `[...]`, integers.
        """
        y = self.base(ids)
        inside = F.embed(ids, self.lora_a, dtype=y.dtype)
        return self._add(y, self.dropout(inside))

    def attend(self, x: ArrayLike) -> Array:
        """Scores `x` against every row: logits over the vocabulary.

        Args:
            x: `[..., D]`, floating or complex.
        """
        y = self.base.attend(x)
        inside = F.dense(x, self.lora_b.T, dtype=y.dtype)
        return y + self.scale * F.attend(inside, self.lora_a, dtype=y.dtype)


KINDS: dict[type, type[LoRA]] = {
    Dense: LoRADense,
    DenseGeneral: LoRADenseGeneral,
    Conv: LoRAConv,
    Embed: LoRAEmbed,
}
ADAPTERS = KINDS | {QUANTIZED[kind]: adapter for kind, adapter in KINDS.items()}
ADAPTERS[Fp8Dense] = LoRADense

# Options that keep inputs and outputs apart, and their values where they do not.
WHOLE: dict[str, Any] = {"mask": None, "feature_group_count": 1, "batch_axis": ()}


def _is_partial(path: str, layer: Any, name: str) -> ConfigError:
    kind, whole = type(layer).__name__, WHOLE[name]
    return ConfigError(
        f"a {kind} with a `{name}` cannot be adapted.",
        code="LN-WHERE-03",
        at=path or kind,
        why="An adapter lets all inputs reach all outputs, which this layer keeps "
        "apart.",
        fixes=[
            (
                "the others are meant",
                f"where = lambda path, m: isinstance(m, nn.{kind}) "
                f"and m.{name} {'is' if whole is None else '=='} {whole}",
            )
        ],
    )


def _is_quantized(path: str, layer: Any) -> ConfigError:
    return ConfigError(
        f"the adapter cannot be folded into a {type(layer).__name__}.",
        code="LN-WHERE-03",
        at=path or type(layer).__name__,
        why="The sum would be rounded to the few values that eight bits hold.",
        fixes=[
            (
                "the layers may be floating",
                "model = nn.merge_lora(nn.dequantize(model))",
            )
        ],
    )
