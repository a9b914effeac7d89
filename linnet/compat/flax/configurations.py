"""Settings, each with an environment variable for its first value."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")

__all__ = [
    "Config",
    "FlagHolder",
    "bool_flag",
    "config",
    "int_flag",
    "static_bool_env",
    "static_int_env",
]


class Config:
    """The settings in force, as attributes."""

    def __init__(self) -> None:
        object.__setattr__(self, "_values", {})

    def __getattr__(self, name: str) -> Any:
        values = object.__getattribute__(self, "_values")
        if name in values:
            return values[name]
        raise AttributeError(
            f"There is no setting {name!r}; there are {sorted(values)}."
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_values":  # All settings at once, as tests replace them.
            object.__setattr__(self, name, value)
            return
        raise AttributeError(f"Use `config.update({name!r}, {value!r})`.")

    def _add(self, name: str, default: Any, help: str) -> None:
        if name in self._values:
            raise RuntimeError(f"The setting {name!r} is already defined.")
        self._values[name] = default
        setattr(Config, name, property(lambda self: self._values[name], doc=help))

    def update(self, name_or_holder: Any, value: Any, /) -> None:
        """Changes a setting.

        Args:
            name_or_holder: Its name, or what `bool_flag` returned.
            value: The new value.

        Raises:
            LookupError: There is no such setting.
        """
        name = getattr(name_or_holder, "name", name_or_holder)
        if name not in self._values:
            raise LookupError(f"Unrecognized config option: {name}")
        self._values[name] = value

    @contextlib.contextmanager
    def temp_flip_flag(self, var_name: str, var_value: bool) -> Iterator[None]:
        """A context in which the setting `flax_<var_name>` has another value."""
        name = f"flax_{var_name}"
        before = getattr(self, name)
        self.update(name, var_value)
        try:
            yield
        finally:
            self.update(name, before)

    def __repr__(self) -> str:
        lines = "\n".join(f"  {name}: {value}" for name, value in self._values.items())
        return f"Config(\n{lines}\n)" if lines else "Config()"


config = Config()


class FlagHolder(Generic[_T]):
    """A setting, to be read as `holder.value`.

    Args:
        name: Its name.
        help: What it does.
    """

    def __init__(self, name: str, help: str):
        self.name = name
        self.__name__ = name.removeprefix("flax_")
        self.__doc__ = help

    @property
    def value(self) -> _T:
        """The value in force."""
        return getattr(config, self.name)

    def __bool__(self) -> bool:
        raise TypeError(
            f"bool() not supported for instances of type '{type(self)}' (did you mean "
            f"to use '{type(self)}.value' instead?)"
        )


def static_bool_env(varname: str, default: bool) -> bool:
    """The truth of an environment variable."""
    text = os.environ.get(varname, str(default)).lower()
    if text in ("y", "yes", "t", "true", "on", "1"):
        return True
    if text in ("n", "no", "f", "false", "off", "0"):
        return False
    raise ValueError(f"invalid truth value {text!r} for environment {varname!r}")


def static_int_env(varname: str, default: int | None) -> int | None:
    """The number in an environment variable."""
    text = os.environ.get(varname)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f"invalid integer value {text!r} for environment {varname!r}"
        ) from None


def bool_flag(name: str, *, default: bool, help: str) -> FlagHolder[bool]:
    """Adds a setting that is true or false."""
    config._add(name, static_bool_env(name.upper(), default), help)
    return FlagHolder(name, help)


def int_flag(name: str, *, default: int | None, help: str) -> FlagHolder[int]:
    """Adds a setting that is a number."""
    config._add(name, static_int_env(name.upper(), default), help)
    return FlagHolder(name, help)


flax_filter_frames = bool_flag(
    "flax_filter_frames", default=True, help="Hide internal frames in tracebacks."
)
flax_profile = bool_flag(
    "flax_profile", default=True, help="Put the names of modules into profiles."
)
flax_use_orbax_checkpointing = bool_flag(
    "flax_use_orbax_checkpointing", default=True, help="Write checkpoints with Orbax."
)
flax_preserve_adopted_names = bool_flag(
    "flax_preserve_adopted_names",
    default=False,
    help="Modules that are taken over as attributes keep the names they have.",
)
flax_return_frozendict = bool_flag(
    "flax_return_frozendict", default=False, help="Return frozen dicts of variables."
)
flax_fix_rng = bool_flag(
    "flax_fix_rng_separator",
    default=False,
    help="Separate the names that are folded into keys.",
)
flax_always_shard_variable = bool_flag(
    "flax_always_shard_variable", default=True, help="Shard variables as they are made."
)
flax_hijax_variable = bool_flag(
    "flax_hijax_variable", default=False, help="Of NNX; without effect here."
)
flax_array_ref = bool_flag(
    "flax_array_ref", default=False, help="Of NNX; without effect here."
)
flax_pytree_module = bool_flag(
    "flax_pytree_module", default=True, help="Of NNX; without effect here."
)
flax_max_repr_depth = int_flag(
    "flax_max_repr_depth", default=None, help="Of NNX; without effect here."
)
flax_use_flaxlib = bool_flag(
    "flax_use_flaxlib", default=False, help="Of NNX; without effect here."
)
nnx_graph_mode = bool_flag(
    "nnx_graph_mode", default=True, help="Of NNX; without effect here."
)
nnx_graph_updates = bool_flag(
    "nnx_graph_updates", default=True, help="Of NNX; without effect here."
)
