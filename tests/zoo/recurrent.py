"""Recurrent cells, and what runs them over time."""

from linnet import nn
from zoo.case import case, sample


def cell(name, make):
    """A cell that is not at its first step."""
    x = sample(4, 3)
    start = make().initial_carry(x)
    many = isinstance(start, tuple)
    carry = tuple(sample(*c.shape) for c in start) if many else sample(*start.shape)
    return case(name, make, (carry, x))


CASES = [
    cell("LSTMCell", lambda: nn.LSTMCell(4)),
    cell("GRUCell", lambda: nn.GRUCell(4)),
    cell("MGUCell", lambda: nn.MGUCell(4)),
    cell("SimpleCell", lambda: nn.SimpleCell(4)),
    case(
        "ConvLSTMCell",
        lambda: nn.ConvLSTMCell(2, (3,)),
        ((sample(4, 5, 2), sample(4, 5, 2)), sample(4, 5, 3)),
    ),
    case("RNN", lambda: nn.RNN(nn.LSTMCell(4), unroll=2), sample(4, 5, 3)),
    case("RNN, reversed", lambda: nn.RNN(nn.GRUCell(4), reverse=True), sample(4, 4, 3)),
    case(
        "Stack of RNNs",
        lambda: nn.Stack(nn.RNN(nn.SimpleCell(3)), 2, remat=True),
        sample(4, 3, 3),
    ),
    case("Bidirectional", lambda: nn.Bidirectional(nn.GRUCell(4)), sample(4, 3, 3)),
    case("RGLRU", lambda: nn.RGLRU(num_blocks=2), sample(4, 3, 4)),
    case("S5", lambda: nn.S5(3), sample(4, 3, 4)),
]
