"""Errors of normalisation."""

from errors.case import before, case, instead, swap

CASES = [
    case(
        "LN-VALUE-06",
        "groups that do not divide",
        """
        num_groups = 4
        model = nn.Sequential([nn.GroupNorm(num_groups)])
        model = nn.init(model, key, jnp.ones((2, 6)))
        """,
        swap("num_groups = 4", check="assert model[0].num_groups == 3"),
        start="layers[0] (GroupNorm): `num_groups` is 4,",
    ),
    case(
        "LN-VALUE-06",
        "group size that does not divide",
        """
        group_size = 4
        model = nn.Sequential([nn.GroupNorm(group_size=group_size)])
        model = nn.init(model, key, jnp.ones((2, 6)))
        """,
        swap("group_size = 4", check="assert model[0].group_size == 3"),
        start="layers[0] (GroupNorm): `group_size` is 4,",
    ),
    case(
        "LN-VALUE-06",
        "groups not told",
        """
        norm = nn.GroupNorm()
        """,
        instead("assert norm.num_groups == 32"),
        instead("assert norm.group_size == 16"),
        start="GroupNorm: neither",
    ),
    case(
        "LN-VALUE-06",
        "groups told twice",
        """
        norm = nn.GroupNorm(4, group_size=8)
        """,
        instead("assert norm.num_groups == 4"),
        instead("assert norm.group_size == 8"),
        start="GroupNorm: `num_groups` is 4 and `group_size` is 8.",
    ),
    case(
        "LN-SHAPE-02",
        "group norm of too few axes",
        """
        x = jnp.ones((5, 4))
        y = F.group_norm(x, 2, spatial_ndim=2)
        """,
        before(
            "y = F.group_norm(x, 2, spatial_ndim=2)",
            check="assert y.shape == (1, 5, 4)",
        ),
        start="`x` has 2 axes,",
    ),
    case(
        "LN-SHAPE-02",
        "instance norm without a batch",
        """
        x = jnp.ones((5, 4))
        y = F.instance_norm(x)
        """,
        before("y = F.instance_norm(x)", check="assert y.shape == (1, 5, 4)"),
        start="`x` is float32[5, 4], and none of its axes is spatial.",
    ),
    case(
        "LN-SHAPE-02",
        "instance norm without positions",
        """
        spatial_ndim = 0
        y = F.instance_norm(jnp.ones((5, 4)), spatial_ndim=spatial_ndim)
        """,
        swap("spatial_ndim = 0", check="assert y.shape == (5, 4)"),
        start="`x` is float32[5, 4], and none of its axes is spatial.",
    ),
    case(
        "LN-SHAPE-02",
        "singular value of a number",
        """
        kernel = jnp.array(2.0)
        sigma, u = F.power_iteration(kernel, jnp.ones(1))
        """,
        before(
            "sigma, u = F.power_iteration(kernel, jnp.ones(1))",
            check="assert sigma == 2",
        ),
        start="`kernel` has no axes,",
    ),
    case(
        "LN-VALUE-04",
        "weight norm of a function",
        """
        layer = jnp.tanh
        model = nn.WeightNorm(layer)
        """,
        swap("layer = jnp.tanh", check="assert model.layer.features == 4"),
        start="WeightNorm: `layer` is a ",
    ),
    case(
        "LN-VALUE-06",
        "spectral norm of nothing",
        """
        where = nn.State
        model = nn.SpectralNorm(nn.Dense(4), where)
        """,
        swap("where = nn.State", check="assert list(model.estimates) == ['kernel']"),
        start="SpectralNorm: `where` selects none",
    ),
    case(
        "LN-STACK-05",
        "weight norm around a stack",
        """
        Wrapped, block, depth = nn.WeightNorm, nn.Dense(7), 2
        model = Wrapped(nn.Stack(block, depth))
        y = nn.init(model, key, x)(x)
        """,
        swap(
            "model = Wrapped(nn.Stack(block, depth))",
            check="assert y.shape == (4, 7)",
        ),
        start="layer (Stack): `block.kernel` holds the arrays of 2 modules,",
    ),
]
