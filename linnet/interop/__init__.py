"""Modules of other libraries beside those of Linnet, and the other way round."""

from linnet.interop._linen import to_linen

__all__ = ["to_linen"]
