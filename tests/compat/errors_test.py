"""The errors say what, why and how, and keep their class in a pickle."""

import inspect
import pickle

import pytest

from linnet.compat.flax import errors

NAMES = [name for name in errors.__all__ if name != "FlaxError"]


def example(name):
    """An error with a text for each argument."""
    cls = getattr(errors, name)
    required = inspect.signature(cls).parameters.values()
    return cls(*(f"<{p.name}>" for p in required if p.default is p.empty))


@pytest.mark.parametrize("name", NAMES)
def test_an_error_names_its_facts_and_survives_a_pickle(name):
    error = example(name)
    first = str(error).partition("\n\n")[0]
    for parameter in inspect.signature(type(error)).parameters.values():
        if parameter.default is parameter.empty and name != "TraverseTreeError":
            assert f"<{parameter.name}>" in first
    assert len(str(error).splitlines()) <= 20
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    assert isinstance(error, errors.FlaxError)


def test_facts_that_may_be_left_out_are_named_when_given():
    error = errors.MPARestoreTargetRequiredError("folder", 3, "params/kernel")
    assert "params/kernel" in str(error)


def test_the_text_in_full():
    assert str(errors.ModifyScopeVariableError("cache", "index", "/attention")) == (
        'Cannot update variable "index" in "/attention" because collection "cache" is '
        "immutable.\n\n"
        "Why: `apply` returns changes of the collections that it is told are mutable, "
        "and forbids all others.\n\n"
        "Fix:\n"
        "  - the change is meant:\n"
        "        y, updates = module.apply(variables, x, mutable=['cache'])"
    )
