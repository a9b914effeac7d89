"""The rules of the house, each a function from source to complaints.

`house_test.py` applies them to the repository, and to a small bad source each.
"""

import ast
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parent.parent

# Who may import what besides the standard library. A star ends inside a word.
JAX = ["jax", "numpy"]
ABOVE = [*JAX, "optax", "linnet._*", "linnet.core", "linnet.nn"]
MAY_IMPORT = {
    "linnet/*.py": [*JAX, "linnet._*"],
    # Treescope is imported where it asks how a model is shown, and only then.
    "linnet/core/**/*.py": [*JAX, "linnet._*", "linnet.core", "treescope"],
    "linnet/functional/**/*.py": [
        *JAX,
        "linnet._errors",
        "linnet._typing",
        "linnet.functional",
    ],
    "linnet/nn/**/*.py": [
        *JAX,
        "linnet._*",
        "linnet.core",
        "linnet.functional",
        "linnet.nn",
    ],
    "linnet/parallel/**/*.py": [*ABOVE, "linnet.parallel"],
    "linnet/training/**/*.py": [
        *ABOVE,
        "linnet.parallel",
        "linnet.training",
        *["grain", "orbax.*", "rich", "safetensors", "tensorboardX"],
    ],
    "linnet/compat/**/*.py": [
        *[*JAX, "optax", "linnet._*", "linnet.functional"],
        "linnet.compat",
    ],
    "linnet/interop/**/*.py": [*ABOVE, "linnet.interop", "linnet.compat.*"],
    "linnet/testing/**/*.py": [*JAX, "linnet._errors", "linnet.nn", "linnet.testing"],
}


def sources(*patterns):
    """The files that match, as (path relative to the root, text)."""
    paths = {path for pattern in patterns for path in ROOT.glob(pattern)}
    return [(p.relative_to(ROOT), p.read_text("utf-8")) for p in sorted(paths)]


def imports(path, text):
    """Yields (line, dotted name) for each import, relative ones made absolute."""
    package = path.with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = [*above, node.module] if node.module else [*above]
            for alias in node.names:
                # A name of a package may be a module: `from linnet import nn`.
                whole = [*base, alias.name] if base[0].startswith("linnet") else base
                yield node.lineno, ".".join(whole)


def forbidden_imports(path, text, allowed):
    """Imports of anything but the standard library and what is allowed."""
    return [
        f"{path}:{line}: imports {name}"
        for line, name in imports(path, text)
        if name.split(".")[0] not in sys.stdlib_module_names
        and not any(_is_below(name, prefix) for prefix in allowed)
    ]


def _is_below(name, prefix):
    if prefix.endswith("*"):
        return name.startswith(prefix[:-1])
    return f"{name}.".startswith(f"{prefix}.")


def private_imports(path, text):
    """Imports of names of Linnet that begin with an underscore."""
    return [
        f"{path}:{line}: imports the private {name}"
        for line, name in imports(path, text)
        if name.startswith("linnet.") and "._" in name
    ]


COMPARING = {"all", "allclose", "any", "array_equal", "isclose", "tree_equal"}


def vacuous_statements(path, text):
    """Comparisons whose result is thrown away."""
    return [
        f"{path}:{node.lineno}: this comparison tests nothing"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and _is_comparison(node.value)
    ]


def _is_comparison(node):
    if isinstance(node, ast.Call):
        return _last_name(node.func) in COMPARING
    return isinstance(node, ast.Compare | ast.BoolOp)


def _last_name(node):
    return getattr(node, "attr", getattr(node, "id", ""))


def tests_without_checks(path, text):
    """Test functions that hold no assertion and expect no error."""
    return [
        f"{path}:{node.lineno}: {node.name} checks nothing"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and not any(map(_is_check, ast.walk(node)))
    ]


def _is_check(node):
    if not isinstance(node, ast.Call):
        return isinstance(node, ast.Assert)
    name = _last_name(node.func)
    return name in {"raises", "warns", "fail"} or name.startswith(("assert_", "check_"))


def two_texts(path, text):
    """`raise Error("a", "b")`, which prints a tuple where a sentence was meant."""
    return [
        f"{path}:{node.lineno}: an error with two texts; a comma for a space?"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and _last_name(node.exc.func)[:1].isupper()
        and sum(map(_is_text, node.exc.args)) > 1
    ]


def _is_text(node):
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    return isinstance(node, ast.JoinedStr)


def asserts_for_users(path, text):
    """Asserts that could be a user's mistake.

    For the impossible there are two forms: a text that asks for a report, and
    `assert x is not None`, which tells the type checker what the reader knows. Another
    library's interface raises what that library raises.
    """
    if path.parts[:2] == ("linnet", "compat"):
        return []
    return [
        f"{path}:{node.lineno}: raise a LinnetError, or ask for a report"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Assert)
        and not ast.unparse(node.test).endswith(" is not None")
        and "report" not in (ast.unparse(node.msg) if node.msg else "")
    ]


CODE = re.compile(r"\bLN-[A-Z]+-\d{2}\b")


def error_codes(files):
    """Every code of an error that these files mention."""
    return {code for _, text in files for code in CODE.findall(text)}
