"""An error, told as a program: what leads to it, the mistake, and what the fixes do.

A fix is applied to the text of the program as its reader would apply it: it takes the
place of some line, or is put before one. The changed program must run to its end, and
then something must be true.
"""

import atexit
import copy
import dataclasses
import re
import shutil
import tempfile
import textwrap
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from linnet import functional as F
from linnet import nn

# What every program finds. No message shows the number, which fills `x`.
CONTENT = 1.234
NAMES = {
    "F": F,
    "copy": copy,
    "dataclasses": dataclasses,
    "jax": jax,
    "jnp": jnp,
    "nn": nn,
    "optax": optax,
}
# Each program has a folder in this one. Checkpoints may outlast the program by a bit.
FOLDERS = tempfile.mkdtemp(prefix="linnet-cases-")
atexit.register(shutil.rmtree, FOLDERS, ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class Remedy:
    """Where a reader puts the code of a fix, and what holds then.

    Args:
        check: Runs at the end of the changed program.
        at: Lines of the program whose place the code takes: one for all of the code,
            or as many as the code has lines, which then go to one each.
        before: The line before which the code is put instead.
        changes: What the fix says in words: other lines, and what they become.
    """

    check: str
    at: tuple[str, ...] = ()
    before: str = ""
    changes: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def applied(self, program, code):
        """The program with the code of a fix in its place, and the check."""
        lines = program.splitlines()
        if self.before:
            i = _position(lines, self.before)
            lines.insert(i, textwrap.indent(code, _indentation(lines[i])))
        elif len(self.at) < 2:
            i = _position(lines, *self.at) if self.at else len(lines) - 1
            lines[i] = textwrap.indent(code, _indentation(lines[i]))
        else:
            for line, part in zip(self.at, code.splitlines(), strict=True):
                i = _position(lines, line)
                lines[i] = _indentation(lines[i]) + part
        for old, new in self.changes.items():
            i = _position(lines, old)
            lines[i] = _indentation(lines[i]) + new
        return "\n".join([*lines, self.check])


def instead(check, **changes):
    """The code takes the place of the mistake, which is the last line."""
    return Remedy(check, **changes)


def swap(*lines, check, **changes):
    """The code takes the place of these lines."""
    return Remedy(check, at=lines, **changes)


def before(line, check, **changes):
    """The code is put before this line."""
    return Remedy(check, before=line, **changes)


def _position(lines, line):
    found = [i for i, text in enumerate(lines) if text.strip() == line]
    assert len(found) == 1, f"{line!r} is {len(found)} times in the program"
    return found[0]


def _indentation(line):
    return line[: len(line) - len(line.lstrip())]


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to an error.

    Args:
        code: The code of the error.
        name: What is special about this way.
        program: Its last line is the mistake.
        remedies: One for each fix of the message, in order.
        start: What the first line of the message starts with.
    """

    code: str
    name: str
    program: str
    remedies: tuple[Remedy, ...] = ()
    start: str = ""

    def __str__(self):
        return f"{self.code} {self.name}".replace(" ", "-")

    def run(self, program):
        """Executes a program with fresh names and an empty folder."""
        names = NAMES | {
            "__name__": "program",
            "folder": tempfile.mkdtemp(dir=FOLDERS),
            "key": jax.random.key(0),
            "x": jnp.full((4, 7), CONTENT),
        }
        exec(compile(program, f"<{self}>", "exec"), names)

    def provoke(self):
        """The error that the program ends in."""
        *_, mistake = self.program.splitlines()
        try:
            self.run(self.program)
        except nn.LinnetError as error:
            return error
        raise AssertionError(f"{self}: no error came of `{mistake.strip()}`")

    @staticmethod
    def text_of(error):
        """The message, with one name for the folders of all runs."""
        return re.sub(re.escape(FOLDERS) + r"/\w+", "/folder", str(error))


def case(code, name, program, *remedies, start=""):
    """A case whose program is written with any indentation."""
    return Case(code, name, textwrap.dedent(program).strip("\n"), remedies, start)
