"""Checks at the border, and the errors they raise."""

import difflib
import inspect
import math
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linnet._errors import (
    ConfigError,
    DTypeError,
    InitError,
    RoleError,
    ScopeError,
    ShapeError,
    describe,
)
from linnet.core._locate import is_in_call, locate
from linnet.core._node import Node, opened_or_none
from linnet.core._role import Declared
from linnet.core._spec import Spec


def _owner(module: Any) -> str:
    return module if isinstance(module, str) else type(module).__name__


def check_size(
    module: Any, name: str, value: Any, *, allow_none: bool = False, least: int = 1
) -> Any:
    """The value as an int of at least one.

    Args:
        module: Under construction, or its name: whose option this is.
        name: Of the option.
        value: That was given.
        allow_none: Whether `None` is fine too.
        least: The smallest size that is.

    Raises:
        ConfigError: It is no integer, or too small.
    """
    if value is None and allow_none:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | np.integer)
        or value < least
    ):
        raise ConfigError(
            f"`{name}` is {value!r}, but it must be an integer of at least {least}.",
            code="LN-VALUE-01",
            at=_owner(module),
            fixes=[("a size is meant", f"{name} = {_nearest_size(value, least)}")],
        )
    return int(value)


def _nearest_size(value: Any, least: int) -> int:
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, int | float) and math.isfinite(value):
        return max(least, abs(round(value)))
    return max(least, 1)


def check_rate(module: Any, name: str, value: Any) -> float:
    """The value as a probability, from zero up to but not including one.

    Args:
        module: Under construction, or its name: whose option this is.
        name: Of the option.
        value: That was given.

    Raises:
        ConfigError: It is outside, or not finite, or no number.
    """
    if not _is_number(value) or not 0 <= value < 1:
        raise ConfigError(
            f"`{name}` is {value!r}, but a rate lies in 0 <= {name} < 1.",
            code="LN-VALUE-02",
            at=_owner(module),
            why="It is the probability of dropping a value.",
            fixes=_rate_fixes(name, value),
        )
    return float(value)


def _rate_fixes(name: str, value: Any) -> list[tuple[str, str]]:
    fixes = [("nothing should be dropped", f"{name} = 0.0")]
    if _is_number(value) and 1 < value < 100:
        fixes.insert(0, (f"{value} percent is meant", f"{name} = {value / 100:g}"))
    return fixes


def check_positive(module: Any, name: str, value: Any) -> float:
    """The value as a finite number above zero.

    Args:
        module: Under construction, or its name: whose option this is.
        name: Of the option.
        value: That was given.

    Raises:
        ConfigError: It is not.
    """
    if not _is_number(value) or not math.isfinite(value) or value <= 0:
        raise ConfigError(
            f"`{name}` is {value!r}, but it must be finite and above zero.",
            code="LN-VALUE-03",
            at=_owner(module),
            fixes=[("a small number is meant", f"{name} = 1e-6")],
        )
    return float(value)


def check_option(module: Any, name: str, value: Any, choices: Any) -> Any:
    """The value, one of the choices.

    Args:
        module: Under construction, or its name: whose option this is.
        name: Of the option.
        value: That was given.
        choices: The values that are fine.

    Raises:
        ConfigError: It is none of them.
    """
    choices = tuple(choices)
    if not any(value is choice or value == choice for choice in choices):
        close = difflib.get_close_matches(str(value), list(map(str, choices)), n=1)
        best = close[0] if close else choices[0]
        raise ConfigError(
            f"`{name}` is {value!r}, but it must be one of "
            f"{', '.join(map(repr, choices))}.",
            code="LN-VALUE-04",
            at=_owner(module),
            fixes=[(f"{best!r} is meant", f"{name} = {best!r}")],
        )
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


_KINDS = {
    "floating": (jnp.floating, "floating", "quantities", "float32"),
    "inexact": (jnp.inexact, "floating or complex", "quantities", "float32"),
    "integer": (jnp.integer, "integer", "whole", "int32"),
}


def input_array(
    module: Node,
    x: Any,
    name: str,
    *,
    ndim: int | None,
    min_ndim: int | None,
    dtype: str | None,
) -> None:
    """Refuses an input of another rank or kind of dtype."""
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise DTypeError(
            f"`{name}` is a {type(x).__name__}, but an array is needed.",
            code="LN-DTYPE-01",
            at=locate(module),
            fixes=[("it holds numbers", f"{name} = jnp.asarray({name})")],
        )
    if dtype is not None and not jnp.issubdtype(x.dtype, _KINDS[dtype][0]):
        _, kind, meaning, target = _KINDS[dtype]
        raise DTypeError(
            f"`{name}` is {describe(x)}, but {kind} values are needed.",
            code="LN-DTYPE-01",
            at=locate(module),
            fixes=[
                (f"the numbers are {meaning}", f"{name} = {name}.astype(jnp.{target})")
            ],
        )
    if (ndim is not None and x.ndim != ndim) or (
        min_ndim is not None and x.ndim < min_ndim
    ):
        raise _wrong_rank(module, x, name, ndim, min_ndim)


def _wrong_rank(
    module: Node, x: Any, name: str, ndim: int | None, min_ndim: int | None
) -> ShapeError:
    least = min_ndim if ndim is None else ndim
    assert least is not None
    needed = f"{least}" if ndim is not None else f"at least {least}"
    fixes = []
    if x.ndim < least:
        missing = ", ".join(["None"] * (least - x.ndim))
        fixes.append(("leading axes are missing", f"{name} = {name}[{missing}]"))
    elif x.ndim > least:
        fixes.append(
            (
                "the leading axes are batches",
                f"{name} = {name}.reshape(-1, *{name}.shape[{x.ndim - least + 1}:])",
            )
        )
    return ShapeError(
        f"`{name}` has {x.ndim} axes, but must have {needed}.",
        code="LN-SHAPE-02",
        at=locate(module),
        facts={name: describe(x)},
        fixes=fixes,
    )


def unexpected(
    module: Node, name: str, value: Any, shape: Any, frame: types.FrameType
) -> ShapeError:
    """The error for a declared array whose shape does not fit the input."""
    shape = tuple(shape)
    needed = f"[{', '.join(map(str, shape))}]"
    facts = {key: describe(x) for key, x in _array_arguments(frame).items()}
    facts[name] = describe(value)
    return ShapeError(
        f"`{name}` is {describe(value)}, but this input needs {needed}.",
        code="LN-SHAPE-01",
        at=locate(module),
        facts=facts,
        why="Shapes are fixed when a model is initialised, and checked at each call.",
        fixes=_shape_fixes(module, name, value, shape, frame),
    )


def _array_arguments(frame: types.FrameType) -> dict[str, Any]:
    code = frame.f_code
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    arguments = {name: frame.f_locals.get(name) for name in names}
    return {k: v for k, v in arguments.items() if hasattr(v, "shape")}


def _shape_fixes(
    module: Node, name: str, value: Any, shape: tuple[int, ...], frame: types.FrameType
) -> list[tuple[str, str]]:
    arguments = _array_arguments(frame)
    fixes = []
    actual = getattr(value, "shape", ())
    if arguments and len(actual) == len(shape):
        x_name, x = next(iter(arguments.items()))
        wrong = [a for a, b in zip(actual, shape, strict=True) if a != b]
        if len(wrong) == 1 and wrong[0] in x.shape[:-1]:
            axis = x.shape.index(wrong[0])
            fixes.append(
                (
                    f"the features of `{x_name}` are on axis {axis}",
                    f"{x_name} = jnp.moveaxis({x_name}, {axis}, -1)",
                )
            )
    declared = _spec(module).leaves.get((jax.tree_util.GetAttrKey(name),))
    if declared is not None and _fits(declared.shape, shape):
        fixes.append(
            (
                "the model should be made for this input",
                "model = nn.init(nn.describe(model), key, x)",
            )
        )
    elif (text := constructor_text(module)) is not None:
        fixes.append(("its sizes should follow the input", text))
    return fixes


def constructor_text(module: Node) -> str | None:
    """`self.head = nn.Dense(3)`: made with only what it needs, where that is known."""
    cls = getattr(module, "_made_from", type(module))
    static = _spec(module).static
    needed = [
        p.name
        for p in list(inspect.signature(cls).parameters.values())
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD
    ]
    if not all(isinstance(static.get(n), int | float | str | tuple) for n in needed):
        return None
    prefix = "nn." if cls.__module__.startswith("linnet.") else ""
    call = f"{prefix}{cls.__name__}({', '.join(repr(static[n]) for n in needed)})"
    path = locate(module, with_type=False)
    if not path:
        return f"model = nn.init({call}, key, x)"
    name = path.rpartition(".")[2]
    return f"self.{name} = {call}" if name.isidentifier() else f"layer = {call}"


def _fits(template: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    return len(template) == len(shape) and all(
        a is None or a == b for a, b in zip(template, shape, strict=True)
    )


def _spec(module: Node) -> Spec:
    opened = opened_or_none(module)
    return module._spec if opened is None else opened.origin._spec


def free_name(module: Node, base: type, name: str) -> None:
    """Refuses an attribute that would hide one of `nn.Module` itself."""
    if name in ("_open", "_pending") or (
        name != "__orig_class__" and hasattr(base, name)
    ):
        raise ConfigError(
            f"`{name}` is a name of nn.Module itself.",
            code="LN-STATIC-03",
            at=type(module).__name__,
            fixes=[("another name will do", f"self.{name}_ = value")],
        )


def known_attribute(
    module: Node, spec: Spec, name: str, use: str = "self.expect({}=shape)"
) -> None:
    """Refuses a name that the module does not have.

    Args:
        module: The module.
        spec: Its spec.
        name: The name that was given.
        use: How a name is given there, for the message.
    """
    names = [*spec.names, *spec.static]
    if name in names:
        return
    close = difflib.get_close_matches(name, names, n=1) or names[:1]
    raise ConfigError(
        f"{type(module).__name__} has no attribute `{name}`.",
        code="LN-STATIC-04",
        at=locate(module),
        facts={"attributes": ", ".join(names) or "none"},
        fixes=[(f"`{best}` is meant", use.format(best)) for best in close],
    )


_ONLY_SHAPES = "only shapes are wanted", "model = nn.abstract(model, x)"


def not_initialized(module: Node, name: str) -> InitError:
    """The error for reading an array that was not made yet."""
    return InitError(
        f"`{name}` has no value yet: the model is described, not initialised.",
        code="LN-INIT-01",
        at=locate(module),
        why="Constructors describe; `nn.init` makes the arrays, also under `jax.jit`.",
        fixes=[
            ("arrays are wanted", "model = nn.init(model, jax.random.key(0), x)"),
            *([] if is_in_call() else [_ONLY_SHAPES]),
        ],
    )


def undeclared(module: Node, name: str, value: Any) -> RoleError:
    """The error for a write, in a call, of what is no declared array."""
    return RoleError(
        f"`{name}` was assigned in a call, but is not a declared state.",
        code="LN-STATE-02",
        at=locate(module),
        why="What a call may write is declared, so that every update is returned.",
        fixes=[
            ("it is needed in this call only", f"{name} = value"),
            (
                "the model keeps it (in `__init__`; write it in stateful calls)",
                f"self.{name} = {state_text(value)}",
            ),
            ("it should be seen from outside", f'self.sow("{name}", value)'),
        ],
    )


def not_state(module: Node, name: str, declared: Declared) -> RoleError:
    """The error for a write, in a call, of an array that is no state."""
    path = locate(module, with_type=False)
    change = (
        f'model = nn.select(model, "{path}.{name}").set(value)'
        if path
        else f"model = model.replace({name}=value)"
    )
    return RoleError(
        f"`{name}` was assigned in a call, but its role is {declared.role.__name__}.",
        code="LN-STATE-03",
        at=locate(module),
        why="Parameters are changed by the optimiser, constants by nobody.",
        fixes=[
            (
                "the module itself writes it (in `__init__`)",
                f"self.{name} = {state_text(declared)}",
            ),
            ("the model should hold other values (outside)", change),
        ],
    )


def state_text(like: Any) -> str:
    """`nn.state(jnp.zeros((3,)))`, of the shape and dtype of a value."""
    if not hasattr(like, "shape"):
        return f"nn.state({type(like)()!r})" if _is_number(like) else "nn.state(0)"
    dtype = "" if like.dtype == jnp.float32 else f", jnp.{like.dtype}"
    if None in like.shape:
        return f"nn.state(nn.initializers.zeros, {like.shape}{dtype})"
    return f"nn.state(jnp.zeros({tuple(like.shape)}{dtype}))"


def plain_randomness(module: Node, stream: str) -> ScopeError:
    """The error for randomness in a plain call."""
    return ScopeError(
        f"randomness (stream {stream!r}) was asked for in a plain call.",
        code="LN-RNG-01",
        at=locate(module),
        why="Calling a model is prediction: pure, deterministic, without a key.",
        fixes=[
            ("this is training", "out, model = nn.training(model, key)(x)"),
            (
                "prediction should draw samples",
                f'out, model = nn.stateful(model, rngs={{"{stream}": key}})(x)',
            ),
        ],
    )


def plain_write(module: Node, name: str) -> ScopeError:
    """The error for a state write in a plain call."""
    return ScopeError(
        f"the state `{name}` was written in a plain call.",
        code="LN-STATE-01",
        at=locate(module),
        why="A plain call returns no model, so the update would be lost.",
        fixes=[
            ("this is training", "out, model = nn.training(model, key)(x)"),
            (
                "prediction should update the state",
                "out, model = nn.stateful(model)(x)",
            ),
        ],
    )
