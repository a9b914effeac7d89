"""Frequencies of rotary embeddings, for contexts longer than in training.

P pairs of features
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol

import numpy as np

from linnet._errors import ConfigError


class RotaryScaling(Protocol):
    """What a scaling of rotary embeddings for long contexts has to offer.

    Any object that can be hashed and has these two methods will do.
    """

    def frequencies(self, size: int, base: float) -> np.ndarray[Any, Any]:
        """Radians per position of each pair of features.

        Args:
            size: Number of features that are rotated, 2 P.
            base: Of the geometric series of the frequencies.

        Returns:
            `[P]`, float64.
        """

    def magnitude(self) -> float:
        """The factor of sine and cosine, and so the root of that of the logits."""


@dataclasses.dataclass(frozen=True)
class LinearScaling:
    r"""Position interpolation: every position is divided by `factor`.

    Args:
        factor: Length wanted over length in training, at least 1.

    Raises:
        ConfigError: `factor` is less.

    Example:
        >>> from linnet import functional as F
        >>> F.rotary_frequencies(4, scaling=F.LinearScaling(2.0))
        Array([0.5  , 0.005], dtype=float32)

    Source: Chen et al., "Extending Context Window of Large Language Models via
    Positional Interpolation", 2023, eq. 4, arXiv:2306.15595.
    """

    factor: float

    def __post_init__(self) -> None:
        _check_factor(self)

    def frequencies(self, size: int, base: float) -> np.ndarray[Any, Any]:
        """As `RotaryScaling.frequencies`."""
        return unscaled(size, base) / self.factor

    def magnitude(self) -> float:
        """As `RotaryScaling.magnitude`: 1."""
        return 1.0


@dataclasses.dataclass(frozen=True)
class NTKScaling:
    r"""NTK-aware scaling: the base becomes $b \cdot s^{|D| / (|D| - 2)}$.

    The highest frequency stays, the lowest is divided by the factor s.

    Args:
        factor: Length wanted over length in training, at least 1.

    Raises:
        ConfigError: `factor` is less.

    Example:
        >>> from linnet import functional as F
        >>> F.rotary_frequencies(4, scaling=F.NTKScaling(2.0))
        Array([1.   , 0.005], dtype=float32)

    Source: Peng et al., "YaRN", 2023, definition 1 and eq. 16, arXiv:2309.00071.
    """

    factor: float

    def __post_init__(self) -> None:
        _check_factor(self)

    def frequencies(self, size: int, base: float) -> np.ndarray[Any, Any]:
        """As `RotaryScaling.frequencies`."""
        exponent = size / (size - 2) if size > 2 else 1.0
        return unscaled(size, base * self.factor**exponent)

    def magnitude(self) -> float:
        """As `RotaryScaling.magnitude`: 1."""
        return 1.0


@dataclasses.dataclass(frozen=True)
class YaRNScaling:
    r"""YaRN: interpolates the slow frequencies only, and sharpens the attention.

    A pair that turns `slow` times or less within the original length is slowed down
    by the factor s, one that turns `fast` times or more stays, and between them is a
    ramp. Sine and cosine are multiplied by $0.1 \ln s + 1$, so that the logits are
    divided by the temperature t with $\sqrt{1 / t} = 0.1 \ln s + 1$.

    Args:
        factor: Length wanted over length in training, at least 1.
        original_length: Length in training, in tokens.
        fast: Turns from which on a pair stays as it is; beta in the paper.
        slow: Turns up to which it is interpolated; alpha in the paper.
        ramp: In what the ramp is linear: in the index of a pair, from a whole one to
            a whole one (`"index"`), as in the authors' program and in the models that
            were released; or in the number of turns (`"turns"`), as in the paper.
        attention_factor: Of sine and cosine, instead of $0.1 \ln s + 1$.

    Raises:
        ConfigError: A number is out of its range.

    Example:
        >>> from linnet import functional as F
        >>> yarn = F.YaRNScaling(4.0, original_length=4096)
        >>> round(yarn.magnitude(), 4)
        1.1386

    Source: Peng et al., "YaRN", 2023, eq. 17 to 22, arXiv:2309.00071.
    """

    factor: float
    original_length: int
    fast: float = 32.0
    slow: float = 1.0
    ramp: str = "index"
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        _check_factor(self)
        _check_length(self, self.original_length)
        _check_order(self, "slow", self.slow, "fast", self.fast)
        if self.ramp not in ("index", "turns"):
            raise ConfigError(
                f"`ramp` is {self.ramp!r}, but it must be one of 'index', 'turns'.",
                code="LN-VALUE-04",
                at="YaRNScaling",
                fixes=[("the weights were released with YaRN", "ramp = 'index'")],
            )

    def frequencies(self, size: int, base: float) -> np.ndarray[Any, Any]:
        """As `RotaryScaling.frequencies`."""
        plain = unscaled(size, base)
        if self.ramp == "turns":
            turns = self.original_length * plain / (2 * math.pi)
            kept = (turns - self.slow) / (self.fast - self.slow)
        else:
            first = max(math.floor(self._index(self.fast, size, base)), 0)
            last = min(math.ceil(self._index(self.slow, size, base)), size - 1)
            # As in the authors' program: a ramp has some length.
            length = last - first if last > first else 0.001
            kept = 1 - (np.arange(size // 2) - first) / length
        kept = np.clip(kept, 0.0, 1.0)
        return _mixed(plain, kept, self.factor)

    def _index(self, turns: float, size: int, base: float) -> float:
        """Which pair, counted as a real number, turns so often."""
        pace = self.original_length / (turns * 2 * math.pi)
        return size * math.log(pace) / (2 * math.log(base))

    def magnitude(self) -> float:
        """As `RotaryScaling.magnitude`."""
        if self.attention_factor is not None:
            return self.attention_factor
        return 0.1 * math.log(self.factor) + 1.0


@dataclasses.dataclass(frozen=True)
class Llama3Scaling:
    r"""The scaling of Llama 3.1 and later: slow frequencies are interpolated.

    A pair that turns less than `slow` times within the original length is slowed
    down by the factor s, one that turns more than `fast` times stays, and between
    them is a ramp, linear in the number of turns.

    Args:
        factor: Length wanted over length in training, at least 1.
        original_length: Length in training, in tokens.
        fast: Turns from which on a pair stays as it is.
        slow: Turns up to which it is interpolated.

    Raises:
        ConfigError: A number is out of its range.

    Example:
        >>> from linnet import functional as F
        >>> scaling = F.Llama3Scaling(8.0)
        >>> F.rotary_frequencies(4, base=1e8, scaling=scaling)
        Array([1.00e+00, 1.25e-05], dtype=float32)

    Differs from: the released configurations, whose `high_freq_factor` is `fast` and
    whose `low_freq_factor` is `slow`.
    Source: Grattafiori et al., "The Llama 3 Herd of Models", 2024, section 3.4.2,
    arXiv:2407.21783, and the program released with Llama 3.1.
    """

    factor: float = 8.0
    original_length: int = 8192
    fast: float = 4.0
    slow: float = 1.0

    def __post_init__(self) -> None:
        _check_factor(self)
        _check_length(self, self.original_length)
        _check_order(self, "slow", self.slow, "fast", self.fast)

    def frequencies(self, size: int, base: float) -> np.ndarray[Any, Any]:
        """As `RotaryScaling.frequencies`."""
        plain = unscaled(size, base)
        turns = self.original_length * plain / (2 * math.pi)
        kept = np.clip((turns - self.slow) / (self.fast - self.slow), 0.0, 1.0)
        return _mixed(plain, kept, self.factor)

    def magnitude(self) -> float:
        """As `RotaryScaling.magnitude`: 1."""
        return 1.0


def unscaled(size: int, base: float) -> np.ndarray[Any, Any]:
    """A geometric series, `[P]`."""
    exponents: np.ndarray[Any, Any] = np.arange(0, size, 2, dtype=np.float64) / size
    return np.asarray(np.float64(base) ** -exponents)


def _mixed(
    plain: np.ndarray[Any, Any], kept: np.ndarray[Any, Any], factor: float
) -> np.ndarray[Any, Any]:
    """Frequencies of which a share is kept, and the rest divided by `factor`."""
    return np.asarray((1 - kept) * plain / factor + kept * plain)


def _check_factor(scaling: Any) -> None:
    if not scaling.factor >= 1:
        raise ConfigError(
            f"`factor` is {scaling.factor!r}, but it must be at least 1.",
            code="LN-VALUE-04",
            at=type(scaling).__name__,
            why="It is the length wanted over the length in training.",
            fixes=[("the context is as long as in training", "factor = 1.0")],
        )


def _check_length(scaling: Any, length: int) -> None:
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise ConfigError(
            f"`original_length` is {length!r}, but it must be an integer of at least "
            "1.",
            code="LN-VALUE-01",
            at=type(scaling).__name__,
            fixes=[("the model was trained on 8192 tokens", "original_length = 8192")],
        )


def _check_order(scaling: Any, low: str, slow: float, high: str, fast: float) -> None:
    if not 0 < slow < fast:
        raise ConfigError(
            f"`{low}` is {slow!r} and `{high}` is {fast!r}, but 0 < {low} < {high} is "
            "needed.",
            code="LN-VALUE-06",
            at=type(scaling).__name__,
            why="They are turns within the original length, between which is a ramp.",
            fixes=[
                (
                    "the usual ones will do",
                    f"{low}, {high} = 1.0, {_USUAL[type(scaling)]}",
                )
            ],
        )


_USUAL = {YaRNScaling: 32.0, Llama3Scaling: 4.0}
