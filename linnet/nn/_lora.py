"""Low-rank adaptation: small trained matrices beside frozen layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from linnet._errors import ConfigError
from linnet._typing import DType, Initializer, Key, PyTree
from linnet.core import Module, select
from linnet.core._check import check_positive, check_rate, check_size
from linnet.core._init import fill
from linnet.core._table import modules
from linnet.core._tree import refuse_described
from linnet.core._where import Where
from linnet.nn._lora_layer import ADAPTERS, LoRA
from linnet.nn._role import FrozenByLoRA, frozen_but_adapters
from linnet.nn._swap import swapped


def lora(
    model: PyTree,
    where: Where,
    rank: int,
    alpha: float,
    key: Key,
    *,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    param_dtype: DType | None = None,
    lora_a_init: Initializer | None = None,
) -> PyTree:
    r"""The model with a low-rank adapter at each selected layer, and the rest frozen.

    $y = f(x) + \frac{\alpha}{r} \, x A B$, where $f$ is the layer as it was. $A$
    starts random and $B$ at zero, so the model gives what it gave before.

    The adapters are the only `nn.Param` that remains: every other parameter of the
    model is frozen, so `nn.params`, `nn.grad` and any training loop see the adapters
    alone, and so does an optimiser's state. `nn.select(model, "head").unfreeze()`
    trains another part as well; `wrt=nn.LoRAParam` then still means the adapters.

    A layer at `query` moves to `query/base`, beside `query/lora_a` and
    `query/lora_b`. `nn.to_paths(nn.params(model))` is the adapters' checkpoint.

    Args:
        model: An initialised module, or a pytree of them. Layers may be inside
            `nn.Stack` and `nn.Ensemble`, and may be quantised by `nn.quantize`.
        where: Selects `nn.Dense`, `nn.DenseGeneral`, `nn.Conv` or `nn.Embed` layers,
            as for `nn.select` with modules, or modules around them: all in these are
            adapted.
        rank: Size r of the middle; at most the number of inputs and of outputs.
        alpha: The adapter's output is multiplied by `alpha / rank`.
        key: A JAX key. That of each `lora_a` derives from its path alone.
        dropout: Rate of dropping the adapter's inputs in training.
        rank_stabilized: Whether to multiply by `alpha / sqrt(rank)` instead, which
            keeps the size of the output where the rank is large.
        param_dtype: Of the adapters. `None` takes that of the layer's parameter.
        lora_a_init: Initialiser of `lora_a`. `None` takes that of the layer's class:
            variance one over the inputs, or rows of unit length for `nn.Embed`.

    Returns:
        The model with adapters.

    Raises:
        ConfigError: `where` selects what cannot be adapted or has an adapter, or an
            option has a value that cannot be used.
        InitError: The model is not initialised, or `key` is no key.
        PathError: `where` selects nothing.

    Example:
        >>> x = jnp.ones((1, 3))
        >>> model = nn.Sequential([nn.Dense(8), jax.nn.relu, nn.Dense(4)])
        >>> model = nn.init(model, jax.random.key(0), x)
        >>> adapted = nn.lora(model, "layers/0", 2, 4.0, jax.random.key(1))
        >>> {p: a.shape for p, a in nn.to_paths(nn.params(adapted)).items()}
        {'layers/0/lora_a': (3, 2), 'layers/0/lora_b': (2, 8)}
        >>> nn.merge_lora(adapted) == model
        True

    Differs from: PEFT, whose `A` starts uniform and which trains adapters of convolved
    and grouped layers as well.
    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021,
    arXiv:2106.09685, eq. 3. Kalajdzievski, "A Rank Stabilization Scaling Factor for
    Fine-Tuning with LoRA", 2023, arXiv:2312.03732, for `rank_stabilized`.
    """
    __tracebackhide__ = True
    refuse_described(model)
    rank = check_size("nn.lora", "rank", rank)
    alpha = check_positive("nn.lora", "alpha", alpha)
    dropout = check_rate("nn.lora", "dropout", dropout)
    scale = alpha / (math.sqrt(rank) if rank_stabilized else rank)
    options: dict[str, Any] = {
        "dropout": dropout,
        "param_dtype": param_dtype,
        "lora_a_init": lora_a_init,
    }

    def maker(adapter: type[LoRA]) -> Callable[[str, Any], Module]:
        def make(path: str, layer: Any) -> Module:
            __tracebackhide__ = True
            adapter.check(path, layer, rank)
            return adapter(layer, rank, scale=scale, **options)

        return make

    makers = {cls: maker(adapter) for cls, adapter in ADAPTERS.items()}
    undo = "model = nn.merge_lora(model)"
    changed = swapped(model, where, makers, "adapted", wrappers=LoRA, undo=undo)
    return fill(frozen_but_adapters(changed), key)


def merge_lora(model: PyTree) -> PyTree:
    """The model without adapters: each is folded into the layer beside it.

    The structure is exactly the one before `nn.lora`, roles included, and the outputs
    are those with the adapters. The sum is taken in float32 or wider. A quantised layer
    takes no adapter in: `nn.dequantize` first.

    Args:
        model: A module, or a pytree of them, with adapters.

    Raises:
        ConfigError: There are no adapters, or one is beside a quantised layer.

    Example:
        >>> x = jnp.ones((1, 3))
        >>> model = nn.init(nn.Dense(4), jax.random.key(0), x)
        >>> adapted = nn.lora(model, nn.Dense, 2, 4.0, jax.random.key(1))
        >>> adapted = adapted.replace(lora_b=jnp.ones((2, 4)))
        >>> merged = nn.merge_lora(adapted)
        >>> bool(jnp.allclose(merged(x), adapted(x)))
        True
    """
    __tracebackhide__ = True
    if not has_adapters(model):
        raise ConfigError(
            "the model has no adapters that could be merged.",
            code="LN-WHERE-04",
            at=type(model).__name__,
            why="Merging twice, or the wrong model, would otherwise be unseen.",
            fixes=[("the model is merged already, and ready as it is", "pass")],
        )
    merged = select(model, LoRA).map_modules(
        lambda path, adapter: adapter.merged(path), with_path=True
    )
    return select(merged, FrozenByLoRA).unfreeze()


def has_adapters(model: PyTree) -> bool:
    """Whether some layer of a model has an adapter."""
    return any(isinstance(module, LoRA) for _, module in modules(model))
