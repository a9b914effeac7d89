"""A stand-in for `flax.nnx`, which is not part of this package.

Programs written for Linen import it to ask whether a model is one of NNX's; none is.
"""

from typing import Any


class _Absent(type):
    """A class of which nothing is an instance, and whose use says that it is absent."""

    def __instancecheck__(cls, instance: object) -> bool:
        return False

    def __subclasscheck__(cls, subclass: type) -> bool:
        return False

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise _missing(cls.__name__)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _missing(f"{cls.__name__}.{name}")


def _missing(name: str) -> NotImplementedError:
    return NotImplementedError(
        f"flax.nnx.{name} is not there: `linnet.compat.flax` has Flax's Linen API. Run "
        f"programs that use NNX with the genuine Flax; docs/guides/linen.md tells how "
        f"to move a model to Linnet."
    )


def __getattr__(name: str) -> Any:
    if name.startswith(("_", "pytest")):  # asked for by tools, of any module
        raise AttributeError(name)
    made = _Absent(name, (), {"__module__": "flax.nnx"})
    globals()[name] = made
    return made
