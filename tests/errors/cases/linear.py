"""Errors of linear maps and of masks for kernels."""

from errors.case import before, case, swap

MAPPED = "y = F.einsum_dense(x, jnp.ones((7, 3)), equation=equation)"


def equation(name, text, start, remedy):
    """An equation that is refused; the fix takes its place."""
    program = f'equation = "{text}"\n{MAPPED}'
    check = f"assert y.shape == {remedy}"
    remedies = [swap(f'equation = "{text}"', check=check)]
    return case("LN-VALUE-04", name, program, *remedies, start=start)


CASES = [
    equation(
        "equation of one operand",
        "bi->bo",
        "`equation` is 'bi->bo', which must name two operands",
        (4, 3),
    ),
    equation(
        "equation without result",
        "bi,io",
        "`equation` is 'bi,io', which does not say what the result is.",
        (4, 3),
    ),
    equation(
        "letter of the result",
        "bi,io->boz",
        "`equation` is 'bi,io->boz', which has the letter 'z' in the result,",
        (4, 3),
    ),
    equation(
        "letter twice",
        "bi,io->bob",
        "`equation` is 'bi,io->bob', which has the letter 'b' twice in the result.",
        (4, 3),
    ),
    equation(
        "character",
        "b1,1o->bo",
        "`equation` is 'b1,1o->bo', which has '1', but an axis is a letter.",
        (4, 3),
    ),
    equation(
        "dots of the kernel",
        "i,...io->o",
        "`equation` is 'i,...io->o', which has `...` in the kernel,",
        (4, 3),
    ),
    equation(
        "dots on one side",
        "...i,io->o",
        "`equation` is '...i,io->o', which has `...` on one side only.",
        (4, 3),
    ),
    case(
        "LN-SHAPE-01",
        "letter of two sizes",
        """
        x = x.T
        y = F.einsum_dense(x, jnp.ones((7, 3)), equation="bi,io->bo")
        """,
        before(
            'y = F.einsum_dense(x, jnp.ones((7, 3)), equation="bi,io->bo")',
            "assert y.shape == (4, 3)",
        ),
        start="the letter 'i' of 'bi,io->bo' stands for 4 in `x`, but for 7 in",
    ),
    case(
        "LN-SHAPE-02",
        "rank of an equation",
        """
        equation = "bi,io->bo"
        x = jnp.ones((2, 4, 7))
        y = F.einsum_dense(x, jnp.ones((7, 3)), equation=equation)
        """,
        swap('equation = "bi,io->bo"', check="assert y.shape == (2, 4, 3)"),
        start="`x` has 3 axes, but 'bi' in 'bi,io->bo' stands for 2.",
    ),
    case(
        "LN-SHAPE-02",
        "few axes for an equation",
        """
        x = x[0]
        y = F.einsum_dense(x, jnp.ones((7, 3)), equation="bi,io->bo")
        """,
        before(
            'y = F.einsum_dense(x, jnp.ones((7, 3)), equation="bi,io->bo")',
            "assert y.shape == (1, 3)",
        ),
        start="`x` has 1 axes, but 'bi' in 'bi,io->bo' stands for 2.",
    ),
    case(
        "LN-VALUE-01",
        "size of a letter",
        """
        shape = (None, None)
        model = nn.Einsum("bi,io->bo", shape)
        """,
        swap("shape = (None, None)", check="assert model.shape == (None, 16)"),
        start="Einsum: `shape` gives the letter 'o' of 'bi,io->bo' the size None,",
    ),
    case(
        "LN-VALUE-06",
        "sizes of a kernel",
        """
        shape = (3,)
        model = nn.Einsum("bi,io->bo", shape)
        """,
        swap("shape = (3,)", check="assert model.shape == (None, 16)"),
        start="Einsum: `shape` is (3,), but the kernel 'io' of the equation has 2",
    ),
    case(
        "LN-VALUE-06",
        "names of axes",
        """
        kernel_axes = ("in",)
        model = nn.DenseGeneral((2, 3), kernel_axes=kernel_axes)
        """,
        swap('kernel_axes = ("in",)', check="assert model.features == (2, 3)"),
        start="DenseGeneral: `kernel_axes` is ('in',), but the kernel has 3 axes.",
    ),
    case(
        "LN-VALUE-06",
        "sizes of contracted axes",
        """
        in_features = (4, 7)
        model = nn.DenseGeneral(3, in_features=in_features)
        """,
        swap(
            "in_features = (4, 7)",
            check="assert nn.init(model, key, x)(x).shape == (4, 3)",
        ),
        start="DenseGeneral: `in_features` has 2 sizes for 1 axes.",
    ),
    case(
        "LN-VALUE-04",
        "contracted axes",
        """
        axis = (-1, -1)
        model = nn.DenseGeneral(3, axis=axis)
        """,
        swap("axis = (-1, -1)", check="assert model.axis == (-1,)"),
        start="DenseGeneral: `axis` is (-1, -1), but it must be",
    ),
    case(
        "LN-SHAPE-02",
        "batch axis that is contracted",
        """
        batch_axis = 1
        model = nn.DenseGeneral(3, batch_axis=batch_axis)
        model = nn.init(model, key, x)
        """,
        swap("batch_axis = 1", check="assert model(x).shape == (4, 3)"),
        start="(DenseGeneral): axis 1 of `x`, which has 2, is named by `axis` and by",
    ),
    case(
        "LN-SHAPE-01",
        "kernel of several axes",
        """
        kernel = jnp.ones((7, 4, 3))
        y = F.dense_general(x, kernel, axis=(0, 1))
        """,
        before("y = F.dense_general(x, kernel, axis=(0, 1))", "assert y.shape == (3,)"),
        start="`x` of shape [4, 7] needs a kernel whose first axes are [4, 7], not",
    ),
    case(
        "LN-SHAPE-01",
        "swapped pair",
        """
        y = jnp.ones((4, 2))
        z = F.bilinear(x, y, jnp.ones((2, 7, 3)))
        """,
        before("z = F.bilinear(x, y, jnp.ones((2, 7, 3)))", "assert z.shape == (4, 3)"),
        start="`x` of shape [4, 7] and `y` of shape [4, 2] do not fit a `kernel` of",
    ),
    case(
        "LN-SHAPE-01",
        "one for all",
        """
        y = jnp.ones(2)
        z = F.bilinear(x, y, jnp.ones((7, 2, 3)))
        """,
        before("z = F.bilinear(x, y, jnp.ones((7, 2, 3)))", "assert z.shape == (4, 3)"),
        start="`x` of shape [4, 7] and `y` of shape [2] do not fit a `kernel` of",
    ),
    case(
        "LN-SHAPE-01",
        "mask of a kernel",
        """
        mask = jnp.ones(7, bool)
        kernel = F.masked(jnp.ones((7, 3)), mask)
        """,
        before(
            "kernel = F.masked(jnp.ones((7, 3)), mask)", "assert kernel.sum() == 21"
        ),
        start="`mask` of shape [7] does not fit a kernel of shape [7, 3].",
    ),
    case(
        "LN-SHAPE-01",
        "mask of another width",
        """
        mask = jnp.ones((5, 1), bool)
        model = nn.Sequential([nn.Dense(3, mask=mask)])
        model = nn.init(model, key, x)
        """,
        swap("mask = jnp.ones((5, 1), bool)", check="assert model(x).shape == (4, 3)"),
        start="layers[0] (Dense): `mask` of shape [5, 1] does not fit a kernel of",
    ),
    case(
        "LN-DTYPE-01",
        "mask of numbers",
        """
        mask = jnp.ones((7, 1))
        model = nn.Dense(3, mask=mask)
        """,
        before("model = nn.Dense(3, mask=mask)", "assert model.mask is not None"),
        start="(Dense): `mask` has dtype float32, but it must hold booleans.",
    ),
]
