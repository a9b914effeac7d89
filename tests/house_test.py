"""The rules of the house hold, and each rule is seen to fail once."""

import pathlib
import re
import subprocess
import sys

import jax
import pytest

import house
import surface
from house import sources

LIBRARY = sources("linnet/**/*.py")
TESTS = sources("tests/**/*.py")
EXAMPLES = sources("examples/**/*.py", "benchmarks/**/*.py")
BAD = pathlib.Path("linnet/core/_bad.py")


def complaints_of(rule, files, *args):
    return [complaint for file in files for complaint in rule(*file, *args)]


def test_the_files_are_found():
    assert len(LIBRARY) > 10
    assert len(TESTS) > 5


# ---- who imports whom


@pytest.mark.parametrize("pattern", house.MAY_IMPORT)
def test_each_package_imports_only_what_stands_below_it(pattern):
    allowed = house.MAY_IMPORT[pattern]
    assert not complaints_of(house.forbidden_imports, sources(pattern), allowed)


@pytest.mark.parametrize(
    "line",
    [
        "import optax",
        "import flax.linen as nn",
        "from linnet import nn",
        "from linnet.nn import Dense",
        "from linnet.functional import dense",
        "from ..nn import Dense",
        "from .. import nn",
        "from ..nn._linear import Dense",
        "def late():\n    import linnet.training",
    ],
)
def test_an_import_from_above_is_seen(line):
    allowed = house.MAY_IMPORT["linnet/core/**/*.py"]
    assert house.forbidden_imports(BAD, line, allowed)


@pytest.mark.parametrize(
    "line",
    [
        "import dataclasses, jax, numpy as np",
        "from jax.sharding import Mesh",
        "from linnet import _errors",
        "from linnet._errors import ShapeError",
        "from . import _spec",
        "from ._spec import Spec",
        "from .._typing import Array",
    ],
)
def test_an_import_from_below_is_allowed(line):
    allowed = house.MAY_IMPORT["linnet/core/**/*.py"]
    assert house.forbidden_imports(BAD, line, allowed) == []


def test_examples_import_only_public_names():
    assert not complaints_of(house.private_imports, EXAMPLES)


@pytest.mark.parametrize(
    "line",
    ["from linnet.core._spec import Spec", "from linnet import _errors"],
)
def test_a_private_import_is_seen(line):
    path = pathlib.Path("examples/digits/train.py")
    assert house.private_imports(path, line)
    assert house.private_imports(path, "from linnet import nn") == []


# ---- what importing costs

IMPORT_COSTS = """
import sys
{before}
known = set(sys.modules)
from linnet import nn
import jax
heavy = {heavy!r}
print(sorted(heavy & {{name.split('.')[0] for name in set(sys.modules) - known}}))
print(len(jax.live_arrays()))
"""
HEAVY = {"orbax", "flax", "torch", "tensorflow", "matplotlib", "rich", "treescope"}


@pytest.mark.parametrize(
    ("before", "heavy"),
    [("import jax, optax", HEAVY), ("import jax", HEAVY | {"optax"})],
)
def test_importing_makes_no_array_and_loads_nothing_heavy(before, heavy):
    code = IMPORT_COSTS.format(before=before, heavy=heavy)
    assert run(code) == ["[]", "0"]


def test_a_heavy_import_and_an_array_are_seen():
    code = IMPORT_COSTS.replace(
        "import jax\n", "import jax, optax; kept = jax.numpy.ones(2)\n"
    )
    assert run(code.format(before="", heavy={"optax"})) == ["['optax']", "1"]


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=house.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# ---- how checks and errors are written


@pytest.mark.parametrize(
    ("rule", "files"),
    [
        (house.vacuous_statements, TESTS),
        (house.tests_without_checks, TESTS),
        (house.two_texts, LIBRARY + EXAMPLES),
        (house.asserts_for_users, LIBRARY),
    ],
)
def test_rule_holds(rule, files):
    assert not complaints_of(rule, files)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (house.vacuous_statements, "assert a == b", "a == b"),
        (house.vacuous_statements, "assert np.allclose(a, b)", "np.allclose(a, b)"),
        (house.vacuous_statements, "assert_close(a, b)", "all(a == b)"),
        (
            house.tests_without_checks,
            "def test_it():\n    with pytest.raises(ValueError): f()",
            "def test_it():\n    f()",
        ),
        (
            house.two_texts,
            "raise ValueError('one' 'sentence')",
            "raise ValueError('one', f'sentence of {x}')",
        ),
        (
            house.asserts_for_users,
            "assert x, 'please report this: x is false'",
            "assert x > 0, 'x must be positive'",
        ),
    ],
)
def test_rule_is_seen_to_fail(rule, good, bad):
    assert rule(BAD, good) == []
    assert len(rule(BAD, bad)) == 1


# ---- the public surface


def test_the_public_names_are_those_of_the_golden_file():
    accept = "if this is meant, run `make golden` and commit the difference"
    assert surface.api() == surface.GOLDEN.read_text("utf-8"), accept


def test_a_changed_default_changes_the_surface():
    def before(x, *, rate=0.1, activation=abs): ...
    def after(x, *, rate=0.2, activation=abs): ...

    assert surface.described("f", before) == ["f(x, *, rate=0.1, activation=abs)"]
    assert surface.described("f", before) != surface.described("f", after)


def test_the_api_pages_show_the_public_names():
    shown = re.compile(r"^::: (\S+)", re.MULTILINE)
    pages = "".join(text for _, text in sources("docs/api/*.md"))
    names = surface.public_names().items()
    jaxs_own = {name for name, value in names if surface.is_jaxs_own(name, value)}
    assert set(shown.findall(pages)) == {name for name, _ in names} - jaxs_own
    listed = sources("docs/api/activation.md")[0][1]
    assert jaxs_own == {
        f"linnet.{name}" for name in re.findall(r"`(nn\.\w+)`", listed)
    } - {"linnet.nn.PReLU"}


def test_what_is_jaxs_own_is_told_by_identity():
    assert surface.is_jaxs_own("linnet.nn.relu", jax.nn.relu)
    assert not surface.is_jaxs_own("linnet.nn.relu", jax.nn.gelu)
    assert not surface.is_jaxs_own("linnet.nn.Dense", surface)


def test_docstrings_name_the_arguments():
    names = surface.public_names().items()
    assert [c for item in names for c in surface.docstring_complaints(*item)] == []


def test_a_wrong_docstring_is_seen():
    def function(x, *, rate, **options):
        """Something.

        Args:
            x: An array,
                shape: as it comes.
            factor: Of nothing.
            **options: The rest.

        Raises:
            ValueError: Never.
        """

    class Layer:
        """Takes nothing."""

        def __call__(self, x):
            """Something.

            Args:
                y: Something else.
            """

    assert surface.docstring_complaints("f", function) == [
        "f: rate is not documented",
        "f: factor is no argument",
    ]
    assert surface.docstring_complaints("L", Layer) == [
        "L.__call__: x is not documented",
        "L.__call__: y is no argument",
    ]
    function.__doc__ = None
    assert surface.docstring_complaints("f", function) == ["f: has no docstring"]


# ---- errors


def test_each_error_code_has_a_page_and_a_test():
    codes = house.error_codes(LIBRARY)
    pages = {path.stem for path in (house.ROOT / "docs" / "errors").glob("LN-*.md")}
    assert codes
    assert pages == codes
    assert codes <= house.error_codes(TESTS)


def test_error_codes_are_found():
    file = (BAD, 'raise ShapeError("...", code="LN-NONE-99", why="LN-shape")')
    assert house.error_codes([file]) == {"LN-NONE-99"}


def test_each_class_of_error_is_met_in_a_test():
    defined = re.compile(r"^class (\w+Error)\(LinnetError", re.MULTILINE)
    classes = defined.findall((house.ROOT / "linnet/_errors.py").read_text("utf-8"))
    tests = "".join(text for path, text in TESTS if path.name != "house_test.py")
    assert len(classes) > 5
    assert [name for name in classes if not re.search(rf"\b{name}\b", tests)] == []
