"""Our names, signatures and bases are those of the genuine Flax."""

import enum
import importlib
import inspect
import types

import pytest

MODULES = [
    "core.frozen_dict",
    "errors",
    "serialization",
    "struct",
]


def public(module):
    """The names a module defines, or re-exports from Flax itself."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and getattr(value, "__module__", module.__name__) == module.__name__
    }


def signature(function):
    """The signature without annotations, with defaults as text."""
    try:
        found = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    plain = [
        p.replace(annotation=p.empty, default=shown(p.default))
        for p in found.parameters.values()
    ]
    return str(inspect.Signature(plain))


def shown(default):
    if default is inspect.Parameter.empty or isinstance(default, str):
        return default
    name = getattr(default, "__name__", None)
    return name if isinstance(name, str) else repr(default).replace(" ", "")


def members(cls):
    return {
        name: getattr(cls, name)
        for name, value in vars(cls).items()
        if not name.startswith("_") and callable(getattr(value, "__func__", value))
    }


def complaints(name, theirs, ours):
    """How one name of ours differs from theirs."""
    if isinstance(theirs, type) and issubclass(theirs, enum.Enum):
        if [m.name for m in theirs] != [m.name for m in ours]:
            yield f"{name}: {list(ours)}"
    elif isinstance(theirs, type):
        bases = [base.__name__ for base in theirs.__bases__]
        if bases != [base.__name__ for base in ours.__bases__]:
            yield f"{name}: bases {ours.__bases__}, expected {bases}"
        for method, function in members(theirs).items():
            if not hasattr(ours, method):
                yield f"{name}.{method} is missing"
            else:
                yield from complaints(
                    f"{name}.{method}", function, getattr(ours, method)
                )
    if callable(theirs) and signature(theirs) != signature(ours):
        yield f"{name}{signature(ours)}, expected {signature(theirs)}"


@pytest.mark.parametrize("module", MODULES)
def test_names_signatures_and_bases(module):
    theirs = public(importlib.import_module(f"flax.{module}"))
    ours = importlib.import_module(f"linnet.compat.flax.{module}")
    assert sorted(theirs.keys() - vars(ours).keys()) == []
    found = [
        c for n, value in theirs.items() for c in complaints(n, value, getattr(ours, n))
    ]
    assert found == []
    assert set(theirs) & set(ours.__all__) == set(theirs)
    assert [name for name in ours.__all__ if not hasattr(ours, name)] == []


def test_a_difference_is_seen():
    class A:
        def replace(self, x, y=1): ...

    class B:
        def replace(self, x, y=2): ...

    assert list(complaints("A", A, A)) == []
    assert list(complaints("A", A, B)) == [
        "A.replace(self, x, y='2'), expected (self, x, y='1')"
    ]
