"""Linear maps that an equation describes."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from linnet import functional as F
from linnet._errors import ConfigError
from linnet._typing import Array, ArrayLike, DType, Initializer
from linnet.core import Module, param
from linnet.functional._dtype import inexact_dtype
from linnet.functional._einsum import letter_sizes, parse
from linnet.functional.initializers import lecun_normal, zeros
from linnet.nn._kernel import as_matrix, bias_param, logical_axes
from linnet.nn._place import placed

KERNEL_INIT = lecun_normal()


class Einsum(Module):
    """Multiplies the input and a kernel as an equation says, and adds a bias.

    The bias has an axis for each letter of the result that the kernel has, too.

    Args:
        equation: With the input, the kernel and the result, such as
            `"...td,dhk->...thk"`: one letter per axis, and `...` for any number of
            batch axes. A letter that the result lacks is summed over.
        shape: Sizes K of the kernel, in the order of its letters. `None` infers those
            of the letters that the input has, too, at `nn.init`.
        use_bias: Whether there is a bias.
        dtype: Of the computation and the result. `None` takes the one to which `x`
            and the parameters promote together.
        param_dtype: Of the parameters.
        precision: Of the product, as in `jax.lax.dot_general`.
        kernel_init: Initialiser of `kernel` as a matrix `[I, O]`, where I and O are
            the products of the sizes summed over, and of those that are new.
        bias_init: Initialiser of `bias`.
        kernel_axes: Logical names of the axes of `kernel`. `None` names the first
            that is summed over "in" and the first new one "out".

    Parameters:
        kernel: `[*K]`. Logical axes `kernel_axes`.
        bias: `[*B]`, the sizes of the letters that the kernel and the result have,
            in the order of the result. Starts at zero. Logical axes as in `kernel`.

    Shapes:
        x: `[...]`  ->  `[...]`, as the equation says.

    Raises:
        ConfigError: The equation has no meaning here, or lacks a size.
        DTypeError: `x` holds integers or booleans, or `dtype` is one of these.
        ShapeError: `x` does not fit the equation, or the kernel.

    Example:
        >>> x = jnp.ones((8, 5, 3))
        >>> layer = nn.Einsum("btd,dhk->bhtk", (None, 2, 4))
        >>> nn.init(layer, jax.random.key(0), x)(x).shape
        (8, 2, 5, 4)

    Differs from: Flax Linen, which takes the shape first and in full.
    Source: the summation convention of Einstein, "Die Grundlage der allgemeinen
    Relativitätstheorie", 1916, section 5.
    """

    def __init__(
        self,
        equation: str,
        shape: Sequence[int | None],
        *,
        use_bias: bool = True,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = KERNEL_INIT,
        bias_init: Initializer = zeros,
        kernel_axes: Sequence[str | None] | None = None,
    ) -> None:
        with placed(self):
            parts = parse(equation)
            self.dtype = None if dtype is None else inexact_dtype(dtype)
        self.equation = equation
        self.shape = _checked_shape(self, shape)
        self.precision = precision
        sizes = dict(zip(parts.kernel, self.shape, strict=True))
        axes = (parts.inputs, parts.outputs)
        names = logical_axes(self, kernel_axes, len(self.shape), *axes)
        init = as_matrix(kernel_init, *axes)
        self.kernel = param(init, self.shape, param_dtype, axes=names)
        self.bias = bias_param(
            use_bias,
            bias_init,
            [sizes[letter] for letter in parts.biased],
            param_dtype,
            [names[parts.kernel.index(letter)] for letter in parts.biased],
        )

    def __call__(self, x: ArrayLike) -> Array:
        """Applies the layer.

        Args:
            x: As the equation says, floating or complex.
        """
        self.check_input(x, dtype="inexact")
        with placed(self):
            parts = parse(self.equation)
            pairs = zip(parts.kernel, self.shape, strict=True)
            sizes = {letter: size for letter, size in pairs if size is not None}
            sizes |= letter_sizes(x, parts, self.equation)
            self.expect(
                kernel=tuple(sizes[letter] for letter in parts.kernel),
                bias=tuple(sizes[letter] for letter in parts.biased),
            )
            return F.einsum_dense(
                x,
                self.kernel,
                self.bias,
                equation=self.equation,
                dtype=self.dtype,
                precision=self.precision,
            )


def _checked_shape(
    module: Einsum, shape: Sequence[int | None]
) -> tuple[int | None, ...]:
    parts = parse(module.equation)
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if len(sizes) != len(parts.kernel):
        usual = tuple(None if c in parts.x else 16 for c in parts.kernel)
        raise ConfigError(
            f"`shape` is {shape!r}, but the kernel {parts.kernel!r} of the equation "
            f"has {len(parts.kernel)} axes.",
            code="LN-VALUE-06",
            at="Einsum",
            why="A size is needed for each letter; the sample knows those of `x`.",
            fixes=[("the new axes have 16 entries", f"shape = {usual}")],
        )
    for letter, size in zip(parts.kernel, sizes, strict=True):
        if size is None and letter in parts.x:
            continue
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            pairs = zip(parts.kernel, sizes, strict=True)
            filled = tuple(16 if c == letter else s for c, s in pairs)
            raise ConfigError(
                f"`shape` gives the letter {letter!r} of {module.equation!r} the size "
                f"{size}, but a positive integer is needed.",
                code="LN-VALUE-01",
                at="Einsum",
                why="`None` is for letters of the input, whose sizes the sample knows.",
                fixes=[(f"{letter!r} has 16 entries", f"shape = {filled}")],
            )
    return sizes
