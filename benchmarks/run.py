"""Linnet against raw JAX and the peers, side by side in one process.

    python benchmarks/run.py                     everything, and records it
    python benchmarks/run.py --only a,b          some questions, printed only
    python benchmarks/run.py --quick             few rounds, printed only

A whole run is written to RESULTS.md, newest first, and to results/. README.md says
how the numbers are made.
"""

import argparse
import dataclasses
import datetime
import importlib
import json
import os
import pathlib
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import _report

QUESTIONS = {
    "a": ["dispatch"],
    "a2": ["flattening"],
    "b": ["tracing", "tracing_training"],
    "c": ["initialising"],
    "d": ["compiling"],
    "e": ["stepping"],
    "f": ["importing"],
    "g": ["attending"],
    "h": ["convolving"],
    "i": ["recurring"],
    "j": ["transforming"],
    "k": ["language_modelling"],
    "l": ["decoding"],
    "m": ["fitting"],
    "n": ["checkpointing"],
    "o": ["sharded_init"],
    "p": ["training_memory"],
    "q": ["linen_tracing"],
}
HERE = pathlib.Path(__file__).parent
HEAD = """# Results

Newest first. How the numbers are made: [README.md](README.md). `make bench` adds to
this page.
"""


def main():
    """Measures, prints and records."""
    args = arguments()
    start, machine = time.perf_counter(), _report.machine()
    print(_report.about(machine), flush=True)
    results = []
    for result in measured(args.only, args.quick):
        print("\n" + _report.table(result), flush=True)
        results.append(result)
    minutes = (time.perf_counter() - start) / 60
    print(f"\n{_report.targets(results)}\n\n{minutes:.1f} minutes.")
    if not args.quick and args.only == list(QUESTIONS):
        record(results, machine, minutes)


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", type=questions, default=list(QUESTIONS), metavar="a,b"
    )
    parser.add_argument("--quick", action="store_true", help="few rounds")
    return parser.parse_args()


def questions(text):
    """The letters of `--only`."""
    letters = text.split(",")
    if unknown := set(letters) - set(QUESTIONS):
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(unknown))}: there are {', '.join(QUESTIONS)}"
        )
    return letters


def measured(letters, quick):
    """Yields the results of these questions."""
    for letter in letters:
        for name in QUESTIONS[letter]:
            yield from importlib.import_module(name).measure(quick)


def record(results, machine, minutes):
    """Adds this run to the page, in place of an earlier one of the same day."""
    date = datetime.date.today().isoformat()
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    data = {
        "date": date,
        "machine": machine,
        "results": [dataclasses.asdict(result) for result in results],
    }
    text = json.dumps(rounded(data), indent=1, ensure_ascii=False)
    (folder / f"{date}.json").write_text(text + "\n", "utf-8")
    _report.plot(results, folder / f"{date}.png")
    page = HERE / "RESULTS.md"
    old = page.read_text("utf-8").split("\n## ")[1:] if page.exists() else []
    older = [section.strip() for section in old if not section.startswith(date)]
    sections = [section_of(results, machine, minutes, date), *older]
    page.write_text("\n".join([HEAD, *(f"## {s}\n" for s in sections)]), "utf-8")


def rounded(value):
    """Numbers with five significant digits, which is more than was measured."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def section_of(results, machine, minutes, date):
    """The Markdown of one run."""
    parts = [
        date,
        f"{_report.about(machine)} The run took {minutes:.0f} minutes.",
        "### Targets of Linnet",
        _report.targets(results),
        "### All together",
        "Time as a multiple of raw JAX: median (quartiles). Of a library with several "
        "ways\nthe fastest is shown.",
        _report.combined(results),
        f"![Ratios to raw JAX](results/{date}.png)",
        "### Each question",
        *map(_report.table, results),
    ]
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
