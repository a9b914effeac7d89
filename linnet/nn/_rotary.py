"""Rotary position embeddings."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from linnet import functional as F
from linnet._errors import ConfigError
from linnet._typing import Array, ArrayLike
from linnet.core import Module
from linnet.core._check import check_positive
from linnet.functional._rotary_scaling import RotaryScaling
from linnet.nn._place import placed


class Rotary(Module):
    r"""Turns pairs of features of queries and keys by angles that grow with position.

    The product of a query and a key then depends on the difference of their
    positions. `nn.Attention` takes one as its `position`, and calls `rotate`.

    Args:
        base: Of the geometric series of the frequencies.
        fraction: Share of the features that are rotated, the first ones; the others
            stay as they are.
        interleaved: Whether a pair is two neighbours (GPT-J, RoFormer), or one
            feature of the first half with one of the second (GPT-NeoX, Llama).
        scaling: For contexts longer than in training: `nn.LinearScaling`,
            `nn.NTKScaling`, `nn.YaRNScaling`, `nn.Llama3Scaling`, or any hashable
            object that has their two methods.

    Shapes:
        x: `[..., T, H, D]`  ->  `[..., T, H, D]`, same dtype as `x`.

    Raises:
        ConfigError: An option has a value that cannot be used.
        DTypeError: `x` is not floating.
        ShapeError: `x` has too few axes or an odd number of features to rotate, or
            `positions` do not fit.

    Example:
        >>> rotary = nn.Rotary(base=500_000.0)
        >>> q = jnp.ones((2, 5, 4, 8))
        >>> rotary(q).shape
        (2, 5, 4, 8)
        >>> rotary.rotate(q, jnp.arange(7, 12)).shape
        (2, 5, 4, 8)

    Differs from: PyTorch, which has none. The pairs of the paper are interleaved,
    those of most released models are not.
    Source: Su et al., "RoFormer", 2021, eq. 34, arXiv:2104.09864.
    """

    def __init__(
        self,
        *,
        base: float = 10_000.0,
        fraction: float = 1.0,
        interleaved: bool = False,
        scaling: RotaryScaling | None = None,
    ) -> None:
        self.base = check_positive(self, "base", base)
        self.fraction = check_positive(self, "fraction", fraction)
        self.interleaved = bool(interleaved)
        if self.fraction > 1:
            raise ConfigError(
                f"`fraction` is {fraction!r}, but it must be at most 1.",
                code="LN-VALUE-02",
                at="Rotary",
                why="It is the share of the features that are rotated.",
                fixes=[("all of them should be", "fraction = 1.0")],
            )
        _check_scaling(scaling)
        self.scaling = scaling

    def rotate(self, x: ArrayLike, positions: ArrayLike) -> Array:
        """Rotates queries or keys that stand at given positions.

        Args:
            x: `[..., T, H, D]`, floating.
            positions: `[T]` or `[..., T]`, integers or floating.
        """
        self.check_input(x, min_ndim=3, dtype="floating")
        with placed(self):
            return F.rotary(
                x,
                positions,
                base=self.base,
                fraction=self.fraction,
                interleaved=self.interleaved,
                scaling=self.scaling,
            )

    def __call__(self, x: ArrayLike, positions: ArrayLike | None = None) -> Array:
        """Rotates queries or keys.

        Args:
            x: `[..., T, H, D]`, floating.
            positions: `[T]` or `[..., T]`, integers or floating; counted from zero
                if left out.
        """
        self.check_input(x, min_ndim=3, dtype="floating")
        if positions is None:
            positions = jnp.arange(x.shape[-3])
        return self.rotate(x, positions)


def _check_scaling(scaling: Any) -> None:
    is_class = isinstance(scaling, type)
    if scaling is None or (hasattr(scaling, "frequencies") and not is_class):
        return
    what = (
        f"the class {scaling.__name__}" if is_class else f"a {type(scaling).__name__}"
    )
    raise ConfigError(
        f"`scaling` is {what}, which cannot tell the frequencies.",
        code="LN-VALUE-04",
        at="Rotary",
        why="It is an object with the methods `frequencies` and `magnitude`.",
        fixes=[
            ("positions should be interpolated", "scaling = nn.LinearScaling(2.0)"),
            ("contexts are as long as in training", "scaling = None"),
        ],
    )
