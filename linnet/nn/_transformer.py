"""The block that transformers are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from linnet import functional as F
from linnet._errors import ConfigError, ShapeError, describe
from linnet._typing import Array, ArrayLike
from linnet.core import Module
from linnet.core._check import check_option, check_rate
from linnet.core._locate import locate
from linnet.nn._dropout import Dropout
from linnet.nn._norm import LayerNorm
from linnet.nn._place import placed

Placement = Literal["pre", "post", "sandwich"]
PLACEMENTS = ("pre", "post", "sandwich")


class TransformerBlock(Module):
    r"""Attention and a feed-forward layer, each with a norm and a path around it.

    With $f$ one of the two and $N$ a norm of its own, the block computes for each in
    turn

    - `"pre"`: $x \leftarrow x + f(N(x))$,
    - `"post"`: $x \leftarrow N(x + f(x))$,
    - `"sandwich"`: $x \leftarrow x + N'(f(N(x)))$.

    In parallel it computes both of one $N(x)$, so that $f(x)$ is their sum. The parts
    are modules, made as one wants them: the attention may be causal, rotary or
    grouped, the feed-forward layer an `nn.MLP` or an `nn.MoE`, and any other module
    that returns what looks like its input can stand in their places.

    Args:
        attention: Usually an `nn.Attention`. It is given `x`, and those of the
            options `mask`, `bias`, `segments` and `positions` that the block is given.
        mlp: Usually an `nn.MLP` or an `nn.MoE`.
        cross_attention: Attends to a context, between the two, as in a decoder that
            looks at an encoder's result.
        norm: Makes a norm: `nn.LayerNorm`, `nn.RMSNorm` or any function without
            arguments that returns a module.
        placement: `"pre"`, `"post"` or `"sandwich"`. A model of blocks with the first
            or the last has one more norm after all of them.
        parallel: Whether attention and feed-forward layer work side by side.
        dropout_rate: Probability of dropping an entry of what is added to `x`, in
            training. Dropout within a part is an option of that part.
        drop_path_rate: Probability of leaving a part out for an example, in training.

    Parameters:
        attention: Those of the module.
        attention_norm: Made by `norm`; the only one if `parallel`.
        attention_out_norm: $N'$ of a sandwich.
        cross_attention: Those of the module.
        cross_attention_norm: Made by `norm`.
        cross_attention_out_norm: $N'$ of a sandwich.
        mlp: Those of the module.
        mlp_norm: Made by `norm`.
        mlp_out_norm: $N'$ of a sandwich.

    Shapes:
        x: `[..., T, I]`  ->  `[..., T, I]`

    Raises:
        ConfigError: An option has a value that cannot be used, or a context is missing
            or not used.
        DTypeError: `x` holds integers or booleans.
        ScopeError: In training, a rate is not 0 and no key was given.
        ShapeError: A part returns another shape than it is given.

    Example:
        A language model's block, twelve of which make a stack:

        >>> def block():
        ...     attention = nn.Attention(4, causal=True, position=nn.Rotary())
        ...     mlp = nn.MLP(64, activation=jax.nn.silu, gated=True)
        ...     return nn.TransformerBlock(attention, mlp, norm=nn.RMSNorm)
        >>> x = jnp.ones((2, 10, 32))
        >>> stack = nn.init(nn.Stack(block(), 12, remat=True), jax.random.key(0), x)
        >>> stack(x).shape
        (2, 10, 32)

    Differs from: PyTorch, whose encoder and decoder layers are `placement="post"` by
    default, norm with an `epsilon` of 1e-5, and drop in attention too.
    Source: Vaswani et al., "Attention Is All You Need", 2017, section 3.1,
    arXiv:1706.03762. Norm first: Xiong et al., "On Layer Normalization in the
    Transformer Architecture", 2020, arXiv:2002.04745. Sandwich: Gemma Team, "Gemma
    2", 2024, section 2, arXiv:2408.00118. In parallel: Chowdhery et al., "PaLM", 2022,
    section 2, arXiv:2204.02311.
    """

    def __init__(
        self,
        attention: Module,
        mlp: Module,
        *,
        cross_attention: Module | None = None,
        norm: Callable[[], Any] = LayerNorm,
        placement: Placement = "pre",
        parallel: bool = False,
        dropout_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        _check_parts(attention, mlp, cross_attention, norm)
        if parallel and cross_attention is not None:
            raise _parallel_cross()
        self.placement = check_option(self, "placement", placement, PLACEMENTS)
        self.parallel = bool(parallel)
        self.dropout = Dropout(check_rate(self, "dropout_rate", dropout_rate))
        self.drop_path_rate = check_rate(self, "drop_path_rate", drop_path_rate)

        def made(is_there: bool) -> Any:
            return norm() if is_there else None

        is_crossed, is_sandwich = cross_attention is not None, placement == "sandwich"
        self.attention: Any = attention
        self.attention_norm = norm()
        self.attention_out_norm = made(is_sandwich)
        self.cross_attention: Any = cross_attention
        self.cross_attention_norm = made(is_crossed)
        self.cross_attention_out_norm = made(is_crossed and is_sandwich)
        self.mlp: Any = mlp
        self.mlp_norm = made(not parallel)
        self.mlp_out_norm = made(is_sandwich and not parallel)

    def __call__(
        self,
        x: ArrayLike,
        context: ArrayLike | None = None,
        *,
        mask: ArrayLike | None = None,
        bias: ArrayLike | None = None,
        segments: ArrayLike | None = None,
        positions: ArrayLike | None = None,
        context_mask: ArrayLike | None = None,
        context_bias: ArrayLike | None = None,
        context_segments: ArrayLike | None = None,
    ) -> Array:
        """Applies the block.

        Args:
            x: `[..., T, I]`, floating.
            context: `[..., S, J]`, what the cross-attention looks at.
            mask: Of the attention, as there.
            bias: Likewise.
            segments: Likewise; with `context_segments` of the cross-attention too.
            positions: Likewise.
            context_mask: `mask` of the cross-attention.
            context_bias: `bias` of the cross-attention.
            context_segments: `key_segments` of the cross-attention.
        """
        self.check_input(x, min_ndim=2, dtype="inexact")
        self._check_context(context)
        own = given(mask=mask, bias=bias, segments=segments, positions=positions)

        def attend(h: Any) -> Any:
            return self.attention(h, **own)

        if self.parallel:
            return self._around("attention", x, lambda h: attend(h) + self.mlp(h))
        y = self._around("attention", x, attend)
        if context is not None:
            across = given(mask=context_mask, bias=context_bias)
            if context_segments is not None:
                across |= {"segments": segments, "key_segments": context_segments}
            y = self._around(
                "cross_attention",
                y,
                lambda h: self.cross_attention(h, context, **across),
            )
        return self._around("mlp", y, self.mlp)

    def _around(self, name: str, x: Any, part: Callable[[Any], Any]) -> Array:
        """`x` after one part, with its norms and the path around it."""
        norm = getattr(self, f"{name}_norm")
        if self.placement == "post":
            return norm(self._added(name, x, part(x)))
        y = part(norm(x))
        out_norm = getattr(self, f"{name}_out_norm")
        return self._added(name, x, y if out_norm is None else out_norm(y))

    def _added(self, name: str, x: Any, y: Any) -> Any:
        if y.shape != x.shape:
            raise _other_shape(self, name, x, y)
        y = self.dropout(y)
        if self.training and self.drop_path_rate > 0:
            examples = tuple(range(x.ndim - 2))
            key = self.rng("dropout")
            with placed(self):
                y = F.drop_path(y, key, self.drop_path_rate, batch_axes=examples)
        return x + y

    def _check_context(self, context: Any) -> None:
        if (context is None) is (self.cross_attention is None):
            return
        if context is None:
            raise ConfigError(
                "there is no `context`, but the block has a `cross_attention`.",
                code="LN-VALUE-06",
                at=locate(self),
                why="Without one it would attend to `x` itself.",
                fixes=[
                    ("it looks at what an encoder made", "y = model(x, context)"),
                    ("there is no encoder", "cross_attention = None"),
                ],
            )
        raise ConfigError(
            "`context` was given, but the block has no `cross_attention`.",
            code="LN-VALUE-06",
            at=locate(self),
            why="Nothing would look at it.",
            fixes=[
                ("the block should", "cross_attention = nn.Attention(1)"),
                ("there is nothing to look at", "context = None"),
            ],
        )


def given(**options: Any) -> dict[str, Any]:
    """The options that are not `None`: other modules need not know them."""
    return {name: value for name, value in options.items() if value is not None}


def _check_parts(attention: Any, mlp: Any, cross_attention: Any, norm: Any) -> None:
    usual = {"attention": "nn.Attention(1)", "mlp": "nn.MLP(32)"}
    for name, part in (("attention", attention), ("mlp", mlp)):
        if not callable(part) or isinstance(part, type):
            raise _no_part(name, part, usual[name])
    if cross_attention is not None and not callable(cross_attention):
        raise _no_part("cross_attention", cross_attention, "nn.Attention(1)")
    if not callable(norm) or isinstance(norm, Module):
        raise ConfigError(
            f"`norm` is {norm!r}, but it must be a class or function that makes a "
            "norm.",
            code="LN-VALUE-04",
            at="TransformerBlock",
            why="Each part has one of its own.",
            fixes=[("the usual one will do", "norm = nn.LayerNorm")],
        )


def _no_part(name: str, part: Any, usual: str) -> ConfigError:
    is_class = isinstance(part, type)
    what = f"the class {part.__name__}" if is_class else repr(part)
    return ConfigError(
        f"`{name}` is {what}, but it must be a module.",
        code="LN-VALUE-04",
        at="TransformerBlock",
        fixes=[("the usual one is meant", f"{name} = {usual}")],
    )


def _parallel_cross() -> ConfigError:
    return ConfigError(
        "`parallel` is True, but there is a `cross_attention`.",
        code="LN-VALUE-06",
        at="TransformerBlock",
        why="It looks at a context with what the attention found, so it comes after.",
        fixes=[
            ("the block belongs to a decoder", "parallel = False"),
            ("there is no context", "cross_attention = None"),
        ],
    )


def _other_shape(module: Module, name: str, x: Any, y: Any) -> ShapeError:
    code = f"{name} = nn.Sequential([{name}, nn.Dense({x.shape[-1]})])"
    return ShapeError(
        f"`{name}` returns {describe(y)}, which cannot be added to {describe(x)}.",
        code="LN-SHAPE-01",
        at=locate(module),
        facts={"x": describe(x)},
        why="What a part returns is added to what it was given.",
        fixes=[("it should return as many features as it takes", code)],
    )
