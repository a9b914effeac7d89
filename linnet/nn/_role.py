"""The roles that adaptation adds, and which parts of a model have them."""

from linnet._typing import PyTree
from linnet.core import Frozen, Param, select


class LoRAParam(Param):
    """Trained: one of the two matrices of an adapter that `nn.lora` inserts."""


class FrozenByLoRA(Frozen):
    """A parameter that is not trained from `nn.lora` to `nn.merge_lora`."""


def frozen_but_adapters(model: PyTree) -> PyTree:
    """The model in which adapters alone are trained."""
    adapters = set(select(model, LoRAParam))
    others = select(model, lambda path, _: path not in adapters)
    return others.freeze(FrozenByLoRA)
