"""Errors of perceptrons, experts and transformer blocks."""

from errors.case import case, swap

CASES = [
    case(
        "LN-VALUE-04",
        "name of an activation",
        """
        activation = "silu"
        model = nn.MLP(8, activation=activation)
        """,
        swap('activation = "silu"', check="assert model.activation is jax.nn.silu"),
        start="MLP: `activation` is 'silu',",
    ),
    case(
        "LN-VALUE-02",
        "dropout inside of a layer",
        """
        dropout_rate = 10
        model = nn.MLP(8, dropout_rate=dropout_rate)
        """,
        swap("dropout_rate = 10", check="assert model.dropout.rate == 0.1"),
        swap("dropout_rate = 10", check="assert model.dropout.rate == 0.0"),
        start="MLP: `dropout_rate` is 10,",
    ),
    case(
        "LN-DTYPE-01",
        "of the layers of a layer",
        """
        dtype = jnp.int8
        model = nn.MLP(8, dtype=dtype)
        """,
        swap("dtype = jnp.int8", check="assert model.hidden[0].dtype == jnp.float32"),
        start="(Dense): `dtype` is int8,",
    ),
]
