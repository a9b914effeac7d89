"""The genuine Flax beside ours: one program runs on both, and they do the same."""

import importlib


class Library:
    """The modules of a library as attributes, imported when they are asked for."""

    def __init__(self, root):
        self._root = root

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return importlib.import_module(f"{self._root}.{name}")


THEIRS = Library("flax")
OURS = Library("linnet.compat.flax")


def outcome(program, library):
    """What a program returns, shown as text, or the class of the error it raises."""
    try:
        result = repr(program(library))
    except Exception as error:
        return f"raises {type(error).__name__}"
    return result.replace("linnet.compat.flax", "flax")


def assert_same(program):
    """A program does the same with either library, which it gets as its argument."""
    theirs, ours = outcome(program, THEIRS), outcome(program, OURS)
    assert ours == theirs, f"\n  ours   {ours}\n  theirs {theirs}"
