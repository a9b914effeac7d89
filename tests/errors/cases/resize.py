"""Errors of adaptive pools and resizing."""

from errors.case import before, case, instead, swap

CASES = [
    case(
        "LN-SHAPE-04",
        "adaptive pool of nothing",
        """
        shape = (2,)
        y = F.adaptive_avg_pool(jnp.ones((0, 3)), shape)
        """,
        swap("shape = (2,)", check="assert y.shape == (0, 3)"),
        start="`x` is float32[0, 3],",
    ),
    case(
        "LN-SHAPE-04",
        "resized to nothing",
        """
        y = F.resize(jnp.ones((4, 3)), scale=(0.1,))
        """,
        before(
            "y = F.resize(jnp.ones((4, 3)), scale=(0.1,))",
            check="assert y.shape == (1, 3)",
            changes={
                "y = F.resize(jnp.ones((4, 3)), scale=(0.1,))": (
                    "y = F.resize(jnp.ones((4, 3)), shape)"
                )
            },
        ),
        start="`x` is float32[4, 3], which cannot be resized to [0].",
    ),
    case(
        "LN-SHAPE-04",
        "nothing resized",
        """
        x = jnp.ones((0, 3))
        y = F.resize(x, (2,))
        """,
        instead("assert y.shape == (0, 3)"),
        start="`x` is float32[0, 3], which cannot be resized to [2].",
    ),
    case(
        "LN-VALUE-06",
        "resized to no size",
        """
        x = jnp.ones((16, 16, 3))
        y = F.resize(x)
        """,
        instead("assert y.shape == (32, 32, 3)"),
        instead("assert y.shape == (32, 32, 3)"),
        start="one of `shape` and `scale` must be given, and neither",
    ),
    case(
        "LN-VALUE-06",
        "resized to two sizes",
        """
        x = jnp.ones((16, 16, 3))
        y = F.resize(x, (8, 8), scale=(2, 2))
        """,
        instead("assert y.shape == (32, 32, 3)"),
        instead("assert y.shape == (32, 32, 3)"),
        start="one of `shape` and `scale` must be given, and both are.",
    ),
    case(
        "LN-VALUE-03",
        "bare scale",
        """
        scale = 2
        y = F.resize(jnp.ones((4, 5, 3)), scale=scale)
        """,
        swap("scale = 2", check="assert y.shape == (8, 10, 3)"),
        swap("scale = 2", check="assert y.shape == (4, 10, 3)"),
        start="`scale` is 2,",
    ),
    case(
        "LN-VALUE-04",
        "method of resizing",
        """
        method = "bilinear"
        y = F.resize(jnp.ones((4, 3)), (2,), method=method)
        """,
        swap('method = "bilinear"', check="assert y.shape == (2, 3)"),
        start="`method` is 'bilinear',",
    ),
    case(
        "LN-SHAPE-01",
        "features that fill no pixels",
        """
        factor = (2, 2)
        y = F.pixel_shuffle(jnp.ones((4, 4, 6)), factor)
        """,
        swap("factor = (2, 2)", check="assert y.shape == (4, 4, 6)"),
        start="the 6 features of `x` cannot be spread over 4 pixels.",
    ),
    case(
        "LN-SHAPE-01",
        "pixels that make no features",
        """
        factor = (2, 2)
        y = F.pixel_unshuffle(jnp.ones((4, 5, 6)), factor)
        """,
        swap("factor = (2, 2)", check="assert y.shape == (4, 5, 6)"),
        start="the spatial axes [4, 5] of `x` are no multiples of [2, 2].",
    ),
]
