"""Every way to an error that the tests know: each family has a file with `CASES`."""

import importlib
import pathlib

FAMILIES = sorted(
    path.stem
    for path in pathlib.Path(__file__).parent.glob("*.py")
    if path.stem != "__init__"
)
CASES = [
    case
    for family in FAMILIES
    for case in importlib.import_module(f"errors.cases.{family}").CASES
]
