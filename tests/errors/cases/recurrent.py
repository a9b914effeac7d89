"""Errors of recurrent layers: cells, carries, lengths and masks."""

from errors.case import before, case, instead, swap

CALL = "out = model(x, lengths=lengths, mask=mask)"

CASES = [
    case(
        "LN-VALUE-04",
        "no cell",
        """
        cell = nn.Dense(4)
        model = nn.RNN(cell)
        """,
        before("model = nn.RNN(cell)", "assert model.cell.features == 8"),
        start="RNN: `cell` is a Dense, but it must be a recurrent cell",
    ),
    case(
        "LN-VALUE-06",
        "lengths and mask",
        f"""
        model = nn.init(nn.RNN(nn.GRUCell(3)), key, x)
        lengths, mask = jnp.array(2), jnp.arange(4) > 1
        {CALL}
        """,
        before(CALL, "assert (out[2:] == 0).all()"),
        before(CALL, "assert (out[:2] == 0).all()"),
        start="(RNN): both `lengths` and `mask` say which steps count.",
    ),
    case(
        "LN-VALUE-06",
        "blocks of gates",
        """
        num_blocks = 2
        model = nn.init(nn.RGLRU(num_blocks=num_blocks), key, x)
        """,
        before(
            "model = nn.init(nn.RGLRU(num_blocks=num_blocks), key, x)",
            "assert model.kernel.shape == (1, 7, 14)",
        ),
        start="(RGLRU): `features` is 7, which `num_blocks=2` does not divide.",
    ),
    case(
        "LN-SHAPE-01",
        "lengths",
        """
        model = nn.init(nn.RNN(nn.GRUCell(3)), key, x)
        lengths = jnp.array([4])
        out = model(x, lengths=lengths)
        """,
        before("out = model(x, lengths=lengths)", "assert (out != 0).all()"),
        start="(RNN): `lengths` is int32[1], but integers of shape [] are needed.",
    ),
    case(
        "LN-SHAPE-01",
        "mask of steps",
        """
        model = nn.init(nn.RNN(nn.GRUCell(3)), key, x)
        mask = jnp.ones((4, 1), bool)
        out = model(x, mask=mask)
        """,
        before("out = model(x, mask=mask)", "assert (out != 0).all()"),
        start="(RNN): `mask` is bool[4, 1], but booleans of shape [4] are needed.",
    ),
    case(
        "LN-SHAPE-01",
        "carry of a cell",
        """
        model = nn.init(nn.RNN(nn.GRUCell(3)), key, x)
        carry = jnp.zeros((4, 3))
        out = model(x, carry)
        """,
        before("out = model(x, carry)", "assert out.shape == (4, 3)"),
        start="cell (GRUCell): `carry` is float32[4, 3], but [3] is needed.",
    ),
    case(
        "LN-SHAPE-01",
        "carry that is no pair",
        """
        carry = jnp.zeros(3)
        model = nn.LSTMCell(3)
        model = nn.init(model, key, model.initial_carry(x), x)
        carry, out = model(carry, x)
        """,
        before("carry, out = model(carry, x)", "assert out.shape == (4, 3)"),
        start="(LSTMCell): `carry` is float32[3], but a pair `(c, h)` is needed, each "
        "[4, 3].",
    ),
    case(
        "LN-SHAPE-01",
        "gates",
        """
        h, projected, kernel = jnp.zeros((4, 3)), x, jnp.ones((7, 9))
        out = F.gru_step(h, projected, jnp.ones((3, 9)))
        """,
        before(
            "out = F.gru_step(h, projected, jnp.ones((3, 9)))",
            "assert out[1].shape == (4, 3)",
        ),
        start="`projected` is float32[4, 7], but its last axis must hold 3 gates of "
        "one size.",
    ),
    case(
        "LN-SHAPE-01",
        "state",
        """
        model = nn.init(nn.S5(3), key, x)
        carry = jnp.zeros((4, 3))
        out = model(x, carry)
        """,
        before("out = model(x, carry)", "assert out.shape == (4, 7)"),
        start="(S5): `carry` is float32[4, 3], but [3] is needed.",
    ),
    case(
        "LN-SHAPE-01",
        "linear recurrence",
        """
        a = jnp.ones(7)
        out = F.linear_recurrence(a, x)
        """,
        before("out = F.linear_recurrence(a, x)", "assert out.shape == (4, 7)"),
        start="`a` is float32[7], which does not fit `b`, float32[4, 7].",
    ),
    case(
        "LN-SHAPE-01",
        "kernel without blocks",
        """
        kernel = jnp.ones((7, 14))
        a, b = F.rg_lru_terms(x, kernel, None, jnp.ones(7))
        """,
        before(
            "a, b = F.rg_lru_terms(x, kernel, None, jnp.ones(7))",
            "assert a.shape == (4, 7)",
        ),
        start="`x` is float32[4, 7], which `kernel`, float32[7, 14], does not take.",
    ),
    case(
        "LN-DTYPE-01",
        "resets",
        """
        model = nn.init(nn.RGLRU(), key, x)
        resets = jnp.array([1, 0, 1, 0])
        out = model(x, resets=resets)
        """,
        before("out = model(x, resets=resets)", "assert out.shape == (4, 7)"),
        start="(RGLRU): `resets` is int32[4], but booleans are needed.",
    ),
    case(
        "LN-VALUE-04",
        "steps of S5",
        """
        step_range = 0.01
        model = nn.S5(8, step_range=step_range)
        """,
        swap("step_range = 0.01", check="assert model.step_range == (0.001, 0.1)"),
        start="S5: `step_range` is 0.01, but it must be a pair",
    ),
    case(
        "LN-CACHE-01",
        "backwards",
        """
        class Model(nn.Module):
            def __init__(self):
                self.encoder = nn.Bidirectional(nn.GRUCell(3))
                self.decoder = nn.RNN(nn.GRUCell(5))
            def __call__(self, x):
                return self.decoder(self.encoder(x))
        x = x[None]
        model = nn.with_cache(nn.init(Model(), key, x), 1, 8)
        out, model = nn.stateful(model)(x)
        """,
        instead("assert out.shape == (1, 4, 5)"),
        before("out, model = nn.stateful(model)(x)", "assert out.shape == (1, 4, 5)"),
        start="encoder.backward (RNN): a recurrent layer that goes backwards was",
    ),
    case(
        "LN-CACHE-01",
        "lengths of a recurrent layer",
        """
        x = x[None]
        model = nn.init(nn.RNN(nn.GRUCell(3)), key, x)
        model = nn.with_cache(model, 1, 8)
        lengths = jnp.array([2])
        out = nn.stateful(model)(x, lengths=lengths)[0]
        """,
        before(
            "out = nn.stateful(model)(x, lengths=lengths)[0]",
            "assert (out[:, 2:] == 0).all()",
        ),
        before(
            "out = nn.stateful(model)(x, lengths=lengths)[0]",
            "assert (out[:, 2:] == 0).all()",
        ),
        start="(RNN): `lengths` was given to a recurrent layer with a cache.",
    ),
    case(
        "LN-CACHE-02",
        "cell of images",
        """
        x = x[None, :, :, None]
        model = nn.init(nn.RNN(nn.ConvLSTMCell(3, (3,))), key, x)
        model = nn.with_cache(model, 1, 8)
        """,
        instead("assert out.shape == (1, 4, 7, 3)"),
        start="(RNN): a cell of images has no cache.",
    ),
]
