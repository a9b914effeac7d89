"""The zoo: every layer, how to build it, what to feed it, what it is known to do.

Each family has a file here with a list `CASES`. `python tests/zoo` writes the parameter
trees to `golden/parameters.json`.
"""

import importlib
import json
import pathlib

from linnet import nn
from zoo.case import ids, sample

__all__ = ["GOLDEN", "ROOT", "ZOO", "golden_text", "ids", "parameters", "sample"]

ROOT = pathlib.Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "golden" / "parameters.json"
FAMILIES = sorted(
    path.stem
    for path in pathlib.Path(__file__).parent.glob("*.py")
    if path.stem not in ("__init__", "__main__", "case")
)
ZOO = [
    case
    for family in FAMILIES
    for case in importlib.import_module(f"zoo.{family}").CASES
]


def parameters():
    """For each case the path of every array, with shape, dtype and role."""
    return {c.name: _parameters(c) for c in ZOO}


def _parameters(case):
    model = nn.abstract(case.make(), *case.args)
    arrays = nn.to_paths(model)
    roles = {
        path: role.__name__
        for role in (nn.Param, nn.State, nn.BatchStat, nn.Constant)
        for path in nn.select(model, role)
    }
    return {
        path: f"{array.dtype}[{', '.join(map(str, array.shape))}] {roles[path]}"
        for path, array in arrays.items()
    }


def golden_text():
    """The text of `golden/parameters.json`."""
    return json.dumps(parameters(), indent=2) + "\n"
