"""Errors of options that cannot be used."""

from errors.case import before, case, instead, swap

SAME = "y = F.conv(jnp.ones((5, 7)), jnp.ones((3, 7, 2)), padding=padding)"

CASES = [
    case(
        "LN-VALUE-01",
        "negative",
        """
        features = -3
        model = nn.Dense(features)
        """,
        swap("features = -3", check="assert model.features == 3"),
        start="Dense: `features` is -3,",
    ),
    case(
        "LN-VALUE-01",
        "no number",
        """
        features = float("nan")
        model = nn.BatchNorm(features)
        """,
        swap(
            'features = float("nan")',
            check="assert 'scale=Param:float32[1]' in repr(model)",
        ),
        start="BatchNorm: `features` is nan,",
    ),
    case(
        "LN-VALUE-01",
        "text",
        """
        features = "128"
        model = nn.Dense(features)
        """,
        swap('features = "128"', check="assert model.features == 128"),
        start="Dense: `features` is '128',",
    ),
    case(
        "LN-VALUE-01",
        "depth",
        """
        depth = 0
        model = nn.Stack(nn.Dense(3), depth)
        """,
        swap("depth = 0", check="assert len(model) == 1"),
        start="Stack: `depth` is 0,",
    ),
    case(
        "LN-VALUE-01",
        "bare window",
        """
        window_shape = 2
        y = F.max_pool(jnp.ones((5, 5, 1)), window_shape)
        """,
        swap("window_shape = 2", check="assert y.shape == (1, 1, 1)"),
        swap(
            "window_shape = 2",
            check="assert y.shape == (5, 1, 1)",
        ),
        start="`window_shape` is 2,",
    ),
    case(
        "LN-VALUE-01",
        "strides",
        """
        strides = (1, 0)
        y = F.max_pool(jnp.ones((5, 5, 1)), (2, 2), strides)
        """,
        swap("strides = (1, 0)", check="assert y.shape == (4, 4, 1)"),
        start="`strides` is (1, 0),",
    ),
    case(
        "LN-VALUE-02",
        "percent",
        """
        rate = 50
        model = nn.Dropout(rate)
        """,
        swap("rate = 50", check="assert model.rate == 0.5"),
        swap("rate = 50", check="assert model.rate == 0.0"),
        start="Dropout: `rate` is 50, but a rate lies in 0 <= rate < 1.",
    ),
    case(
        "LN-VALUE-02",
        "negative",
        """
        rate = -0.5
        model = nn.Dropout(rate)
        """,
        swap("rate = -0.5", check="assert model.rate == 0.0"),
        start="Dropout: `rate` is -0.5,",
    ),
    case(
        "LN-VALUE-02",
        "function",
        """
        rate = 1.0
        y = F.dropout(x, key, rate)
        """,
        swap("rate = 1.0", check="assert (y == x).all()"),
        instead("assert (y == 0).all()"),
        start="`rate` is 1.0, but a probability of dropping is in [0, 1).",
    ),
    case(
        "LN-VALUE-02",
        "momentum",
        """
        momentum = 1.0
        model = nn.BatchNorm(momentum=momentum)
        """,
        swap("momentum = 1.0", check="assert model.momentum == 0.99"),
        start="BatchNorm: `momentum` is 1.0,",
    ),
    case(
        "LN-VALUE-03",
        "epsilon",
        """
        epsilon = float("inf")
        model = nn.LayerNorm(epsilon=epsilon)
        """,
        swap('epsilon = float("inf")', check="assert model.epsilon == 1e-6"),
        start="LayerNorm: `epsilon` is inf,",
    ),
    case(
        "LN-VALUE-03",
        "spread",
        """
        stddev = -1.0
        init = nn.initializers.normal(stddev)
        """,
        swap("stddev = -1.0", check="assert init.stddev == 1.0"),
        start="`stddev` is -1.0,",
    ),
    case(
        "LN-VALUE-04",
        "option",
        """
        class Pooled(nn.Module):
            def __init__(self, mode):
                self.mode = nn.check_option(self, "mode", mode, ("mean", "max"))
        mode = "maximum"
        model = Pooled(mode)
        """,
        swap('mode = "maximum"', check="assert model.mode == 'max'"),
        start="Pooled: `mode` is 'maximum', but it must be one of 'mean', 'max'.",
    ),
    case(
        "LN-VALUE-04",
        "no list",
        """
        layers = nn.Dense(3)
        model = nn.Sequential(layers)
        """,
        before("model = nn.Sequential(layers)", "assert len(model) == 1"),
        start="Sequential: `layers` is a Dense, but it must be a list.",
    ),
    case(
        "LN-VALUE-04",
        "cannot be called",
        """
        layers = [nn.Dense(3), None]
        model = nn.Sequential(layers)
        """,
        before("model = nn.Sequential(layers)", "assert len(model) == 1"),
        start="Sequential: `layers[1]` is a NoneType, which cannot be called.",
    ),
    case(
        "LN-VALUE-04",
        "axis",
        """
        axis = (0, 0)
        model = nn.LayerNorm(axis=axis)
        """,
        swap("axis = (0, 0)", check="assert model.axis == -1"),
        start="LayerNorm: `axis` is (0, 0),",
    ),
    case(
        "LN-VALUE-04",
        "mode of an initialiser",
        """
        mode = "fan"
        init = nn.initializers.variance_scaling(1.0, mode, "normal")
        """,
        swap('mode = "fan"', check="assert init.mode == 'fan_in'"),
        start="`mode` is 'fan', but it must be one of 'fan_in', ",
    ),
    case(
        "LN-VALUE-04",
        "array as a number",
        """
        value = jnp.arange(3)
        init = nn.initializers.constant(value)
        """,
        instead("assert init(key, (3,), jnp.float32).tolist() == [0, 1, 2]"),
        start="`value` is int32[3], but it must be a number.",
    ),
    case(
        "LN-VALUE-04",
        "padding",
        f"""
        padding = "same"
        {SAME}
        """,
        swap('padding = "same"', check="assert y.shape == (5, 2)"),
        start="`padding` is 'same', but it must be ",
    ),
    case(
        "LN-VALUE-05",
        "cast",
        """
        dtype = jnp.int8
        model = nn.cast(nn.Dense(3), dtype)
        """,
        swap("dtype = jnp.int8", check="assert model.dtype == 'bfloat16'"),
        start="`dtype` is int8, which is no floating dtype.",
    ),
    case(
        "LN-VALUE-06",
        "groups of a layer",
        """
        feature_group_count = 2
        model = nn.Conv(3, (3,), feature_group_count=feature_group_count)
        """,
        swap("feature_group_count = 2", check="assert model.feature_group_count == 1"),
        start="Conv: `features` is 3, which `feature_group_count=2` does not divide.",
    ),
    case(
        "LN-VALUE-06",
        "groups",
        """
        feature_group_count = 2
        y = F.conv(x, jnp.ones((1, 7, 3)), feature_group_count=feature_group_count)
        """,
        swap("feature_group_count = 2", check="assert y.shape == (4, 3)"),
        start="`feature_group_count` is 2, which does not divide the 3 output",
    ),
    case(
        "LN-VALUE-06",
        "sizes",
        """
        features = (3, 7, 1)
        model = nn.LayerNorm(features, axis=(-2, -1))
        """,
        swap(
            "features = (3, 7, 1)",
            check="assert 'scale=Param:float32[?, ?]' in repr(model)",
        ),
        start="LayerNorm: `features` has 3 sizes for 2 axes.",
    ),
    case(
        "LN-VALUE-06",
        "padding of a pool",
        """
        padding = 2
        y = F.max_pool(jnp.ones((5, 1)), (2,), padding=padding)
        """,
        swap("padding = 2", check="assert y.shape == (3, 1)"),
        start="`padding` adds [(2, 2)] to windows of [2],",
    ),
    case(
        "LN-VALUE-06",
        "causal",
        """
        window = 3
        padding = "CAUSAL"
        y = F.conv(jnp.ones((5, 5, 7)), jnp.ones((window, 1, 7, 2)), padding=padding)
        """,
        swap('padding = "CAUSAL"', check="assert y.shape == (5, 5, 2)"),
        start="`padding='CAUSAL'` is for one spatial axis, but there are 2.",
    ),
    case(
        "LN-VALUE-06",
        "circular",
        """
        padding = "CIRCULAR"
        y = F.conv(
            jnp.ones((5, 7)), jnp.ones((3, 7, 2)), padding=padding, input_dilation=2)
        """,
        swap('padding = "CIRCULAR"', check="assert y.shape == (9, 2)"),
        start="`padding='CIRCULAR'` cannot be combined with `input_dilation`.",
    ),
    case(
        "LN-VALUE-06",
        "no key",
        """
        key = None
        y = F.dropout(x, key, 0.5)
        """,
        swap("key = None", check="assert (y == 0).any()"),
        start="`key` is None, but a `rate` of 0.5 draws random numbers.",
    ),
    case(
        "LN-VALUE-07",
        "axis name",
        """
        axis_name = "batch"
        model = nn.Sequential([nn.BatchNorm(7, axis_name=axis_name)])
        model = nn.init(model, key, x)
        out, model = nn.training(model)(x)
        """,
        swap('axis_name = "batch"', check="assert out.shape == (4, 7)"),
        start="layers[0] (BatchNorm): `axis_name='batch'` does not name",
    ),
]
