"""What an error says: what happened, where, why it is refused, and how to fix it."""

import pathlib
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

MAX_LINES = 20
_PACKAGE = str(pathlib.Path(__file__).parent)


class LinnetError(Exception):
    """Base of all errors of Linnet.

    Args:
        what: One sentence that stands alone, with the values that matter.
        code: Stable name such as `LN-SHAPE-01`; `docs/errors/` has a page for each.
        at: Path and type of the module, such as `encoder.blocks[3].mlp (Dense)`.
        facts: Names and short descriptions, printed as a small table.
        why: The reason for the refusal, in a sentence or two.
        fixes: Pairs `(when, code)`, the most likely first. Each one is correct.
    """

    def __init__(
        self,
        what: str,
        *,
        code: str,
        at: str | None = None,
        facts: Mapping[str, str] | None = None,
        why: str | None = None,
        fixes: Iterable[tuple[str, str]] = (),
    ) -> None:
        super().__init__(what)
        self.what = what
        self.code = code
        self.at = at
        self.facts = dict(facts or {})
        self.why = why
        self.fixes = tuple(fixes)

    def __str__(self) -> str:
        where = f"{self.at}: " if self.at else ""
        lines = [f"{where}{self.what} [{self.code}]"]
        width = max(map(len, self.facts), default=0)
        lines += [f"    {name:<{width}}  {fact}" for name, fact in self.facts.items()]
        if self.why:
            lines += ["", f"Why: {self.why}"]
        if self.fixes:
            lines += ["", "Fix:" if len(self.fixes) == 1 else "Fix, one of:"]
            for when, code in self.fixes:
                lines.append(f"  - {when}:")
                lines += [f"        {line}" for line in code.splitlines()]
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        state = {k: v for k, v in self.__dict__.items() if not k.startswith("__")}
        return _rebuild, (type(self), state)


def _rebuild(cls: type[LinnetError], state: dict[str, Any]) -> LinnetError:
    known = {k: state[k] for k in ("what", "code", "at", "facts", "why", "fixes")}
    return cls(**known)


class ShapeError(LinnetError, ValueError):
    """An array has another shape or rank than the model takes."""


class DTypeError(LinnetError, TypeError):
    """An array has another dtype than the model takes."""


class ConfigError(LinnetError, ValueError):
    """An option given to a constructor cannot be used."""


class RoleError(LinnetError, TypeError):
    """An attribute has no role, or not the role that was asked for."""


class ScopeError(LinnetError, RuntimeError):
    """An effect (state, randomness, a tap) where none can take place."""


class InitError(LinnetError, RuntimeError):
    """A model is not initialised, or cannot be."""


class CheckpointError(LinnetError, RuntimeError):
    """A checkpoint is not there, or damaged."""


class ProcessError(LinnetError, RuntimeError):
    """One of several processes failed.

    Attributes:
        exit_code: Of that process, as a shell has it.
    """

    exit_code = 1


class ExtraError(LinnetError, ImportError):
    """A package of an extra is needed and not installed."""


class FrozenError(LinnetError, AttributeError):
    """A model was changed in place."""


class NonFiniteError(LinnetError, FloatingPointError):
    """Numbers are not finite where they should be."""


class PathError(LinnetError, KeyError):
    """A path or a pattern of paths does not fit the model."""

    __str__ = LinnetError.__str__


class TreeError(LinnetError, ValueError):
    """Trees that should belong to one model do not."""


def describe(value: Any) -> str:
    """`float32[8, 5]` for an array, the type's name for anything else."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return type(value).__name__
    return f"{dtype}[{', '.join('?' if n is None else str(n) for n in shape)}]"


def without_library_frames(
    traceback: types.TracebackType | None,
) -> types.TracebackType | None:
    """The traceback with the frames of this package left out."""
    if traceback is None:
        return None
    rest = without_library_frames(traceback.tb_next)
    if traceback.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        return rest
    return types.TracebackType(
        rest, traceback.tb_frame, traceback.tb_lasti, traceback.tb_lineno
    )


def _chain(error: BaseException | None) -> list[BaseException]:
    """An exception and those that led to it."""
    links: list[BaseException] = []
    while error is not None and error not in links:
        links.append(error)
        error = error.__cause__ or error.__context__
    return links


def _tidy(error: LinnetError) -> None:
    """Leaves the user's own frames, and no note on frames that JAX has removed."""
    shown = without_library_frames(error.__traceback__)
    if shown is not None:
        error.__traceback__ = shown
    notes = getattr(error, "__notes__", [])
    notes[:] = [note for note in notes if "JAX has removed its internal" not in note]


def _install_excepthook() -> None:
    """Lets an uncaught LinnetError end at the user's own line.

    Python offers no way to leave a frame out while an exception unwinds, so the
    library's frames are dropped where the traceback is printed, also from errors that
    led to another exception. Whoever replaces the hook later simply wins.
    """
    previous = sys.excepthook

    def hook(
        kind: type[BaseException],
        error: BaseException,
        traceback: types.TracebackType | None,
    ) -> None:
        for link in _chain(error):
            if isinstance(link, LinnetError):
                _tidy(link)
        if isinstance(error, LinnetError):
            traceback = error.__traceback__
        previous(kind, error, traceback)

    sys.excepthook = hook


_install_excepthook()
