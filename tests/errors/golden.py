"""The texts of all errors, kept word by word in `tests/golden/errors`.

Run as a program, this accepts the present texts.
"""

import os
import pathlib
import re
import sys

TESTS = pathlib.Path(__file__).parent.parent
FOLDER = TESTS / "golden" / "errors"
HEADING = re.compile(r"^==== (.+)\n", re.MULTILINE)
ACCEPT = (
    "if this is meant, run `python tests/errors/golden.py` and commit the difference"
)


def texts():
    """The golden text of each case, by its code and name."""
    return {
        (path.stem, name): text.removesuffix("\n\n").removesuffix("\n")
        for path in sorted(FOLDER.glob("*.txt"))
        for name, text in _sections(path.read_text("utf-8"))
    }


def _sections(text):
    _, *parts = HEADING.split(text)
    return zip(parts[::2], parts[1::2], strict=True)


def accept(cases):
    """Writes the text of each case, and removes what no case stands for."""
    by_code = {}
    for case in cases:
        section = f"==== {case.name}\n{case.text_of(case.provoke())}\n"
        by_code.setdefault(case.code, []).append(section)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in FOLDER.glob("*.txt"):
        path.unlink()
    for code, sections in by_code.items():
        (FOLDER / f"{code}.txt").write_text("\n".join(sections), "utf-8")


if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"  # as in tests
    sys.path[:0] = [str(TESTS.parent), str(TESTS)]

    from errors.cases import CASES

    accept(CASES)
