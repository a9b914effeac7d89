"""From results to Markdown tables, JSON and a plot."""

import math
import os
import platform
from importlib import metadata

import jax
from _measure import OURS, PEERS, RAW

COLORS = {
    OURS: "#d1495b",
    "Equinox": "#edae49",
    "Flax NNX": "#00798c",
    "Flax Linen": "#30638e",
    "Haiku": "#8d96a3",
    "PyTorch": "#5f4b8b",
}
UNITS = {"µs": 1e6, "ms": 1e3, "s": 1.0}
PACKAGES = ("jax", "jaxlib", "optax", "numpy", "equinox", "flax", "dm-haiku", "torch")


def machine():
    """Where and with what the numbers were made."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            names = [line for line in file if line.startswith("model name")]
        return names[0].split(":")[1].strip()
    except (OSError, IndexError):
        return platform.processor() or "unknown"


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def about(machine):
    """The same in two lines."""
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    load = " ".join(map(str, machine["load"]))
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, "
        f"JAX on {machine['device']}; load at the start {load}.\n"
        f"Python {machine['python']}, {versions}."
    )


def table(result):
    """One question: times, and ratios to the base, with quartiles."""
    extra = list(result.columns)
    head = ["", f"time ({result.unit})", f"over {result.base}", *extra]
    rows = [head, ["---", *("---:" for _ in head[1:])]]
    for name in result.times:
        time = result.spread(name).median * UNITS[result.unit]
        ratio = "1" if name == result.base else with_spread(result.ratio(name))
        cells = [str(result.columns[column].get(name, "")) for column in extra]
        rows.append([_bold(name), short(time), ratio, *cells])
    lines = [f"**({result.question}) {result.title}**", "", *map(_row, rows)]
    if result.note:
        lines += ["", result.note]
    for library, reason in result.left_out.items():
        lines += ["", f"{library} is left out: {reason}."]
    return "\n".join(lines)


def combined(results):
    """All questions: each library by the fastest of its ways."""
    present = [name for name in (OURS, *PEERS) if _anywhere(name, results)]
    rows = [["", RAW, *present], ["---", *("---:" for _ in (RAW, *present))]]
    for result in results:
        time = result.spread(result.base).median * UNITS[result.unit]
        cells = [_cell(result, library) for library in present]
        label = f"({result.question}) {result.title}"
        rows.append([label, f"{short(time)} {result.unit}", *cells])
    return "\n".join(map(_row, rows))


def targets(results):
    """What was to be reached, and whether it was."""
    rows = [["target", "measured", "at most", ""], ["---", "---:", "---:", "---"]]
    rows += [
        [
            f"({r.question}) {c.what}",
            c.measured,
            c.target,
            "met" if c.met else "**missed**",
        ]
        for r in results
        for c in r.checks
    ]
    return "\n".join(map(_row, rows))


def fastest(result, library):
    """The fastest of a library's ways, or None where it takes no part."""
    ways = [name for name in result.times if name.split(",")[0] == library]
    return min(ways, key=lambda name: result.ratio(name).median, default=None)


def plot(results, path):
    """Ratios to raw JAX, with quartiles, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 0.42 * len(results) + 1.6))
    for row, result in enumerate(results):
        for shift, library in enumerate((OURS, *PEERS)):
            name = fastest(result, library)
            if name is None:
                continue
            low, median, high = result.ratio(name)
            y = row + 0.12 * (shift - 2.5)
            color = COLORS[library]
            axes.plot([low, high], [y, y], color=color, linewidth=1.5, alpha=0.6)
            axes.plot(median, y, "o", color=color, markersize=5)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    ticks = [0.5, 1, 2, 5, 10, 20, 50]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    labels = [f"({r.question}) {r.title}".replace("`", "") for r in results]
    axes.set_yticks(range(len(results)), labels)
    axes.set_ylim(len(results) - 0.5, -0.5)
    for row in range(len(results) - 1):
        axes.axhline(row + 0.5, color="0.9", linewidth=1)
    axes.set_xlabel(
        "time as a multiple of raw JAX (median and quartiles; left is faster)"
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    marks = [
        pyplot.Line2D([], [], color=c, marker="o", ls="", label=n)
        for n, c in COLORS.items()
    ]
    figure.legend(handles=marks, loc="upper center", ncols=len(marks), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def with_spread(spread):
    """A median with its quartiles."""
    return f"{short(spread.median)} ({short(spread.low)} to {short(spread.high)})"


def short(number):
    """Three significant digits, and two decimals at most."""
    decimals = 2 - math.floor(math.log10(number)) if number > 0 else 0
    return f"{number:,.{min(2, max(0, decimals))}f}"


def _cell(result, library):
    name = fastest(result, library)
    return "" if name is None else with_spread(result.ratio(name))


def _anywhere(library, results):
    return any(fastest(result, library) for result in results)


def _bold(name):
    return f"**{name}**" if name == OURS else name


def _row(cells):
    return f"| {' | '.join(cells)} |"
