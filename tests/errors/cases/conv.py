"""Errors of transposed and local convolutions."""

from errors.case import before, case, swap

CASES = [
    case(
        "LN-VALUE-04",
        "padding of a transposed convolution",
        """
        padding = "REFLECT"
        model = nn.ConvTranspose(3, (3,), padding=padding)
        """,
        swap('padding = "REFLECT"', check="assert model.padding == 'SAME'"),
        start="(ConvTranspose): `padding` is 'REFLECT', but it must be one of 'SAME', ",
    ),
    case(
        "LN-VALUE-06",
        "output padding of a name",
        """
        output_padding = 1
        model = nn.ConvTranspose(3, (3,), strides=2, output_padding=output_padding)
        """,
        swap("output_padding = 1", check="assert model.output_padding == (0,)"),
        start="(ConvTranspose): `output_padding` cannot be combined with `padding=",
    ),
    case(
        "LN-VALUE-06",
        "output padding of the stride",
        """
        output_padding = 2
        model = nn.ConvTranspose(
            3, (3,), strides=2, padding=1, output_padding=output_padding)
        """,
        swap("output_padding = 2", check="assert model.output_padding == (1,)"),
        start="(ConvTranspose): `output_padding` is [2], but it must be less than [2],",
    ),
    case(
        "LN-VALUE-06",
        "causal transposed",
        """
        window = 3
        padding = "CAUSAL"
        model = nn.ConvTranspose(3, (window, window), padding=padding)
        """,
        swap('padding = "CAUSAL"', check="assert model.padding == ((0, 2), (0, 0))"),
        start="(ConvTranspose): `padding='CAUSAL'` is for one spatial axis, but there",
    ),
    case(
        "LN-SHAPE-04",
        "all is cut off",
        """
        padding = 3
        model = nn.init(nn.ConvTranspose(3, (3,), padding=padding), key, x)
        """,
        swap("padding = 3", check="assert model(x).shape == (4, 3)"),
        start="(ConvTranspose): `padding` cuts [(3, 3)] off a result of [6] entries.",
    ),
    case(
        "LN-SHAPE-01",
        "positions",
        """
        kernel = jnp.ones((5, 3, 7, 2))
        y = F.conv_local(x, kernel)
        """,
        before("y = F.conv_local(x, kernel)", "assert y.shape == (4, 2)"),
        start="a window has [4] positions in `x`, but `kernel` is for [5].",
    ),
    case(
        "LN-SHAPE-01",
        "features of a local convolution",
        """
        x = x.T
        y = F.conv_local(x, jnp.ones((4, 3, 7, 2)))
        """,
        before(
            "y = F.conv_local(x, jnp.ones((4, 3, 7, 2)))", "assert y.shape == (4, 2)"
        ),
        start="`x` has 4 features, but `kernel` takes 7.",
    ),
    case(
        "LN-SHAPE-02",
        "kernel of a local convolution",
        """
        kernel = jnp.ones((4, 7, 2))
        y = F.conv_local(x, kernel)
        """,
        before("y = F.conv_local(x, kernel)", "assert y.shape == (4, 2)"),
        start="`kernel` has 3 axes, but 4, 6 or more are needed.",
    ),
    case(
        "LN-SHAPE-01",
        "size of an image",
        """
        model = nn.init(nn.ConvLocal(3, (3,)), key, x)
        x = jnp.ones((6, 7))
        out = model(x)
        """,
        before("out = model(x)", "assert out.shape == (6, 3)"),
        start="(ConvLocal): `kernel` is float32[4, 3, 7, 3], but this input needs [6,",
    ),
]
