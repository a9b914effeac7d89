"""What attention is not made of, or not called with."""

from __future__ import annotations

from typing import Any

from linnet._errors import ConfigError, ShapeError, describe
from linnet._typing import ArrayLike
from linnet.core import Module
from linnet.core._locate import locate
from linnet.nn._decode import looks_ahead


def check_groups(heads: int, groups: int) -> None:
    if heads % groups:
        best = max(n for n in range(1, groups + 1) if heads % n == 0)
        raise ConfigError(
            f"`num_kv_heads` is {groups}, which does not divide {heads} `num_heads`.",
            code="LN-VALUE-06",
            at="Attention",
            why="Each head of keys and values serves as many heads of queries.",
            fixes=[
                ("heads are shared", f"num_kv_heads = {best}"),
                ("each head has its own", f"num_kv_heads = {heads}"),
            ],
        )


def check_position(position: Any) -> None:
    methods = ("rotate", "bias")
    if position is None or any(hasattr(position, name) for name in methods):
        return
    kind = getattr(position, "__name__", type(position).__name__)
    raise ConfigError(
        f"`position` is {kind}, which has neither a method `rotate` nor `bias`.",
        code="LN-VALUE-04",
        at="Attention",
        why="Positions turn queries and keys, or add to the logits; what is added to "
        "the input itself is a layer before the attention.",
        fixes=[
            ("queries and keys should be rotated", "position = nn.Rotary()"),
            ("the input knows where it is", "position = None"),
        ],
    )


def check_norm(norm: Any) -> None:
    if norm is None or (callable(norm) and not isinstance(norm, Module)):
        return
    raise ConfigError(
        f"`qk_norm` is {norm!r}, but it must be a class or function that makes a norm.",
        code="LN-VALUE-04",
        at="Attention",
        why="Queries and keys have one each.",
        fixes=[("the usual one will do", "qk_norm = nn.RMSNorm")],
    )


def uneven(module: Module, x: ArrayLike, heads: int) -> ShapeError:
    width = x.shape[-1]
    best = max(n for n in range(1, heads + 1) if width % n == 0)
    return ShapeError(
        f"the {width} features of `x` cannot be divided among {heads} heads.",
        code="LN-SHAPE-03",
        at=locate(module),
        facts={"x": describe(x)},
        why="The size of a head is that of `x` over `num_heads`, unless it is given.",
        fixes=[
            ("a head has another size", f"head_dim = {max(1, width // heads)}"),
            ("there are fewer heads", f"num_heads = {best}"),
        ],
    )


def fused_context(module: Module) -> ConfigError:
    return ConfigError(
        "`context` was given, but `fused_qkv` is True.",
        code="LN-VALUE-06",
        at=locate(module),
        why="One product makes queries, keys and values of the same input.",
        fixes=[
            ("keys and values come from the context", "fused_qkv = False"),
            ("they come from `x`", "context = None"),
        ],
    )


def not_causal(module: Module) -> ConfigError:
    return looks_ahead(
        module,
        "self-attention that is not causal",
        "It looks at a whole sequence, and has the next tokens alone.",
        ("no token sees a later one", "attention = nn.Attention(1, causal=True)"),
    )


def not_with_cache(module: Module, name: str) -> ConfigError:
    return ConfigError(
        f"`{name}` was given to a layer with a cache.",
        code="LN-CACHE-01",
        at=locate(module),
        why="It sees the tokens in its cache, each as far back as it is.",
        fixes=[
            (
                "it keeps out padding on the right",
                f"{name} = None\nmodel = nn.limit_cache(model, lengths)",
            ),
            ("`x` holds whole sequences", "model = nn.without_cache(model)"),
        ],
    )
