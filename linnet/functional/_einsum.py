"""Linear maps that an equation describes, as arrays."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from linnet._errors import ConfigError, ShapeError, describe
from linnet._typing import Array, ArrayLike, DType
from linnet.functional._dtype import promoted
from linnet.functional._shape import require_shape


def einsum_dense(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    equation: str,
    dtype: DType | None = None,
    precision: lax.PrecisionLike = None,
) -> Array:
    """Multiplies `x` and `kernel` as an equation says, and adds `bias`.

    Args:
        x: The first operand of the equation, floating or complex.
        kernel: The second.
        bias: One axis for each letter of the result that the kernel has too, in the
            order of the result; or `None` for none.
        equation: Such as `"...td,dhk->...thk"`: one letter per axis, and `...` for
            any number of batch axes of `x`. A letter that the result lacks is
            summed over.
        dtype: Of the computation and the result. `None` takes the one to which
            the arrays promote together.
        precision: Of the product, as in `jax.lax.dot_general`.

    Returns:
        An array with the axes that the equation gives the result.

    Raises:
        ConfigError: The equation has no meaning here.
        DTypeError: An array holds integers or booleans.
        ShapeError: The shapes do not fit the equation.

    Example:
        >>> from linnet import functional as F
        >>> x, kernel = jnp.ones((8, 5, 3)), jnp.ones((3, 2, 4))
        >>> F.einsum_dense(x, kernel, equation="btd,dhk->bhtk").shape
        (8, 2, 5, 4)
    """
    parts = parse(equation)
    x, kernel, bias = promoted(dtype, x, kernel, bias)
    if kernel.ndim != len(parts.kernel):
        raise _another_rank("kernel", kernel, parts.kernel, equation)
    sizes = letter_sizes(x, parts, equation)
    for letter, size in zip(parts.kernel, kernel.shape, strict=True):
        if sizes.setdefault(letter, size) != size:
            _refuse_size(letter, x, kernel, parts, equation)
    y: Array = jnp.einsum(parts.text, x, kernel, precision=precision)
    if bias is None:
        return y
    shape = tuple(sizes[letter] for letter in parts.biased)
    why = f"It has the axes of the kernel that stay: {parts.biased!r}."
    require_shape(bias, shape, "bias", why)
    before, dots, _ = parts.result.partition("...")
    shift = y.ndim - len(parts.result.replace("...", "")) if dots else 0
    letters = parts.result.replace("...", "")
    at = [i + shift * (i >= len(before)) for i in map(letters.index, parts.biased)]
    return lax.add(y, lax.broadcast_in_dim(bias, y.shape, at))


class Equation(NamedTuple):
    """The three sides of an equation."""

    x: str
    kernel: str
    result: str

    @property
    def text(self) -> str:
        """The equation without spaces."""
        return f"{self.x},{self.kernel}->{self.result}"

    @property
    def biased(self) -> str:
        """The letters of the result that the kernel has, too."""
        return "".join(letter for letter in self.result if letter in self.kernel)

    @property
    def inputs(self) -> tuple[int, ...]:
        """The axes of the kernel that are summed over."""
        letters = enumerate(self.kernel)
        return tuple(i for i, letter in letters if letter not in self.result)

    @property
    def outputs(self) -> tuple[int, ...]:
        """The axes of the kernel that are new in the result."""
        letters = enumerate(self.kernel)
        new = [i for i, letter in letters if letter not in self.x]
        return tuple(i for i in new if i not in self.inputs)


@functools.cache
def parse(equation: str) -> Equation:
    """The sides of an equation with a meaning, or a `ConfigError`."""
    text = equation.replace(" ", "") if isinstance(equation, str) else ""
    left, arrow, result = text.partition("->")
    x, comma, kernel = left.partition(",")
    if not comma or "," in kernel:
        raise _unusable(
            equation,
            "must name two operands, `x` and the kernel",
            [("the last axis is mapped", 'equation = "...i,io->...o"')],
        )
    parts = Equation(x, kernel, result)
    for letter in (x + kernel + result).replace("...", ""):
        if not letter.isalpha():
            fixes = [("the last axis is mapped", 'equation = "...i,io->...o"')]
            text = f"has {letter!r}, but an axis is a letter"
            raise _unusable(equation, text, fixes)
    if not arrow:
        raise _unusable(
            equation,
            "does not say what the result is",
            [
                (
                    "it has the letters that occur once",
                    f'equation = "{_implicit(parts)}"',
                )
            ],
        )
    _check_dots(parts, equation)
    for i, letter in enumerate(result.replace("...", "")):
        if letter not in x + kernel:
            fixed = parts._replace(result=result.replace(letter, "")).text
            raise _unusable(
                equation,
                f"has the letter {letter!r} in the result, but in no operand",
                [("the result has no such axis", f'equation = "{fixed}"')],
            )
        if letter in result.replace("...", "")[:i]:
            once = result[::-1].replace(letter, "", 1)[::-1]
            fixed = parts._replace(result=once).text
            raise _unusable(
                equation,
                f"has the letter {letter!r} twice in the result",
                [("the result has one such axis", f'equation = "{fixed}"')],
            )
    return parts


def letter_sizes(x: ArrayLike, parts: Equation, equation: str) -> dict[str, int]:
    """The size of each letter of `x`, or a `ShapeError`."""
    before, dots, after = parts.x.partition("...")
    count = len(before) + len(after)
    if x.ndim < count or (x.ndim > count and not dots):
        raise _another_rank("x", x, parts.x, equation)
    sizes: dict[str, int] = {}
    shape = (*x.shape[: len(before)], *x.shape[x.ndim - len(after) :])
    for letter, size in zip(before + after, shape, strict=True):
        if sizes.setdefault(letter, size) != size:
            raise ShapeError(
                f"the letter {letter!r} of {equation!r} stands for {sizes[letter]} "
                f"and for {size} in `x`.",
                code="LN-SHAPE-01",
                facts={"x": describe(x)},
                why="A letter stands for one size, wherever it is.",
            )
    return sizes


def _refuse_size(
    letter: str, x: Array, kernel: Array, parts: Equation, equation: str
) -> None:
    before, _, after = parts.x.partition("...")
    at = before.find(letter) if letter in before else after.find(letter) - len(after)
    size = kernel.shape[parts.kernel.index(letter)]
    fixes = []
    if size in x.shape:
        code = f"x = jnp.swapaxes(x, {x.shape.index(size)}, {at})"
        fixes = [("two axes of `x` are swapped", code)]
    raise ShapeError(
        f"the letter {letter!r} of {equation!r} stands for {x.shape[at]} in `x`, but "
        f"for {size} in `kernel`.",
        code="LN-SHAPE-01",
        facts={"x": describe(x), "kernel": describe(kernel)},
        why="A letter stands for one size, wherever it is.",
        fixes=fixes,
    )


def _another_rank(
    name: str, array: ArrayLike, letters: str, equation: str
) -> ShapeError:
    count = len(letters.replace("...", ""))
    least = "at least " if "..." in letters else ""
    missing = ", ".join(["None"] * (count - array.ndim))
    dotted = equation.replace(letters, f"...{letters}", 1).replace("->", "->...")
    return ShapeError(
        f"`{name}` has {array.ndim} axes, but {letters!r} in {equation!r} stands for "
        f"{least}{count}.",
        code="LN-SHAPE-02",
        facts={name: describe(array)},
        why="Each letter is an axis, and `...` any number of them.",
        fixes=[("leading axes are missing", f"{name} = {name}[{missing}]")]
        if missing
        else [("the leading axes are batches", f'equation = "{dotted}"')]
        if name == "x"
        else [],
    )


def _check_dots(parts: Equation, equation: str) -> None:
    x, kernel, result = (side.replace("...", "") for side in parts)
    if "..." in parts.kernel:
        what = "has `...` in the kernel, whose axes must be known"
    elif ("..." in parts.x) != ("..." in parts.result):
        what = "has `...` on one side only"
    else:
        return
    dotted = Equation(f"...{x}", kernel, f"...{result}").text
    fixes = [("`x` has batch axes, which stay", f'equation = "{dotted}"')]
    raise _unusable(equation, what, fixes)


def _implicit(parts: Equation) -> str:
    """What einsum takes the result to be where it is not given."""
    letters = (parts.x + parts.kernel).replace("...", "")
    once = sorted(letter for letter in letters if letters.count(letter) == 1)
    dots = "..." if "..." in parts.x else ""
    return parts._replace(result=dots + "".join(once)).text


def _unusable(equation: str, what: str, fixes: list[tuple[str, str]]) -> ConfigError:
    return ConfigError(
        f"`equation` is {equation!r}, which {what}.", code="LN-VALUE-04", fixes=fixes
    )
