"""What the tests of a layer need, for yours as for ours."""

from linnet.testing._compile import log_compiles
from linnet.testing._layer import check_layer

__all__ = ["check_layer", "log_compiles"]
