"""Packages that are not installed."""

from errors.case import case, swap

CASES = [
    case(
        "LN-EXTRA-01",
        "not installed",
        """
        from unittest import mock
        from linnet._extra import require
        hidden = {}
        hidden["tensorboardX"] = None
        with mock.patch.dict("sys.modules", hidden):
            writer = require("tensorboardX", "logging", "`training.TensorBoard`")
        """,
        swap('hidden["tensorboardX"] = None', check="assert writer.SummaryWriter"),
        start="`training.TensorBoard` needs the package `tensorboardX`, which",
    ),
]
