"""The public surface: what is exported, with which signature, and how described.

Run as a program, this writes the present surface to `golden/api.txt`.
"""

import enum
import importlib
import inspect
import pathlib
import re
import sys

import jax

ROOT = pathlib.Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "api.txt"
# `linnet.compat` is not among them: its names are those of another library, with which
# `compat/surface_test.py` compares them.
PACKAGES = [
    "linnet.functional",
    "linnet.interop",
    "linnet.nn",
    "linnet.parallel",
    "linnet.testing",
    "linnet.training",
]


def public_names():
    """What the packages export, and the modules among it: dotted name to value."""
    names = {}
    for package in PACKAGES:
        names |= _exports(importlib.import_module(package))
    return names


def _exports(module):
    names = {}
    for name in sorted(module.__all__):
        value = getattr(module, name)
        if inspect.ismodule(value) and value.__name__.startswith("linnet."):
            names |= _exports(value)
        else:
            names[f"{module.__name__}.{name}"] = value
    return names


def api():
    """The text of `golden/api.txt`: one line per name, and per public method."""
    lines = [line for item in public_names().items() for line in described(*item)]
    return "".join(f"{line}\n" for line in lines)


def is_jaxs_own(name, value):
    """Whether this is a function of `jax.nn` under its own name.

    JAX documents it and decides about its signature; here only the name is frozen.
    """
    return getattr(jax.nn, name.rpartition(".")[2], None) is value


def described(name, value):
    """The lines that freeze one public name."""
    if is_jaxs_own(name, value):
        return [f"{name}: jax.nn"]
    if isinstance(value, type) and issubclass(value, Exception | enum.Enum):
        return [f"{name}: {value.__base__.__name__}"]
    if not callable(value):
        return [f"{name}: {type(value).__name__}"]
    methods = own_methods(value) if isinstance(value, type) else []
    return [
        f"{name}{signature(value)}",
        *(f"{name}.{method}{signature(function)}" for method, function in methods),
    ]


def own_methods(cls):
    """Public methods, and `__call__`, that a class itself defines."""
    for name, value in sorted(vars(cls).items()):
        function = getattr(value, "__func__", value)
        if inspect.isfunction(function) and (name[0] != "_" or name == "__call__"):
            yield name, function


def signature(function):
    """The signature without annotations, with defaults by name."""
    plain = [
        p.replace(annotation=p.empty, default=_Default.of(p.default))
        for p in parameters(function)
    ]
    return str(inspect.Signature(plain))


def parameters(function):
    """The parameters of a function, or of a class as `__init__` states them.

    `inspect.signature` of a class may see no further than its metaclass.
    """
    if not isinstance(function, type):
        return list(inspect.signature(function).parameters.values())
    if function.__init__ is object.__init__:
        return []
    return list(inspect.signature(function.__init__).parameters.values())[1:]


class _Default:
    """A default value that prints without an address in memory."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text

    @classmethod
    def of(cls, value):
        if value is inspect.Parameter.empty:
            return value
        name = getattr(value, "__name__", None)
        return cls(name if isinstance(name, str) else repr(value))


ARGS = re.compile(r"^Args:\n((?: +.*\n|\n)*)", re.MULTILINE)
ENTRY = re.compile(r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*):", re.MULTILINE)


def documented_arguments(docstring):
    """The names in the section Args."""
    section = ARGS.search(f"{inspect.cleandoc(docstring)}\n")
    entries = ENTRY.findall(section[1]) if section else []
    return {name.strip("*") for entry in entries for name in entry.split(", ")}


def docstring_complaints(name, value):
    """Whether docstrings name the arguments of the signature, both ways.

    A public function or class must do so; a method must if it has a section Args.
    """
    if not callable(value) or is_jaxs_own(name, value):
        return []
    if not value.__doc__:
        return [f"{name}: has no docstring"]
    if not inspect.isfunction(value) and not isinstance(value, type):
        return []
    if isinstance(value, type) and issubclass(value, Exception):
        return []
    is_protocol = getattr(value, "_is_protocol", False)  # it is not called
    complaints = [] if is_protocol else _argument_complaints(name, value)
    for method, function in own_methods(value) if isinstance(value, type) else []:
        if documented_arguments(function.__doc__ or ""):
            complaints += _argument_complaints(f"{name}.{method}", function)
    return complaints


def _argument_complaints(name, function):
    documented = documented_arguments(function.__doc__)
    arguments = {p.name for p in parameters(function)} - {"self", "cls"}
    return [
        *(f"{name}: {a} is not documented" for a in sorted(arguments - documented)),
        *(f"{name}: {a} is no argument" for a in sorted(documented - arguments)),
    ]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(api(), "utf-8")
    print(GOLDEN.relative_to(ROOT))
