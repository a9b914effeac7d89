"""References to variables, under the name by which older code imports them."""

from linnet.compat.flax.core.scope import Variable

__all__ = ["Variable"]
