"""How a plan prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def plan_text(plan: Any) -> str:
    """The plan as tables: memory, collectives, accelerators, advice."""
    mesh = ", ".join(f"{name}={size}" for name, size in plan.mesh.items())
    lines = [f"{plan.devices:,} devices ({mesh}), each with", *_memory(plan), ""]
    used = plan.devices * plan.flops
    lines += [
        f"{_number(plan.model_flops)}FLOP a step by the model's own operations, "
        f"{_number(used)}FLOP in all; {_number(plan.flops)}FLOP on each device",
        "",
    ]
    if plan.collectives:
        rows = [
            (kind, " x ".join(axes), _bytes(amount))
            for (kind, axes), amount in plan.collectives.items()
        ]
        lines += [*_table(("collective", "over", "bytes a step"), rows), ""]
    head = ("accelerator", "fits", "step time (s)", "MFU", "HFU")
    lines += _table(head, [_row(estimate) for estimate in plan.estimates])
    if plan.advice:
        lines += ["", "To need less memory:"]
        lines += [f"  {_bytes(size):>10}  {text}" for text, size in plan.advice]
    lines += [f"\nNote: {note}" for note in plan.notes]
    return "\n".join(lines)


def _memory(plan: Any) -> list[str]:
    parts = ("parameters", "optimizer", "gradients", "activations", "batch", "total")
    return [f"  {_bytes(getattr(plan, name)):>10}  {name}" for name in parts]


def _row(estimate: Any) -> tuple[str, ...]:
    best, worst = estimate.step_time
    return (
        estimate.accelerator.name,
        "yes" if estimate.fits else "no",
        f"{best:.3g} to {worst:.3g}",
        _percent(estimate.utilization),
        _percent(estimate.hardware_utilization),
    )


def _percent(span: tuple[float, float]) -> str:
    return f"{100 * span[0]:.0f} to {100 * span[1]:.0f}%"


def _bytes(amount: float) -> str:
    return f"{_number(amount)}B"


def _number(amount: float) -> str:
    """In three digits, with the prefix of a power of a thousand."""
    prefixes = ["", "k", "M", "G", "T", "P", "E", "Z", "Y"]
    at = 0
    while amount >= 999.5 and at < len(prefixes) - 1:
        amount, at = amount / 1000, at + 1
    return f"{amount:.3g} {prefixes[at]}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
