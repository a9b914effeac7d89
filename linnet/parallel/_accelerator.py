"""Accelerators: what a chip computes, holds and sends, by its maker's data sheet."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """What one chip can do at its best.

    Args:
        name: As its maker calls it.
        flops: Floating-point operations per second in bfloat16, without sparsity.
        memory: Bytes of its memory.
        memory_bandwidth: Bytes per second between chip and memory.
        link_bandwidth: Bytes per second that it sends to other chips of its pod or
            node, over all links together.
        source: Where these figures are published.
    """

    name: str
    flops: float
    memory: float
    memory_bandwidth: float
    link_bandwidth: float
    source: str


_GB, _GIB, _TFLOPS = 1e9, 2.0**30, 1e12
_CLOUD = "Google Cloud documentation, TPU system architecture"
_NVIDIA = "NVIDIA data sheet"

# Links: of TPUs the interchip interconnect bandwidth of a chip, of GPUs NVLink in one
# direction, half of what is printed.
ACCELERATORS = tuple(
    Accelerator(name, tflops * _TFLOPS, memory, bandwidth * _GB, link * _GB, source)
    for name, tflops, memory, bandwidth, link, source in (
        ("TPU v4", 275, 32 * _GIB, 1228, 300, f"{_CLOUD}, v4"),
        ("TPU v5e", 197, 16 * _GIB, 819, 200, f"{_CLOUD}, v5e"),
        ("TPU v5p", 459, 95 * _GIB, 2765, 600, f"{_CLOUD}, v5p"),
        ("TPU v6e", 918, 32 * _GIB, 1640, 400, f"{_CLOUD}, v6e"),
        ("A100 80GB", 312, 80 * _GB, 2039, 300, f"{_NVIDIA}, A100 80GB SXM, 2021"),
        ("H100 SXM", 989, 80 * _GB, 3350, 450, f"{_NVIDIA}, H100 SXM, 2023"),
        ("H200 SXM", 989, 141 * _GB, 4800, 450, f"{_NVIDIA}, H200 SXM, 2024"),
        ("B200 SXM", 2250, 180 * _GB, 7700, 900, f"{_NVIDIA}, HGX B200, 2025"),
    )
)
