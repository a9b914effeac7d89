"""Errors of activations."""

from errors.case import before, case

CASES = [
    case(
        "LN-DTYPE-01",
        "complex numbers below zero",
        """
        x = x + 1j
        y = F.prelu(x, jnp.array(0.25))
        """,
        before(
            "y = F.prelu(x, jnp.array(0.25))", check="assert y.dtype == jnp.float32"
        ),
        start="`x` is complex64[4, 7], but complex numbers",
    ),
]
