"""Linnet: neural networks for JAX, as pytrees of plain arrays."""

__version__ = "0.1.0"
