"""Attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._typing import Array, ArrayLike, DType, Initializer, Shape
from linnet.core import Module
from linnet.core._check import check_rate, check_size
from linnet.core._table import modules, slots
from linnet.core._tree import refuse_described
from linnet.functional._attention_check import (
    check_block_size,
    check_kernel,
    check_scale,
    check_softcap,
    fitted,
    floating,
)
from linnet.functional._attention_mask import Window, band
from linnet.functional._dtype import inexact_dtype
from linnet.functional.initializers import lecun_normal, zeros
from linnet.nn._attention_check import (
    check_groups,
    check_norm,
    check_position,
    fused_context,
    not_causal,
    not_with_cache,
    uneven,
)
from linnet.nn._cache import KVCache, NoCache
from linnet.nn._decode import check_rows, goes_on, positions_of, refuse_plain
from linnet.nn._linear import Dense
from linnet.nn._place import placed
from linnet.nn._projection import projection

KERNEL_INIT = lecun_normal()


class Attention(Module):
    r"""Lets each position gather from others what its query finds in their keys.

    $y = \mathrm{out}(\mathrm{softmax}(q k^\top / \sqrt D) \, v)$ for each head, with
    q, k and v linear in the input.

    With `num_kv_heads` equal to `num_heads` it is multi-head attention, with 1 it is
    multi-query, between them grouped-query attention. Without a `context` it is
    self-attention, with one cross-attention.

    Args:
        num_heads: Number H of heads of the queries.
        num_kv_heads: Number G of heads of keys and values, a divisor of H; H by
            default. Each serves H / G heads of the queries.
        head_dim: Size D of a head. By default the features of `x` divided by H.
        features: Size O of the last axis of the result; that of `x` by default.
        causal: Whether a query sees no later keys.
        window: Number of positions that a query sees, itself included, where it is
            causal; else a pair, how many before and after it. `None` for all.
        position: How attention knows where tokens are: a module with a method
            `rotate(x, positions)`, as `nn.Rotary`, or with a method
            `bias(num_heads, positions, key_positions)`, as `nn.ALiBi` and
            `nn.RelativeBias`, or both.
        qk_norm: Makes a norm of each head's queries, and one of its keys, applied
            before they are rotated: `nn.RMSNorm`, `nn.LayerNorm` or any function
            without arguments that returns a module. `None` for none.
        softcap: Logits are squashed to within plus and minus this; `None` for no cap.
        scale: Factor of the logits, $1 / \sqrt D$ by default.
        dropout_rate: Probability of dropping an attention weight in training.
        fused_qkv: Whether queries, keys and values come of one product.
        use_bias: Whether the projections have a bias.
        use_out_bias: Whether the last one has; as `use_bias` by default.
        kernel: How it is computed, as in `F.attention`.
        block_size: Likewise.
        dtype: Of the computation and the result. `None` takes the one to which `x`
            and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the products, as in `jax.lax.dot_general`.
        kernel_init: Initialiser of the kernels.
        bias_init: Initialiser of the biases.
        out_kernel_init: Initialiser of the kernel of `out`; `kernel_init` by default.

    Parameters:
        query: An `nn.Dense` with the kernel `[I, H * D]`, axes `("in", "heads")`.
        key: An `nn.Dense` with the kernel `[I, G * D]`, axes `("in", "kv_heads")`.
        value: Likewise.
        qkv: With `fused_qkv` the three in this order, `[I, (H + 2 * G) * D]`, axes
            `("in", "heads")`.
        out: An `nn.Dense` with the kernel `[H * D, O]`, axes `("heads", "out")`.
        query_norm: Made by `qk_norm`.
        key_norm: Likewise.
        position: As given.
        cache: An `nn.KVCache`, where `nn.with_cache` put one.

    Shapes:
        x: `[..., T, I]`  ->  `[..., T, O]`

    Raises:
        ConfigError: An option has a value that cannot be used, or options do not go
            together. Or the module is not causal, has no `context`, and the call goes
            on from the cache of a model.
        DTypeError: `x` holds integers or booleans.
        ScopeError: The module has a cache and the call is a plain one, or training.
        ShapeError: `x`, `context`, a mask or positions do not fit.

    Example:
        >>> x = jnp.ones((2, 5, 8))
        >>> attention = nn.Attention(4, num_kv_heads=2, causal=True)
        >>> attention = nn.init(attention, jax.random.key(0), x)
        >>> attention(x).shape
        (2, 5, 8)
        >>> attention.key.kernel.shape
        (8, 4)

    Differs from: PyTorch, whose kernels are transposed, fused by default and start
    Xavier-uniform, and whose boolean masks are true where nothing is seen. Flax Linen,
    whose kernels have an axis for the heads.
    Source: Vaswani et al., "Attention Is All You Need", 2017, section 3.2,
    arXiv:1706.03762; Ainslie et al., "GQA", 2023, arXiv:2305.13245.
    """

    def __init__(
        self,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        features: int | None = None,
        causal: bool = False,
        window: Window | None = None,
        position: Any = None,
        qk_norm: Callable[[], Any] | None = None,
        softcap: float | None = None,
        scale: float | None = None,
        dropout_rate: float = 0.0,
        fused_qkv: bool = False,
        use_bias: bool = True,
        use_out_bias: bool | None = None,
        kernel: str = "auto",
        block_size: int | tuple[int, int] | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = KERNEL_INIT,
        bias_init: Initializer = zeros,
        out_kernel_init: Initializer | None = None,
    ) -> None:
        self.num_heads = check_size(self, "num_heads", num_heads)
        groups = check_size(self, "num_kv_heads", num_kv_heads, allow_none=True)
        self.num_kv_heads = self.num_heads if groups is None else groups
        self.head_dim = check_size(self, "head_dim", head_dim, allow_none=True)
        self.features = check_size(self, "features", features, allow_none=True)
        self.causal = bool(causal)
        with placed(self):
            band(self.causal, window)
            check_scale(scale, 1)
            check_kernel(kernel)
            check_block_size(block_size)
            self.softcap = check_softcap(softcap)
        self.window = window
        self.scale = scale
        self.dropout_rate = check_rate(self, "dropout_rate", dropout_rate)
        self.kernel = kernel
        self.block_size = block_size
        with placed(self):
            self.dtype = None if dtype is None else inexact_dtype(dtype)
        self.precision = precision
        check_groups(self.num_heads, self.num_kv_heads)
        check_position(position)
        check_norm(qk_norm)

        options: Any = {"dtype": self.dtype, "precision": precision}
        options |= {"param_dtype": param_dtype, "bias_init": bias_init}
        options |= {"kernel_init": kernel_init, "use_bias": use_bias}

        def heads(number: int, name: str) -> Dense:
            width = None if self.head_dim is None else number * self.head_dim
            return projection(width, ("in", name), **options)

        h, g = self.num_heads, self.num_kv_heads
        self.qkv: Any = heads(h + 2 * g, "heads") if fused_qkv else None
        self.query: Any = None if fused_qkv else heads(h, "heads")
        self.key: Any = None if fused_qkv else heads(g, "kv_heads")
        self.value: Any = None if fused_qkv else heads(g, "kv_heads")
        if out_kernel_init is not None:
            options["kernel_init"] = out_kernel_init
        if use_out_bias is not None:
            options["use_bias"] = use_out_bias
        self.out: Any = projection(self.features, ("heads", "out"), **options)
        self.query_norm: Any = None if qk_norm is None else qk_norm()
        self.key_norm: Any = None if qk_norm is None else qk_norm()
        self.position = position
        self.cache: Any = None

    def __call__(
        self,
        x: ArrayLike,
        context: ArrayLike | None = None,
        *,
        mask: ArrayLike | None = None,
        bias: ArrayLike | None = None,
        segments: ArrayLike | None = None,
        key_segments: ArrayLike | None = None,
        positions: ArrayLike | None = None,
        key_positions: ArrayLike | None = None,
    ) -> Array:
        """Applies the layer.

        With a cache, which `nn.with_cache` gives, `x` `[B, T, I]` holds the next tokens
        of B sequences and sees those that came before. Then there is no context, mask,
        bias or segment, and the call is made by `nn.stateful`.

        Args:
            x: `[..., T, I]`, floating: where queries come from.
            context: `[..., S, J]`, where keys and values come from; `x` by default.
            mask: Booleans `[..., H, T, S]`, true where a query may see a key. Axes
                of size 1 are for all.
            bias: `[..., H, T, S]`, added to the logits, likewise.
            segments: `[..., T]`, integers. Only equal ones see each other.
            key_segments: `[..., S]`; `segments` by default in self-attention.
            positions: `[..., T]`, integers; counted from zero by default, with a
                cache from the length of what is there.
            key_positions: `[..., S]`; `positions` by default in self-attention. A
                key at a negative position is not seen.
        """
        self.check_input(x, min_ndim=2, dtype="floating")
        if context is not None:
            self.check_input(context, "context", ndim=x.ndim, dtype="floating")
        if self.initializing:
            self._infer(x, x if context is None else context)
        rules = {
            "mask": mask,
            "bias": bias,
            "segments": segments,
            "key_segments": key_segments,
            "key_positions": key_positions,
        }
        is_cached = isinstance(self.cache, KVCache) and not self.initializing
        if is_cached:
            refuse_plain(self)
            self._check_continued(x, {"context": context} | rules)
        elif self.cache is not None and context is None and goes_on(self):
            raise not_causal(self)
        q, k, v = self._projected(x, context)  # [..., T, H, D], [..., S, G, D] twice
        if self.query_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        with placed(self):
            if is_cached:
                y = self._continued(q, k, v, positions)
            else:
                y = self._attended(q, k, v, positions, context is None, rules)
        return self.out(lax.reshape(y, (*y.shape[:-2], y.shape[-2] * y.shape[-1])))

    def _infer(self, x: ArrayLike, context: ArrayLike) -> None:
        """Tells the projections their sizes, while initialising."""
        h, g, d = self.num_heads, self.num_kv_heads, self.head_dim
        width, inner = x.shape[-1], context.shape[-1]
        if d is None:
            d = width // h
            if width % h:
                raise uneven(self, x, h)
        sizes = {
            "qkv": (width, (h + 2 * g) * d),
            "query": (width, h * d),
            "key": (inner, g * d),
            "value": (inner, g * d),
            "out": (h * d, width if self.features is None else self.features),
        }
        for name, (size_in, size_out) in sizes.items():
            part = getattr(self, name)
            if isinstance(part, Dense):
                part.expect(kernel=(size_in, size_out), bias=(size_out,))

    def _projected(
        self, x: ArrayLike, context: ArrayLike | None
    ) -> tuple[Array, Array, Array]:
        """Queries, keys and values, by head."""
        h, g = self.num_heads, self.num_kv_heads
        parts: Sequence[Array]
        if self.qkv is None:
            source = x if context is None else context
            parts = self.query(x), self.key(source), self.value(source)
        elif context is None:
            y = self.qkv(x)
            d = y.shape[-1] // (h + 2 * g)
            parts = lax.split(y, (h * d, g * d, g * d), y.ndim - 1)
        else:
            raise fused_context(self)
        q, k, v = parts
        return _by_head(q, h), _by_head(k, g), _by_head(v, g)

    def _attended(
        self,
        q: Array,
        k: Array,
        v: Array,
        positions: ArrayLike | None,
        is_self: bool,
        rules: dict[str, Any],
    ) -> Array:
        """The mixture of values for each query and head, `[..., T, H, D]`."""
        if is_self and rules["key_positions"] is None:
            rules["key_positions"] = positions
        if self.position is not None:
            at = _counted(positions, q)
            key_at = _counted(rules["key_positions"], k)
            q, k = self._rotated(q, at), self._rotated(k, key_at)
            rules["bias"] = self._bias(rules["bias"], at, key_at, _logits(q, k))
        rate = self.dropout_rate if self.training else 0.0
        return F.attention(
            q,
            k,
            v,
            positions=positions,
            dropout_rate=rate,
            key=self.rng("dropout") if rate else None,
            **rules,
            **self._options(),
        )

    def _continued(
        self, q: Array, k: Array, v: Array, positions: ArrayLike | None
    ) -> Array:
        """As `_attended`, to the keys and values of the cache as well."""
        cache = self.cache
        at = positions_of(positions, cache.index.next(q.shape[1]))  # [B, T]
        q, k = self._rotated(q, at), self._rotated(k, at)
        is_lost = cache.is_lost(at)
        keys, values, key_at = cache.extend(k, v, at)  # [B, S, G, D] twice, [B, S]
        y = F.attention(
            q,
            keys.astype(q.dtype),
            values.astype(q.dtype),
            bias=self._bias(None, at, key_at, _logits(q, keys)),
            positions=at,
            key_positions=key_at,
            **self._options(),
        )
        if is_lost is None:
            return y
        return jnp.where(is_lost[:, :, None, None], jnp.nan, y)

    def _rotated(self, x: Array, positions: ArrayLike) -> Array:
        if not hasattr(self.position, "rotate"):
            return x
        return self.position.rotate(x, positions)

    def _bias(
        self, bias: Any, positions: ArrayLike, key_positions: ArrayLike, logits: Shape
    ) -> Any:
        """The bias that was given plus that of the positions, `[..., H, T, S]`."""
        if not hasattr(self.position, "bias"):
            return bias
        own = self.position.bias(self.num_heads, positions, key_positions)
        own = lax.expand_dims(own, range(len(logits) - own.ndim))
        if bias is None:
            return own
        *lead, heads, length, key_length = logits
        size = (length, key_length)
        return own + fitted(floating(bias, "bias"), "bias", tuple(lead), heads, size)

    def _options(self) -> dict[str, Any]:
        return {
            "causal": self.causal,
            "window": self.window,
            "scale": self.scale,
            "softcap": self.softcap,
            "kernel": self.kernel,
            "block_size": self.block_size,
            "precision": self.precision,
        }

    def _check_continued(self, x: ArrayLike, rules: dict[str, Any]) -> None:
        """Refuses what does not go with the cache."""
        given = [name for name, value in rules.items() if value is not None]
        if given:
            raise not_with_cache(self, given[0])
        check_rows(self, x, self.cache.index)

    def with_cache(
        self, batch_size: int, max_length: int, dtype: DType | None = None
    ) -> Attention:
        """The layer with an empty cache, where no query sees a later key.

        Others have none. They go on looking at a context; to look at `x` itself is
        refused in a call that has the next tokens alone. `nn.with_cache` calls this on
        every layer of a model.

        Args:
            batch_size: Number B of sequences.
            max_length: Tokens of a sequence.
            dtype: Of keys and values; `None` takes that of the computation.
        """
        left, right = band(self.causal, self.window)
        if right != 0:
            return self.replace(cache=NoCache())
        width, kernel_dtype = _kernel_of(self.key if self.qkv is None else self.qkv)
        head_dim = self.head_dim
        if head_dim is None:
            refuse_described(self)
            h, g = self.num_heads, self.num_kv_heads
            head_dim = width // (g if self.qkv is None else h + 2 * g)
        return self.replace(
            cache=KVCache(
                batch_size,
                max_length,
                num_kv_heads=self.num_kv_heads,
                head_dim=head_dim,
                window=None if left is None else left + 1,
                dtype=dtype or self.dtype or kernel_dtype,
            )
        )


def _by_head(x: Array, heads: int) -> Array:
    """`[..., T, H * D]` as `[..., T, H, D]`."""
    return lax.reshape(x, (*x.shape[:-1], heads, x.shape[-1] // heads))


def _counted(positions: ArrayLike | None, x: Array) -> ArrayLike:
    """The positions, or else those counted from zero."""
    if positions is not None:
        return positions
    return lax.iota(jnp.int32, x.shape[-3])


def _logits(q: Array, k: Array) -> Shape:
    """The shape `[..., H, T, S]` of the logits."""
    *lead, length, heads, _ = q.shape
    return (*lead, heads, length, k.shape[-3])


def _kernel_of(part: Any) -> tuple[Any, DType]:
    """Width and dtype of a projection's kernel, also in an adapter, or quantised."""
    layer = next(module for _, module in modules(part) if isinstance(module, Dense))
    leaves, _, entries = slots(layer)
    found = zip(entries, leaves, strict=True)
    kernel = next(leaf for entry, leaf in found if entry.path[-1].name == "kernel")
    return kernel.shape[-1], getattr(layer, "float_dtype", kernel.dtype)
